//! Capture of HTTP/1: what the messages of one connection say about its calls, until HTTP ends on it or cannot be read.
//!
//! Invariants: of every message, head, content and trailers are in the submission that their bytes wait for, and what else a chunked body can carry beside them; what
//! cannot be read never goes on as if it had been. A call is a request with its response, under the request's number on the connection as its stream. Reading is
//! `crate::http1`; a call's state is `stream`, as for HTTP/2.

use super::evidence::{Evidence, sender_name};
use super::opaque::Begun;
use super::stream::{Stream, protocol_over_http1};
use super::{Direction, Ending, Failure, Ids, Limits, Milestone, Observed, Policy, Subject};
use crate::counters::Counters;
use crate::entry::Submission;
use crate::generated::v1::{self, EventType, connection_event::Type as ConnectionEventType};
use crate::http1::{Conversation, Fault, Part, RequestHead, ResponseHead};
use crate::http2::{Field, code};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What becomes of bytes that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnreadable {
    /// They go on, and the entry says so: from there on the connection is opaque.
    Forward,
    /// They do not, and the connection ends.
    Refuse,
}

/// The state of one connection.
pub struct Http1 {
    limits: Limits,
    ids: Ids,
    on_unreadable: OnUnreadable,
    conversation: Conversation,
    /// What was read and not observed yet.
    client: Read,
    server: Read,
    calls: BTreeMap<u32, Call>,
    /// The call that the newest part was of.
    touched: Option<u32>,
    begun: Begun,
    milestones: Vec<Milestone>,
    evidence: Evidence,
}

/// Bytes of one side that have been read, and what they are.
#[derive(Default)]
struct Read {
    length: usize,
    parts: Vec<Part>,
}

struct Call {
    stream: Stream,
    /// Why its request will never be whole. Its response can still come.
    cut: Option<String>,
}

/// A part that ends the connection, and where it begins.
struct Broken {
    at: usize,
    failure: Failure,
}

impl Http1 {
    /// A connection before its first byte.
    pub fn new(
        subject: Subject,
        policy: Policy,
        limits: Limits,
        ids: Ids,
        counters: Arc<Counters>,
        on_unreadable: OnUnreadable,
    ) -> Self {
        let head_bytes_max = usize::try_from(limits.units.header_list_bytes_max).unwrap_or(usize::MAX);
        Self {
            limits,
            ids,
            on_unreadable,
            conversation: Conversation::new(head_bytes_max),
            client: Read::default(),
            server: Read::default(),
            calls: BTreeMap::new(),
            touched: None,
            begun: Begun::default(),
            milestones: Vec::new(),
            evidence: Evidence::new(subject, policy, counters),
        }
    }

    /// The connection's id in the ledger.
    pub fn connection(&self) -> u64 {
        self.evidence.connection()
    }

    /// Bytes at the beginning of `buffered` that can be observed now; 0 where more must be read first, or where the other side must speak first: what one side says
    /// may make bytes of the other observable that were not before.
    pub fn prefix(&mut self, direction: Direction, buffered: &[u8]) -> usize {
        let read = match direction {
            Direction::ServerToClient => &mut self.server,
            _ => &mut self.client,
        };
        if read.length == 0 {
            read.length = self.conversation.read(direction, buffered, &mut read.parts);
        }
        read.length
    }

    /// Observes a chunk of as many bytes as `prefix` said last.
    pub fn observe(&mut self, direction: Direction, chunk: &Bytes, now_unix_nanos: u64) -> Observed {
        let read = match direction {
            Direction::ServerToClient => &mut self.server,
            _ => &mut self.client,
        };
        let Read { length, parts } = std::mem::take(read);
        debug_assert_eq!(length, chunk.len(), "the chunk is what prefix has read");
        self.parts(direction, parts, chunk, now_unix_nanos)
    }

    /// The sender of `direction` has ended. `rest` is what it sent of a head or line that it did not finish; it goes on as it is.
    pub fn sender_ended(&mut self, direction: Direction, rest: &Bytes, now_unix_nanos: u64) -> Observed {
        let mut parts = Vec::new();
        self.conversation.end(direction, rest, &mut parts);
        self.parts(direction, parts, rest, now_unix_nanos)
    }

    /// Records that attestry answers the open calls, or one of them, itself.
    pub fn answered(&mut self, streams: &[u32], reason: &str, now_unix_nanos: u64) -> Submission {
        for number in streams {
            self.give_up(*number, Direction::ServerToClient, EventType::LocalAnswer, reason);
        }
        self.evidence.finish(Direction::ServerToClient, 0, now_unix_nanos)
    }

    /// The connection's last evidence: calls that it leaves open, and its own end.
    pub fn close(&mut self, ending: Ending, now_unix_nanos: u64) -> Submission {
        self.abandon_all(ending.direction(), &ending.reason);
        self.evidence.close(ending, now_unix_nanos)
    }

    fn parts(&mut self, direction: Direction, parts: Vec<Part>, chunk: &Bytes, now: u64) -> Observed {
        let (mut forward, mut failure) = (chunk.len(), None);
        for part in parts {
            if let Err(broken) = self.part(direction, part, chunk) {
                (forward, failure) = (broken.at, Some(broken.failure));
                break;
            }
        }
        // Of the messages of one side only the newest can be open.
        if let Some(call) = self.touched.take().and_then(|number| self.calls.get_mut(&number)) {
            call.stream.close_segment(direction, &mut self.evidence.drafts);
        }
        Observed {
            submission: self.evidence.finish(direction, forward as u64, now),
            forward,
            milestones: std::mem::take(&mut self.milestones),
            failure,
        }
    }

    fn part(&mut self, direction: Direction, part: Part, chunk: &Bytes) -> Result<(), Broken> {
        match part {
            Part::Request { number, at, head, ends } => return self.request(number, at, *head, ends),
            Part::Response { number, head, is_final, ends } => {
                if is_final && !ends {
                    self.milestones.push(Milestone::Responded(number));
                }
                self.with_call(direction, number, ends, |stream, evidence| {
                    stream.headers(direction, &response_fields(*head), ends, None, evidence);
                });
            }
            Part::Data { number, range, ends } => self.data(direction, number, &chunk.slice(range), ends),
            Part::Extension { number, range } => self.extension(number, &chunk.slice(range)),
            Part::End { number, trailers } if trailers.is_empty() => {
                self.data(direction, number, &Bytes::new(), true);
            }
            Part::End { number, trailers } => {
                self.with_call(direction, number, true, |stream, evidence| {
                    stream.headers(direction, &trailers, true, None, evidence);
                });
            }
            Part::Cut { number } => self.cut(direction, number, &Fault::Cut),
            Part::Switch(reason) => {
                self.milestones.push(Milestone::Opaque);
                self.evidence.becomes_opaque(reason);
            }
            Part::Unreadable { at, number, fault } => return self.unreadable(direction, at, number, fault),
            Part::Opaque(range) => self.opaque(direction, range, chunk),
        }
        Ok(())
    }

    fn request(&mut self, number: u32, at: usize, head: RequestHead, ends: bool) -> Result<(), Broken> {
        if self.calls.len() >= self.limits.streams_max {
            self.evidence.counters.streams_over_bound.add(1);
            let max = self.limits.streams_max;
            let reason = format!("more than {max} requests open on one connection (limits.streams_max)");
            return Err(Broken { at, failure: self.evidence.broken_bound(code::NO_ERROR, reason) });
        }
        let direction = Direction::ClientToServer;
        let stream = Stream::new(number, self.ids.call(), protocol_over_http1(&head.fields));
        self.calls.insert(number, Call { stream, cut: None });
        self.evidence.call_begins();
        self.milestones.push(Milestone::Opened { stream: number, is_grpc: false });
        self.with_call(direction, number, ends, |stream, evidence| {
            stream.headers(direction, &request_fields(head), ends, None, evidence);
        });
        Ok(())
    }

    fn data(&mut self, direction: Direction, number: u32, data: &Bytes, ends: bool) {
        self.with_call(direction, number, ends, |stream, evidence| {
            stream.data(direction, data, ends, evidence);
        });
    }

    /// Nobody sends extensions of chunks, which is why something could be hidden in them.
    fn extension(&mut self, number: u32, bytes: &Bytes) {
        let event = v1::ConnectionEvent {
            r#type: ConnectionEventType::StrayFrame.into(),
            stream: number,
            reason: "extensions of a chunk".into(),
            ..self.evidence.payload_event(bytes)
        };
        self.evidence.push(event, bytes.clone());
    }

    /// Does what `event` does to a call, and forgets the call where nothing more can come of it. `ends` says that the sender's message does with it.
    fn with_call(
        &mut self,
        direction: Direction,
        number: u32,
        ends: bool,
        event: impl FnOnce(&mut Stream, &mut Evidence),
    ) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        self.touched = Some(number);
        event(&mut call.stream, &mut self.evidence);
        let is_over = call.stream.is_over();
        let answered = ends && direction == Direction::ServerToClient;
        if answered {
            self.milestones.push(Milestone::Ended(number));
        }
        if is_over {
            self.calls.remove(&number);
            self.evidence.counters.calls_ended.add(1);
        } else if answered && call.cut.is_some() {
            self.abandon(number, direction, "");
        }
    }

    /// The message of this side will never be whole. A response that is cut is the call's end; a request that is cut may still be answered.
    fn cut(&mut self, direction: Direction, number: u32, fault: &Fault) {
        let reason = format!("from the {}: {fault}", sender_name(direction));
        if direction == Direction::ServerToClient {
            self.milestones.push(Milestone::Ended(number));
            self.abandon(number, direction, &reason);
        } else if let Some(call) = self.calls.get_mut(&number) {
            call.cut = Some(reason);
        }
    }

    fn unreadable(
        &mut self,
        direction: Direction,
        at: usize,
        number: Option<u32>,
        fault: Fault,
    ) -> Result<(), Broken> {
        let reason = format!("from the {}: {fault}", sender_name(direction));
        let failure = self.evidence.not_readable(code::NO_ERROR, reason);
        if self.on_unreadable == OnUnreadable::Refuse {
            return Err(Broken { at, failure });
        }
        if direction == Direction::ServerToClient {
            self.abandon_all(direction, &failure.reason);
        } else if let Some(number) = number {
            self.cut(direction, number, &fault);
        }
        self.milestones.push(Milestone::Opaque);
        self.evidence.becomes_opaque(failure.reason);
        Ok(())
    }

    fn opaque(&mut self, direction: Direction, range: Range<usize>, chunk: &Bytes) {
        self.begun.observe(direction, &chunk.slice(range), &mut self.evidence);
    }

    fn abandon_all(&mut self, direction: Direction, reason: &str) {
        for number in self.calls.keys().copied().collect::<Vec<_>>() {
            self.abandon(number, direction, reason);
        }
    }

    /// The call will never be whole. What cut its request, if anything did, says more than `reason`.
    fn abandon(&mut self, number: u32, direction: Direction, reason: &str) {
        let cut = self.calls.get_mut(&number).and_then(|call| call.cut.take());
        self.give_up(number, direction, EventType::Abandoned, cut.as_deref().unwrap_or(reason));
    }

    /// Ends the record of a call that has not ended itself.
    fn give_up(&mut self, number: u32, direction: Direction, kind: EventType, reason: &str) {
        let Some(mut call) = self.calls.remove(&number) else { return };
        call.stream.note(direction, kind, reason, &mut self.evidence);
        self.evidence.counters.calls_ended.add(1);
    }
}

/// The head as HTTP/2 would name its parts; the target stands as it was in the request line.
fn request_fields(head: RequestHead) -> Vec<Field> {
    let version = Bytes::from_static(head.version.as_str().as_bytes());
    let named = [(":method", head.method), (":path", head.target), (":version", version)];
    named.into_iter().map(field).chain(head.fields).collect()
}

fn response_fields(head: ResponseHead) -> Vec<Field> {
    let version = Bytes::from_static(head.version.as_str().as_bytes());
    let status = Bytes::from(head.status.to_string());
    let named = [(":status", status), (":reason", head.reason), (":version", version)];
    named.into_iter().map(field).chain(head.fields).collect()
}

fn field((name, value): (&'static str, Bytes)) -> Field {
    Field { name: Bytes::from_static(name.as_bytes()), value, never_indexed: false }
}

#[cfg(test)]
mod tests;
