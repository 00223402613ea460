//! Which calls are asked for: by time, method, status, peer and id; and which connections.
//!
//! Parsing and matching only; each kind of text is checked once and then a type that cannot be wrong. Where
//! the calls come from is `calls`', and the connections `connections`'.

use super::calls::{CallId, CallSummary, State};
use super::connections::ConnectionSummary;
use super::words::{traffic_name, verified_client, wire_protocol_name};
use crate::generated::v1::{Traffic, WireProtocol};
use crate::grpc;
use jiff::{Span, SpanRelativeTo, Timestamp};
use std::fmt;
use std::str::FromStr;

/// What a listed call must be. Everything that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Began at this time or later, in nanoseconds since 1970.
    pub since_unix_nanos: Option<u64>,
    /// Began before this time.
    pub until_unix_nanos: Option<u64>,
    /// Its method.
    pub method: Option<MethodPattern>,
    /// One of these.
    pub statuses: Vec<StatusChoice>,
    /// Its client's address begins so, or who that is verified to be.
    pub peer: Option<String>,
    /// Its id begins so.
    pub call: Option<CallPrefix>,
}

impl Filter {
    /// Whether the call is one of those asked for.
    pub fn takes(&self, call: &CallSummary) -> bool {
        self.since_unix_nanos.is_none_or(|since| call.started_unix_nanos >= since)
            && self.until_unix_nanos.is_none_or(|until| call.started_unix_nanos < until)
            && self.method.as_ref().is_none_or(|pattern| pattern.fits_call(call))
            && (self.statuses.is_empty() || self.statuses.iter().any(|choice| choice.fits(call)))
            && is_peer(self.peer.as_deref(), &call.connection.client_address, &call.verified_peer)
            && self.call.as_ref().is_none_or(|prefix| prefix.fits(call.call))
    }
}

fn is_peer(asked: Option<&str>, address: &str, verified: &str) -> bool {
    asked.is_none_or(|asked| address.starts_with(asked) || verified.starts_with(asked))
}

/// What a listed connection must be. Everything that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFilter {
    /// Began at this time or later, in nanoseconds since 1970.
    pub since_unix_nanos: Option<u64>,
    /// Began before this time.
    pub until_unix_nanos: Option<u64>,
    /// Its client's address begins so, or who that is verified to be.
    pub peer: Option<String>,
    /// One of these was found in it.
    pub protocols: Vec<ProtocolChoice>,
    /// To the workload, or from it.
    pub traffic: Option<TrafficChoice>,
    /// Not all of it was read.
    pub unread: bool,
}

impl ConnectionFilter {
    /// Whether the connection is one of those asked for.
    pub fn takes(&self, connection: &ConnectionSummary) -> bool {
        let (began, facts) = (connection.started_unix_nanos, &connection.facts);
        self.since_unix_nanos.is_none_or(|since| began >= since)
            && self.until_unix_nanos.is_none_or(|until| began < until)
            && is_peer(self.peer.as_deref(), &facts.client_address, &verified_client(facts))
            && (self.protocols.is_empty() || self.protocols.iter().any(|choice| choice.fits(connection)))
            && self.traffic.is_none_or(|choice| facts.traffic == choice.0)
            && (!self.unread || connection.unread().is_some())
    }
}

/// A protocol asked for, or that none was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolChoice(Option<WireProtocol>);

impl ProtocolChoice {
    fn fits(self, connection: &ConnectionSummary) -> bool {
        let found = &connection.facts.found;
        match self.0 {
            Some(protocol) => found.iter().any(|found| found.protocol == protocol),
            None => found.is_empty(),
        }
    }
}

impl FromStr for ProtocolChoice {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let word = text.trim();
        let all =
            [WireProtocol::Http2, WireProtocol::Http1, WireProtocol::Opaque, WireProtocol::TlsPassthrough];
        let named = all.into_iter().find(|&protocol| wire_protocol_name(protocol).eq_ignore_ascii_case(word));
        match named {
            None if word.eq_ignore_ascii_case("none") => Ok(Self(None)),
            None => Err(FilterError::Protocol(text.to_owned())),
            named => Ok(Self(named)),
        }
    }
}

/// A way asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficChoice(Traffic);

impl FromStr for TrafficChoice {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let all = [Traffic::Inbound, Traffic::Outbound];
        let named = all.into_iter().find(|&traffic| traffic_name(traffic) == Some(text));
        named.map(Self).ok_or_else(|| FilterError::Traffic(text.to_owned()))
    }
}

/// Why a filter is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not the beginning of a call id.
    #[error(
        "{0:?} is not the beginning of a call id: give 1 to 32 hexadecimal digits, as `attestry calls` prints them"
    )]
    Call(String),
    /// No status of gRPC or HTTP, and no state.
    #[error(
        "{0:?} is no status: give a name such as UNAVAILABLE, a number, or a state (open, abandoned, answered_locally, not_recorded)"
    )]
    Status(String),
    /// No protocol of connections.
    #[error(
        "{0:?} is no protocol: give http2, http1, opaque, tls_passthrough, or none for those in which none was found"
    )]
    Protocol(String),
    /// No way.
    #[error("{0:?} is no direction: give inbound or outbound")]
    Traffic(String),
    /// Neither a time nor a duration.
    #[error(
        "{0:?} is no time: give one such as 2026-01-31T12:00:00Z, or how long ago, such as 90s, 15m, 2h or 1d"
    )]
    Time(String),
}

/// The beginning of a call id, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallPrefix(String);

impl CallPrefix {
    /// Whether `call` begins with it.
    pub fn fits(&self, call: CallId) -> bool {
        let digit = |at: usize| {
            let byte = call.0[at / 2];
            if at.is_multiple_of(2) { byte >> 4 } else { byte & 0xf }
        };
        self.0.chars().enumerate().all(|(at, c)| c.to_digit(16) == Some(digit(at).into()))
    }
}

impl FromStr for CallPrefix {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let is_prefix = (1..=32).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        if is_prefix { Ok(Self(text.to_ascii_lowercase())) } else { Err(FilterError::Call(text.to_owned())) }
    }
}

impl fmt::Display for CallPrefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A method asked for: with `*` a pattern of the whole path, in which `*` stands for any text; without, a
/// part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodPattern(String);

impl MethodPattern {
    /// A pattern as it was typed.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// Whether the call's path is meant, or its path with HTTP's method before it.
    fn fits_call(&self, call: &CallSummary) -> bool {
        self.fits(&call.method) || self.fits(&call.method_in_words())
    }

    /// Whether the method is meant.
    pub fn fits(&self, method: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return method.contains(&self.0) };
        let Some(mut method) = method.strip_prefix(first) else { return false };
        let mut parts = rest.split('*').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return method.ends_with(part);
            }
            // The earliest place leaves the most for the parts behind it.
            let Some(at) = method.find(part) else { return false };
            method = &method[at + part.len()..];
        }
        true
    }
}

/// A status asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusChoice {
    /// A gRPC or HTTP status by its number. The two do not overlap.
    Code(u32),
    /// Calls in that state.
    InState(State),
}

impl StatusChoice {
    fn fits(&self, call: &CallSummary) -> bool {
        match self {
            Self::Code(code) => call.status.is_some_and(|status| status.code() == *code),
            Self::InState(state) => call.state == *state,
        }
    }
}

impl FromStr for StatusChoice {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let word = text.trim();
        let is_word = |other: &str| other.eq_ignore_ascii_case(word);
        if let Ok(code) = word.parse() {
            return Ok(Self::Code(code));
        }
        if let Some(code) = (0..=16).find(|&code| grpc::status_name(code).is_some_and(is_word)) {
            return Ok(Self::Code(code));
        }
        let states =
            [State::Open, State::Ended, State::Abandoned, State::AnsweredLocally, State::NotRecorded];
        let state = states.into_iter().find(|state| is_word(state.as_str()));
        state.map(Self::InState).ok_or_else(|| FilterError::Status(text.to_owned()))
    }
}

/// A time of RFC 3339, or a duration before `now`, as nanoseconds since 1970.
pub fn parse_time(text: &str, now_unix_nanos: u64) -> Result<u64, FilterError> {
    let wrong = || FilterError::Time(text.to_owned());
    if let Ok(time) = text.parse::<Timestamp>() {
        return u64::try_from(time.as_nanosecond()).map_err(|_| wrong());
    }
    let span: Span = text.parse().map_err(|_| wrong())?;
    let ago = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    let ago = u64::try_from(ago.as_nanos()).map_err(|_| wrong())?;
    Ok(now_unix_nanos.saturating_sub(ago))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_with_a_star_is_of_the_whole_path() {
        let fits = |pattern: &str, method: &str| MethodPattern::new(pattern).fits(method);
        for pattern in ["/a.B/*", "*/Get", "/a*Get", "*", "/*B*t", "/a.B/Get*", "**"] {
            assert!(fits(pattern, "/a.B/Get"), "{pattern}");
        }
        for pattern in ["/a.C/*", "*/Ge", "a*", "/a.B/Get*t", "/*B*B*", "*Get/", "/a.B/Get/*"] {
            assert!(!fits(pattern, "/a.B/Get"), "{pattern}");
        }
        assert!(fits("B/G", "/a.B/Get") && fits("", "/a.B/Get") && !fits("b/g", "/a.B/Get"));
    }

    #[test]
    fn a_prefix_of_an_id_is_matched_digit_by_digit() {
        let mut call = CallId([0; 16]);
        (call.0[0], call.0[1], call.0[15]) = (0xab, 0xc0, 0x0f);
        let fits = |text: &str| text.parse::<CallPrefix>().unwrap().fits(call);
        assert!(fits("a") && fits("ab") && fits("abc") && fits("ABC0") && fits(&call.to_string()));
        assert!(!fits("b") && !fits("abd") && !fits(&call.to_string().replace('f', "e")));
        for wrong in ["", "xyz", "abc ", "0x1", &"0".repeat(33)] {
            assert_eq!(wrong.parse::<CallPrefix>(), Err(FilterError::Call(wrong.to_owned())));
        }
    }

    #[test]
    fn statuses_are_named_or_numbered() {
        let parse = |text: &str| text.parse::<StatusChoice>();
        assert_eq!(parse("unavailable"), Ok(StatusChoice::Code(14)));
        assert_eq!(parse(" OK"), Ok(StatusChoice::Code(0)));
        assert_eq!(parse("404"), Ok(StatusChoice::Code(404)));
        assert_eq!(parse("Abandoned"), Ok(StatusChoice::InState(State::Abandoned)));
        assert_eq!(parse("FINE"), Err(FilterError::Status("FINE".to_owned())));
    }

    #[test]
    fn times_are_absolute_or_ago() {
        const NOW: u64 = 1_700_000_000_000_000_000;
        let ago = |seconds: u64| Ok(NOW - seconds * 1_000_000_000);
        for (text, seconds) in
            [("90s", 90), ("15m", 900), ("2h", 7_200), ("1h30m", 5_400), ("1d", 86_400), ("2w", 1_209_600)]
        {
            assert_eq!(parse_time(text, NOW), ago(seconds), "{text}");
        }
        assert_eq!(parse_time("2023-11-14T22:13:20Z", 0), Ok(NOW));
        assert_eq!(parse_time("2023-11-14T23:13:20.5+01:00", 0), Ok(NOW + 500_000_000));
        assert_eq!(parse_time("60000d", NOW), Ok(0));
        for wrong in ["", "soon", "-2h", "12", "2023-11-14", "1969-12-31T23:59:59Z"] {
            assert_eq!(parse_time(wrong, NOW), Err(FilterError::Time(wrong.to_owned())), "{wrong}");
        }
    }
}
