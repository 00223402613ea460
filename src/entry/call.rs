//! The body of a call's entry, encoded while the call is observed: each event once, behind the one before it.
//!
//! Invariant: the bytes decode to the `CallEvents` that was meant, and are what is hashed and stored. What is known last stands last: the order of fields means nothing in
//! protobuf.

use super::fields::{self, FieldRef};
use super::wire;
use crate::generated::v1;
use crate::generated::v1::{Direction, EventType, Level, Protocol};
use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

/// An encoded field list above this many bytes stands beside the entry, so that entries stay far below their bound.
const INLINE_FIELDS_BYTES_MAX: usize = 8 * 1024;

/// What a small call needs for one direction, so that most bodies are never moved to make room.
const BODY_BYTES: usize = 384;

/// The field of `attestry.v1.Entry` that holds the body.
const CALL_EVENTS: u32 = 10;

/// What most events take that have no header block.
const EVENT_BYTES: usize = 96;

/// `whole` of a message whose data is in the payload.
const STORED: u32 = 2;

/// The field of `CallEvents` that holds an event.
const EVENTS: u32 = 9;

/// Consecutive bytes of one message, as `MessageSegment` has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    /// The number of the message in its direction.
    pub message: u64,
    /// Octets of gRPC's length prefix, of which the first `prefix_len` count.
    pub prefix: [u8; 5],
    /// How many.
    pub prefix_len: u8,
    /// Where the data begins in the message.
    pub offset: u64,
    /// Bytes of data.
    pub length: u64,
    /// The message's last byte is in it.
    pub end: bool,
    /// The data stands in the entry's payload.
    pub stored: bool,
    /// DATA frames that it was read from.
    pub frames: u32,
}

/// Whose events they are.
#[derive(Clone, Copy, Debug)]
pub struct CallHead<'a> {
    /// The call's id.
    pub call: &'a [u8; 16],
    /// Its connection's.
    pub connection: u64,
    /// Its stream.
    pub stream: u32,
    /// Of these events.
    pub direction: Direction,
    /// How bodies are cut into messages.
    pub protocol: Protocol,
    /// What is kept.
    pub level: Level,
    /// The number of the first event within the call.
    pub sequence: u64,
}

/// The events of one call in one direction, so far.
#[derive(Clone, Debug)]
pub struct CallBody {
    bytes: Vec<u8>,
    direction: Direction,
}

impl CallBody {
    /// A body before its first event.
    pub fn new(head: &CallHead<'_>) -> Self {
        let mut bytes = Vec::with_capacity(BODY_BYTES);
        wire::bytes(1, head.call, &mut bytes);
        wire::fixed(2, head.connection, &mut bytes);
        wire::number(3, head.stream.into(), &mut bytes);
        wire::number(4, head.direction as u64, &mut bytes);
        wire::number(5, head.protocol as u64, &mut bytes);
        wire::number(6, head.level as u64, &mut bytes);
        wire::number(7, head.sequence, &mut bytes);
        Self { bytes, direction: head.direction }
    }

    /// Bytes so far.
    pub fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// Makes room for what most events take. Doubled, the room of long events would be most of what waits for a commit.
    fn make_room(&mut self) {
        if self.bytes.capacity() - self.bytes.len() < EVENT_BYTES {
            self.bytes.reserve_exact(EVENT_BYTES.max(self.bytes.len() / 4));
        }
    }

    /// Appends an event of any type.
    pub fn push(&mut self, event: &v1::Event) {
        self.make_room();
        wire::nested(EVENTS, &mut self.bytes, |out| {
            event.encode(out).expect("a Vec has room for every message");
        });
    }

    /// Appends a header block. A list that is too long for an entry is returned, and belongs into its payload.
    pub fn push_header<'f>(
        &mut self,
        kind: EventType,
        promised_stream: u32,
        fields: impl Iterator<Item = FieldRef<'f>>,
        malformed: &str,
    ) -> Option<Bytes> {
        let mut beside = None;
        let kind = self.kind_in_short(kind);
        wire::nested(EVENTS, &mut self.bytes, |out| {
            wire::number(1, kind, out);
            wire::nested(2, out, |out| {
                beside = put_block(fields, out);
                wire::bytes(4, malformed.as_bytes(), out);
            });
            wire::number(7, promised_stream.into(), out);
        });
        beside
    }

    /// Appends a segment of a message, with the digest of the message up to its end.
    pub fn push_segment(&mut self, kind: EventType, segment: &Segment, sha256: Option<[u8; 32]>) {
        self.make_room();
        let kind = self.kind_in_short(kind);
        wire::nested(EVENTS, &mut self.bytes, |out| {
            wire::number(1, kind, out);
            wire::nested(3, out, |out| put_segment(segment, sha256, out));
        });
    }

    /// What goes without saying is 0.
    fn kind_in_short(&self, kind: EventType) -> u64 {
        if kind == header_of(self.direction) || kind == message_of(self.direction) { 0 } else { kind as u64 }
    }

    /// The encoded `body` field of `attestry.v1.Entry`, key and length included.
    pub fn finish(mut self, captured_unix_nanos: u64, verified_peer: &str) -> Vec<u8> {
        wire::fixed(8, captured_unix_nanos, &mut self.bytes);
        wire::bytes(10, verified_peer.as_bytes(), &mut self.bytes);
        wire::enclose(CALL_EVENTS, &mut self.bytes);
        // What waits for its commit is counted by its length, so the room that long events have left over is given back.
        if self.bytes.capacity() - self.bytes.len() > BODY_BYTES {
            self.bytes.shrink_to_fit();
        }
        self.bytes
    }
}

/// The fields of a block where they fit into an entry, else their length and digest; returns them in that case.
fn put_block<'f>(fields: impl Iterator<Item = FieldRef<'f>>, out: &mut Vec<u8>) -> Option<Bytes> {
    let begin = out.len();
    fields.for_each(|field| fields::put(&field, out));
    if out.len() - begin <= INLINE_FIELDS_BYTES_MAX {
        return None;
    }
    let list = Bytes::from(out.split_off(begin));
    wire::number(2, list.len() as u64, out);
    wire::bytes(3, &Sha256::digest(&list), out);
    Some(list)
}

fn put_segment(segment: &Segment, sha256: Option<[u8; 32]>, out: &mut Vec<u8>) {
    let is_whole = is_whole(segment);
    wire::number(1, segment.message, out);
    if !is_whole {
        wire::bytes(2, &segment.prefix[..segment.prefix_len.into()], out);
    }
    wire::number(3, segment.offset, out);
    wire::number(4, segment.length, out);
    wire::bytes(5, sha256.as_ref().map_or(&[], |digest| &digest[..]), out);
    wire::number(6, (segment.end && !is_whole).into(), out);
    wire::number(7, (segment.stored && !is_whole).into(), out);
    wire::number(8, if is_whole { 0 } else { segment.frames.into() }, out);
    wire::number(9, if is_whole { if segment.stored { STORED.into() } else { 1 } } else { 0 }, out);
}

/// A whole message, not compressed, of one frame: what most messages are.
fn is_whole(segment: &Segment) -> bool {
    let prefix = u32::try_from(segment.length).map(prefix_of);
    segment.end && segment.frames == 1 && segment.prefix_len == 5 && prefix == Ok(segment.prefix)
}

fn prefix_of(length: u32) -> [u8; 5] {
    let [a, b, c, d] = length.to_be_bytes();
    [0, a, b, c, d]
}

fn header_of(direction: Direction) -> EventType {
    if direction == Direction::ServerToClient { EventType::ServerHeader } else { EventType::ClientHeader }
}

fn message_of(direction: Direction) -> EventType {
    if direction == Direction::ServerToClient { EventType::ServerMessage } else { EventType::ClientMessage }
}

/// Spells out the type that an event of a direction has where it names none.
pub(super) fn spell_out_type(direction: Direction, event: &mut v1::Event) {
    if event.r#type == 0 && event.message.is_some() {
        event.set_type(message_of(direction));
    } else if event.r#type == 0 && event.header.is_some() {
        event.set_type(header_of(direction));
    }
}

/// Spells out what `whole` stands for.
pub(super) fn spell_out(segment: &mut v1::MessageSegment) {
    if segment.whole == 0 {
        return;
    }
    // A length that no prefix can say is nothing that a writer makes; the verifier will find the prefix missing.
    if let Ok(length) = u32::try_from(segment.length) {
        segment.prefix = Bytes::copy_from_slice(&prefix_of(length));
    }
    segment.stored |= segment.whole == STORED;
    (segment.end, segment.frames, segment.whole) = (true, 1, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{PendingEntry, decode_any, decode_fields};

    const HEAD: CallHead<'static> = CallHead {
        call: &[9; 16],
        connection: 3,
        stream: 5,
        direction: Direction::ServerToClient,
        protocol: Protocol::Grpc,
        level: Level::RequestResponse,
        sequence: 2,
    };

    fn decoded(body: Vec<u8>) -> v1::CallEvents {
        let entry = decode_any(PendingEntry { body, payload: Vec::new() }.body.into()).unwrap();
        let Some(v1::entry::Body::CallEvents(call)) = entry.body else { panic!("{entry:?}") };
        call
    }

    fn field(name: &'static [u8], value: &'static [u8]) -> FieldRef<'static> {
        FieldRef { name, value, keyed_digest: None, never_indexed: false }
    }

    #[test]
    fn a_body_decodes_to_what_was_put_in() {
        let mut body = CallBody::new(&HEAD);
        let fields = [field(b":status", b"200"), field(b"x-own", b"value")];
        assert_eq!(body.push_header(EventType::ServerHeader, 0, fields.into_iter(), "odd"), None);
        let segment = Segment {
            message: 1,
            prefix: [0, 0, 0, 1, 0],
            prefix_len: 5,
            length: 256,
            end: true,
            stored: true,
            frames: 1,
            offset: 0,
        };
        body.push_segment(EventType::ServerMessage, &segment, Some([4; 32]));
        let half_close = v1::Event {
            r#type: EventType::ServerHalfClose.into(),
            note: "x".repeat(300),
            ..Default::default()
        };
        body.push(&half_close);
        let call = decoded(body.finish(77, "spiffe://a/b"));
        assert_eq!((&call.call[..], call.connection, call.stream, call.sequence), (&[9; 16][..], 3, 5, 2));
        assert_eq!(
            (call.direction(), call.protocol(), call.level()),
            (HEAD.direction, HEAD.protocol, HEAD.level)
        );
        assert_eq!((call.captured_unix_nanos, call.verified_peer.as_str()), (77, "spiffe://a/b"));
        let [header, message, end] = &call.events[..] else { panic!("{call:?}") };
        let block = header.header.as_ref().unwrap();
        let fields: Vec<_> = block.fields.iter().map(|field| (&field.name[..], &field.value[..])).collect();
        assert_eq!((header.r#type(), block.malformed.as_str()), (EventType::ServerHeader, "odd"));
        assert_eq!(fields, [(&b":status"[..], &b"200"[..]), (b"x-own", b"value")]);
        let expected = v1::MessageSegment {
            message: 1,
            prefix: Bytes::from_static(&[0, 0, 0, 1, 0]),
            offset: 0,
            length: 256,
            sha256: Bytes::from_static(&[4; 32]),
            end: true,
            stored: true,
            frames: 1,
            whole: 0,
        };
        assert_eq!(message.message.as_ref(), Some(&expected), "stored in short, and spelt out");
        assert_eq!(end, &half_close);
    }

    /// Each way in which a segment can miss being a whole plain message of one frame.
    #[test]
    fn only_what_is_whole_is_stored_as_whole() {
        let whole = Segment {
            prefix_len: 5,
            prefix: [0, 0, 0, 0, 7],
            length: 7,
            end: true,
            frames: 1,
            stored: true,
            ..Segment::default()
        };
        let others = [
            Segment { prefix: [1, 0, 0, 0, 7], ..whole },
            Segment { prefix: [0, 0, 0, 0, 8], end: false, ..whole },
            Segment { prefix: [0, 0, 0, 0, 8], ..whole },
            Segment { prefix_len: 4, ..whole },
            Segment { prefix_len: 0, offset: 3, ..whole },
            Segment { frames: 2, ..whole },
            Segment { end: false, ..whole },
        ];
        let stored = |segment: &Segment| {
            let mut bytes = Vec::new();
            put_segment(segment, None, &mut bytes);
            v1::MessageSegment::decode(&bytes[..]).unwrap()
        };
        assert_eq!(
            [whole, Segment { stored: false, ..whole }].map(|segment| stored(&segment).whole),
            [STORED, 1]
        );
        for segment in others {
            let before = stored(&segment);
            let mut after = before.clone();
            spell_out(&mut after);
            assert!(before.whole == 0 && before == after, "{segment:?}");
            let prefix = &segment.prefix[..segment.prefix_len.into()];
            assert_eq!((&after.prefix[..], after.end, after.frames), (prefix, segment.end, segment.frames));
        }
    }

    #[test]
    fn a_long_list_stands_beside_the_entry_under_its_digest() {
        let value = vec![b'v'; 60_000];
        let long = FieldRef { name: b"x-big", value: &value, keyed_digest: None, never_indexed: false };
        let mut body = CallBody::new(&HEAD);
        let beside = body.push_header(EventType::ClientHeader, 0, [long].into_iter(), "").unwrap();
        let call = decoded(body.finish(1, ""));
        let block = call.events[0].header.as_ref().unwrap();
        assert_eq!((block.fields.len(), block.beside_length), (0, beside.len() as u64));
        assert_eq!(block.beside_sha256[..], Sha256::digest(&beside)[..]);
        assert_eq!(decode_fields(beside).unwrap()[0].value.len(), 60_000);
    }
}
