//! What is kept of a call: the capture level, and which metadata values are secrets.
//!
//! A secret's value is never stored, at no level; a keyed digest stands in its place, so that equal secrets can be found by whoever has the key, and by nobody else.

use super::{Direction, Level};
use crate::entry::FieldRef;
use crate::http2::Field;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

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

    /// A field for the record.
    pub(super) fn field<'a>(&self, field: &'a Field) -> FieldRef<'a> {
        let Field { name, value, never_indexed } = field;
        let never_indexed = *never_indexed;
        if is_secret(name) {
            let digest = self.mac.clone().chain_update(value).finalize().into_bytes();
            return FieldRef { name, value: &[], keyed_digest: Some(digest.into()), never_indexed };
        }
        FieldRef { name, value, keyed_digest: None, never_indexed }
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
    use bytes::Bytes;

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
        let redactors = [1, 1, 2].map(|key| Redactor::new(&[key; 32]));
        let [one, same, other] = [0, 1, 2].map(|number| redactors[number].field(&field));
        assert_eq!((one.value.len(), one.keyed_digest.is_some(), one.never_indexed), (0, true, true));
        assert_eq!(one.keyed_digest, same.keyed_digest, "equal secrets have equal digests");
        assert_ne!(one.keyed_digest, other.keyed_digest);
    }
}
