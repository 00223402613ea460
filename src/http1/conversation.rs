//! One connection's messages in both directions: which response answers which request, and where HTTP ends and something else begins.
//!
//! ```text
//!   client:  head ─▶ body ─▶ head ─▶ …        a request for another protocol (Upgrade, CONNECT): held ─┬─▶ head     refused
//!   server:  head ─▶ body ─▶ head ─▶ …        until its response decides                               └─▶ opaque   granted
//! ```
//! Invariants: a side's bytes are read once, in order; what is opaque stays so; a fault of the server's ends the reading of both sides, one of the client's that of the client
//! alone, because the responses to what was read before can still be read. Unbounded here is only the number of requests without a response: the caller counts them.

use super::Fault;
use super::chunk;
use super::framing::{self, Asked, Framing};
use super::head::{self, RequestHead, ResponseHead, Search};
use crate::generated::v1::Direction;
use crate::http2::Field;
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes that wait behind a request for another protocol until its answer: clients of today send none.
pub const HELD_BYTES_MAX: usize = 64 * 1024;

/// Parts of one read. Bodies of tiny chunks have more; the rest is left for the next.
pub const PARTS_MAX: usize = 1_024;

/// What was found in the bytes of one side. Requests are numbered from 1; ranges are those of the bytes read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A request begins.
    Request {
        /// Its number.
        number: u32,
        /// Where its first byte stands.
        at: usize,
        /// Its head.
        head: Box<RequestHead>,
        /// It has no body.
        ends: bool,
    },
    /// The head of a response.
    Response {
        /// The request that it answers.
        number: u32,
        /// Its head.
        head: Box<ResponseHead>,
        /// Not one of 1xx, or the 101 that ends HTTP: no other follows.
        is_final: bool,
        /// It has no body, and is final.
        ends: bool,
    },
    /// Content of the sender's open message, without its framing.
    Data {
        /// The request's number.
        number: u32,
        /// Where.
        range: Range<usize>,
        /// The message ends with it.
        ends: bool,
    },
    /// Extensions of a chunk of the sender's open message, from their first semicolon on: they mean something to nobody but the receiver (RFC 9112 section 7.1.1).
    Extension {
        /// The request's number.
        number: u32,
        /// Where.
        range: Range<usize>,
    },
    /// The end of the sender's open message, with its trailers if it has any.
    End {
        /// The request's number.
        number: u32,
        /// In the order of the wire.
        trailers: Vec<Field>,
    },
    /// The sender has ended within this message.
    Cut {
        /// The request's number.
        number: u32,
    },
    /// HTTP ends here by consent: what follows on both sides, behind the messages that are open, is opaque.
    Switch(String),
    /// HTTP cannot be read on from here, so what follows is opaque.
    Unreadable {
        /// Where the first such byte stands.
        at: usize,
        /// The message that it stands in, or behind the beginning of which.
        number: Option<u32>,
        /// Why.
        fault: Fault,
    },
    /// Bytes that nobody reads.
    Opaque(Range<usize>),
}

/// Both sides of one connection.
#[derive(Debug)]
pub struct Conversation {
    head_bytes_max: usize,
    client: Sender,
    server: Sender,
    /// Requests whose response has not ended.
    awaited: VecDeque<Awaited>,
    /// The request, still without its final response, that may end HTTP.
    deciding: Option<u32>,
    /// The protocol was switched.
    is_switched: bool,
}

/// One side.
#[derive(Debug)]
struct Sender {
    state: State,
    search: Search,
    /// The message that is open, or the last one.
    number: u32,
}

/// What the next byte of a side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    UntilEnd,
    /// Unknown, until a response decides.
    Held,
    Opaque,
}

#[derive(Clone, Copy, Debug)]
struct Awaited {
    number: u32,
    asked: Asked,
    upgrade: bool,
}

/// How far one step came.
enum Step {
    Took(usize),
    /// More must be read first.
    Wait,
}

impl Conversation {
    /// Before the first byte. Heads and trailer sections have at most so many bytes.
    pub fn new(head_bytes_max: usize) -> Self {
        let sender = || Sender { state: State::Head, search: Search::default(), number: 0 };
        let (awaited, deciding, is_switched) = (VecDeque::new(), None, false);
        Self { head_bytes_max, client: sender(), server: sender(), awaited, deciding, is_switched }
    }

    /// Reads the bytes of the sender of `direction` that were not read before: what they are, and how many were read; the rest, of a line or a head that is not all there, has to be
    /// given again with more behind it. What one side says may decide how the waiting bytes of the other are read.
    pub fn read(&mut self, direction: Direction, bytes: &[u8], parts: &mut Vec<Part>) -> usize {
        let mut at = 0;
        while at < bytes.len() && parts.len() < PARTS_MAX {
            match self.step(direction, bytes, at, parts) {
                Ok(Step::Took(length)) => at += length,
                Ok(Step::Wait) => break,
                Err(fault) => self.unreadable(direction, at, fault, parts),
            }
        }
        at
    }

    /// The sender of `direction` has ended; `rest` was not read yet, and goes on as it is.
    pub fn end(&mut self, direction: Direction, rest: &[u8], parts: &mut Vec<Part>) {
        self.sender(direction).search.judge_now();
        let mut at = 0;
        let fault = loop {
            if at == rest.len() {
                return self.ended(direction, parts);
            }
            match self.step(direction, rest, at, parts) {
                Ok(Step::Took(length)) => at += length,
                Ok(Step::Wait) => break Fault::Cut,
                Err(fault) => break fault,
            }
        };
        self.unreadable(direction, at, fault, parts);
        parts.push(Part::Opaque(at..rest.len()));
    }

    /// The sender of `direction` has ended, with nothing behind what was read.
    fn ended(&mut self, direction: Direction, parts: &mut Vec<Part>) {
        let &mut Sender { state, number, .. } = self.sender(direction);
        match state {
            State::Head | State::Held | State::Opaque => {}
            State::UntilEnd => {
                parts.push(Part::End { number, trailers: Vec::new() });
                self.message_ended(direction);
            }
            _ => parts.push(Part::Cut { number }),
        }
    }

    fn step(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        at: usize,
        parts: &mut Vec<Part>,
    ) -> Result<Step, Fault> {
        let rest = &bytes[at..];
        let bytes_max = self.head_bytes_max;
        let sender = self.sender(direction);
        let number = sender.number;
        let next = match sender.state {
            State::Head if line_feed(rest) > 0 => return Ok(Step::Took(line_feed(rest))),
            State::Head if rest == b"\r" => None,
            State::Head if direction == Direction::ServerToClient => return self.response(rest, parts),
            State::Head => return self.request(rest, at, parts),
            State::Length(left) => {
                let length = shorter(left, rest);
                let ends = length as u64 == left;
                parts.push(Part::Data { number, range: at..at + length, ends });
                sender.state = State::Length(left - length as u64);
                if ends {
                    self.message_ended(direction);
                }
                return Ok(Step::Took(length));
            }
            State::Chunk(left) => {
                let length = shorter(left, rest);
                let is_last = length as u64 == left;
                parts.push(Part::Data { number, range: at..at + length, ends: false });
                let state = if is_last { State::ChunkEnd } else { State::Chunk(left - length as u64) };
                Some((length, state))
            }
            State::ChunkSize => chunk::line(rest)?.map(|line| {
                if !line.extension.is_empty() {
                    let range = at + line.extension.start..at + line.extension.end;
                    parts.push(Part::Extension { number, range });
                }
                (line.length, if line.size == 0 { State::Trailers } else { State::Chunk(line.size) })
            }),
            State::ChunkEnd => chunk::line_end(rest)?.map(|length| (length, State::ChunkSize)),
            State::Trailers => {
                let Some((length, trailers)) = trailers(&mut sender.search, rest, bytes_max)? else {
                    return Ok(Step::Wait);
                };
                parts.push(Part::End { number, trailers });
                self.message_ended(direction);
                return Ok(Step::Took(length));
            }
            State::UntilEnd | State::Opaque => {
                let range = at..bytes.len();
                let is_opaque = sender.state == State::Opaque;
                let data = |range| Part::Data { number, range, ends: false };
                parts.push(if is_opaque { Part::Opaque(range) } else { data(range) });
                return Ok(Step::Took(rest.len()));
            }
            State::Held if rest.len() > HELD_BYTES_MAX => return Err(Fault::HeldTooLong),
            State::Held => None,
        };
        let Some((length, state)) = next else { return Ok(Step::Wait) };
        sender.state = state;
        Ok(Step::Took(length))
    }

    fn request(&mut self, rest: &[u8], at: usize, parts: &mut Vec<Part>) -> Result<Step, Fault> {
        let Some((length, head)) = self.client.search.section(rest, self.head_bytes_max, head::request)?
        else {
            return Ok(Step::Wait);
        };
        let framing = framing::request(&head)?;
        let asked = framing::asked(&head);
        let upgrade = has(&head.fields, b"upgrade");
        let number = self.client.number.saturating_add(1);
        self.client.number = number;
        self.awaited.push_back(Awaited { number, asked, upgrade });
        if upgrade || asked == Asked::Connect {
            self.deciding = Some(number);
        }
        let ends = framing == Framing::Empty;
        parts.push(Part::Request { number, at, head: Box::new(head), ends });
        self.body(Direction::ClientToServer, framing);
        Ok(Step::Took(length))
    }

    fn response(&mut self, rest: &[u8], parts: &mut Vec<Part>) -> Result<Step, Fault> {
        let Some(&awaited) = self.awaited.front() else {
            if self.client.state == State::Opaque {
                // What it answers could not be read either, and that was said then.
                self.server.state = State::Opaque;
                return Ok(Step::Took(0));
            }
            return Err(Fault::NoRequest);
        };
        let number = awaited.number;
        self.server.number = number;
        let Some((length, head)) = self.server.search.section(rest, self.head_bytes_max, head::response)?
        else {
            return Ok(Step::Wait);
        };
        let is_final = head.status == 101 || head.status >= 200;
        if head.status == 101 && !awaited.upgrade {
            return Err(Fault::SwitchUnasked);
        }
        let framing = framing::response(&head, awaited.asked)?;
        let switch = switch(&head, awaited);
        let ends = is_final && framing == Framing::Empty;
        parts.push(Part::Response { number, head: Box::new(head), is_final, ends });
        if is_final {
            self.decide(number, switch, parts);
            self.body(Direction::ServerToClient, framing);
        }
        Ok(Step::Took(length))
    }

    /// The final response to request `number` is there: if that might have ended HTTP, now it is known.
    fn decide(&mut self, number: u32, switch: Option<String>, parts: &mut Vec<Part>) {
        if self.deciding == Some(number) {
            self.deciding = None;
            self.is_switched = switch.is_some();
            if self.client.state == State::Held {
                self.client.state = if self.is_switched { State::Opaque } else { State::Head };
            }
        }
        parts.extend(switch.map(Part::Switch));
    }

    /// The body behind a head begins.
    fn body(&mut self, direction: Direction, framing: Framing) {
        let state = match framing {
            Framing::Empty => return self.message_ended(direction),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilEnd => State::UntilEnd,
        };
        self.sender(direction).state = state;
    }

    fn message_ended(&mut self, direction: Direction) {
        let is_switched = self.is_switched;
        let is_server = direction == Direction::ServerToClient;
        if is_server {
            self.awaited.pop_front();
        }
        let is_deciding = !is_server && self.deciding == Some(self.client.number);
        self.sender(direction).state = match (is_switched, is_deciding) {
            (true, _) => State::Opaque,
            (false, true) => State::Held,
            (false, false) => State::Head,
        };
    }

    fn unreadable(&mut self, direction: Direction, at: usize, fault: Fault, parts: &mut Vec<Part>) {
        let sender = self.sender(direction);
        let is_within = !matches!(sender.state, State::Head | State::Held);
        let number = is_within.then_some(sender.number);
        sender.state = State::Opaque;
        if direction == Direction::ServerToClient {
            self.client.state = State::Opaque;
            self.awaited.clear();
        }
        parts.push(Part::Unreadable { at, number, fault });
    }

    fn sender(&mut self, direction: Direction) -> &mut Sender {
        match direction {
            Direction::ServerToClient => &mut self.server,
            _ => &mut self.client,
        }
    }
}

/// Why HTTP ends behind this final response, if it does.
fn switch(head: &ResponseHead, awaited: Awaited) -> Option<String> {
    /// Bytes of a protocol's name that are told.
    const NAME_BYTES_MAX: usize = 64;
    let number = awaited.number;
    if head.status == 101 {
        let upgrade = head.fields.iter().find(|field| field.name.eq_ignore_ascii_case(b"upgrade"));
        let name = upgrade.map_or(&b"another protocol"[..], |field| &field.value);
        let name = String::from_utf8_lossy(&name[..name.len().min(NAME_BYTES_MAX)]);
        return Some(format!("upgraded to {name} by request {number}"));
    }
    let is_tunnel = awaited.asked == Asked::Connect && (200..300).contains(&head.status);
    is_tunnel.then(|| format!("tunnel by CONNECT, request {number}"))
}

/// The trailer section behind the last chunk, most often an empty line.
fn trailers(
    search: &mut Search,
    rest: &[u8],
    bytes_max: usize,
) -> Result<Option<(usize, Vec<Field>)>, Fault> {
    match rest {
        [b'\r', b'\n', ..] => Ok(Some((2, Vec::new()))),
        [b'\r'] => Ok(None),
        _ => search.section(rest, bytes_max, head::trailers),
    }
}

/// The length of the line end that `rest` begins with, or 0. Between messages they mean nothing (RFC 9112 section 2.2).
fn line_feed(rest: &[u8]) -> usize {
    match rest {
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    }
}

fn has(fields: &[Field], name: &[u8]) -> bool {
    fields.iter().any(|field| field.name.eq_ignore_ascii_case(name))
}

fn shorter(left: u64, rest: &[u8]) -> usize {
    usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()))
}
