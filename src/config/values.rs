//! One value at a time: how a number, a text, a path, an address or a list is read, wherever it stands.
//!
//! Invariants: a value that is returned can be printed by `show` and read back equal; a text is bounded and has no
//! control characters. Which key takes which kind of value is in `checked`, `listeners` and `tls`.

use super::Upstream;
use super::fault::Problem;
use super::settings::{KnownKey, Raw, Settings};
use super::upstream::is_host_name;
use crate::limits;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub(super) fn millis(
    s: &mut Settings,
    key: KnownKey,
    default: u64,
    range: RangeInclusive<u64>,
) -> Option<Duration> {
    integer(s, key, default, range).map(Duration::from_millis)
}

/// An integer of any width, `NonZero` ones too: each is read from its decimal digits.
pub(super) fn integer<T>(s: &mut Settings, key: KnownKey, default: T, range: RangeInclusive<T>) -> Option<T>
where
    T: FromStr + Display + PartialOrd,
{
    s.optional(key, default, |raw| {
        let digits = match raw {
            Raw::Integer(number) => number.to_string(),
            Raw::Variable(text) if is_integer(text) => text.clone(),
            _ => return Err(wrong_type(raw, "an integer", range.start())),
        };
        digits.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| Problem::Range {
            found: digits,
            least: range.start().to_string(),
            most: range.end().to_string(),
        })
    })
}

pub(super) fn choice<T: Copy>(s: &mut Settings, key: KnownKey, default: T, names: &[(&str, T)]) -> Option<T> {
    s.optional(key, default, |raw| {
        let given = text(raw, limits::TEXT_BYTES_MAX)?;
        names.iter().find(|(name, _)| *name == given).map(|(_, value)| *value).ok_or_else(|| {
            let quoted: Vec<_> = names.iter().map(|(name, _)| format!("{name:?}")).collect();
            unfit(&given, "which is not one of its values", &format!("write {}", quoted.join(" or ")))
        })
    })
}

/// What may be left out: here `None` is a value, and not the sign of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Optional<T>(pub(super) Option<T>);

impl<T> Optional<T> {
    pub(super) fn value(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

/// An address to listen on; empty is none.
pub(super) fn listen(s: &mut Settings, key: KnownKey) -> Option<Optional<SocketAddr>> {
    s.optional(key, Optional(None), |raw| {
        let given = text(raw, limits::TEXT_BYTES_MAX)?;
        if given.is_empty() {
            return Ok(Optional(None));
        }
        given.parse().map(|address| Optional(Some(address))).map_err(|_| {
            unfit(
                &given,
                "which is not an IP address with a port",
                "write one such as \"127.0.0.1:15001\" or \"[::]:15001\"",
            )
        })
    })
}

/// An address to forward to; empty is none.
pub(super) fn parse_upstream(raw: &Raw) -> Result<Optional<Upstream>, Problem> {
    let given = text(raw, limits::TEXT_BYTES_MAX)?;
    if given.is_empty() {
        return Ok(Optional(None));
    }
    given.parse().map(|upstream| Optional(Some(upstream))).map_err(
        |reason: super::upstream::UpstreamError| {
            unfit(
                &given,
                &reason.to_string(),
                "write host:port, such as \"127.0.0.1:50051\" or \"greeter.default.svc:50051\"",
            )
        },
    )
}

/// A set of ports: the order in which they are written says nothing.
pub(super) fn parse_ports(raw: &Raw) -> Result<BTreeSet<u16>, Problem> {
    let mut ports = BTreeSet::new();
    for item in items(raw, "a list of ports", "[25, 3306]")? {
        let digits = match &item {
            Raw::Integer(number) => number.to_string(),
            Raw::Variable(text) if is_integer(text) => text.clone(),
            _ => return Err(wrong_item(&item, "a list of ports", "[25, 3306]")),
        };
        let port = digits.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| unfit(&digits, "which is no port", "write numbers from 1 to 65535"))?;
        if !ports.insert(port) {
            return Err(unfit(&digits, "which stands there twice", "write each port once"));
        }
    }
    Ok(ports)
}

/// Names of protocols for ALPN (RFC 7301 section 3.1), the one that is wanted most first. What they are is for others
/// to say; without commas, since a comma divides them in a variable.
pub(super) fn parse_alpn(raw: &Raw) -> Result<Vec<String>, Problem> {
    const EXAMPLE: &str = "[\"h2\", \"http/1.1\"]";
    let mut names: Vec<String> = Vec::new();
    for item in items(raw, "a list of strings", EXAMPLE)? {
        let (Raw::Text(name) | Raw::Variable(name)) = &item else {
            return Err(wrong_item(&item, "a list of strings", EXAMPLE));
        };
        let fits = (1..=limits::ALPN_BYTES_MAX).contains(&name.len());
        if !fits || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            let remedy =
                format!("write names such as {EXAMPLE}, of at most {} bytes", limits::ALPN_BYTES_MAX);
            return Err(unfit(name, "which is no name of a protocol", &remedy));
        }
        if names.contains(name) {
            return Err(unfit(name, "which stands there twice", "write each name once"));
        }
        names.push(name.clone());
    }
    if names.len() > limits::ALPN_PROTOCOLS_MAX {
        let most = limits::ALPN_PROTOCOLS_MAX.to_string();
        return Err(Problem::Range { found: format!("{} names long", names.len()), least: "0".into(), most });
    }
    Ok(names)
}

/// A name that certificates are verified against: a host name or an IP address. Empty is none.
pub(super) fn parse_tls_name(raw: &Raw) -> Result<Option<String>, Problem> {
    let given = text(raw, limits::TEXT_BYTES_MAX)?;
    if given.is_empty() || is_host_name(&given) || given.parse::<IpAddr>().is_ok() {
        return Ok(Some(given).filter(|name| !name.is_empty()));
    }
    let remedy =
        "write the name in the upstream's certificate, such as \"greeter.default.svc\", without a port";
    Err(unfit(&given, "which is neither a host name nor an IP address", remedy))
}

/// A SPIFFE id of a workload (SPIFFE-ID section 2, X509-SVID section 3.1: its path is not empty). Empty is none.
pub(super) fn parse_spiffe_id(raw: &Raw) -> Result<Option<String>, Problem> {
    let given = text(raw, limits::SPIFFE_ID_BYTES_MAX)?;
    if given.is_empty() || is_workload_id(&given) {
        return Ok(Some(given).filter(|id| !id.is_empty()));
    }
    let remedy = "write one such as \"spiffe://example.org/ns/default/sa/greeter\"";
    Err(unfit(&given, "which is not a SPIFFE id of a workload", remedy))
}

/// A Unix socket: a path, or a URL of the form `unix:///path`, as SPIFFE writes it. Empty is none.
pub(super) fn parse_socket(raw: &Raw) -> Result<Option<PathBuf>, Problem> {
    let given = text(raw, limits::TEXT_BYTES_MAX)?;
    let path = given.strip_prefix("unix://").or_else(|| given.strip_prefix("unix:")).unwrap_or(&given);
    if given.is_empty() || (path.starts_with('/') && !path.ends_with('/')) {
        return Ok(Some(PathBuf::from(path)).filter(|_| !given.is_empty()));
    }
    let remedy = "write one such as \"/run/spire/agent.sock\"";
    Err(unfit(&given, "which is not the absolute path of a Unix socket", remedy))
}

/// A path that may be left out: empty is none.
pub(super) fn parse_optional_path(raw: &Raw) -> Result<Option<PathBuf>, Problem> {
    let given = text(raw, limits::TEXT_BYTES_MAX)?;
    Ok(Some(PathBuf::from(given)).filter(|path| !path.as_os_str().is_empty()))
}

pub(super) fn parse_path(raw: &Raw) -> Result<PathBuf, Problem> {
    let given = text(raw, limits::TEXT_BYTES_MAX)?;
    if given.is_empty() {
        return Err(unfit(
            &given,
            "which names no path",
            "write a path, or leave the key out for its default",
        ));
    }
    Ok(PathBuf::from(given))
}

/// An origin is also the name of the ledger's key, so it takes what C2SP signed-note allows in a key name: no spaces
/// and no plus sign. Empty is the same as not given.
pub(super) fn parse_origin(raw: &Raw) -> Result<Option<String>, Problem> {
    let given = text(raw, limits::ORIGIN_BYTES_MAX)?;
    if given.contains(|c: char| c.is_whitespace() || c == '+') {
        let remedy = "write a host name with a path, such as \"example.org/payments/attestry\"";
        return Err(unfit(&given, "which has a space or a plus sign in it", remedy));
    }
    Ok(Some(given).filter(|origin| !origin.is_empty()))
}

pub(super) fn parse_filter(raw: &Raw) -> Result<String, Problem> {
    let given = text(raw, limits::TEXT_BYTES_MAX)?;
    match tracing_subscriber::EnvFilter::try_new(&given) {
        Ok(_) => Ok(given),
        Err(e) => {
            let remedy = "write a filter such as \"info\" or \"info,attestry::ledger=debug\"";
            Err(unfit(&given, &format!("which is not a log filter ({e})"), remedy))
        }
    }
}

/// A text of at most `bytes_max` bytes without control characters, which have no place in a path, a name or a log.
pub(super) fn text(raw: &Raw, bytes_max: usize) -> Result<String, Problem> {
    let given = match raw {
        Raw::Text(given) | Raw::Variable(given) => given,
        Raw::Integer(_) | Raw::List(_) | Raw::Other(_) => {
            return Err(wrong_type(raw, "a string", &"\"...\" in quotes"));
        }
    };
    if given.len() > bytes_max {
        let start: String = given.chars().take(40).collect();
        return Err(unfit(
            &start,
            &format!("and so on for {} bytes", given.len()),
            &format!("write at most {bytes_max}"),
        ));
    }
    if given.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
        return Err(unfit(given, "with a control character or a byte that is not UTF-8", "write it without"));
    }
    Ok(given.clone())
}

/// The items of a list; in a variable they are divided by commas, and nothing is a list of nothing.
fn items(raw: &Raw, expected: &'static str, example: &str) -> Result<Vec<Raw>, Problem> {
    match raw {
        Raw::List(items) => Ok(items.clone()),
        Raw::Variable(text) if text.trim().is_empty() => Ok(Vec::new()),
        Raw::Variable(text) => Ok(text.split(',').map(|item| Raw::Variable(item.trim().into())).collect()),
        _ => Err(wrong_type(raw, expected, &example)),
    }
}

fn wrong_item(item: &Raw, expected: &'static str, example: &str) -> Problem {
    let found = format!("a list with {} in it", item.describe());
    Problem::Type { expected, found, example: example.to_owned() }
}

fn is_workload_id(id: &str) -> bool {
    let Some((domain, path)) = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let domain_is_fine = (1..=255).contains(&domain.len())
        && domain.bytes().all(|byte| is_plain(byte) && !byte.is_ascii_uppercase());
    let segment_is_fine =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain);
    domain_is_fine && path.split('/').all(segment_is_fine)
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

pub(super) fn wrong_type(raw: &Raw, expected: &'static str, example: &impl Display) -> Problem {
    Problem::Type { expected, found: raw.describe(), example: example.to_string() }
}

pub(super) fn unfit(found: &str, reason: &str, remedy: &str) -> Problem {
    Problem::Text { found: found.to_owned(), reason: reason.to_owned(), remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[i64]) -> Raw {
        Raw::List(items.iter().map(|number| Raw::Integer(*number)).collect())
    }

    #[test]
    fn ports_are_a_set_from_1_to_65535() {
        let ports = |raw| parse_ports(&raw).map(|ports| ports.into_iter().collect::<Vec<_>>());
        assert_eq!(ports(list(&[3306, 25])).unwrap(), [25, 3306]);
        assert_eq!(ports(Raw::Variable("65535, 1".into())).unwrap(), [1, 65535]);
        assert_eq!(ports(Raw::Variable(" ".into())).unwrap(), [0; 0]);
        for wrong in
            [list(&[0]), list(&[65536]), list(&[-1]), list(&[5, 5]), Raw::Variable("25,,3306".into())]
        {
            assert!(ports(wrong.clone()).is_err(), "{wrong:?}");
        }
        assert!(ports(Raw::Integer(25)).is_err() && ports(Raw::Text("25".into())).is_err());
        assert!(ports(Raw::List(vec![Raw::Text("25".into())])).is_err());
    }

    #[test]
    fn alpn_is_a_list_in_its_order() {
        let variable = |text: &str| parse_alpn(&Raw::Variable(text.into()));
        assert_eq!(variable("http/1.1, h2").unwrap(), ["http/1.1", "h2"]);
        assert_eq!(variable("").unwrap(), [""; 0]);
        for wrong in ["h2,", "h2,h2", "h 2", "h\u{e9}", &"x".repeat(256)] {
            assert!(variable(wrong).is_err(), "{wrong}");
        }
        let many: Vec<String> = (0..=limits::ALPN_PROTOCOLS_MAX).map(|n| n.to_string()).collect();
        assert!(variable(&many[1..].join(",")).is_ok() && variable(&many.join(",")).is_err());
    }

    #[test]
    fn a_spiffe_id_is_one_of_a_workload() {
        let id = |text: &str| parse_spiffe_id(&Raw::Text(text.into()));
        assert_eq!(id("").unwrap(), None);
        assert_eq!(id("spiffe://a-b.c_d/Ns/x.y").unwrap().as_deref(), Some("spiffe://a-b.c_d/Ns/x.y"));
        for wrong in [
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://example.org/a/",
            "spiffe://example.org/a//b",
            "spiffe://example.org/../b",
            "spiffe://Example.org/a",
            "spiffe://example.org:80/a",
            "spiffe://example.org/a?b",
            "spiffe:///a",
            "SPIFFE://example.org/a",
            "https://example.org/a",
        ] {
            assert!(id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_socket_is_an_absolute_path_or_its_url() {
        let socket = |text: &str| parse_socket(&Raw::Text(text.into()));
        for text in ["/run/agent.sock", "unix:///run/agent.sock", "unix:/run/agent.sock"] {
            assert_eq!(socket(text).unwrap(), Some(PathBuf::from("/run/agent.sock")));
        }
        assert_eq!(socket("").unwrap(), None);
        for wrong in ["run/agent.sock", "tcp://127.0.0.1:1", "unix:", "/run/"] {
            assert!(socket(wrong).is_err(), "{wrong}");
        }
    }
}
