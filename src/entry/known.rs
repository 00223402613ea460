//! Fields of header blocks that most calls have, and their numbers in an entry (docs/ledger-format.md section 10).
//!
//! A field whose name, or name and value, stands in the table is stored as one number: spelt out, fields would be half of an entry. Invariant: a row never changes its
//! number or its meaning, since ledgers that were written with it stay; new rows get the next numbers.

use crate::generated::v1;
use bytes::Bytes;

macro_rules! known {
    (
        pairs { $($pair:literal => $pair_name:literal: $value:literal,)* }
        names { $($named:literal => $name:literal,)* }
    ) => {
        /// The row of exactly this name and value, or of this name; 0 where there is neither. The second says whether the row has the value.
        pub(super) fn number(name: &[u8], value: &[u8]) -> (u32, bool) {
            match (name, value) {
                $(($pair_name, $value) => ($pair, true),)*
                $(($name, _) => ($named, false),)*
                _ => (0, false),
            }
        }

        /// A row's name, and its value where it has one.
        fn row(number: u32) -> Option<(&'static [u8], Option<&'static [u8]>)> {
            Some(match number {
                $($pair => ($pair_name, Some($value)),)*
                $($named => ($name, None),)*
                _ => return None,
            })
        }
    };
}

known! {
    pairs {
        1 => b":method": b"POST",
        2 => b":method": b"GET",
        4 => b":scheme": b"http",
        5 => b":scheme": b"https",
        8 => b"te": b"trailers",
        9 => b"content-type": b"application/grpc",
        10 => b"content-type": b"application/grpc+proto",
        11 => b"content-type": b"application/grpc+json",
        12 => b"content-type": b"application/grpc-web+proto",
        13 => b"content-type": b"application/grpc-web",
        14 => b"content-type": b"application/json",
        17 => b"grpc-encoding": b"identity",
        18 => b"grpc-encoding": b"gzip",
        20 => b"grpc-accept-encoding": b"gzip",
        21 => b"grpc-accept-encoding": b"identity, deflate, gzip",
        22 => b"grpc-accept-encoding": b"identity,deflate,gzip",
        23 => b"grpc-accept-encoding": b"identity",
        25 => b"accept-encoding": b"identity",
        26 => b"accept-encoding": b"gzip",
        27 => b"accept-encoding": b"identity,gzip",
        30 => b":status": b"200",
        31 => b":status": b"204",
        32 => b":status": b"304",
        33 => b":status": b"400",
        34 => b":status": b"404",
        35 => b":status": b"500",
        36 => b":status": b"503",
        38 => b"grpc-status": b"0",
        39 => b"grpc-status": b"1",
        40 => b"grpc-status": b"2",
        41 => b"grpc-status": b"3",
        42 => b"grpc-status": b"4",
        43 => b"grpc-status": b"5",
        44 => b"grpc-status": b"6",
        45 => b"grpc-status": b"7",
        46 => b"grpc-status": b"8",
        47 => b"grpc-status": b"9",
        48 => b"grpc-status": b"10",
        49 => b"grpc-status": b"11",
        50 => b"grpc-status": b"12",
        51 => b"grpc-status": b"13",
        52 => b"grpc-status": b"14",
        53 => b"grpc-status": b"15",
        54 => b"grpc-status": b"16",
        56 => b"grpc-message": b"",
        82 => b"transfer-encoding": b"chunked",
        84 => b"connection": b"keep-alive",
        85 => b"connection": b"close",
        87 => b"accept": b"*/*",
        99 => b"expect": b"100-continue",
        100 => b":version": b"HTTP/1.1",
        102 => b":reason": b"OK",
    }
    names {
        3 => b":method",
        6 => b":path",
        7 => b":authority",
        15 => b"content-type",
        16 => b"user-agent",
        19 => b"grpc-encoding",
        24 => b"grpc-accept-encoding",
        28 => b"accept-encoding",
        29 => b"grpc-timeout",
        37 => b":status",
        55 => b"grpc-status",
        57 => b"grpc-message",
        58 => b"grpc-status-details-bin",
        59 => b"grpc-previous-rpc-attempts",
        60 => b"grpc-retry-pushback-ms",
        61 => b"grpc-trace-bin",
        62 => b"grpc-tags-bin",
        63 => b"lb-token",
        64 => b"authorization",
        65 => b"cookie",
        66 => b"set-cookie",
        67 => b"traceparent",
        68 => b"tracestate",
        69 => b"baggage",
        70 => b"b3",
        71 => b"x-b3-traceid",
        72 => b"x-b3-spanid",
        73 => b"x-b3-sampled",
        74 => b"x-request-id",
        75 => b"x-forwarded-for",
        76 => b"x-forwarded-proto",
        77 => b"forwarded",
        78 => b"via",
        79 => b"host",
        80 => b"content-length",
        81 => b"content-encoding",
        83 => b"transfer-encoding",
        86 => b"connection",
        88 => b"accept",
        89 => b"accept-language",
        90 => b"cache-control",
        91 => b"date",
        92 => b"server",
        93 => b"vary",
        94 => b"location",
        95 => b"last-modified",
        96 => b"etag",
        97 => b"trailer",
        98 => b"upgrade",
        101 => b":version",
        103 => b":reason",
    }
}

/// Spells out what a field's number stands for. A number that this version does not know leaves the field without a name.
pub(super) fn spell_out(field: &mut v1::Field) {
    if let Some((name, value)) = row(field.known) {
        field.name = Bytes::from_static(name);
        if let Some(value) = value {
            field.value = Bytes::from_static(value);
        }
        field.known = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not by chance the number of rows: a new one has to be written into docs/ledger-format.md too.
    const ROWS: u32 = 103;

    #[test]
    fn each_row_is_found_by_what_it_says_and_numbers_have_no_gaps() {
        for known in 1..=ROWS {
            let (name, value) = row(known).unwrap();
            assert_eq!(number(name, value.unwrap_or(b"of one call alone")), (known, value.is_some()));
        }
        assert_eq!((row(0), row(ROWS + 1)), (None, None));
        assert_eq!(number(b"x-of-one-service-alone", b"OK"), (0, false));
        assert_eq!(number(b":Method", b"POST"), (0, false), "a name in another case is another name");
    }

    #[test]
    fn the_format_describes_each_row() {
        let page = include_str!("../../docs/ledger-format.md");
        for known in 1..=ROWS {
            let (name, value) = row(known).unwrap();
            let name = String::from_utf8_lossy(name);
            let value = match value {
                None => "as `value` says".to_owned(),
                Some(b"") => "empty".to_owned(),
                Some(value) => format!("`{}`", String::from_utf8_lossy(value)),
            };
            let line = format!("| {known} | `{name}` | {value} |");
            assert!(page.lines().any(|found| found == line), "no line {line:?} in docs/ledger-format.md");
        }
        assert!(!page.contains(&format!("| {} | `", ROWS + 1)), "a row that is none");
    }
}
