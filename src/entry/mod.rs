//! Entries of the ledger: how their bytes are made, how their payload is cut, and the port by which they are committed.
//!
//! Pure. An entry's bytes as stored are the leaf that is hashed (docs/ledger-format.md section 2): they are made once, here,
//! and never re-encoded. What the fields mean is in `proto/attestry/v1/entry.proto`; hashing is `crate::merkle`.

mod call;
mod fields;
mod known;
mod pieces;
mod port;
mod wire;

pub use call::{CallBody, CallHead, Segment};
pub use fields::{FieldRef, decode_fields, encode_fields};
pub use pieces::{Piece, PieceKind, pieces};
pub use port::{CommitError, Receipt, Submission};

use crate::generated::v1;
use crate::merkle::Hash;
use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

pub use crate::generated::v1::entry::Body;

/// The longest entry, in bytes: C2SP tlog-tiles stores an entry's length in 16 bits.
pub const ENTRY_BYTES_MAX: usize = 65_535;

/// Room that a body must leave in an entry for the fields that the committer adds (index, previous, committed time).
pub const SEAL_BYTES_MAX: usize = 64;

/// An entry before it has a place in the log: its encoded body, and the payload that its body names by digest.
#[derive(Clone, Debug, Default)]
pub struct PendingEntry {
    /// The encoded `body` field of `attestry.v1.Entry`, key and length included.
    pub body: Vec<u8>,
    /// The payload's pieces, in order.
    pub payload: Vec<Bytes>,
}

impl PendingEntry {
    /// An entry without payload.
    pub fn new(body: &Body) -> Self {
        Self::with_payload(body, Vec::new())
    }

    /// An entry whose payload is the concatenation of `payload` (docs/ledger-format.md section 6).
    pub fn with_payload(body: &Body, payload: Vec<Bytes>) -> Self {
        let mut encoded = Vec::with_capacity(body.encoded_len());
        body.encode(&mut encoded);
        Self { body: encoded, payload }
    }

    /// Bytes of payload.
    pub fn payload_len(&self) -> usize {
        self.payload.iter().map(Bytes::len).sum()
    }
}

/// Appends the entry's bytes to `out`: the committer's fields, then the body as it was encoded at capture.
pub fn seal(index: u64, previous: &Hash, committed_unix_nanos: u64, body: &[u8], out: &mut Vec<u8>) {
    if index != 0 {
        encode_key(1, WireType::Varint, out);
        encode_varint(index, out);
    }
    encode_key(2, WireType::LengthDelimited, out);
    encode_varint(previous.len() as u64, out);
    out.extend_from_slice(previous);
    encode_key(3, WireType::SixtyFourBit, out);
    out.extend_from_slice(&committed_unix_nanos.to_le_bytes());
    out.extend_from_slice(body);
}

/// Decodes an entry whose body is known, as [`decode_any`] does.
pub fn decode(bytes: Bytes) -> Result<v1::Entry, EntryError> {
    let entry = decode_any(bytes)?;
    if entry.body.is_none() { Err(EntryError::NoBody) } else { Ok(entry) }
}

/// Decodes an entry, perhaps of a body type that this version does not know: then it is `None`. What was stored in short is spelt out (docs/ledger-format.md section 10).
/// The error says what is wrong with its encoding; the caller knows its place.
pub fn decode_any(bytes: Bytes) -> Result<v1::Entry, EntryError> {
    if bytes.is_empty() || bytes.len() > ENTRY_BYTES_MAX {
        return Err(EntryError::Length(bytes.len()));
    }
    let mut entry = v1::Entry::decode(bytes)?;
    if let Some(Body::CallEvents(call)) = &mut entry.body {
        let direction = call.direction();
        call.events.iter_mut().for_each(|event| spell_out(direction, event));
    }
    Ok(entry)
}

fn spell_out(direction: v1::Direction, event: &mut v1::Event) {
    call::spell_out_type(direction, event);
    if let Some(header) = &mut event.header {
        header.fields.iter_mut().for_each(known::spell_out);
    }
    if let Some(segment) = &mut event.message {
        call::spell_out(segment);
    }
}

/// Why bytes are no entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Empty, or longer than [`ENTRY_BYTES_MAX`].
    #[error("an entry of {0} bytes (1 to 65535 are allowed)")]
    Length(usize),
    /// Not protobuf of this schema.
    #[error("not an encoded entry: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Well encoded, but of a body type that this version does not know (or of none).
    #[error("an entry without a body that this version knows")]
    NoBody,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_entry_decodes_to_what_was_sealed() {
        let body = Body::Stopped(v1::Stopped { reason: "SIGTERM".into(), counters: vec![] });
        for index in [0, 1, 300, u64::MAX] {
            let mut bytes = Vec::new();
            seal(index, &[7; 32], 42, &PendingEntry::new(&body).body, &mut bytes);
            let entry = decode(bytes.clone().into()).unwrap();
            assert_eq!((entry.index, entry.committed_unix_nanos), (index, 42));
            assert_eq!(entry.previous.as_ref(), [7; 32]);
            assert_eq!(entry.body.as_ref(), Some(&body));
            assert_eq!(entry.encode_to_vec(), bytes, "the hand-written part is canonical protobuf");
            assert!(bytes.len() - PendingEntry::new(&body).body.len() <= SEAL_BYTES_MAX);
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        assert!(matches!(decode(Bytes::new()), Err(EntryError::Length(0))));
        assert!(matches!(decode(vec![0; 65_536].into()), Err(EntryError::Length(65_536))));
        assert!(matches!(decode(vec![0xff; 8].into()), Err(EntryError::Protobuf(_))));
        assert!(matches!(decode(vec![0x08, 1].into()), Err(EntryError::NoBody)));
    }
}
