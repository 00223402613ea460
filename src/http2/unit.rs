//! Cuts one direction's byte stream into units: single frames, and whole header blocks.
//!
//! A header block (HEADERS or PUSH_PROMISE with its CONTINUATIONs) is one unit because nothing may come between its
//! frames (RFC 9113 section 6.10) and it means something only as a whole. The reader judges what the bytes alone show:
//! bounds, the order of block frames and the compression state end the connection ([`UnitError`]); a broken payload or
//! a malformed block is named in the unit and goes on, its receiver decides.
//!
//! Invariant: a unit is announced as complete only when its last byte is there, and every bound is checked from frame
//! headers, before the bytes that would break it have come. Not here: the connection preface, stream states, holding
//! and forwarding (`capture`, `proxy`).

mod payload;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::mem;

use bytes::Bytes;

use super::code;
use super::frame::{FrameHeader, HEADER_LEN, flag, kind};
use super::hpack::{Decoder, Field, HpackError};
use super::malformed::{self, Malformed};

/// One indivisible piece: a frame, or a whole header block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The stream of the (first) frame; 0 is the connection.
    pub stream: u32,
    /// What it carries.
    pub body: UnitBody,
}

/// What a unit carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitBody {
    /// DATA.
    Data {
        /// The content without padding; it shares the chunk's allocation.
        data: Bytes,
        /// Octets of padding, `None` without the PADDED flag. Flow control counts them and the pad length's own octet.
        pad: Option<u8>,
        /// The sender half-closes the stream.
        end_stream: bool,
    },
    /// HEADERS and its CONTINUATIONs.
    Headers {
        /// All fields in wire order.
        fields: Vec<Field>,
        /// The sender half-closes the stream.
        end_stream: bool,
        /// The rule that the block breaks, if any.
        malformed: Option<Malformed>,
    },
    /// PUSH_PROMISE and its CONTINUATIONs.
    PushPromise {
        /// The stream that the server will open.
        promised: u32,
        /// All fields of the promised request in wire order.
        fields: Vec<Field>,
        /// The rule that the block breaks, if any.
        malformed: Option<Malformed>,
    },
    /// RST_STREAM.
    Reset {
        /// See [`code`].
        code: u32,
    },
    /// SETTINGS, not an acknowledgement.
    Settings {
        /// Identifiers and values in wire order, unknown and repeated ones included.
        params: Vec<(u16, u32)>,
    },
    /// The acknowledgement of the other side's SETTINGS.
    SettingsAck,
    /// PING.
    Ping {
        /// It is the answer to a PING of the other side.
        ack: bool,
        /// The sender's own octets.
        opaque: [u8; 8],
    },
    /// GOAWAY.
    GoAway {
        /// The highest stream that the sender has or will have processed.
        last_stream: u32,
        /// See [`code`].
        code: u32,
        /// Whatever the sender adds for a human.
        debug: Bytes,
    },
    /// WINDOW_UPDATE; an increment of 0 is an error that its receiver answers.
    WindowUpdate {
        /// Octets granted.
        increment: u32,
    },
    /// PRIORITY, which RFC 9113 section 5.3 deprecates.
    Priority,
    /// A frame of a type that RFC 9113 does not define.
    Unknown {
        /// The frame's type.
        kind: u8,
        /// The frame's flags.
        flags: u8,
        /// The whole payload.
        payload: Bytes,
    },
    /// A frame of a known type whose payload or stream breaks the rules of its type; its receiver decides.
    Broken {
        /// The frame's type, see [`kind`].
        kind: u8,
        /// The frame's flags.
        flags: u8,
        /// The whole payload.
        payload: Bytes,
        /// The rule, as a short phrase.
        why: &'static str,
    },
}

/// Bounds of a [`UnitReader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitLimits {
    /// Octets of one frame's payload.
    pub frame_bytes_max: u32,
    /// Octets of one decoded header list, each field counted with 32 octets of overhead; the encoded block may be
    /// [`BLOCK_SLACK_BYTES`] longer.
    pub header_list_bytes_max: u32,
    /// CONTINUATION frames of one header block.
    pub continuations_max: u32,
}

/// What an encoded header block may have over the bound of its decoded list, in octets: room for padding, priority,
/// table size updates and small lists. Fields themselves take more room decoded than encoded with any sensible encoder.
pub const BLOCK_SLACK_BYTES: u32 = 1024;

/// Fields whose room is kept for the next block: what calls have, and not what an attack had once.
const FIELDS_KEPT_MAX: usize = 64;

/// Why a byte stream cannot be read on. The connection has to be ended with [`UnitError::h2_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A frame's payload is over the bound.
    #[error(
        "frame type {kind} on stream {stream} has {length} octets, over frame_bytes_max of {frame_bytes_max}"
    )]
    FrameTooLarge {
        /// The frame's type.
        kind: u8,
        /// The frame's stream.
        stream: u32,
        /// The announced octets.
        length: u32,
        /// The bound.
        frame_bytes_max: u32,
    },
    /// A header block of too many frames.
    #[error(
        "header block on stream {stream} has more CONTINUATION frames than continuations_max of {continuations_max}"
    )]
    TooManyContinuations {
        /// The block's stream.
        stream: u32,
        /// The bound.
        continuations_max: u32,
    },
    /// A header list over its bound, encoded or decoded.
    #[error(
        "header list on stream {stream} is over {header_list_bytes_max} octets; send less metadata or raise header_list_bytes_max"
    )]
    HeaderListTooLarge {
        /// The block's stream.
        stream: u32,
        /// The bound.
        header_list_bytes_max: u32,
    },
    /// Another frame within a header block.
    #[error(
        "frame type {kind} on stream {stream} within the header block of stream {block_stream}; the sender is broken"
    )]
    InterleavedContinuation {
        /// The block's stream.
        block_stream: u32,
        /// The type of the frame in between.
        kind: u8,
        /// Its stream.
        stream: u32,
    },
    /// A CONTINUATION that continues nothing.
    #[error("CONTINUATION on stream {stream} without an open header block; the sender is broken")]
    UnexpectedContinuation {
        /// The frame's stream.
        stream: u32,
    },
    /// Padding over the payload of HEADERS or PUSH_PROMISE, or no room for its length: where the block ends cannot be told.
    #[error("padding of the header block on stream {stream} does not fit its frame; the sender is broken")]
    BlockPadding {
        /// The block's stream.
        stream: u32,
    },
    /// A HEADERS or PUSH_PROMISE frame too short for what its flags or type promise before the block.
    #[error(
        "header block frame on stream {stream} is too short for its mandatory parts; the sender is broken"
    )]
    BlockTooShort {
        /// The block's stream.
        stream: u32,
    },
    /// The block cannot be decompressed.
    #[error(transparent)]
    Hpack(HpackError),
}

impl UnitError {
    /// The error code for the GOAWAY that ends the connection.
    pub fn h2_code(&self) -> u32 {
        match self {
            Self::FrameTooLarge { .. } | Self::BlockTooShort { .. } => code::FRAME_SIZE_ERROR,
            Self::TooManyContinuations { .. }
            | Self::HeaderListTooLarge { .. }
            | Self::Hpack(HpackError::ListTooLarge { .. }) => code::ENHANCE_YOUR_CALM,
            Self::InterleavedContinuation { .. }
            | Self::UnexpectedContinuation { .. }
            | Self::BlockPadding { .. } => code::PROTOCOL_ERROR,
            Self::Hpack(_) => code::COMPRESSION_ERROR,
        }
    }
}

/// The complete units at the beginning of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Their octets.
    pub len: usize,
    /// DATA frames among them that are below [`SMALL_FRAME_BYTES`], header included.
    pub small_data: usize,
}

/// A DATA frame below this counts as small. Receivers do so too: h2 ends a connection on which too many frames of less than 256 octets
/// wait to be read (RUSTSEC-2026-0258).
pub const SMALL_FRAME_BYTES: usize = 256 + HEADER_LEN;

/// Reads the units of one direction of one connection.
#[derive(Debug)]
pub struct UnitReader {
    hpack: Decoder,
    limits: UnitLimits,
    /// Room for the next block's fields.
    fields: Vec<Field>,
}

impl UnitReader {
    /// A reader at the beginning of a connection, behind the client's preface.
    pub fn new(limits: UnitLimits) -> Self {
        Self { hpack: Decoder::new(), limits, fields: Vec::new() }
    }

    /// Lets frames have so many bytes of payload, if that is more than they might have before.
    pub fn raise_frame_bytes_max(&mut self, octets: u32) {
        self.limits.frame_bytes_max = self.limits.frame_bytes_max.max(octets);
    }

    /// Takes the fields of a unit back once they are done with: the next block needs no room of its own then.
    pub fn take_back(&mut self, mut fields: Vec<Field>) {
        fields.clear();
        if fields.capacity() <= FIELDS_KEPT_MAX {
            self.fields = fields;
        }
    }

    /// The decompression state, for its limit.
    pub fn hpack_mut(&mut self) -> &mut Decoder {
        &mut self.hpack
    }

    /// Length of the prefix of `buf` that consists of complete units, 0 if there is none yet; see [`Self::prefix`].
    pub fn complete_len(&self, buf: &[u8]) -> Result<usize, UnitError> {
        self.prefix(buf, usize::MAX).map(|prefix| prefix.len)
    }

    /// The prefix of `buf` that consists of complete units, up to `small_data_max` small DATA frames.
    ///
    /// Hops over frame headers and touches no payload. An error behind complete units is kept back: they are
    /// announced first, and the next call, on what follows them, returns it. A bound is checked as soon as the
    /// frame header that breaks it is in `buf`.
    pub fn prefix(&self, buf: &[u8], small_data_max: usize) -> Result<Prefix, UnitError> {
        let mut prefix = Prefix { len: 0, small_data: 0 };
        while prefix.small_data < small_data_max {
            let rest = buf.get(prefix.len..).unwrap_or_default();
            match self.extent(rest) {
                Ok(Extent::Complete(len)) => {
                    prefix.small_data += usize::from(len < SMALL_FRAME_BYTES && rest[3] == kind::DATA);
                    prefix.len += len;
                }
                Err(error) if prefix.len == 0 => return Err(error),
                Ok(Extent::Partial { .. }) | Err(_) => break,
            }
        }
        Ok(prefix)
    }

    /// How many bytes the first unit of `buf` needs in all, as far as can be told now: what to reserve before reading
    /// on. Nine for an empty `buf`, the length of `buf` itself once the unit is found to be in error.
    pub fn bytes_wanted(&self, buf: &[u8]) -> usize {
        match self.extent(buf) {
            Ok(Extent::Complete(len) | Extent::Partial { wanted: len }) => len,
            Err(_) => buf.len(),
        }
    }

    /// The unit of `chunk` that begins at `at`, which then moves behind it; `None` where no complete unit is left.
    /// Slices in the unit share the chunk's allocation. After an error `at` still stands at the unit that caused it.
    pub fn next(&mut self, chunk: &Bytes, at: &mut usize) -> Result<Option<Unit>, UnitError> {
        let rest = chunk.get(*at..).unwrap_or_default();
        let Extent::Complete(len) = self.extent(rest)? else { return Ok(None) };
        let Some((head, after)) = split_header(&rest[..len]) else { return Ok(None) };
        let body = if opens_block(head) {
            self.header_block(head, after)?
        } else {
            let begin = *at + HEADER_LEN;
            payload::read(head, chunk, begin..*at + len)
        };
        *at += len;
        Ok(Some(Unit { stream: head.stream, body }))
    }

    /// How far the first unit of `buf` reaches, with all bounds checked that its frame headers show.
    fn extent(&self, buf: &[u8]) -> Result<Extent, UnitError> {
        let Some((head, _)) = split_header(buf) else { return Ok(Extent::Partial { wanted: HEADER_LEN }) };
        self.check_frame(head)?;
        if head.kind == kind::CONTINUATION {
            return Err(UnitError::UnexpectedContinuation { stream: head.stream });
        }
        let mut end = HEADER_LEN + head.length as usize;
        if opens_block(head) {
            let mut block =
                OpenBlock { head, ended: head.has(flag::END_HEADERS), continuations: 0, octets: 0 };
            block.add(head, &self.limits)?;
            while !block.ended {
                let Some((next, _)) = split_header(buf.get(end..).unwrap_or_default()) else {
                    return Ok(Extent::Partial { wanted: end + HEADER_LEN });
                };
                block.follow(next)?;
                self.check_frame(next)?;
                block.add(next, &self.limits)?;
                end += HEADER_LEN + next.length as usize;
            }
        }
        Ok(if end <= buf.len() { Extent::Complete(end) } else { Extent::Partial { wanted: end } })
    }

    fn check_frame(&self, head: FrameHeader) -> Result<(), UnitError> {
        let FrameHeader { length, kind, stream, .. } = head;
        let frame_bytes_max = self.limits.frame_bytes_max;
        if length > frame_bytes_max {
            return Err(UnitError::FrameTooLarge { kind, stream, length, frame_bytes_max });
        }
        Ok(())
    }

    /// Decodes the block that `head` opens; `after` is the unit behind that header.
    fn header_block(&mut self, head: FrameHeader, after: &[u8]) -> Result<UnitBody, UnitError> {
        let (payload, continued) = after.split_at_checked(head.length as usize).unwrap_or((after, &[]));
        let (promised, fragment) = strip(head, payload)?;
        let block = join(fragment, continued);
        let mut fields = mem::take(&mut self.fields);
        let list_bytes_max = self.limits.header_list_bytes_max;
        self.hpack.decode(&block, list_bytes_max as usize, &mut fields).map_err(|error| match error {
            HpackError::ListTooLarge { .. } => {
                UnitError::HeaderListTooLarge { stream: head.stream, header_list_bytes_max: list_bytes_max }
            }
            error => UnitError::Hpack(error),
        })?;
        let promise = head.kind == kind::PUSH_PROMISE;
        let malformed = if head.stream == 0 || promise && promised == 0 {
            Some(Malformed::StreamZero)
        } else {
            malformed::check(&fields, promise)
        };
        Ok(if promise {
            UnitBody::PushPromise { promised, fields, malformed }
        } else {
            UnitBody::Headers { fields, end_stream: head.has(flag::END_STREAM), malformed }
        })
    }
}

/// How far a unit reaches.
enum Extent {
    Complete(usize),
    Partial { wanted: usize },
}

/// A header block whose frames are being counted.
struct OpenBlock {
    head: FrameHeader,
    ended: bool,
    continuations: u32,
    octets: u32,
}

impl OpenBlock {
    /// Only CONTINUATIONs of the same stream may follow, until one ends the block.
    fn follow(&mut self, next: FrameHeader) -> Result<(), UnitError> {
        if next.kind != kind::CONTINUATION || next.stream != self.head.stream {
            return Err(UnitError::InterleavedContinuation {
                block_stream: self.head.stream,
                kind: next.kind,
                stream: next.stream,
            });
        }
        self.continuations += 1;
        self.ended = next.has(flag::END_HEADERS);
        Ok(())
    }

    fn add(&mut self, frame: FrameHeader, limits: &UnitLimits) -> Result<(), UnitError> {
        let stream = self.head.stream;
        self.octets = self.octets.saturating_add(frame.length);
        if self.continuations > limits.continuations_max {
            return Err(UnitError::TooManyContinuations {
                stream,
                continuations_max: limits.continuations_max,
            });
        }
        if self.octets > limits.header_list_bytes_max.saturating_add(BLOCK_SLACK_BYTES) {
            let header_list_bytes_max = limits.header_list_bytes_max;
            return Err(UnitError::HeaderListTooLarge { stream, header_list_bytes_max });
        }
        Ok(())
    }
}

fn opens_block(head: FrameHeader) -> bool {
    matches!(head.kind, kind::HEADERS | kind::PUSH_PROMISE)
}

fn split_header(buf: &[u8]) -> Option<(FrameHeader, &[u8])> {
    buf.split_first_chunk::<HEADER_LEN>().map(|(header, rest)| (FrameHeader::parse(header), rest))
}

/// The promised stream (0 for HEADERS) and the block fragment of a payload without padding and priority.
fn strip(head: FrameHeader, payload: &[u8]) -> Result<(u32, &[u8]), UnitError> {
    let too_short = UnitError::BlockTooShort { stream: head.stream };
    let (pad, rest) = if head.has(flag::PADDED) {
        let (&pad, rest) = payload.split_first().ok_or(UnitError::BlockPadding { stream: head.stream })?;
        (usize::from(pad), rest)
    } else {
        (0, payload)
    };
    let (promised, rest) = if head.kind == kind::PUSH_PROMISE {
        let (promised, rest) = rest.split_first_chunk::<4>().ok_or(too_short)?;
        (u32::from_be_bytes(*promised) & (u32::MAX >> 1), rest)
    } else if head.has(flag::PRIORITY) {
        (0, rest.get(5..).ok_or(too_short)?)
    } else {
        (0, rest)
    };
    let len = rest.len().checked_sub(pad).ok_or(UnitError::BlockPadding { stream: head.stream })?;
    Ok((promised, &rest[..len]))
}

/// The whole block: the first fragment, and the payloads of the CONTINUATION frames in `continued`.
fn join<'a>(fragment: &'a [u8], mut continued: &[u8]) -> Cow<'a, [u8]> {
    let mut block = Cow::Borrowed(fragment);
    while let Some((head, rest)) = split_header(continued) {
        let (payload, after) = rest.split_at_checked(head.length as usize).unwrap_or((rest, &[]));
        block.to_mut().extend_from_slice(payload);
        continued = after;
    }
    block
}
