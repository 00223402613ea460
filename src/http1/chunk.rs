//! The lines between the chunks of a chunked body (RFC 9112 section 7.1).
//!
//! Strict where servers are liberal: a line ends in CRLF, its size has at most 15 digits, and no extension holds a CR or LF of its own. Readers that differ in this see different
//! bodies.

use super::Fault;
use std::ops::Range;

/// Bytes of a line, its end included: a size and extensions, which hardly anybody sends.
const LINE_BYTES_MAX: usize = 4_096;

/// Digits of a size: what is below 2^60 has room in all readers' numbers.
const DIGITS_MAX: usize = 15;

/// A line before a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Bytes of the line, its end included.
    pub(super) length: usize,
    /// Bytes of the chunk.
    pub(super) size: u64,
    /// Where in the line extensions stand, the first semicolon included.
    pub(super) extension: Range<usize>,
}

/// The line at the beginning of `rest`; `None` where more must be read first.
pub(super) fn line(rest: &[u8]) -> Result<Option<Line>, Fault> {
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
    let begin = digits + blanks;
    let end = begin + extension;
    match behind[end - digits..] {
        [b'\r', b'\n', ..] => {
            Ok(Some(Line { length: end + 2, size: number(&rest[..digits]), extension: begin..end }))
        }
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
