//! What is kept of a call: the capture level, and which metadata values are secrets.
//!
//! A secret's value is never stored, at no level; a keyed digest stands in its place, so that equal secrets can be found by whoever has the key, and by nobody else.

use super::{Direction, Level};
use crate::generated::v1;
use crate::http2::Field;
use hmac::{Hmac, KeyInit as _, Mac as _};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use bytes::Bytes;

/// An encoded field list above this many bytes stands beside the entry, so that entries stay far below their bound.
const INLINE_FIELDS_BYTES_MAX: usize = 8 * 1024;

/// What is kept.
#[derive(Clone)]
pub struct Policy {
    /// For all calls.
    pub level: Level,
    /// For secrets.
    pub redactor: Redactor,
}

impl Policy {
    /// Whether a call's entries go beyond its first.
    pub fn keeps_events(&self) -> bool {
        self.level != Level::None
    }

    /// Whether the bytes of messages in `direction` are stored.
    pub fn keeps_bytes(&self, direction: Direction) -> bool {
        match self.level {
            Level::RequestResponse => true,
            Level::Request => direction == Direction::ClientToServer,
            _ => false,
        }
    }
}

/// Takes secrets out of metadata.
#[derive(Clone)]
pub struct Redactor {
    mac: Hmac<Sha256>,
}

impl Redactor {
    /// With the ledger's redaction key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { mac: Hmac::new_from_slice(key).expect("HMAC takes keys of any length") }
    }

    fn field(&self, field: Field) -> v1::Field {
        let Field { name, value, never_indexed } = field;
        if is_secret(&name) {
            let digest = self.mac.clone().chain_update(&value).finalize().into_bytes();
            return v1::Field {
                name,
                value: Bytes::new(),
                keyed_digest: Bytes::copy_from_slice(&digest),
                never_indexed,
            };
        }
        v1::Field { name, value, keyed_digest: Bytes::new(), never_indexed }
    }

    /// A header block for the record, and its payload where the list is too long for an entry.
    pub(super) fn block(&self, fields: Vec<Field>, malformed: &str) -> (v1::HeaderBlock, Option<Bytes>) {
        let fields = fields.into_iter().map(|field| self.field(field)).collect();
        let list = v1::FieldList { fields };
        let malformed = malformed.to_owned();
        let length = list.encoded_len();
        if length <= INLINE_FIELDS_BYTES_MAX {
            return (v1::HeaderBlock { fields: list.fields, malformed, ..Default::default() }, None);
        }
        let encoded = Bytes::from(list.encode_to_vec());
        let beside_sha256 = Bytes::copy_from_slice(&Sha256::digest(&encoded));
        let beside_length = length as u64;
        (v1::HeaderBlock { fields: Vec::new(), beside_length, beside_sha256, malformed }, Some(encoded))
    }
}

/// Names whose values are credentials by their definition or by custom. Names that break HTTP/2's rule of lower case are meant too.
fn is_secret(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 4] = [b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"];
    const SUFFIXES: [&[u8]; 2] = [b"-token", b"-token-bin"];
    let ends_with = |suffix: &&[u8]| {
        name.len() >= suffix.len() && name[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
    };
    NAMES.iter().any(|secret| name.eq_ignore_ascii_case(secret)) || SUFFIXES.iter().any(ends_with)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_known_by_name_in_any_case() {
        for name in [
            "authorization",
            "Cookie",
            "x-api-token",
            "X-AMZ-SECURITY-TOKEN",
            "session-token-bin",
            "set-cookie",
        ] {
            assert!(is_secret(name.as_bytes()), "{name}");
        }
        for name in ["token-count", "authorization-mode", ":path", "x-trace", ""] {
            assert!(!is_secret(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_secret_is_replaced_by_a_digest_that_depends_on_the_key() {
        let field = Field {
            name: Bytes::from_static(b"authorization"),
            value: Bytes::from_static(b"Bearer s3cret"),
            never_indexed: true,
        };
        let one = Redactor::new(&[1; 32]).field(field.clone());
        assert_eq!((one.value.len(), one.keyed_digest.len(), one.never_indexed), (0, 32, true));
        assert_eq!(one, Redactor::new(&[1; 32]).field(field.clone()), "equal secrets have equal digests");
        assert_ne!(one, Redactor::new(&[2; 32]).field(field));
    }

    #[test]
    fn a_long_list_stands_beside_the_entry_under_its_digest() {
        let field = Field {
            name: Bytes::from_static(b"x-big"),
            value: Bytes::from(vec![b'v'; 60_000]),
            never_indexed: false,
        };
        let (block, beside) = Redactor::new(&[0; 32]).block(vec![field], "");
        let beside = beside.unwrap();
        assert_eq!(block.beside_length, beside.len() as u64);
        assert_eq!(block.beside_sha256[..], Sha256::digest(&beside)[..]);
        assert_eq!(v1::FieldList::decode(beside).unwrap().fields[0].value.len(), 60_000);
    }
}
