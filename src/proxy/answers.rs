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

/// The client's view of its open calls.
#[derive(Debug, Default)]
pub(super) struct Answers {
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
            Milestone::Settings | Milestone::Ping(_) => {}
        }
    }

    /// No call waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
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
        self.apply(Milestone::GoAway(last));
        frame::goaway(self.goaway.unwrap_or(last), code, reason.as_bytes())
    }

    /// Answers every open call: UNAVAILABLE where the client has nothing of the response yet, a reset where it has.
    pub(super) fn answer_all(&mut self, reason: &str) -> Vec<u8> {
        let mut frames = Vec::new();
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
        let mut answers = Answers::default();
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
        let mut answers = Answers::default();
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
        assert!(answers.is_empty());
    }
}
