//! What a rule names of a destination: a range of ports, and a network.
//!
//! Invariants: a range never holds port 0 and never ends before it begins; a network has no bit set behind its prefix,
//! because the back ends would cut such bits off without a word. What `Display` prints parses back to an equal value.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// One port, or a first and a last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// A range of one port; `None` for port 0, which no connection has.
    pub fn single(port: u16) -> Option<Self> {
        (port != 0).then_some(Self { first: port, last: port })
    }

    /// The same ports in as few ranges as there can be, in order.
    pub(super) fn merged(ranges: &[Self]) -> Vec<Self> {
        let mut sorted = ranges.to_vec();
        sorted.sort_unstable();
        let mut merged: Vec<Self> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        merged
    }

    /// The range as both back ends write it, but for the sign in the middle.
    pub(super) fn with_separator(self, separator: char) -> String {
        if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}{separator}{}", self.first, self.last)
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_separator('-'))
    }
}

/// Why a text is no range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PortRangeError {
    /// Not a number from 1 to 65535, or not two of them.
    #[error("it is neither a port from 1 to 65535 nor two of them such as 8000-8999")]
    Form,
    /// The second port is the smaller one.
    #[error("it ends before it begins: write the smaller port first")]
    Backwards,
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let port = |text: &str| text.parse().ok().filter(|port| *port != 0_u16).ok_or(PortRangeError::Form);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if last < first { Err(PortRangeError::Backwards) } else { Ok(Self { first, last }) }
    }
}

/// The Internet Protocol's two versions, each with its own program among the iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

/// A network: an address and the length of its prefix (RFC 4632 section 3.1, RFC 4291 section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    pub(super) fn family(&self) -> Family {
        if self.address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not an address, or a prefix that is not a number or too long.
    #[error("it is neither an IP address nor a network such as 10.0.0.0/8 or fd00::/8")]
    Form,
    /// The address has bits set behind the prefix.
    #[error("it has bits set behind its prefix: write {0}, or a longer prefix")]
    HostBits(Network),
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix.map_or(Ok(bits_max), str::parse).map_err(|_| NetworkError::Form)?;
        if prefix_bits > bits_max {
            return Err(NetworkError::Form);
        }
        let masked = Self { address: masked(address, prefix_bits), prefix_bits };
        if masked.address == address { Ok(masked) } else { Err(NetworkError::HostBits(masked)) }
    }
}

/// The address with every bit behind the prefix cleared. A shift by the whole width keeps no bit at all.
fn masked(address: IpAddr, prefix_bits: u8) -> IpAddr {
    let prefix_bits = u32::from(prefix_bits);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix_bits).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix_bits).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read_back_as_written_and_wrong_ones_are_refused() {
        for text in ["1", "65535", "8000-8999"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        assert_eq!("80-80".parse::<PortRange>().unwrap().to_string(), "80");
        for text in ["", "0", "-", "1-", "-1", "0-9", "65536", "80-", "a", "80 -90", "1-2-3"] {
            assert_eq!(text.parse::<PortRange>(), Err(PortRangeError::Form), "{text:?}");
        }
        assert_eq!("90-80".parse::<PortRange>(), Err(PortRangeError::Backwards));
    }

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        let merged = |text: &str| {
            let ranges: Vec<PortRange> = text.split(',').map(|range| range.parse().unwrap()).collect();
            PortRange::merged(&ranges).iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        assert_eq!(merged("90,80-85,86,84-88,92"), "80-88,90,92");
        assert_eq!(merged("65535,1-65535,7"), "1-65535");
    }

    #[test]
    fn networks_read_back_as_written_and_wrong_ones_are_refused() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "::/0", "fd00::/8", "fe80::1/128"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("10.1.2.3".parse::<Network>().unwrap().to_string(), "10.1.2.3/32");
        assert_eq!("::1".parse::<Network>().unwrap().to_string(), "::1/128");
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "/8", "example"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Form), "{text:?}");
        }
        let host_bits = "10.1.2.3/8".parse::<Network>().unwrap_err();
        assert_eq!(host_bits, NetworkError::HostBits("10.0.0.0/8".parse().unwrap()));
        assert!("fd00::1/8".parse::<Network>().is_err());
    }
}
