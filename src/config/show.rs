//! A checked configuration back as TOML, bare for digests and annotated for people.
//!
//! Invariants: every key stands there once, in the order in which `checked` reads them, and the text reads back to
//! equal values. The canonical text has no comments, so equal values give equal bytes wherever they came from.

use super::checked::{CAPTURE_LEVELS, LOG_FORMATS, ON_FAILURES, ON_UNREADABLES};
use super::listeners::{CLIENT_CERTIFICATES, CLIENT_TLS, INTERCEPTIONS, SCHEMES, TRAFFICS, UPSTREAM_TLS};
use super::settings::{KnownKey, Origin, Origins};
use super::{
    Config, Credentials, Inbound, Interception, Outbound, Proxy, Rules, Tls, Traffic, variable_name,
};
use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A key with its value as TOML.
type Shown = (&'static str, &'static str, String);

pub(super) fn canonical(config: &Config) -> String {
    render(config, |_| String::new())
}

pub(super) fn annotated(config: &Config, origins: &Origins) -> String {
    render(config, |known| match origins.get(&known) {
        None | Some(Origin::File) => String::new(),
        Some(Origin::Variable) => format!(" # from {}", variable_name(known.0, known.1)),
        Some(Origin::Default) => " # default".to_owned(),
    })
}

fn render(config: &Config, comment: impl Fn(KnownKey) -> String) -> String {
    let mut text = String::new();
    let mut current = "";
    for (section, key, value) in values(config) {
        if section != current {
            let blank_line = if current.is_empty() { "" } else { "\n" };
            writeln!(text, "{blank_line}[{section}]").expect("a String takes any text");
            current = section;
        }
        writeln!(text, "{key} = {value}{}", comment((section, key))).expect("a String takes any text");
    }
    text
}

/// Every key with its value as TOML, in the order in which they are read.
fn values(config: &Config) -> Vec<Shown> {
    let mut shown = fixed(&config.proxy);
    shown.extend(inbound(config.inbound.as_ref()));
    shown.extend(outbound(config.outbound.as_ref()));
    shown.extend(connections(config));
    shown.extend(tls(&config.tls));
    shown.extend(process(config));
    shown
}

/// A listener that is off has every other key at its default.
fn fixed(proxy: &Proxy) -> Vec<Shown> {
    let fixed = proxy.fixed.as_ref();
    let traffic = fixed.map_or(Traffic::default(), |fixed| fixed.traffic);
    let mut shown = vec![
        ("proxy", "listen", address(fixed.map(|fixed| fixed.listen))),
        ("proxy", "upstream", quoted(fixed.map_or_else(String::new, |fixed| fixed.upstream.to_string()))),
        ("proxy", "traffic", name_of(traffic, &TRAFFICS)),
        ("proxy", "workers", proxy.workers.map_or(0, usize::from).to_string()),
        ("proxy", "connect_timeout_ms", millis(proxy.connect_timeout)),
        ("proxy", "drain_timeout_ms", millis(proxy.drain_timeout)),
    ];
    shown.extend(rules("proxy", fixed.map(|fixed| &fixed.rules)));
    shown
}

fn inbound(inbound: Option<&Inbound>) -> Vec<Shown> {
    let mode = inbound.map_or(Interception::default(), |inbound| inbound.mode);
    let mut shown = vec![
        ("inbound", "listen", address(inbound.map(|inbound| inbound.listen))),
        ("inbound", "mode", name_of(mode, &INTERCEPTIONS)),
        ("inbound", "skip_ports", list(inbound.into_iter().flat_map(|inbound| &inbound.skip_ports))),
    ];
    shown.extend(rules("inbound", inbound.map(|inbound| &inbound.rules)));
    shown
}

fn outbound(outbound: Option<&Outbound>) -> Vec<Shown> {
    let mut shown = vec![
        ("outbound", "listen", address(outbound.map(|outbound| outbound.listen))),
        ("outbound", "skip_ports", list(outbound.into_iter().flat_map(|outbound| &outbound.skip_ports))),
    ];
    shown.extend(rules("outbound", outbound.map(|outbound| &outbound.rules)));
    shown
}

fn rules(section: &'static str, rules: Option<&Rules>) -> Vec<Shown> {
    let default = Rules::default();
    let rules = rules.unwrap_or(&default);
    vec![
        (section, "opaque_ports", list(&rules.opaque_ports)),
        (section, "client_tls", name_of(rules.client_tls, &CLIENT_TLS)),
        (section, "client_certificates", name_of(rules.client_certificates, &CLIENT_CERTIFICATES)),
        (section, "upstream_tls", name_of(rules.upstream_tls, &UPSTREAM_TLS)),
        (section, "upstream_name", quoted(rules.upstream_name.as_deref().unwrap_or_default())),
        (section, "upstream_id", quoted(rules.upstream_id.as_deref().unwrap_or_default())),
        (section, "scheme", name_of(rules.scheme, &SCHEMES)),
    ]
}

fn connections(config: &Config) -> Vec<Shown> {
    vec![
        ("detect", "timeout_ms", millis(config.detect.timeout)),
        ("detect", "bytes_max", config.detect.bytes_max.to_string()),
        ("detect", "on_unreadable", name_of(config.detect.on_unreadable, &ON_UNREADABLES)),
    ]
}

fn tls(tls: &Tls) -> Vec<Shown> {
    let path =
        |path: Option<&PathBuf>| quoted(path.map_or_else(String::new, |path| path.display().to_string()));
    let (files, socket) = match &tls.credentials {
        Credentials::Files(files) => (Some(files), None),
        Credentials::Spiffe(socket) => (None, Some(socket)),
    };
    let certificate = files.and_then(|files| files.certificate.as_ref());
    vec![
        ("tls", "certificate_file", path(certificate.map(|files| &files.certificate))),
        ("tls", "key_file", path(certificate.map(|files| &files.key))),
        ("tls", "authorities_file", path(files.and_then(|files| files.authorities.as_ref()))),
        ("tls", "revocation_file", path(files.and_then(|files| files.revocation.as_ref()))),
        ("tls", "spiffe_socket", path(socket)),
        ("tls", "alpn", list(tls.alpn.iter().map(quoted))),
        ("tls", "handshake_timeout_ms", millis(tls.handshake_timeout)),
    ]
}

fn process(config: &Config) -> Vec<Shown> {
    let Config { tcp, capture, limits, ledger, admin, identity, log, .. } = config;
    vec![
        ("tcp", "keepalive_ms", millis(tcp.keepalive.unwrap_or_default())),
        ("tcp", "user_timeout_ms", millis(tcp.user_timeout.unwrap_or_default())),
        ("tcp", "half_close_timeout_ms", millis(tcp.half_close_timeout)),
        ("tcp", "mark", tcp.mark.unwrap_or_default().to_string()),
        ("capture", "level", name_of(capture.level, &CAPTURE_LEVELS)),
        ("limits", "header_list_bytes_max", limits.header_list_bytes_max.to_string()),
        ("limits", "frame_bytes_max", limits.frame_bytes_max.to_string()),
        ("limits", "streams_max", limits.streams_max.to_string()),
        ("limits", "hold_bytes_max", limits.hold_bytes_max.to_string()),
        ("limits", "connections_max", limits.connections_max.to_string()),
        ("limits", "commit_queue_max", limits.commit_queue_max.to_string()),
        ("limits", "continuations_max", limits.continuations_max.to_string()),
        ("limits", "handshakes_max", limits.handshakes_max.to_string()),
        ("ledger", "dir", quoted(ledger.dir.display())),
        ("ledger", "origin", quoted(ledger.origin.as_deref().unwrap_or(""))),
        ("ledger", "key_file", quoted(ledger.key_file.display())),
        ("ledger", "segment_bytes", ledger.segment_bytes.to_string()),
        ("ledger", "on_failure", name_of(ledger.on_failure, &ON_FAILURES)),
        ("ledger", "commit_wait_ms_max", millis(ledger.commit_wait_max)),
        ("ledger", "recovery_interval_ms", millis(ledger.recovery_interval)),
        ("ledger", "db_cache_bytes", ledger.db_cache_bytes.to_string()),
        ("ledger", "batch_bytes_max", ledger.batch_bytes_max.to_string()),
        ("admin", "listen", address(admin.listen)),
        ("identity", "pod", quoted(&identity.pod)),
        ("identity", "namespace", quoted(&identity.namespace)),
        ("identity", "node", quoted(&identity.node)),
        ("identity", "service_account", quoted(&identity.service_account)),
        ("log", "format", name_of(log.format, &LOG_FORMATS)),
        ("log", "filter", quoted(&log.filter)),
    ]
}

/// An address, or the empty text of a listener that is off.
fn address(address: Option<SocketAddr>) -> String {
    quoted(address.map_or_else(String::new, |address| address.to_string()))
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn name_of<T: PartialEq + Copy>(value: T, names: &[(&str, T)]) -> String {
    let name = names.iter().find(|(_, known)| *known == value).map(|(name, _)| *name);
    quoted(name.expect("every value of the enum stands in its table of names"))
}

/// A TOML basic string. Control characters have been refused by `checked`, except where a program set a field itself.
fn quoted(value: impl Display) -> String {
    let mut text = String::from("\"");
    for c in value.to_string().chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => write!(text, "\\u{:04X}", u32::from(c)).expect("a String takes any text"),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}
