//! What attestry may have to say itself: which calls the client waits for, and the frames that answer them.
//!
//! Tracks what the client has been *sent*, not what was captured: frames that are held may never go on. All header blocks are literals without indexing, so that they
//! fit into a connection whose HPACK state is the real server's.

use crate::capture::Milestone;
use crate::http2::{code, frame};
use std::collections::BTreeMap;

/// Every peer takes frames of this size (RFC 9113 section 4.2).
const FRAME_BYTES: usize = 16_384;

/// The highest stream number: a GOAWAY with it ends nothing yet.
const ALL_STREAMS: u32 = (1 << 31) - 1;

/// In which protocol attestry would speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Dialect {
    Http2,
    Http1,
    /// None: all that can be said is that the connection ends.
    #[default]
    Opaque,
}

/// The client's view of its open calls.
#[derive(Debug, Default)]
pub(super) struct Answers {
    dialect: Dialect,
    open: BTreeMap<u32, Call>,
    highest_opened: u32,
    goaway: Option<u32>,
}

#[derive(Debug)]
struct Call {
    is_grpc: bool,
    responded: bool,
}

impl Answers {
    pub(super) fn of(dialect: Dialect) -> Self {
        Self { dialect, ..Self::default() }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Something has become true for the client.
    pub(super) fn apply(&mut self, milestone: Milestone) {
        match milestone {
            Milestone::Opened { stream, is_grpc } => {
                self.highest_opened = self.highest_opened.max(stream);
                self.open.insert(stream, Call { is_grpc, responded: false });
            }
            Milestone::Responded(stream) => {
                if let Some(call) = self.open.get_mut(&stream) {
                    call.responded = true;
                }
            }
            Milestone::Ended(stream) => drop(self.open.remove(&stream)),
            Milestone::GoAway(last) => {
                self.goaway = Some(self.goaway.map_or(last, |before| before.min(last)));
            }
            Milestone::Opaque => *self = Self::of(Dialect::Opaque),
            Milestone::Settings | Milestone::Ping(_) => {}
        }
    }

    /// Nothing waits for anything; of an opaque connection nobody knows.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.dialect != Dialect::Opaque
    }

    /// The streams that wait.
    pub(super) fn streams(&self) -> Vec<u32> {
        self.open.keys().copied().collect()
    }

    /// A GOAWAY that lets everything go on. The last stream never rises above what the client was told before.
    pub(super) fn goaway_gracefully(&mut self, reason: &str) -> Vec<u8> {
        self.goaway_up_to(ALL_STREAMS, code::NO_ERROR, reason)
    }

    /// The last GOAWAY: streams that the client opens behind the highest one known were not processed, and may be tried again.
    pub(super) fn goaway_finally(&mut self, code: u32, reason: &str) -> Vec<u8> {
        self.goaway_up_to(self.highest_opened, code, reason)
    }

    fn goaway_up_to(&mut self, last: u32, code: u32, reason: &str) -> Vec<u8> {
        if self.dialect != Dialect::Http2 {
            return Vec::new();
        }
        self.apply(Milestone::GoAway(last));
        frame::goaway(self.goaway.unwrap_or(last), code, reason.as_bytes())
    }

    /// What comes before anything else that attestry says: of HTTP/2, empty SETTINGS (RFC 9113 section 3.4).
    pub(super) fn preamble(&self) -> Vec<u8> {
        if self.dialect == Dialect::Http2 { frame::settings(&[]) } else { Vec::new() }
    }

    /// What is open cannot be answered, only broken off: part of an HTTP/1 response is with the client already.
    pub(super) fn is_in_response(&self) -> bool {
        self.dialect == Dialect::Http1 && self.open.first_key_value().is_some_and(|(_, call)| call.responded)
    }

    /// Answers every open call: UNAVAILABLE where the client has nothing of the response yet, a reset where it has. In HTTP/1 the first is answered for all,
    /// since the connection ends behind it.
    pub(super) fn answer_all(&mut self, reason: &str) -> Vec<u8> {
        let mut frames = Vec::new();
        if self.dialect != Dialect::Http2 {
            let is_due = !self.open.is_empty() && !self.is_in_response();
            self.open.clear();
            return if is_due { unavailable_http1(reason) } else { Vec::new() };
        }
        for (stream, call) in std::mem::take(&mut self.open) {
            if call.responded {
                frames.extend(frame::rst_stream(stream, code::INTERNAL_ERROR));
            } else {
                frames.extend(unavailable(stream, call.is_grpc, reason));
                // The answer is complete; whatever the client still sends of its request is not wanted (RFC 9113 section 8.1).
                frames.extend(frame::rst_stream(stream, code::NO_ERROR));
            }
        }
        frames
    }
}

/// A trailers-only response with status UNAVAILABLE, or 503 for a call that is not gRPC.
fn unavailable(stream: u32, is_grpc: bool, reason: &str) -> Vec<u8> {
    let message = percent_encode(reason);
    if is_grpc {
        let fields = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "14"),
            ("grpc-message", &message),
        ];
        frame::headers_literal(stream, true, &fields, FRAME_BYTES)
    } else {
        frame::headers_literal(
            stream,
            true,
            &[(":status", "503"), ("content-length", "0"), ("x-attestry", &message)],
            FRAME_BYTES,
        )
    }
}

/// The same in HTTP/1.1, which ends the connection (RFC 9112 section 9.6).
pub(super) fn unavailable_http1(reason: &str) -> Vec<u8> {
    let reason = percent_encode(reason);
    format!("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\nx-attestry: {reason}\r\n\r\n")
        .into_bytes()
}

const HEX_DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// As gRPC encodes `grpc-message`: bytes outside of printable ASCII, and the percent sign, escaped.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.extend([byte >> 4, byte & 15].map(|digit| char::from(HEX_DIGITS[usize::from(digit)])));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goaway_never_raises_the_last_stream() {
        let mut answers = Answers::of(Dialect::Http2);
        answers.apply(Milestone::Opened { stream: 9, is_grpc: true });
        answers.apply(Milestone::GoAway(5));
        assert_eq!(answers.goaway_gracefully(""), frame::goaway(5, code::NO_ERROR, b""));
        assert_eq!(
            answers.goaway_finally(code::PROTOCOL_ERROR, "x"),
            frame::goaway(5, code::PROTOCOL_ERROR, b"x")
        );
    }

    #[test]
    fn a_call_that_has_its_headers_is_reset_and_the_others_are_answered() {
        let mut answers = Answers::of(Dialect::Http2);
        for stream in [1, 3, 5] {
            answers.apply(Milestone::Opened { stream, is_grpc: true });
        }
        answers.apply(Milestone::Responded(1));
        answers.apply(Milestone::Ended(5));
        let frames = answers.answer_all("100 % full");
        let expected = [
            frame::rst_stream(1, code::INTERNAL_ERROR),
            unavailable(3, true, "100 % full"),
            frame::rst_stream(3, code::NO_ERROR),
        ];
        assert_eq!(frames, expected.concat());
        assert!(String::from_utf8_lossy(&frames).contains("100 %25 full"));
        assert!(answers.is_idle());
    }
}
