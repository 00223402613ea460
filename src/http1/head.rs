//! Heads: the start line and the fields of a request, a response or a trailer section (RFC 9112 sections 2 to 5).
//!
//! Invariants: fields stand in the order of the wire, names in the case of the wire, values without the white space around them; a head owns its bytes in one allocation and
//! keeps no read buffer alive. `httparse` judges the grammar; here are its options, the bounds, and the search for the end.

use super::Fault;
use crate::http2::Field;
use bytes::Bytes;
use httparse::{EMPTY_HEADER, Error, Header, ParserConfig, Status};

/// Fields of one head. Servers accept about a hundred.
pub const FIELDS_MAX: usize = 1_024;

/// Fields for which there is room without an allocation.
const FIELDS_USUAL: usize = 64;

/// The beginning of a head is judged with each read up to this length, so that another protocol shows at once; from there on each time that its length has doubled.
const JUDGED_BYTES: usize = 1_024;

/// The version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    /// As in the start line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// In the case of the wire.
    pub method: Bytes,
    /// The request target as it stands in the request line: origin, absolute, authority or asterisk form.
    pub target: Bytes,
    /// The sender's version.
    pub version: Version,
    /// All fields.
    pub fields: Vec<Field>,
}

/// The head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The sender's version.
    pub version: Version,
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase; often empty.
    pub reason: Bytes,
    /// All fields.
    pub fields: Vec<Field>,
}

/// How far the end of a section has been looked for. It is kept between reads, so that a head that comes byte by byte costs no more than one that comes at once.
#[derive(Debug, Default)]
pub(super) struct Search {
    scanned: usize,
    /// Length at which the grammar of what is there is judged again: see [`JUDGED_BYTES`].
    judge_at: usize,
}

impl Search {
    /// The section at the beginning of `rest` with its length; `None` where more must be read first. What breaks the grammar shows before the end is there.
    pub(super) fn section<T>(
        &mut self,
        rest: &[u8],
        bytes_max: usize,
        parse: fn(&[u8]) -> Result<Option<T>, Fault>,
    ) -> Result<Option<(usize, T)>, Fault> {
        let window = &rest[..rest.len().min(bytes_max)];
        if let Some(end) = self.end(window) {
            *self = Self::default();
            // The two searches for the end agree, or the grammar is broken.
            let section = parse(&window[..end])?.ok_or(Fault::Head(Error::NewLine))?;
            return Ok(Some((end, section)));
        }
        let is_full = rest.len() > bytes_max;
        if is_full || window.len() >= self.judge_at {
            let length = window.len();
            self.judge_at = if length < JUDGED_BYTES { length } else { length * 2 };
            if parse(window)?.is_some() {
                return Err(Fault::Head(Error::NewLine));
            }
        }
        if is_full { Err(Fault::HeadTooLarge { bytes_max }) } else { Ok(None) }
    }

    /// Judges the grammar at the next call, whatever the length.
    pub(super) fn judge_now(&mut self) {
        self.judge_at = 0;
    }

    /// Where the first empty line ends.
    fn end(&mut self, window: &[u8]) -> Option<usize> {
        let mut at = self.scanned.saturating_sub(2);
        self.scanned = window.len();
        while let Some(found) = window.get(at..)?.iter().position(|&byte| byte == b'\n') {
            at += found + 1;
            match window[at..] {
                [b'\n', ..] => return Some(at + 1),
                [b'\r', b'\n', ..] => return Some(at + 2),
                _ => {}
            }
        }
        None
    }
}

/// The head of a request; `None` for the beginning of one.
pub(super) fn request(section: &[u8]) -> Result<Option<RequestHead>, Fault> {
    with_room(|room| {
        let mut config = ParserConfig::default();
        config.allow_multiple_spaces_in_request_line_delimiters(true);
        let mut request = httparse::Request::new(room);
        let Status::Complete(length) = config.parse_request(&mut request, section)? else { return Ok(None) };
        let owned = Owned::new(section, length)?;
        let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
        Ok(Some(RequestHead {
            method: owned.part(method.as_bytes()),
            target: owned.part(target.as_bytes()),
            version: version(request.version),
            fields: owned.fields(request.headers),
        }))
    })
}

/// The head of a response; `None` for the beginning of one.
pub(super) fn response(section: &[u8]) -> Result<Option<ResponseHead>, Fault> {
    with_room(|room| {
        let mut config = ParserConfig::default();
        config.allow_multiple_spaces_in_response_status_delimiters(true);
        config.allow_obsolete_multiline_headers_in_responses(true);
        let mut response = httparse::Response::new(room);
        let Status::Complete(length) = config.parse_response(&mut response, section)? else {
            return Ok(None);
        };
        let owned = Owned::new(section, length)?;
        let status = response.code.filter(|&code| code >= 100).ok_or(Error::Status)?;
        Ok(Some(ResponseHead {
            version: version(response.version),
            status,
            reason: owned.part(reason(section)),
            fields: owned.fields(response.headers),
        }))
    })
}

/// A trailer section that is not empty, up to and with its empty line; `None` for the beginning of one. Its lines end in CRLF: where a body ends is nothing to be liberal about.
pub(super) fn trailers(section: &[u8]) -> Result<Option<Vec<Field>>, Fault> {
    let fields = with_room(|room| match httparse::parse_headers(section, room)? {
        Status::Partial => Ok(None),
        Status::Complete((length, fields)) => Ok(Some(Owned::new(section, length)?.fields(fields))),
    });
    let has_bare_feed =
        || section.split_inclusive(|&byte| byte == b'\n').any(|line| !line.ends_with(b"\r\n"));
    match fields {
        Err(Fault::Head(error)) => Err(Fault::Trailers(error)),
        Ok(Some(_)) if has_bare_feed() => Err(Fault::Trailers(Error::NewLine)),
        judged => judged,
    }
}

/// Calls `parse` with room for fields, and again with more where that was too little.
fn with_room<'b, T>(parse: impl Fn(&mut [Header<'b>]) -> Result<T, Unparsed>) -> Result<T, Fault> {
    let parsed = match parse(&mut [EMPTY_HEADER; FIELDS_USUAL]) {
        Err(Unparsed(Error::TooManyHeaders)) => parse(&mut vec![EMPTY_HEADER; FIELDS_MAX]),
        parsed => parsed,
    };
    parsed.map_err(|Unparsed(error)| match error {
        Error::TooManyHeaders => Fault::TooManyFields,
        error => Fault::Head(error),
    })
}

/// The grammar's verdict, before it is known how much room it had.
struct Unparsed(Error);

impl From<Error> for Unparsed {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// A copy of a section's bytes, and where they were.
struct Owned {
    bytes: Bytes,
    address: usize,
}

impl Owned {
    /// A section whose parser took `length` bytes: all of them.
    fn new(section: &[u8], length: usize) -> Result<Self, Unparsed> {
        if length != section.len() {
            return Err(Unparsed(Error::NewLine));
        }
        Ok(Self { bytes: Bytes::copy_from_slice(section), address: section.as_ptr().addr() })
    }

    /// The copy of a part of the section.
    fn part(&self, part: &[u8]) -> Bytes {
        if part.is_empty() {
            return Bytes::new();
        }
        let at = part.as_ptr().addr() - self.address;
        self.bytes.slice(at..at + part.len())
    }

    fn fields(&self, headers: &[Header]) -> Vec<Field> {
        let field = |header: &Header| Field {
            name: self.part(header.name.as_bytes()),
            value: self.part(header.value),
            never_indexed: false,
        };
        headers.iter().map(field).collect()
    }
}

/// The reason phrase of a status line that was parsed; `httparse` leaves out the ones that are no ASCII.
fn reason(section: &[u8]) -> &[u8] {
    let line = section.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let status = line.get(Version::Http11.as_str().len()..).unwrap_or_default().trim_ascii_start();
    status.get(3..).unwrap_or_default().trim_ascii()
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::Http10 } else { Version::Http11 }
}
