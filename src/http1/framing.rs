//! Where a message ends, as its head says (RFC 9112 section 6).
//!
//! Invariant: of a request that two readers may find to end in different places, no end is told at all.

use super::Fault;
use super::head::{RequestHead, ResponseHead, Version};
use crate::http2::Field;

/// The body behind a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// None; also one of no bytes.
    Empty,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunks.
    Chunked,
    /// All that comes until the sender ends.
    UntilEnd,
}

/// What of a request decides how its response is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// HEAD: the response has no body, whatever its fields say.
    Head,
    /// CONNECT: a response of success begins a tunnel.
    Connect,
    /// Any other method.
    Other,
}

/// What `head` asks for.
pub(super) fn asked(head: &RequestHead) -> Asked {
    match head.method.as_ref() {
        b"HEAD" => Asked::Head,
        b"CONNECT" => Asked::Connect,
        _ => Asked::Other,
    }
}

/// The body of a request (RFC 9112 section 6.3).
pub(super) fn request(head: &RequestHead) -> Result<Framing, Fault> {
    let (codings, length) = (codings(&head.fields, head.version)?, content_length(&head.fields)?);
    let framing = match (codings, length) {
        (Some(_), Some(_)) => return Err(Fault::CodingAndLength),
        (Some(Codings::Unchunked), None) => return Err(Fault::Coding),
        (Some(Codings::Chunked), None) => Framing::Chunked,
        (None, None | Some(0)) => Framing::Empty,
        (None, Some(length)) => Framing::Length(length),
    };
    if asked(head) == Asked::Connect && framing != Framing::Empty {
        return Err(Fault::ConnectContent);
    }
    Ok(framing)
}

/// The body of a response to what was `asked` (RFC 9112 section 6.3).
pub(super) fn response(head: &ResponseHead, asked: Asked) -> Result<Framing, Fault> {
    let is_tunnel = asked == Asked::Connect && (200..300).contains(&head.status);
    if asked == Asked::Head || matches!(head.status, 100..200 | 204 | 304) || is_tunnel {
        return Ok(Framing::Empty);
    }
    // A transfer-encoding overrides a content-length.
    Ok(match codings(&head.fields, head.version)? {
        Some(Codings::Chunked) => Framing::Chunked,
        Some(Codings::Unchunked) => Framing::UntilEnd,
        None => match content_length(&head.fields)? {
            Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::UntilEnd,
        },
    })
}

/// Transfer codings by what they mean for the message's end.
#[derive(Clone, Copy)]
enum Codings {
    Chunked,
    Unchunked,
}

fn codings(fields: &[Field], version: Version) -> Result<Option<Codings>, Fault> {
    const KNOWN: [&[u8]; 5] = [b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress"];
    let mut found = None;
    for coding in elements(fields, b"transfer-encoding") {
        if version == Version::Http10 {
            return Err(Fault::CodingInOldVersion);
        }
        found = match found {
            Some(Codings::Chunked) => return Err(Fault::Coding),
            _ if coding.eq_ignore_ascii_case(b"chunked") => Some(Codings::Chunked),
            _ if KNOWN.iter().any(|known| coding.eq_ignore_ascii_case(known)) => Some(Codings::Unchunked),
            _ => return Err(Fault::Coding),
        };
    }
    Ok(found)
}

/// The content-length; the same number twice is one (RFC 9110 section 8.6).
fn content_length(fields: &[Field]) -> Result<Option<u64>, Fault> {
    let mut found = None;
    for value in elements(fields, b"content-length") {
        let length = decimal(value).ok_or(Fault::ContentLength)?;
        if found.is_some_and(|found| found != length) {
            return Err(Fault::ContentLengthsDiffer);
        }
        found = Some(length);
    }
    Ok(found)
}

/// Digits alone, up to the largest number that readers with signed lengths know too.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number: u64 = std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()?;
    i64::try_from(number).is_ok().then_some(number)
}

/// The elements of all fields of that name, empty ones included.
fn elements<'a>(fields: &'a [Field], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let named = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    named.flat_map(|field| field.value.split(|&byte| byte == b',')).map(|element| {
        // Optional white space is blanks and tabs alone: a folded line is no white space to every reader.
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let begin = element.iter().position(|byte| !blank(byte)).unwrap_or(element.len());
        let end = element.iter().rposition(|byte| !blank(byte)).map_or(begin, |last| last + 1);
        &element[begin..end]
    })
}
