//! What header values, HTTP statuses and reset codes mean in gRPC's terms.
//!
//! Source: gRPC's PROTOCOL-HTTP2.md (content type, timeout, status message, the table of HTTP/2 error codes) and
//! http-grpc-status-mapping.md. These readings are for the record only: what is forwarded stays as it was.

use std::time::Duration;

use crate::http2::code;

/// Whether a content-type value announces gRPC: `application/grpc`, alone or followed by `+` or `;`. Not grpc-web,
/// whose DATA is framed otherwise. Media types have no case (RFC 9110 section 8.3.1).
pub fn is_grpc_content_type(value: &[u8]) -> bool {
    is_media_type(value, b"application/grpc")
}

/// Whether a content-type value announces gRPC-Web in its binary form: `application/grpc-web`, alone or followed by
/// `+` or `;` (gRPC's PROTOCOL-WEB.md). Not `application/grpc-web-text`, whose messages are in base64.
pub fn is_grpc_web_content_type(value: &[u8]) -> bool {
    is_media_type(value, b"application/grpc-web")
}

fn is_media_type(value: &[u8], media_type: &[u8]) -> bool {
    value.split_at_checked(media_type.len()).is_some_and(|(base, rest)| {
        base.eq_ignore_ascii_case(media_type)
            && matches!(rest.trim_ascii_start().first(), None | Some(b'+' | b';'))
    })
}

/// The name of a status code, `None` outside 0 to 16.
pub fn status_name(status: u32) -> Option<&'static str> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    usize::try_from(status).ok().and_then(|index| NAMES.get(index).copied())
}

const CANCELLED: u32 = 1;
const UNKNOWN: u32 = 2;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// The gRPC status that a client takes from an HTTP status where no `grpc-status` came.
pub fn status_from_http(status: u16) -> u32 {
    match status {
        400 | 431 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// The gRPC status that a client takes from the code of a RST_STREAM. Codes without a line in gRPC's table
/// (STREAM_CLOSED, HTTP_1_1_REQUIRED, unknown ones) are UNKNOWN here; implementations differ on them.
pub fn status_from_reset(code: u32) -> u32 {
    match code {
        code::NO_ERROR
        | code::PROTOCOL_ERROR
        | code::INTERNAL_ERROR
        | code::FLOW_CONTROL_ERROR
        | code::SETTINGS_TIMEOUT
        | code::FRAME_SIZE_ERROR
        | code::COMPRESSION_ERROR
        | code::CONNECT_ERROR => INTERNAL,
        code::REFUSED_STREAM => UNAVAILABLE,
        code::CANCEL => CANCELLED,
        code::ENHANCE_YOUR_CALM => RESOURCE_EXHAUSTED,
        code::INADEQUATE_SECURITY => PERMISSION_DENIED,
        _ => UNKNOWN,
    }
}

/// Decodes the percent encoding of a `grpc-message` value. A bad escape stays as it is and octets that are no UTF-8
/// become U+FFFD: "values that are invalid must not be discarded" (PROTOCOL-HTTP2.md, `Status-Message`).
pub fn decode_grpc_message(value: &[u8]) -> String {
    let mut octets = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%'
            && let Some(([high, low], behind)) = after.split_first_chunk::<2>()
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            octets.push(high << 4 | low);
            rest = behind;
        } else {
            octets.push(first);
        }
    }
    String::from_utf8(octets).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The duration of a `grpc-timeout` value: one to eight digits and a unit of H, M, S, m, u or n.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let mut amount = 0_u64;
    for digit in digits {
        amount = amount * 10 + u64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
    }
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for yes in [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC",
            "application/grpc;charset=utf-8",
        ] {
            assert!(is_grpc_content_type(yes.as_bytes()), "{yes}");
        }
        assert!(is_grpc_content_type(b"application/grpc ; a=b"));
        for no in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpcx",
            "application/json",
            "",
        ] {
            assert!(!is_grpc_content_type(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn grpc_web_is_told_by_its_content_type() {
        for yes in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "Application/gRPC-Web+json",
            "application/grpc-web ; a=b",
        ] {
            assert!(is_grpc_web_content_type(yes.as_bytes()), "{yes}");
        }
        for no in [
            "application/grpc",
            "application/grpc-web-text",
            "application/grpc-web-text+proto",
            "grpc-web",
            "",
        ] {
            assert!(!is_grpc_web_content_type(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn statuses_are_those_of_the_tables() {
        assert_eq!(status_name(0), Some("OK"));
        assert_eq!(status_name(UNAUTHENTICATED), Some("UNAUTHENTICATED"));
        assert_eq!(status_name(UNIMPLEMENTED), Some("UNIMPLEMENTED"));
        assert_eq!(status_name(17), None);
        let http =
            [(200, 2), (400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (431, 13), (500, 2), (503, 14)];
        for (status, expected) in http {
            assert_eq!(status_from_http(status), expected, "{status}");
        }
        let resets = [
            (0, 13),
            (1, 13),
            (3, 13),
            (5, 2),
            (6, 13),
            (7, 14),
            (8, 1),
            (10, 13),
            (11, 8),
            (12, 7),
            (99, 2),
        ];
        for (code, expected) in resets {
            assert_eq!(status_from_reset(code), expected, "{code}");
        }
    }

    #[test]
    fn bad_escapes_stay_as_they_are() {
        for (value, message) in [
            ("plain", "plain"),
            ("t%C3%A4st%20%f0%9f%98%88", "t\u{e4}st \u{1f608}"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%%41", "%A"),
            ("%ff", "\u{fffd}"),
            ("", ""),
        ] {
            assert_eq!(decode_grpc_message(value.as_bytes()), message, "{value}");
        }
    }

    #[test]
    fn timeouts_have_a_unit_and_at_most_eight_digits() {
        assert_eq!(parse_timeout(b"1S"), Some(Duration::from_secs(1)));
        assert_eq!(parse_timeout(b"99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(parse_timeout(b"2M"), Some(Duration::from_mins(2)));
        assert_eq!(parse_timeout(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout(b"7u"), Some(Duration::from_micros(7)));
        assert_eq!(parse_timeout(b"007n"), Some(Duration::from_nanos(7)));
        for bad in ["", "S", "1", "123456789S", "1s", "-1S", "1.5S", " 1S", "1 S"] {
            assert_eq!(parse_timeout(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_them_panic(value: Vec<u8>) {
            let _ = (decode_grpc_message(&value), parse_timeout(&value), is_grpc_content_type(&value));
        }

        #[test]
        fn encoded_messages_decode(message: String) {
            let encoded: String = message
                .bytes()
                .map(|octet| match octet {
                    b'%' => "%25".to_owned(),
                    b' '..=b'~' => char::from(octet).to_string(),
                    _ => format!("%{octet:02X}"),
                })
                .collect();
            prop_assert_eq!(decode_grpc_message(encoded.as_bytes()), message);
        }
    }
}
