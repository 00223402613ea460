//! The lines between the chunks of a chunked body (RFC 9112 section 7.1).
//!
//! Strict where servers are liberal: a line ends in CRLF, its size has at most 15 digits, and no extension holds a CR or LF of its own. Readers that differ in this see different
//! bodies. Extensions are passed over; they have no meaning end to end.

use super::Fault;

/// Bytes of a line, its end included: a size and extensions, which hardly anybody sends.
const LINE_BYTES_MAX: usize = 4_096;

/// Digits of a size: what is below 2^60 has room in all readers' numbers.
const DIGITS_MAX: usize = 15;

/// The size that the line at the beginning of `rest` says, and the line's length; `None` where more must be read first.
pub(super) fn size(rest: &[u8]) -> Result<Option<(usize, u64)>, Fault> {
    let digits = rest.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits > DIGITS_MAX || (digits == 0 && !rest.is_empty()) {
        return Err(Fault::Chunk);
    }
    let behind = &rest[digits..rest.len().min(LINE_BYTES_MAX)];
    let blanks = behind.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let extension = match behind.get(blanks) {
        Some(b';') => behind[blanks..].iter().take_while(|&&byte| byte != b'\r' && byte != b'\n').count(),
        _ => 0,
    };
    match behind[blanks + extension..] {
        [b'\r', b'\n', ..] => Ok(Some((digits + blanks + extension + 2, number(&rest[..digits])))),
        [b'\r'] | [] if rest.len() < LINE_BYTES_MAX => Ok(None),
        _ => Err(Fault::Chunk),
    }
}

/// The line end behind a chunk's data: its length; `None` where more must be read first.
pub(super) fn line_end(rest: &[u8]) -> Result<Option<usize>, Fault> {
    match rest {
        [b'\r', b'\n', ..] => Ok(Some(2)),
        [b'\r'] | [] => Ok(None),
        _ => Err(Fault::Chunk),
    }
}

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |number, &digit| {
        let value = char::from(digit).to_digit(16).map_or(0, u64::from);
        number << 4 | value
    })
}
