//! Header blocks for tests (RFC 7541), written by hand: each function is one representation, so that a script says
//! exactly what the block holds. And a decoder for what a trace shows.
//!
//! It shares nothing with attestry's own decoder, which is among the things under test.
#![allow(dead_code)] // Each test binary that takes this module in uses its own part of it.

use std::collections::VecDeque;

/// The first index of the dynamic table: the entry that was inserted last.
pub(crate) const NEWEST: usize = 62;

/// Indices of the static table that scripts use (RFC 7541 Appendix A).
pub(crate) mod at {
    pub(crate) const AUTHORITY: usize = 1;
    pub(crate) const GET: usize = 2;
    pub(crate) const POST: usize = 3;
    pub(crate) const PATH: usize = 4;
    pub(crate) const HTTP: usize = 6;
    pub(crate) const STATUS: usize = 8;
    pub(crate) const CONTENT_TYPE: usize = 31;
}

/// Indexed field (section 6.1).
pub(crate) fn indexed(index: usize) -> Vec<u8> {
    int(7, 0x80, index)
}

/// Literal without indexing, new name (section 6.2.2).
pub(crate) fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0x00], string(name), string(value)].concat()
}

/// Literal without indexing, name from a table.
pub(crate) fn literal_at(index: usize, value: impl AsRef<[u8]>) -> Vec<u8> {
    [int(4, 0x00, index), string(value)].concat()
}

/// Literal with incremental indexing, new name (section 6.2.1).
pub(crate) fn keep(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0x40], string(name), string(value)].concat()
}

/// Literal with incremental indexing, name from a table.
pub(crate) fn keep_at(index: usize, value: impl AsRef<[u8]>) -> Vec<u8> {
    [int(6, 0x40, index), string(value)].concat()
}

/// Literal never indexed, new name (section 6.2.3).
pub(crate) fn never(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0x10], string(name), string(value)].concat()
}

/// Dynamic table size update (section 6.3).
pub(crate) fn resize(octets: usize) -> Vec<u8> {
    int(5, 0x20, octets)
}

/// String literal without Huffman coding (section 5.2).
pub(crate) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&int(7, 0x00, text.len()), text].concat()
}

/// String literal with Huffman coding (section 5.2, Appendix B).
pub(crate) fn huffman(text: impl AsRef<[u8]>) -> Vec<u8> {
    let codes = huffman_codes();
    let mut bits = Vec::new();
    for byte in text.as_ref() {
        let (code, length) = codes[usize::from(*byte)];
        bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
    }
    bits.resize(bits.len().next_multiple_of(8), true);
    let bytes: Vec<u8> =
        bits.chunks(8).map(|eight| eight.iter().fold(0, |b, bit| b << 1 | u8::from(*bit))).collect();
    [int(7, 0x80, bytes.len()), bytes].concat()
}

/// Integer with an N-bit prefix (section 5.1).
pub(crate) fn int(prefix_bits: u32, first: u8, value: usize) -> Vec<u8> {
    let limit = (1_usize << prefix_bits) - 1;
    if value < limit {
        return vec![first | u8::try_from(value).expect("less than 2^8")];
    }
    let mut bytes = vec![first | u8::try_from(limit).expect("less than 2^8")];
    let mut rest = value - limit;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).expect("less than 2^7") | 0x80);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).expect("less than 2^7"));
    bytes
}

/// A header field: name and value.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// Decodes the blocks of one direction, in their order.
pub(crate) struct Decoder {
    table: VecDeque<Field>,
    octets: usize,
    limit: usize,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { table: VecDeque::new(), octets: 0, limit: 4096 }
    }

    /// The fields of one block; `None` where it cannot be decoded.
    pub(crate) fn decode(&mut self, block: &[u8]) -> Option<Vec<Field>> {
        let mut rest = block;
        let mut fields = Vec::new();
        while let Some(first) = rest.first().copied() {
            if first & 0x80 != 0 {
                fields.push(self.lookup(take_int(&mut rest, 7)?)?);
            } else if first & 0xe0 == 0x20 {
                self.limit = take_int(&mut rest, 5)?;
                self.evict(0);
            } else {
                let kept = first & 0x40 != 0;
                let index = take_int(&mut rest, if kept { 6 } else { 4 })?;
                let name = if index == 0 { take_string(&mut rest)? } else { self.lookup(index)?.0 };
                let field = (name, take_string(&mut rest)?);
                if kept {
                    self.insert(field.clone());
                }
                fields.push(field);
            }
        }
        Some(fields)
    }

    fn lookup(&self, index: usize) -> Option<Field> {
        if let Some(age) = index.checked_sub(NEWEST) {
            return self.table.get(age).cloned();
        }
        let (name, value) = STATIC.get(index.checked_sub(1)?)?;
        Some((name.as_bytes().to_vec(), value.as_bytes().to_vec()))
    }

    fn insert(&mut self, field: Field) {
        let size = field.0.len() + field.1.len() + 32;
        self.evict(size);
        if size <= self.limit {
            self.octets += size;
            self.table.push_front(field);
        }
    }

    fn evict(&mut self, coming: usize) {
        while self.octets + coming > self.limit {
            let Some(old) = self.table.pop_back() else { return };
            self.octets -= old.0.len() + old.1.len() + 32;
        }
    }
}

fn take_int(rest: &mut &[u8], prefix_bits: u32) -> Option<usize> {
    let limit = (1_usize << prefix_bits) - 1;
    let (first, mut bytes) = rest.split_first()?;
    let mut value = usize::from(*first) & limit;
    if value == limit {
        for shift in (0..63).step_by(7) {
            let (byte, after) = bytes.split_first()?;
            bytes = after;
            value = value.checked_add(usize::from(byte & 0x7f) << shift)?;
            if byte & 0x80 == 0 {
                *rest = bytes;
                return Some(value);
            }
        }
        return None;
    }
    *rest = bytes;
    Some(value)
}

fn take_string(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let coded = rest.first()? & 0x80 != 0;
    let length = take_int(rest, 7)?;
    let text = rest.get(..length)?;
    *rest = &rest[length..];
    if coded { unhuffman(text) } else { Some(text.to_vec()) }
}

fn unhuffman(coded: &[u8]) -> Option<Vec<u8>> {
    let table = huffman_codes();
    let mut text = Vec::new();
    let (mut code, mut length) = (0_u32, 0_u32);
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1))) {
        (code, length) = (code << 1 | bit, length + 1);
        if let Some(byte) = table.iter().position(|known| *known == (code, length)) {
            text.push(u8::try_from(byte).ok()?);
            (code, length) = (0, 0);
        }
        if length > 30 {
            return None;
        }
    }
    (length < 8 && code + 1 == 1 << length).then_some(text)
}

/// Code and length in bits for each byte. The code of Appendix B is canonical: codes of one length follow each other in
/// the order of their bytes, so the lengths say all.
fn huffman_codes() -> Vec<(u32, u32)> {
    let mut order: Vec<usize> = (0..256).collect();
    order.sort_by_key(|byte| (LENGTHS[*byte], *byte));
    let mut codes = vec![(0, 0); 256];
    let (mut next, mut before) = (0_u32, 0);
    for byte in order {
        let length = u32::from(LENGTHS[byte]);
        next <<= length - before;
        codes[byte] = (next, length);
        (next, before) = (next + 1, length);
    }
    codes
}

#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"), (":status", "404"),
    (":status", "500"), ("accept-charset", ""), ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""), ("accept-ranges", ""), ("accept", ""), ("access-control-allow-origin", ""),
    ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""),
    ("content-length", ""), ("content-location", ""), ("content-range", ""), ("content-type", ""),
    ("cookie", ""), ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""),
    ("host", ""), ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];
