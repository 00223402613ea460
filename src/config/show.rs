//! A checked configuration back as TOML, bare for digests and annotated for people.
//!
//! Invariants: every key stands there once, in the order in which `checked` reads them, and the text reads back to
//! equal values. The canonical text has no comments, so equal values give equal bytes wherever they came from.

use super::checked::{CAPTURE_LEVELS, LOG_FORMATS, ON_FAILURES};
use super::settings::{KnownKey, Origin, Origins};
use super::{Config, variable_name};
use std::fmt::{Display, Write};
use std::time::Duration;

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

/// Every key with its value as TOML, in the order in which `checked` reads them.
fn values(config: &Config) -> Vec<(&'static str, &'static str, String)> {
    let Config { proxy, capture, limits, ledger, identity, log, origins: _ } = config;
    vec![
        ("proxy", "listen", quoted(proxy.listen)),
        ("proxy", "upstream", quoted(&proxy.upstream)),
        ("proxy", "workers", proxy.workers.map_or(0, usize::from).to_string()),
        ("proxy", "connect_timeout_ms", millis(proxy.connect_timeout)),
        ("proxy", "drain_timeout_ms", millis(proxy.drain_timeout)),
        ("capture", "level", name_of(capture.level, &CAPTURE_LEVELS)),
        ("limits", "header_list_bytes_max", limits.header_list_bytes_max.to_string()),
        ("limits", "frame_bytes_max", limits.frame_bytes_max.to_string()),
        ("limits", "streams_max", limits.streams_max.to_string()),
        ("limits", "hold_bytes_max", limits.hold_bytes_max.to_string()),
        ("limits", "connections_max", limits.connections_max.to_string()),
        ("limits", "commit_queue_max", limits.commit_queue_max.to_string()),
        ("limits", "continuations_max", limits.continuations_max.to_string()),
        ("ledger", "dir", quoted(ledger.dir.display())),
        ("ledger", "origin", quoted(ledger.origin.as_deref().unwrap_or(""))),
        ("ledger", "key_file", quoted(ledger.key_file.display())),
        ("ledger", "segment_bytes", ledger.segment_bytes.to_string()),
        ("ledger", "on_failure", name_of(ledger.on_failure, &ON_FAILURES)),
        ("ledger", "commit_wait_ms_max", millis(ledger.commit_wait_max)),
        ("ledger", "recovery_interval_ms", millis(ledger.recovery_interval)),
        ("ledger", "db_cache_bytes", ledger.db_cache_bytes.to_string()),
        ("ledger", "batch_bytes_max", ledger.batch_bytes_max.to_string()),
        ("identity", "pod", quoted(&identity.pod)),
        ("identity", "namespace", quoted(&identity.namespace)),
        ("identity", "node", quoted(&identity.node)),
        ("identity", "service_account", quoted(&identity.service_account)),
        ("log", "format", name_of(log.format, &LOG_FORMATS)),
        ("log", "filter", quoted(&log.filter)),
    ]
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
