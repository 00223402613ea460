//! Splits the DATA of one direction of one call into length-prefixed messages, as it passes.
//!
//! A message is one flag octet, four of length (big endian), and the body (gRPC PROTOCOL-HTTP2.md,
//! `Length-Prefixed-Message`); it may begin and end anywhere in any DATA frame. Invariant: the prefixes and data of all
//! pieces, one after the other, are exactly the bytes that were fed. Not here: what the flag says and what the body
//! holds; every flag octet is taken as it comes.

use std::ops::Range;

/// Octets before each message: flag and length.
pub const PREFIX_LEN: usize = 5;

/// The part of one message that one `feed` brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Index of the message within its direction, from 0.
    pub message: u64,
    /// Octets of the prefix that are in this piece, 0 to 5 of them: where they stand in what was fed.
    pub prefix: Range<usize>,
    /// Where the data stands within the message's body.
    pub offset: u64,
    /// Octets of the body, behind the prefix in what was fed; empty when only prefix octets came.
    pub data: Range<usize>,
    /// The last octet of the message is in this piece.
    pub end: bool,
}

/// The state of one direction of one call.
#[derive(Clone, Debug, Default)]
pub struct MessageParser {
    begun: u64,
    state: State,
}

/// What the next octet is.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Octet number `seen` of a prefix. With `seen` 0 it begins a message.
    Prefix { octets: [u8; PREFIX_LEN], seen: usize },
    /// Octet number `offset` of a body of `length`, which is larger.
    Body { offset: u32, length: u32 },
}

impl Default for State {
    fn default() -> Self {
        Self::Prefix { octets: [0; PREFIX_LEN], seen: 0 }
    }
}

impl MessageParser {
    /// A parser before the first message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Feeds the next bytes; calls `sink` once for each message that they touch, in order.
    pub fn feed(&mut self, data: &[u8], sink: &mut impl FnMut(Piece)) {
        let mut at = 0;
        while at < data.len() {
            let begin = at;
            let body = self.prefix(data, begin);
            let (offset, taken) = self.body(data.len() - body);
            at = body + taken;
            sink(Piece {
                message: self.begun - 1,
                prefix: begin..body,
                offset: u64::from(offset),
                data: body..at,
                end: self.at_boundary(),
            });
        }
    }

    /// Messages begun so far: at least one octet of their prefix has come.
    pub fn message_count(&self) -> u64 {
        self.begun
    }

    /// Whether no message is open: the stream may end here without cutting one off.
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Prefix { seen: 0, .. })
    }

    /// Takes the prefix octets that stand at `at`, if a prefix is due, and gives the place behind them.
    fn prefix(&mut self, data: &[u8], mut at: usize) -> usize {
        let State::Prefix { mut octets, mut seen } = self.state else { return at };
        if seen == 0 {
            self.begun += 1;
        }
        for (slot, octet) in octets.iter_mut().skip(seen).zip(&data[at..]) {
            *slot = *octet;
            seen += 1;
            at += 1;
        }
        let [_, l0, l1, l2, l3] = octets;
        self.state = if seen < PREFIX_LEN {
            State::Prefix { octets, seen }
        } else {
            State::Body { offset: 0, length: u32::from_be_bytes([l0, l1, l2, l3]) }
        };
        at
    }

    /// Takes the body octets among the next `there`, if a body is open, and gives their offset in it and their number. A body that is then whole, an empty one at
    /// once, makes way for the next prefix.
    fn body(&mut self, there: usize) -> (u32, usize) {
        let State::Body { offset, length } = self.state else { return (0, 0) };
        let taken = u32::try_from(there).unwrap_or(u32::MAX).min(length - offset);
        self.state = if offset + taken == length {
            State::default()
        } else {
            State::Body { offset: offset + taken, length }
        };
        (offset, taken as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(flag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![flag];
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    /// A piece with its bytes.
    #[derive(Debug, PartialEq)]
    struct Fed {
        message: u64,
        prefix: Vec<u8>,
        offset: u64,
        data: Vec<u8>,
        end: bool,
    }

    fn feed(parser: &mut MessageParser, bytes: &[u8]) -> Vec<Fed> {
        let mut pieces = Vec::new();
        parser.feed(bytes, &mut |Piece { message, prefix, offset, data, end }| {
            let (prefix, data) = (bytes[prefix].to_vec(), bytes[data].to_vec());
            pieces.push(Fed { message, prefix, offset, data, end });
        });
        pieces
    }

    fn piece(message: u64, prefix: &[u8], offset: u64, data: &[u8], end: bool) -> Fed {
        Fed { message, prefix: prefix.to_vec(), offset, data: data.to_vec(), end }
    }

    #[test]
    fn several_messages_in_one_frame() {
        let mut parser = MessageParser::new();
        assert!(parser.at_boundary());
        let bytes = [message(0, b"abc"), message(1, b""), message(0x80, b"d")].concat();
        let expected = [
            piece(0, b"\0\0\0\0\x03", 0, b"abc", true),
            piece(1, b"\x01\0\0\0\0", 0, b"", true),
            piece(2, b"\x80\0\0\0\x01", 0, b"d", true),
        ];
        assert_eq!(feed(&mut parser, &bytes), expected);
        assert_eq!((parser.message_count(), parser.at_boundary()), (3, true));
        assert_eq!(feed(&mut parser, b""), []);
    }

    #[test]
    fn one_message_over_several_frames() {
        let mut parser = MessageParser::new();
        assert_eq!(feed(&mut parser, b"\0\0"), [piece(0, b"\0\0", 0, b"", false)]);
        assert_eq!((parser.message_count(), parser.at_boundary()), (1, false));
        assert_eq!(feed(&mut parser, b"\0\0\x04"), [piece(0, b"\0\0\x04", 0, b"", false)]);
        assert!(!parser.at_boundary());
        assert_eq!(feed(&mut parser, b"abc"), [piece(0, b"", 0, b"abc", false)]);
        assert_eq!(feed(&mut parser, b"d\0"), [piece(0, b"", 3, b"d", true), piece(1, b"\0", 0, b"", false)]);
        assert_eq!((parser.message_count(), parser.at_boundary()), (2, false));
        assert_eq!(feed(&mut parser, b"\0\0\0\0"), [piece(1, b"\0\0\0\0", 0, b"", true)]);
        assert!(parser.at_boundary());
    }

    #[test]
    fn the_largest_length_is_followed() {
        let mut parser = MessageParser::new();
        assert_eq!(
            feed(&mut parser, b"\0\xff\xff\xff\xffx"),
            [piece(0, b"\0\xff\xff\xff\xff", 0, b"x", false)]
        );
        assert_eq!(feed(&mut parser, b"yz"), [piece(0, b"", 1, b"yz", false)]);
    }

    proptest! {
        /// Whatever the bytes and however they are cut: nothing is lost, added or moved.
        #[test]
        fn pieces_give_the_input_for_every_split(bytes: Vec<u8>, cuts in proptest::collection::vec(0_usize..12, 0..40)) {
            let mut parser = MessageParser::new();
            let (mut left, mut joined) = (&bytes[..], Vec::new());
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (now, later) = left.split_at(cut.min(left.len()));
                for piece in feed(&mut parser, now) {
                    joined.extend_from_slice(&piece.prefix);
                    joined.extend_from_slice(&piece.data);
                }
                left = later;
            }
            prop_assert_eq!(joined, bytes);
        }

        /// Messages come out whole and in order, with prefix, offsets and ends in place, for every split.
        #[test]
        fn messages_are_found_again(
            sent in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..30)), 0..8),
            cuts in proptest::collection::vec(0_usize..20, 0..40),
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(|(flag, body)| message(*flag, body)).collect();
            let mut parser = MessageParser::new();
            let (mut left, mut found) = (&bytes[..], Vec::<(Vec<u8>, Vec<u8>, bool)>::new());
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (now, later) = left.split_at(cut.min(left.len()));
                for piece in feed(&mut parser, now) {
                    let index = usize::try_from(piece.message).unwrap();
                    if found.len() == index {
                        found.push(Default::default());
                    }
                    prop_assert_eq!(found.len(), index + 1);
                    let (prefix, body, ended) = &mut found[index];
                    prop_assert!(!*ended);
                    prop_assert!(piece.prefix.is_empty() || body.is_empty());
                    prefix.extend_from_slice(&piece.prefix);
                    prop_assert_eq!(usize::try_from(piece.offset).unwrap(), body.len());
                    body.extend_from_slice(&piece.data);
                    *ended = piece.end;
                }
                left = later;
            }
            let found: Vec<_> = found.into_iter().map(|(prefix, body, ended)| (prefix[0], body, ended)).collect();
            let expected: Vec<_> = sent.into_iter().map(|(flag, body)| (flag, body, true)).collect();
            prop_assert_eq!(parser.message_count(), expected.len() as u64);
            prop_assert!(parser.at_boundary());
            prop_assert_eq!(found, expected);
        }
    }
}
