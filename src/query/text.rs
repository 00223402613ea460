//! Values in a form for people: times, durations, sizes, and text that is safe on a terminal.
//!
//! Invariant: what `printable` and `printable_bytes` give holds no control character, no character that
//! changes the direction or the look of others, and is unambiguous: each escape begins with a backslash, and
//! a backslash is escaped itself.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use std::fmt::Write as _;

/// Text that came from outside, for a terminal.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Quotes do no harm, and are common in status messages.
        if c == '"' || c == '\'' { out.push(c) } else { out.extend(c.escape_debug()) }
    }
    out
}

/// Bytes that came from outside, for a terminal: text as `printable` gives it, and each byte that is no UTF-8
/// as `\xNN`.
pub fn printable_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&printable(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Whether the bytes are text that `printable` would leave as it is, line breaks apart.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| {
        text.chars()
            .all(|c| matches!(c, '"' | '\'' | '\\' | '\n' | '\r' | '\t') || c.escape_debug().len() == 1)
    })
}

/// JSON for a terminal: what JSON leaves as it is although a terminal may obey it is escaped as JSON allows
/// (RFC 8259 section 7).
pub(super) fn safe_json(json: String) -> String {
    let is_safe = |c: char| matches!(c, '"' | '\\' | '\'') || c == '\n' || c.escape_debug().len() == 1;
    if json.chars().all(is_safe) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_safe(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// A time in UTC with milliseconds, such as `2026-01-31T12:00:00.250Z`.
pub fn rfc3339_millis(unix_nanos: u64) -> String {
    rfc3339(unix_nanos, 3)
}

/// A time in UTC with nanoseconds.
pub(super) fn rfc3339_nanos(unix_nanos: u64) -> String {
    rfc3339(unix_nanos, 9)
}

fn rfc3339(unix_nanos: u64, digits: u8) -> String {
    let time = Timestamp::from_nanosecond(unix_nanos.into()).unwrap_or(Timestamp::MAX);
    DateTimePrinter::new().precision(Some(digits)).timestamp_to_string(&time)
}

/// Nanoseconds as milliseconds, the way JSON shows a duration.
#[expect(clippy::cast_precision_loss, reason = "exact for 100 days")]
pub(super) fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// A duration in at most six characters, such as `812µs`, `12.3ms`, `1.24s`, `3m05s` or `2h03m`.
pub(super) fn duration(nanos: u64) -> String {
    let (micros, seconds) = (nanos / 1_000, nanos / 1_000_000_000);
    match micros {
        0..1_000 => format!("{micros}µs"),
        1_000..10_000 => hundredths(nanos / 10_000, "ms"),
        10_000..100_000 => tenths(nanos / 100_000, "ms"),
        100_000..1_000_000 => format!("{}ms", micros / 1_000),
        1_000_000..10_000_000 => hundredths(nanos / 10_000_000, "s"),
        10_000_000..60_000_000 => tenths(nanos / 100_000_000, "s"),
        _ if seconds < 3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ if seconds < 360_000 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A number of bytes in at most seven characters, such as `9999`, `12.3KiB` or `64.0MiB`.
pub(super) fn size(bytes: u64) -> String {
    if bytes < 10_000 {
        return bytes.to_string();
    }
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let power = (bytes.ilog2() / 10) as usize;
    let power = power.clamp(1, units.len());
    let unit = 1_u64 << (10 * power);
    // Tenths without overflow: the unit is a multiple of 1,024.
    let tenths_of = (bytes / unit) * 10 + (bytes % unit) * 10 / unit;
    tenths(tenths_of, units[power - 1])
}

/// A number of bytes with its unit always there.
pub(super) fn size_in_words(bytes: u64) -> String {
    let size = size(bytes);
    if size.ends_with('B') { size } else { format!("{size} bytes") }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn tenths(count: u64, unit: &str) -> String {
    format!("{}.{}{unit}", count / 10, count % 10)
}

fn hundredths(count: u64, unit: &str) -> String {
    format!("{}.{:02}{unit}", count / 100, count % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        let nasty = "\u{1b}[31mred\u{7}\r\n\u{9b}2J\u{202e}txt.exe\u{200b}\u{7f}";
        assert_eq!(printable(nasty), "\\u{1b}[31mred\\u{7}\\r\\n\\u{9b}2J\\u{202e}txt.exe\\u{200b}\\u{7f}");
        assert_eq!(printable("\"it's\" 100% zażółć 🚀 \\"), "\"it's\" 100% zażółć 🚀 \\\\");
        assert_eq!(printable_bytes(b"a\xff\x1bb\xc3"), "a\\xff\\u{1b}b\\xc3");
    }

    #[test]
    fn json_stays_the_same_value_and_loses_its_teeth() {
        let text = "\u{1b}[31m\u{9b}2J\u{202e}\u{7f} zażółć 🚀 \u{e0001}";
        let json = safe_json(serde_json::Value::from(text).to_string());
        assert_eq!(json, r#""\u001b[31m\u009b2J\u202e\u007f zażółć 🚀 \udb40\udc01""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(rfc3339_millis(1_700_000_000_123_456_789), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339_nanos(1_700_000_000_123_456_789), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(rfc3339_millis(0), "1970-01-01T00:00:00.000Z");
        assert!(rfc3339_millis(u64::MAX).starts_with("2554-"));
    }

    #[test]
    fn durations_are_short() {
        let cases = [
            (999, "0µs"),
            (812_000, "812µs"),
            (1_239_000, "1.23ms"),
            (12_390_000, "12.3ms"),
            (999_999_999, "999ms"),
            (1_240_000_000, "1.24s"),
            (59_990_000_000, "59.9s"),
            (185_000_000_000, "3m05s"),
            (7_380_000_000_000, "2h03m"),
            (864_000_000_000_000, "10d"),
        ];
        for (nanos, text) in cases {
            assert_eq!(duration(nanos), text);
        }
    }

    #[test]
    fn sizes_are_short() {
        let cases =
            [(0, "0"), (9_999, "9999"), (10_000, "9.7KiB"), (1 << 26, "64.0MiB"), (u64::MAX, "16383.9PiB")];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn printed_bytes_hold_nothing_but_text(bytes: Vec<u8>) {
            let shown = printable_bytes(&bytes);
            prop_assert!(shown.chars().all(|c| !c.is_control()), "{shown:?}");
            prop_assert!(is_text(shown.as_bytes()));
        }
    }
}
