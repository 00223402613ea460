//! Which header blocks break the message rules of RFC 9113 sections 8.2 and 8.3 although they decompress.
//!
//! Such a block is recorded with the reason and forwarded: its receiver decides. Only what one block alone shows is
//! judged; that trailers carry no pseudo-header fields, or that a response came where a request was due, needs the
//! stream's state (`capture`). Of several reasons the first in wire order is given.

use std::fmt;

use super::hpack::Field;

/// Why a header block is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// HEADERS or PUSH_PROMISE on stream 0, or a promise of stream 0 (sections 6.2, 6.6).
    StreamZero,
    /// A name without any character (section 8.2.1, RFC 9110 section 5.1).
    EmptyName,
    /// An uppercase letter in a name (section 8.2).
    UppercaseName,
    /// A control, space, colon or non-ASCII octet in a name (section 8.2.1).
    InvalidName,
    /// NUL, CR or LF in a value (section 8.2.1).
    InvalidValue,
    /// A value that begins or ends with a space or tab (section 8.2.1).
    ValueWhitespace,
    /// A connection-specific field (section 8.2.2).
    ConnectionSpecific,
    /// A `te` field with another value than `trailers` (section 8.2.2).
    TeNotTrailers,
    /// A pseudo-header field behind a regular field (section 8.3).
    PseudoAfterRegular,
    /// A pseudo-header field that no RFC defines (section 8.3).
    UnknownPseudo,
    /// A pseudo-header field twice (section 8.3).
    DuplicatePseudo,
    /// Pseudo-header fields of a request and of a response in one block (section 8.3).
    MixedPseudo,
    /// A mandatory pseudo-header field is missing (sections 8.3.1, 8.5, RFC 8441 section 4).
    MissingPseudo,
    /// A pseudo-header field that does not go with the method (section 8.5, RFC 8441 section 4).
    UnexpectedPseudo,
    /// An empty `:path` with an http or https scheme (section 8.3.1).
    EmptyPath,
    /// A `:status` that is not three digits (section 8.3.2).
    InvalidStatus,
}

impl Malformed {
    /// The reason as a short phrase, for records and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StreamZero => "header block for stream 0",
            Self::EmptyName => "empty field name",
            Self::UppercaseName => "uppercase letter in a field name",
            Self::InvalidName => "invalid character in a field name",
            Self::InvalidValue => "NUL, CR or LF in a field value",
            Self::ValueWhitespace => "field value begins or ends with whitespace",
            Self::ConnectionSpecific => "connection-specific field",
            Self::TeNotTrailers => "te field other than trailers",
            Self::PseudoAfterRegular => "pseudo-header field after a regular field",
            Self::UnknownPseudo => "unknown pseudo-header field",
            Self::DuplicatePseudo => "duplicate pseudo-header field",
            Self::MixedPseudo => "pseudo-header fields of request and response mixed",
            Self::MissingPseudo => "mandatory pseudo-header field missing",
            Self::UnexpectedPseudo => "pseudo-header field that does not go with the method",
            Self::EmptyPath => "empty :path",
            Self::InvalidStatus => ":status is not three digits",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first rule that the `fields` of one block break. `promise` says that they are a promised request.
pub(super) fn check(fields: &[Field], promise: bool) -> Option<Malformed> {
    let mut pseudo = Pseudo { requested: promise, ..Pseudo::default() };
    let mut regular_seen = false;
    for field in fields {
        let fault = if field.name.first() == Some(&b':') {
            if regular_seen { Some(Malformed::PseudoAfterRegular) } else { pseudo.add(field) }
        } else {
            regular_seen = true;
            name_fault(&field.name).or_else(|| connection_fault(field))
        };
        // gRPC's core sends the values of `-bin` names as raw bytes where both sides have said that they take them.
        let fault =
            fault.or_else(|| if field.name.ends_with(b"-bin") { None } else { value_fault(&field.value) });
        if fault.is_some() {
            return fault;
        }
    }
    pseudo.whole_fault()
}

/// The pseudo-header fields that one block has shown so far.
#[derive(Default)]
struct Pseudo<'a> {
    requested: bool,
    method: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    protocol: Option<&'a [u8]>,
    status: Option<&'a [u8]>,
}

impl<'a> Pseudo<'a> {
    fn add(&mut self, field: &'a Field) -> Option<Malformed> {
        let (slot, request) = match &field.name[..] {
            b":method" => (&mut self.method, true),
            b":scheme" => (&mut self.scheme, true),
            b":authority" => (&mut self.authority, true),
            b":path" => (&mut self.path, true),
            b":protocol" => (&mut self.protocol, true),
            b":status" => (&mut self.status, false),
            _ => return Some(Malformed::UnknownPseudo),
        };
        if slot.replace(&field.value).is_some() {
            return Some(Malformed::DuplicatePseudo);
        }
        self.requested |= request;
        (self.requested && self.status.is_some()).then_some(Malformed::MixedPseudo)
    }

    /// What only the whole block shows. A block without pseudo-header fields is one of trailers.
    fn whole_fault(&self) -> Option<Malformed> {
        if let Some(status) = self.status {
            let valid = status.len() == 3 && status.iter().all(u8::is_ascii_digit);
            return (!valid).then_some(Malformed::InvalidStatus);
        }
        if !self.requested {
            return None;
        }
        let connect = self.method == Some(b"CONNECT");
        if self.protocol.is_some() && !connect {
            return Some(Malformed::UnexpectedPseudo);
        }
        if connect && self.protocol.is_none() {
            if self.scheme.is_some() || self.path.is_some() {
                return Some(Malformed::UnexpectedPseudo);
            }
            return self.authority.is_none().then_some(Malformed::MissingPseudo);
        }
        let (Some(_), Some(scheme), Some(path)) = (self.method, self.scheme, self.path) else {
            return Some(Malformed::MissingPseudo);
        };
        (path.is_empty() && matches!(scheme, b"http" | b"https")).then_some(Malformed::EmptyPath)
    }
}

fn name_fault(name: &[u8]) -> Option<Malformed> {
    if name.is_empty() {
        return Some(Malformed::EmptyName);
    }
    // No early exit, as for values below.
    let is_wrong = |octet: &u8| matches!(octet, 0..=0x20 | b'A'..=b'Z' | b':' | 0x7f..);
    if !name.iter().fold(false, |bad, octet| bad | is_wrong(octet)) {
        return None;
    }
    let wrong = name.iter().find(|octet| is_wrong(octet))?;
    Some(if wrong.is_ascii_uppercase() { Malformed::UppercaseName } else { Malformed::InvalidName })
}

fn value_fault(value: &[u8]) -> Option<Malformed> {
    // No early exit: the loop then runs over many octets at a time.
    if value.iter().fold(false, |bad, octet| bad | matches!(octet, 0 | b'\r' | b'\n')) {
        return Some(Malformed::InvalidValue);
    }
    let blank = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    (blank(value.first()) || blank(value.last())).then_some(Malformed::ValueWhitespace)
}

fn connection_fault(field: &Field) -> Option<Malformed> {
    match &field.name[..] {
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => {
            Some(Malformed::ConnectionSpecific)
        }
        b"te" if !field.value.eq_ignore_ascii_case(b"trailers") => Some(Malformed::TeNotTrailers),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn judged(promise: bool, fields: &[(&str, &str)]) -> Option<Malformed> {
        let field = |(name, value): &(&str, &str)| Field {
            name: Bytes::copy_from_slice(name.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            never_indexed: false,
        };
        check(&fields.iter().map(field).collect::<Vec<_>>(), promise)
    }

    const GRPC: [(&str, &str); 5] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
        (":authority", "x"),
        ("te", "trailers"),
    ];

    #[test]
    fn ordinary_blocks_are_well_formed() {
        assert_eq!(judged(false, &GRPC), None);
        assert_eq!(judged(true, &GRPC), None);
        assert_eq!(judged(false, &[(":status", "200"), ("content-type", "application/grpc")]), None);
        assert_eq!(judged(false, &[("grpc-status", "0"), ("x-bin", "AAE="), ("empty", "")]), None);
        assert_eq!(judged(false, &[]), None);
        assert_eq!(judged(false, &[(":method", "CONNECT"), (":authority", "x:1")]), None);
        let websocket =
            [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/")];
        assert_eq!(judged(false, &websocket), None);
        assert_eq!(judged(false, &[("x", "\u{80}\u{ff} inner\tblanks"), ("te", "Trailers")]), None);
    }

    #[test]
    fn each_broken_rule_is_named() {
        use Malformed as M;
        for (reason, fields) in [
            (M::EmptyName, &[("", "x")][..]),
            (M::UppercaseName, &[("Grpc-status", "0")]),
            (M::InvalidName, &[("grpc status", "0")]),
            (M::InvalidName, &[("a:b", "0")]),
            (M::InvalidName, &[("\u{e9}", "0")]),
            (M::InvalidValue, &[("a", "b\r\nc")]),
            (M::InvalidValue, &[(":status", "20\0")]),
            (M::ValueWhitespace, &[("a", " b")]),
            (M::ValueWhitespace, &[("a", "b\t")]),
            (M::ConnectionSpecific, &[("connection", "close")]),
            (M::ConnectionSpecific, &[("transfer-encoding", "chunked")]),
            (M::TeNotTrailers, &[("te", "gzip")]),
            (M::PseudoAfterRegular, &[("a", "b"), (":status", "200")]),
            (M::UnknownPseudo, &[(":verb", "GET")]),
            (M::UnknownPseudo, &[(":", "")]),
            (M::UnknownPseudo, &[(":Path", "/")]),
            (M::DuplicatePseudo, &[(":status", "200"), (":status", "200")]),
            (M::MixedPseudo, &[(":method", "GET"), (":status", "200")]),
            (M::MixedPseudo, &[(":status", "200"), (":path", "/")]),
            (M::MissingPseudo, &GRPC[1..]),
            (M::MissingPseudo, &GRPC[..2]),
            (M::MissingPseudo, &[(":method", "CONNECT")]),
            (M::UnexpectedPseudo, &[(":method", "CONNECT"), (":authority", "x"), (":path", "/")]),
            (M::UnexpectedPseudo, &[(":method", "GET"), (":protocol", "websocket")]),
            (M::EmptyPath, &[(":method", "GET"), (":scheme", "http"), (":path", "")]),
            (M::InvalidStatus, &[(":status", "2000")]),
            (M::InvalidStatus, &[(":status", "2x0")]),
        ] {
            assert_eq!(judged(false, fields), Some(reason), "{fields:?}");
            assert!(!reason.to_string().is_empty());
        }
        assert_eq!(judged(true, &[("a", "b")]), Some(M::MissingPseudo));
        assert_eq!(judged(true, &[(":status", "200")]), Some(M::MixedPseudo));
    }

    #[test]
    fn the_first_reason_in_wire_order_is_given() {
        assert_eq!(judged(false, &[("a", " "), ("B", "")]), Some(Malformed::ValueWhitespace));
        assert_eq!(judged(false, &[("B", " "), ("a", " ")]), Some(Malformed::UppercaseName));
    }
}
