//! The JA4 fingerprint of a ClientHello, after FoxIO's public specification (technical_details/JA4.md in FoxIO-LLC/ja4).
//!
//! Invariant: GREASE (RFC 8701) never changes it, nor does the order of cipher suites or extensions, which some
//! clients shuffle. It says which software a client is likely to be, and proves nothing.

use super::extension;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// Hexadecimal digits that are left of each hash.
const HASH_DIGITS: usize = 12;

/// What goes into a fingerprint, as it came, GREASE included.
pub(super) struct Facts<'a> {
    pub(super) versions: &'a [u16],
    pub(super) ciphers: &'a [u16],
    pub(super) extensions: &'a [u16],
    pub(super) signature_algorithms: &'a [u16],
    pub(super) first_alpn: Option<&'a [u8]>,
}

pub(super) fn fingerprint(facts: &Facts<'_>) -> String {
    let mut ciphers = without_grease(facts.ciphers);
    let mut extensions = without_grease(facts.extensions);
    let name = if extensions.contains(&extension::SERVER_NAME) { 'd' } else { 'i' };
    let (cipher_count, extension_count) = (ciphers.len().min(99), extensions.len().min(99));
    let version = version(facts.versions);
    let alpn = alpn(facts.first_alpn);

    ciphers.sort_unstable();
    extensions.retain(|&kind| kind != extension::SERVER_NAME && kind != extension::ALPN);
    extensions.sort_unstable();
    let mut listed = list(&extensions);
    let algorithms = without_grease(facts.signature_algorithms);
    if !algorithms.is_empty() {
        listed = format!("{listed}_{}", list(&algorithms));
    }
    // Without extensions there is nothing that algorithms could stand in.
    let (ciphers, extensions) =
        (hash(&list(&ciphers)), hash(if extensions.is_empty() { "" } else { &listed }));
    format!("t{version}{name}{cipher_count:02}{extension_count:02}{alpn}_{ciphers}_{extensions}")
}

/// The values that RFC 8701 reserves: 0x0a0a, 0x1a1a, up to 0xfafa.
pub(super) fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

fn without_grease(values: &[u16]) -> Vec<u16> {
    values.iter().copied().filter(|&value| !is_grease(value)).collect()
}

/// The highest version.
fn version(versions: &[u16]) -> &'static str {
    match versions.iter().copied().filter(|&version| !is_grease(version)).max() {
        Some(0x0304) => "13",
        Some(0x0303) => "12",
        Some(0x0302) => "11",
        Some(0x0301) => "10",
        Some(0x0300) => "s3",
        _ => "00",
    }
}

/// First and last character of the first protocol, of its hexadecimal form where they are not letters or digits.
fn alpn(first: Option<&[u8]>) -> String {
    match first {
        Some(name @ ([first, .., last] | [first @ last])) => {
            if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
                return [char::from(*first), char::from(*last)].iter().collect();
            }
            let digits: Vec<char> =
                name.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).map(char::from).collect();
            [digits[0], digits[digits.len() - 1]].iter().collect()
        }
        _ => "00".into(),
    }
}

fn list(values: &[u16]) -> String {
    let texts: Vec<String> = values.iter().map(|value| format!("{value:04x}")).collect();
    texts.join(",")
}

/// The first digits of the SHA-256; zeros for nothing.
fn hash(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(HASH_DIGITS);
    }
    let mut digits = String::new();
    for byte in &Sha256::digest(text)[..HASH_DIGITS / 2] {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}
