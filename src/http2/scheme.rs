//! Says another `:scheme` in requests whose bytes are otherwise forwarded as they are (RFC 9113 section 8.3.1).
//!
//! A server behind a sidecar that opens TLS is told "https" on a plaintext connection, and some refuse that. The two values are entries of HPACK's
//! static table (RFC 7541 appendix A), which every encoder in use names by one octet: exchanging it changes neither a length nor the compression state. A scheme that
//! is written in any other way stays as it is, since its change would.

use super::frame::{FrameHeader, HEADER_LEN, flag, kind};
use bytes::{Bytes, BytesMut};

/// A value of `:scheme`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// The indexed representation of an entry of the static table: one bit, and its index in seven.
const INDEXED: u8 = 0x80;
const HTTP: u8 = INDEXED | 6;
const HTTPS: u8 = INDEXED | 7;

impl Scheme {
    fn octet(self) -> u8 {
        if self == Self::Http { HTTP } else { HTTPS }
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        if self == Self::Http { "http" } else { "https" }
    }
}

/// The same frames with this scheme in each request; `chunk` holds whole frames.
pub fn rewrite(chunk: Bytes, scheme: Scheme) -> Bytes {
    let places: Vec<usize> = places(&chunk).filter(|&place| chunk[place] != scheme.octet()).collect();
    if places.is_empty() {
        return chunk;
    }
    let mut changed = BytesMut::from(chunk.as_ref());
    for place in places {
        changed[place] = scheme.octet();
    }
    changed.freeze()
}

/// Where the octets stand that name a scheme.
fn places(chunk: &[u8]) -> impl Iterator<Item = usize> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let header = FrameHeader::parse(chunk.get(at..)?.first_chunk::<HEADER_LEN>()?);
        let begin = at + HEADER_LEN;
        let end = begin.checked_add(usize::try_from(header.length).ok()?)?;
        let payload = chunk.get(begin..end)?;
        at = end;
        let place = (header.kind == kind::HEADERS).then(|| in_headers(header, payload)).flatten();
        Some(place.map(|place| begin + place))
    })
    .flatten()
}

fn in_headers(header: FrameHeader, payload: &[u8]) -> Option<usize> {
    let padding = usize::from(header.has(flag::PADDED));
    let begin = padding + if header.has(flag::PRIORITY) { 5 } else { 0 };
    in_block(payload.get(begin..)?).map(|place| begin + place)
}

/// Walks the representations (RFC 7541 section 6) without decoding them. Pseudo-header fields stand first, so the walk ends soon; a block that it
/// cannot follow has no place.
fn in_block(block: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let first = *block.get(at)?;
        match first {
            HTTP | HTTPS => return Some(at),
            // Indexed; literals, with their name in the table or not; an update of the table's size.
            0x80.. => skip_integer(block, &mut at, 7)?,
            0x40..=0x7f => skip_literal(block, &mut at, 6)?,
            0x20..=0x3f => skip_integer(block, &mut at, 5)?,
            0x00..=0x1f => skip_literal(block, &mut at, 4)?,
        };
    }
}

fn skip_literal(block: &[u8], at: &mut usize, prefix_bits: u8) -> Option<usize> {
    if skip_integer(block, at, prefix_bits)? == 0 {
        skip_string(block, at)?;
    }
    skip_string(block, at)
}

fn skip_string(block: &[u8], at: &mut usize) -> Option<usize> {
    let length = skip_integer(block, at, 7)?;
    *at = at.checked_add(length)?;
    Some(length)
}

/// RFC 7541 section 5.1. An integer of more than five octets is none that a table or a frame has.
fn skip_integer(block: &[u8], at: &mut usize, prefix_bits: u8) -> Option<usize> {
    let most = (1 << prefix_bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let octet = *block.get(*at)?;
        *at += 1;
        value += usize::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::hpack::Decoder;

    fn headers(flags: u8, before: &[u8], block: &[u8]) -> Vec<u8> {
        let length = u32::try_from(before.len() + block.len()).unwrap();
        let header = FrameHeader { length, kind: kind::HEADERS, flags: flags | flag::END_HEADERS, stream: 1 };
        [&header.encode()[..], before, block].concat()
    }

    fn schemes(chunk: &[u8], begin: usize) -> Vec<String> {
        let mut fields = Vec::new();
        Decoder::new().decode(&chunk[HEADER_LEN + begin..], 1 << 16, &mut fields).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().filter(|field| field.name == ":scheme").map(|field| text(&field.value)).collect()
    }

    /// A method and a path before it in every kind of representation, long ones among them.
    #[test]
    fn the_scheme_is_found_behind_fields_of_any_form() {
        let long = [&[0x04, 0x7f, 0x49][..], &[b'/'; 200]].concat();
        let before: [&[u8]; 6] = [
            b"",
            b"\x83\x84",
            b"\x3f\xe1\x1f\x83",
            b"\x44\x86\x62\x72\x8e\x84\xcf\xef",
            b"\x10\x07:method\x04POST\x40\x05:path\x02/\x87",
            &long,
        ];
        for before in before {
            for (from, to, octet) in [("http", Scheme::Https, HTTP), ("https", Scheme::Http, HTTPS)] {
                let block = [before, &[octet], b"\x40\x01\x87\x01\x86"].concat();
                let chunk = headers(0, b"", &block);
                assert_eq!(schemes(&chunk, 0), [from]);
                let changed = rewrite(chunk.clone().into(), to);
                assert_eq!(schemes(&changed, 0), [to.as_str()], "{before:?}");
                let different = chunk.iter().zip(&changed).filter(|(a, b)| a != b).count();
                assert_eq!((changed.len(), different), (chunk.len(), 1), "nothing else has changed");
                assert_eq!(rewrite(changed.clone(), to), changed);
            }
        }
    }

    #[test]
    fn padding_and_priority_stand_before_the_block_and_other_frames_have_none() {
        let padded = headers(flag::PADDED | flag::PRIORITY, &[0, 0x87, 0, 0, 0, 0x87], &[0x83, HTTPS]);
        let data =
            [&FrameHeader { length: 2, kind: kind::DATA, flags: 0, stream: 1 }.encode()[..], &[HTTPS; 2]];
        let chunk = [padded.clone(), data.concat(), headers(0, b"", &[HTTPS])].concat();
        let changed = rewrite(chunk.clone().into(), Scheme::Http);
        let places: Vec<_> = (0..chunk.len()).filter(|&place| chunk[place] != changed[place]).collect();
        assert_eq!(places, [padded.len() - 1, chunk.len() - 1]);
    }

    #[test]
    fn what_cannot_be_followed_stays() {
        // A literal scheme; an integer without an end; a string longer than its block; nothing at all.
        for block in [&b"\x07\x05https"[..], b"\xff\xff\xff\xff\xff\xff", b"\x40\x7f\x00", b""] {
            let chunk = Bytes::from(headers(0, b"", block));
            assert_eq!(rewrite(chunk.clone(), Scheme::Http), chunk);
        }
    }
}
