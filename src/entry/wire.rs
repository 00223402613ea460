//! Protobuf on the way out, without a message in between: keys, lengths and values straight into the bytes that are stored.
//!
//! As prost does, a value that is its type's default is left out, and a length takes as few bytes as it needs.

use prost::encoding::{WireType, encode_key, encode_varint};

/// A varint; nothing where it is 0.
pub(super) fn number(tag: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value, out);
    }
}

/// A fixed64; nothing where it is 0.
pub(super) fn fixed(tag: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        encode_key(tag, WireType::SixtyFourBit, out);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Bytes or a string; nothing where they are empty.
pub(super) fn bytes(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        encode_key(tag, WireType::LengthDelimited, out);
        encode_varint(value.len() as u64, out);
        out.extend_from_slice(value);
    }
}

/// A message that `write` appends. Its length is known only behind it: there is room for one byte, which most need, and longer ones move what was written.
pub(super) fn nested(tag: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    encode_key(tag, WireType::LengthDelimited, out);
    out.push(0);
    let begin = out.len();
    write(out);
    let length = out.len() - begin;
    out[begin - 1] = low_bits(length);
    if length >= 0x80 {
        let (rest, count) = varint(length >> 7);
        out.splice(begin..begin, rest[..count].iter().copied());
    }
}

/// Makes the message that stands in `out` a field.
pub(super) fn enclose(tag: u32, out: &mut Vec<u8>) {
    let (key, key_len) = varint((tag << 3 | WireType::LengthDelimited as u32) as usize);
    let (length, length_len) = varint(out.len());
    out.splice(..0, key[..key_len].iter().chain(&length[..length_len]).copied());
}

/// The seven lowest bits, and whether there are more.
fn low_bits(value: usize) -> u8 {
    let [low, ..] = value.to_le_bytes();
    if value < 0x80 { low } else { low | 0x80 }
}

/// A varint's bytes, and how many of them count.
fn varint(mut value: usize) -> ([u8; 10], usize) {
    let (mut bytes, mut count) = ([0; 10], 0);
    loop {
        bytes[count] = low_bits(value);
        value >>= 7;
        count += 1;
        if value == 0 {
            return (bytes, count);
        }
    }
}
