//! The upstream's address as written: an IP address or a host name, with a port.
//!
//! Invariants: what `Display` prints parses back to an equal value; a name has the form of a DNS name and is not
//! resolved here. Resolving and connecting are the proxy's.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Most bytes of a DNS name in text form (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;
/// Most bytes of one label (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// Where every connection is forwarded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// An address that needs no lookup.
    Address(SocketAddr),
    /// A host name, looked up for each connection.
    Name {
        /// The name, without a port.
        host: String,
        /// The port, never 0.
        port: u16,
    },
}

/// Why a text is no upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// It begins like a URL.
    #[error("which has a scheme")]
    Scheme,
    /// No colon, or nothing usable after the last one.
    #[error("which has no port between 1 and 65535 after a colon")]
    Port,
    /// Neither an address nor a name.
    #[error("whose host is neither an IP address (IPv6 in brackets) nor a host name")]
    Host,
}

impl FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, UpstreamError> {
        if text.contains("://") {
            return Err(UpstreamError::Scheme);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(UpstreamError::Port) } else { Ok(Self::Address(address)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(UpstreamError::Port)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(UpstreamError::Port)?;
        if is_host_name(host) {
            Ok(Self::Name { host: host.to_owned(), port })
        } else {
            Err(UpstreamError::Host)
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl Upstream {
    /// Whether a listener on `listen` would accept what is sent to this upstream, as far as can be told without a
    /// lookup: a connection would then be forwarded to itself without end.
    pub(super) fn loops_to(&self, listen: SocketAddr) -> bool {
        let port = match self {
            Self::Address(address) => address.port(),
            Self::Name { port, .. } => *port,
        };
        // Port 0 lets the system choose, so nothing can be told yet; an upstream never has it.
        port == listen.port()
            && match self {
                Self::Address(address) => receives(listen.ip(), address.ip()),
                Self::Name { host, .. } => {
                    is_localhost(host) && (listen.ip().is_loopback() || listen.ip().is_unspecified())
                }
            }
    }
}

/// Whether a listener bound to `listen` receives what is sent to `target`. An unspecified target reaches this machine
/// itself; of the addresses that an unspecified listener takes, only the loopback ones are certain to be this machine's.
fn receives(listen: IpAddr, target: IpAddr) -> bool {
    let same_family = listen.is_ipv4() == target.is_ipv4();
    let dual_stack = listen.is_ipv6() && listen.is_unspecified();
    let target_is_here = target.is_loopback() || target.is_unspecified();
    listen == target
        || (listen.is_unspecified() && target_is_here && (same_family || dual_stack))
        || (listen.is_loopback() && target.is_unspecified() && same_family)
}

fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Letters, digits, hyphens and, as service names have them, underscores, in labels divided by dots. A name whose last
/// label is all digits would be read as an IPv4 address by some resolvers, so it is none.
pub(super) fn is_host_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let label_is_fine = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last_is_number =
        name.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= NAME_BYTES_MAX && name.split('.').all(label_is_fine) && !last_is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_parses_back() {
        for text in [
            "127.0.0.1:80",
            "[::1]:50051",
            "greeter.default.svc.cluster.local:50051",
            "my_host:1",
            "a.:65535",
        ] {
            let upstream: Upstream = text.parse().unwrap();
            assert_eq!(upstream.to_string(), text);
        }
    }

    #[test]
    fn each_wrong_form_has_its_reason() {
        let reason = |text: &str| text.parse::<Upstream>().unwrap_err();
        assert_eq!(reason("http://host:80"), UpstreamError::Scheme);
        for text in ["host", "host:", "host:0", "host:65536", "127.0.0.1:0", "[::1]:0", "host:http", ""] {
            assert_eq!(reason(text), UpstreamError::Port, "{text}");
        }
        for text in [":80", "a b:80", "::1:80", "a..b:80", "1.2.3.4.5:80", "256.1.1.1:80", "host/path:80"] {
            assert_eq!(reason(text), UpstreamError::Host, "{text}");
        }
        assert_eq!(reason(&format!("{}:80", "a".repeat(64))), UpstreamError::Host);
    }

    #[test]
    fn a_loop_is_seen_where_it_is_certain() {
        let loops = |listen: &str, upstream: &str| {
            upstream.parse::<Upstream>().unwrap().loops_to(listen.parse().unwrap())
        };
        for (listen, upstream) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("127.0.0.1:80", "0.0.0.0:80"),
            ("127.0.0.1:80", "localhost:80"),
            ("0.0.0.0:80", "LocalHost.:80"),
        ] {
            assert!(loops(listen, upstream), "{listen} {upstream}");
        }
        for (listen, upstream) in [
            ("127.0.0.1:80", "127.0.0.1:81"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("0.0.0.0:80", "[::1]:80"),
            ("0.0.0.0:80", "10.0.0.1:80"),
            ("10.0.0.1:80", "localhost:80"),
            ("127.0.0.1:80", "localhost.example:80"),
        ] {
            assert!(!loops(listen, upstream), "{listen} {upstream}");
        }
    }
}
