//! Header fields as entries hold them, encoded straight from what was decoded on the wire.
//!
//! The bytes are those of `repeated Field fields = 1`, which a `HeaderBlock` and a `FieldList` begin with alike, so a list that is too long for an entry stands beside it
//! as it is. Which values are secrets is not here: `crate::capture` says.

use super::known;
use super::wire;
use crate::generated::v1;
use bytes::Bytes;
use prost::Message as _;

/// One field on its way into an entry.
#[derive(Clone, Copy, Debug)]
pub struct FieldRef<'a> {
    /// As on the wire.
    pub name: &'a [u8],
    /// As on the wire; empty where it is a secret.
    pub value: &'a [u8],
    /// Stands instead of the value of a secret.
    pub keyed_digest: Option<[u8; 32]>,
    /// RFC 7541 section 6.2.3.
    pub never_indexed: bool,
}

/// Appends one field.
pub(super) fn put(field: &FieldRef<'_>, out: &mut Vec<u8>) {
    wire::nested(1, out, |out| {
        let (known, has_value) = known::number(field.name, field.value);
        if known == 0 {
            wire::bytes(1, field.name, out);
        }
        if !has_value {
            wire::bytes(2, field.value, out);
        }
        wire::bytes(3, field.keyed_digest.as_ref().map_or(&[], |digest| &digest[..]), out);
        wire::number(4, field.never_indexed.into(), out);
        wire::number(5, known.into(), out);
    });
}

/// An encoded `FieldList`.
pub fn encode_fields<'a>(fields: impl Iterator<Item = FieldRef<'a>>) -> Vec<u8> {
    let mut out = Vec::new();
    fields.for_each(|field| put(&field, &mut out));
    out
}

/// The fields of an encoded `FieldList`, all spelt out.
pub fn decode_fields(bytes: Bytes) -> Result<Vec<v1::Field>, prost::DecodeError> {
    let mut fields = v1::FieldList::decode(bytes)?.fields;
    fields.iter_mut().for_each(known::spell_out);
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list() -> impl Strategy<Value = Vec<(&'static [u8], &'static [u8], bool, bool)>> {
        let names: [&[u8]; 5] = [b":method", b"te", b"grpc-status", b"x-own", b""];
        let values: [&[u8]; 5] = [b"POST", b"trailers", b"0", b"", b"other"];
        let one_of = proptest::sample::select::<&'static [u8]>;
        let field = (one_of(names.to_vec()), one_of(values.to_vec()), any::<bool>(), any::<bool>());
        proptest::collection::vec(field, 0..20)
    }

    proptest! {
        /// Whatever a number stands for is what was put in; and no value of a secret gets through by way of a number.
        #[test]
        fn fields_come_back_as_they_were(list in list()) {
            let digest = |secret: bool| secret.then_some([7; 32]);
            let fields = list.iter().map(|(name, value, secret, never_indexed)| FieldRef {
                name, value: if *secret { &[] } else { value }, keyed_digest: digest(*secret), never_indexed: *never_indexed,
            });
            let expected: Vec<v1::Field> = list.iter().map(|(name, value, secret, never_indexed)| v1::Field {
                name: Bytes::from_static(name),
                value: if *secret { Bytes::new() } else { Bytes::from_static(value) },
                keyed_digest: digest(*secret).map_or(Bytes::new(), |digest| Bytes::copy_from_slice(&digest)),
                never_indexed: *never_indexed,
                known: 0,
            }).collect();
            let encoded = Bytes::from(encode_fields(fields));
            prop_assert_eq!(decode_fields(encoded.clone()).unwrap(), expected);
            prop_assert_eq!(v1::FieldList::decode(encoded.clone()).unwrap().encode_to_vec(), encoded, "canonical protobuf");
        }
    }

    #[test]
    fn what_most_calls_have_takes_four_bytes() {
        let field = FieldRef { name: b":method", value: b"POST", keyed_digest: None, never_indexed: false };
        assert_eq!(encode_fields([field].into_iter()).len(), 4);
    }
}
