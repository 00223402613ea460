//! Huffman decoding of string literals (RFC 7541 section 5.2 and Appendix B).
//!
//! The code is canonical: within one length, codes ascend with their symbols, and a longer code continues where the
//! shorter ones ended. So the lengths alone give all tables, which are built at compile time: codes of up to ten bits
//! (all usual text) take one lookup, longer ones a walk over the lengths. Strict: EOS, and padding that is longer than
//! seven bits or not all ones, are errors.

use bytes::BytesMut;

use super::HpackError;

/// Codes up to this many bits are found with one lookup.
const FAST_BITS: usize = 10;
const SYMBOLS: usize = 257;
const EOS: u16 = 256;
const LENGTH_MAX: usize = 30;

/// Appends the decoded octets of `src` to `out`; on an error `out` holds some of them.
pub(super) fn decode(src: &[u8], out: &mut BytesMut) -> Result<(), HpackError> {
    let begin = out.len();
    // The shortest code has five bits, so this is the most that can come out.
    out.resize(begin + src.len() * 8 / 5, 0);
    let room = out.get_mut(begin..).unwrap_or_default();
    let mut written = 0;

    // `window` holds the next `bits` bits of the input at its top, and zeros below them.
    let (mut window, mut bits, mut rest) = (0_u64, 0_usize, src);
    loop {
        if bits < LENGTH_MAX {
            (window, bits, rest) = refill(window, bits, rest);
        }
        let (symbol, length) = lookup(window);
        if length > bits {
            break;
        }
        // A symbol that is no octet is EOS, which must not be in a string.
        let octet = u8::try_from(symbol).map_err(|_| HpackError::Huffman)?;
        let Some(slot) = room.get_mut(written) else { return Err(HpackError::Huffman) };
        *slot = octet;
        written += 1;
        window <<= length;
        bits -= length;
    }
    // What is left is too short for its code: it has to be padding, the first bits of EOS, less than an octet of them.
    let padding = if bits == 0 { 0 } else { !0_u64 << (64 - bits) };
    if bits >= 8 || window != padding {
        return Err(HpackError::Huffman);
    }
    out.truncate(begin + written);
    Ok(())
}

/// Fills the window with as many whole octets as fit.
fn refill(mut window: u64, mut bits: usize, mut rest: &[u8]) -> (u64, usize, &[u8]) {
    while bits <= 56
        && let Some((&octet, after)) = rest.split_first()
    {
        window |= u64::from(octet) << (56 - bits);
        bits += 8;
        rest = after;
    }
    (window, bits, rest)
}

/// The symbol whose code begins the window, and the code's length in bits. Some code always does: the code is complete.
fn lookup(window: u64) -> (u16, usize) {
    let fast = FAST[(window >> (64 - FAST_BITS)) as usize];
    if fast != 0 {
        return (fast & 0x1ff, (fast >> 9) as usize);
    }
    let top = window >> 32;
    let mut length = FAST_BITS + 1;
    while length < LENGTH_MAX && top >= ROWS[length].end {
        length += 1;
    }
    let row = ROWS[length];
    let nth = (top.saturating_sub(row.begin) >> (32 - length)) as usize;
    (SORTED.get(row.first + nth).copied().unwrap_or(EOS), length)
}

/// The codes of one length: the range of 32-bit windows that begin with one of them, and where their symbols stand.
#[derive(Clone, Copy)]
struct Row {
    begin: u64,
    end: u64,
    first: usize,
}

static SORTED: [u16; SYMBOLS] = sorted();
static ROWS: [Row; LENGTH_MAX + 1] = rows();
/// For each beginning of ten bits: length << 9 | symbol, or 0 where the code is longer.
static FAST: [u16; 1 << FAST_BITS] = fast();

/// All symbols by length, then by value: the order of their codes.
const fn sorted() -> [u16; SYMBOLS] {
    let mut sorted = [0; SYMBOLS];
    let (mut next, mut length) = (0, 0);
    while length <= LENGTH_MAX {
        let mut symbol = 0_u16;
        while symbol <= EOS {
            if LENGTHS[symbol as usize] as usize == length {
                sorted[next] = symbol;
                next += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    sorted
}

const fn rows() -> [Row; LENGTH_MAX + 1] {
    let mut rows = [Row { begin: 0, end: 0, first: 0 }; LENGTH_MAX + 1];
    let (mut begin, mut first, mut length) = (0_u64, 0, 1);
    while length <= LENGTH_MAX {
        let (mut count, mut symbol) = (0, 0);
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                count += 1;
            }
            symbol += 1;
        }
        let end = begin + ((count as u64) << (32 - length));
        rows[length] = Row { begin, end, first };
        begin = end;
        first += count;
        length += 1;
    }
    assert!(begin == 1 << 32, "the code is complete, so that every window begins with a code");
    rows
}

const fn fast() -> [u16; 1 << FAST_BITS] {
    let mut fast = [0; 1 << FAST_BITS];
    let mut length = 1_u16;
    while length as usize <= FAST_BITS {
        let row = ROWS[length as usize];
        let begin = (row.begin >> (32 - FAST_BITS)) as usize;
        let end = (row.end >> (32 - FAST_BITS)) as usize;
        let mut slot = begin;
        while slot < end {
            let nth = (slot - begin) >> (FAST_BITS - length as usize);
            fast[slot] = length << 9 | SORTED[row.first + nth];
            slot += 1;
        }
        length += 1;
    }
    fast
}

/// Code lengths in bits of the symbols 0 to 255 and EOS (RFC 7541 Appendix B).
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

/// The code of `symbol` and its length in bits, for encoders in tests.
#[cfg(test)]
pub(super) fn code(symbol: u8) -> (u64, usize) {
    let length = LENGTHS[symbol as usize] as usize;
    let row = ROWS[length];
    let nth =
        SORTED[row.first..].iter().position(|&s| s == u16::from(symbol)).expect("each symbol is sorted in");
    ((row.begin >> (32 - length)) + nth as u64, length)
}

/// The Huffman form of `text`, padded with ones.
#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let (mut out, mut window, mut bits) = (Vec::new(), 0_u64, 0);
    for &octet in text {
        let (code, length) = code(octet);
        window = window << length | code;
        bits += length;
        while bits >= 8 {
            bits -= 8;
            out.push((window >> bits & 0xff) as u8);
        }
    }
    if bits > 0 {
        out.push((window << (8 - bits) & 0xff) as u8 | 0xff >> bits);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(src: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = BytesMut::new();
        decode(src, &mut out).map(|()| out.to_vec())
    }

    #[test]
    fn codes_are_those_of_appendix_b() {
        for (symbol, code_and_length) in [
            (b'0', (0x0, 5)),
            (b't', (0x9, 5)),
            (b' ', (0x14, 6)),
            (b':', (0x5c, 7)),
            (b'&', (0xf8, 8)),
            (b'!', (0x3f8, 10)),
            (b'|', (0x7fc, 11)),
            (b'\\', (0x7fff0, 19)),
            (0, (0x1ff8, 13)),
            (1, (0x007f_ffd8, 23)),
            (10, (0x3fff_fffc, 30)),
            (22, (0x3fff_fffe, 30)),
            (249, (0x0fff_fffe, 28)),
            (255, (0x03ff_ffee, 26)),
        ] {
            assert_eq!(code(symbol), code_and_length, "symbol {symbol}");
        }
    }

    #[test]
    fn each_octet_decodes_alone_and_between_others() {
        for octet in 0..=u8::MAX {
            assert_eq!(decoded(&encode(&[octet])).unwrap(), [octet]);
            assert_eq!(decoded(&encode(&[b'a', octet, octet, 0xff])).unwrap(), [b'a', octet, octet, 0xff]);
        }
    }

    #[test]
    fn padding_is_at_most_seven_ones() {
        assert_eq!(decoded(&[]).unwrap(), b"");
        assert_eq!(decoded(&[0b0001_1111]).unwrap(), b"a");
        for bad in [
            &[0b0001_1110][..],        // a zero in the padding
            &[0b0001_1000],            // zeros as padding
            &[0b0001_1111, 0xff],      // eleven bits
            &[0xff],                   // eight bits
            &[0xff, 0xff, 0xff],       // more of it
            &[0xff, 0xff, 0xff, 0xff], // EOS
            &[0xff, 0xff, 0xff, 0xfc], // EOS and two zeros
            &[0xff, 0xff, 0xff, 0xff, 0b0001_1111],
            &[0b1111_1110], // the first bits of a code of ten
        ] {
            assert_eq!(decoded(bad), Err(HpackError::Huffman), "{bad:x?}");
        }
    }

    proptest! {
        #[test]
        fn text_survives_the_round_trip(text: Vec<u8>) {
            prop_assert_eq!(decoded(&encode(&text)).unwrap(), text);
        }

        /// The code has one form for each text, so whatever is accepted has to encode to itself again.
        #[test]
        fn what_is_accepted_is_the_one_encoding(src in proptest::collection::vec(prop_oneof![any::<u8>(), 0xf0_u8..], 0..24)) {
            if let Ok(text) = decoded(&src) {
                prop_assert_eq!(encode(&text), src);
            }
        }
    }
}
