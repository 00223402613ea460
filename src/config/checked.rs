//! Each key with its type, its default and its range: from given values to the checked `Config`.
//!
//! Invariants: a key exists by being read here, or in `listeners` or `tls` for their sections; every key of a section is
//! read before any of them can end the section, so that all faults are found in one pass. Defaults and ranges are in
//! `limits`, how a value is read is in `values`.

use super::fault::Faults;
use super::listeners::{self, Inbound, Outbound};
use super::settings::{KnownKey, Settings};
use super::tls::{self, Tls};
use super::values::{
    Optional, choice, integer, listen, millis, parse_filter, parse_origin, parse_path, text,
};
use super::{
    Admin, Capture, CaptureLevel, Config, Detect, Identity, Ledger, Limits, Log, LogFormat, OnFailure,
    OnUnreadable, Proxy, Tcp,
};
use crate::limits;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const CAPTURE_LEVELS: [(&str, CaptureLevel); 4] = [
    ("RequestResponse", CaptureLevel::RequestResponse),
    ("Request", CaptureLevel::Request),
    ("Metadata", CaptureLevel::Metadata),
    ("None", CaptureLevel::None),
];
pub(super) const ON_FAILURES: [(&str, OnFailure); 2] =
    [("refuse", OnFailure::Refuse), ("forward", OnFailure::Forward)];
pub(super) const ON_UNREADABLES: [(&str, OnUnreadable); 2] =
    [("forward", OnUnreadable::Forward), ("refuse", OnUnreadable::Refuse)];
pub(super) const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Everything but where it came from.
struct Sections {
    proxy: Proxy,
    inbound: Option<Inbound>,
    outbound: Option<Outbound>,
    detect: Detect,
    tls: Tls,
    tcp: Tcp,
    capture: Capture,
    limits: Limits,
    ledger: Ledger,
    admin: Admin,
    identity: Identity,
    log: Log,
}

/// Reads every section; ends in a whole `Config` or in all its faults.
pub(super) fn config(mut settings: Settings) -> Result<Config, Faults> {
    let sections = sections(&mut settings);
    let origins = settings.finish()?;
    let Sections {
        proxy,
        inbound,
        outbound,
        detect,
        tls,
        tcp,
        capture,
        limits,
        ledger,
        admin,
        identity,
        log,
    } = sections.expect("a section is absent only where a key of it is faulty, and then `finish` has failed");
    Ok(Config {
        proxy,
        inbound,
        outbound,
        detect,
        tls,
        tcp,
        capture,
        limits,
        ledger,
        admin,
        identity,
        log,
        origins,
    })
}

pub(super) fn known_keys() -> Vec<KnownKey> {
    let mut nothing_given = Settings::new(None, std::iter::empty());
    sections(&mut nothing_given);
    nothing_given.known().to_vec()
}

fn sections(s: &mut Settings) -> Option<Sections> {
    let (proxy, inbound, outbound) = (proxy(s), listeners::inbound(s), listeners::outbound(s));
    let (detect, tls, tcp) = (detect(s), tls::tls(s), tcp(s));
    let (capture, limits, ledger) = (capture(s), limits(s), ledger(s));
    let (admin, identity, log) = (admin(s), identity(s), log(s));
    let admin_address = admin.as_ref().and_then(|admin| admin.listen);
    listeners::check(s, proxy.as_ref(), inbound.as_ref(), outbound.as_ref(), admin_address);
    let fixed = proxy.as_ref().and_then(|proxy| proxy.fixed.as_ref());
    let rules = [
        ("proxy", fixed.map(|fixed| &fixed.rules)),
        ("inbound", inbound.as_ref().and_then(Optional::value).map(|inbound| &inbound.rules)),
        ("outbound", outbound.as_ref().and_then(Optional::value).map(|outbound| &outbound.rules)),
    ];
    for (section, rules) in rules {
        if let (Some(rules), Some(tls)) = (rules, &tls) {
            tls::check(s, section, rules, tls);
        }
    }
    Some(Sections {
        proxy: proxy?,
        inbound: inbound?.0,
        outbound: outbound?.0,
        detect: detect?,
        tls: tls?,
        tcp: tcp?,
        capture: capture?,
        limits: limits?,
        ledger: ledger?,
        admin: admin?,
        identity: identity?,
        log: log?,
    })
}

fn proxy(s: &mut Settings) -> Option<Proxy> {
    let fixed_keys = listeners::fixed_keys(s);
    let workers = integer(s, ("proxy", "workers"), limits::WORKERS, limits::WORKERS_RANGE);
    let connect_timeout = millis(
        s,
        ("proxy", "connect_timeout_ms"),
        limits::CONNECT_TIMEOUT_MS,
        limits::CONNECT_TIMEOUT_MS_RANGE,
    );
    let drain_timeout =
        millis(s, ("proxy", "drain_timeout_ms"), limits::DRAIN_TIMEOUT_MS, limits::DRAIN_TIMEOUT_MS_RANGE);
    let fixed = listeners::fixed(s, fixed_keys);
    Some(Proxy {
        fixed: fixed?.0,
        workers: NonZeroUsize::new(workers?),
        connect_timeout: connect_timeout?,
        drain_timeout: drain_timeout?,
    })
}

fn detect(s: &mut Settings) -> Option<Detect> {
    let timeout =
        millis(s, ("detect", "timeout_ms"), limits::DETECT_TIMEOUT_MS, limits::DETECT_TIMEOUT_MS_RANGE);
    let bytes_max =
        integer(s, ("detect", "bytes_max"), limits::DETECT_BYTES_MAX, limits::DETECT_BYTES_MAX_RANGE);
    let on_unreadable = choice(s, ("detect", "on_unreadable"), OnUnreadable::Forward, &ON_UNREADABLES);
    Some(Detect { timeout: timeout?, bytes_max: bytes_max?, on_unreadable: on_unreadable? })
}

fn tcp(s: &mut Settings) -> Option<Tcp> {
    let keepalive = millis(s, ("tcp", "keepalive_ms"), limits::KEEPALIVE_MS, limits::KEEPALIVE_MS_RANGE);
    let user_timeout =
        millis(s, ("tcp", "user_timeout_ms"), limits::USER_TIMEOUT_MS, limits::USER_TIMEOUT_MS_RANGE);
    let half_close_timeout = millis(
        s,
        ("tcp", "half_close_timeout_ms"),
        limits::HALF_CLOSE_TIMEOUT_MS,
        limits::HALF_CLOSE_TIMEOUT_MS_RANGE,
    );
    let mark = integer(s, ("tcp", "mark"), limits::MARK, limits::MARK_RANGE);
    let some = |wait: Duration| Some(wait).filter(|wait| !wait.is_zero());
    Some(Tcp {
        keepalive: some(keepalive?),
        user_timeout: some(user_timeout?),
        half_close_timeout: half_close_timeout?,
        mark: mark.map(|mark| Some(mark).filter(|mark| *mark != 0))?,
    })
}

fn capture(s: &mut Settings) -> Option<Capture> {
    let level = choice(s, ("capture", "level"), CaptureLevel::RequestResponse, &CAPTURE_LEVELS);
    Some(Capture { level: level? })
}

fn limits(s: &mut Settings) -> Option<Limits> {
    use limits as l;
    let header_list_bytes_max = integer(
        s,
        ("limits", "header_list_bytes_max"),
        l::HEADER_LIST_BYTES_MAX,
        l::HEADER_LIST_BYTES_MAX_RANGE,
    );
    let frame_bytes_max =
        integer(s, ("limits", "frame_bytes_max"), l::FRAME_BYTES_MAX, l::FRAME_BYTES_MAX_RANGE);
    let streams_max = integer(s, ("limits", "streams_max"), l::STREAMS_MAX, l::STREAMS_MAX_RANGE);
    let hold_bytes_max = integer(s, ("limits", "hold_bytes_max"), l::HOLD_BYTES_MAX, l::HOLD_BYTES_MAX_RANGE);
    let connections_max =
        integer(s, ("limits", "connections_max"), l::CONNECTIONS_MAX, l::CONNECTIONS_MAX_RANGE);
    let commit_queue_max =
        integer(s, ("limits", "commit_queue_max"), l::COMMIT_QUEUE_MAX, l::COMMIT_QUEUE_MAX_RANGE);
    let continuations_max =
        integer(s, ("limits", "continuations_max"), l::CONTINUATIONS_MAX, l::CONTINUATIONS_MAX_RANGE);
    let handshakes_max = integer(s, ("limits", "handshakes_max"), l::HANDSHAKES_MAX, l::HANDSHAKES_MAX_RANGE);
    Some(Limits {
        header_list_bytes_max: header_list_bytes_max?,
        frame_bytes_max: frame_bytes_max?,
        streams_max: streams_max?,
        hold_bytes_max: hold_bytes_max?,
        connections_max: connections_max?,
        commit_queue_max: commit_queue_max?,
        continuations_max: continuations_max?,
        handshakes_max: handshakes_max?,
    })
}

fn ledger(s: &mut Settings) -> Option<Ledger> {
    use limits as l;
    let dir = s.optional(("ledger", "dir"), PathBuf::from("ledger"), parse_path);
    let origin = s.optional(("ledger", "origin"), None, parse_origin);
    let key_file = s.optional(("ledger", "key_file"), None, |raw| parse_path(raw).map(Some));
    let segment_bytes = integer(s, ("ledger", "segment_bytes"), l::SEGMENT_BYTES, l::SEGMENT_BYTES_RANGE);
    let on_failure = choice(s, ("ledger", "on_failure"), OnFailure::Refuse, &ON_FAILURES);
    let commit_wait_max =
        millis(s, ("ledger", "commit_wait_ms_max"), l::COMMIT_WAIT_MS_MAX, l::COMMIT_WAIT_MS_MAX_RANGE);
    let recovery_interval =
        millis(s, ("ledger", "recovery_interval_ms"), l::RECOVERY_INTERVAL_MS, l::RECOVERY_INTERVAL_MS_RANGE);
    let db_cache_bytes = integer(s, ("ledger", "db_cache_bytes"), l::DB_CACHE_BYTES, l::DB_CACHE_BYTES_RANGE);
    let batch_bytes_max =
        integer(s, ("ledger", "batch_bytes_max"), l::BATCH_BYTES_MAX, l::BATCH_BYTES_MAX_RANGE);
    let dir = dir?;
    Some(Ledger {
        key_file: key_file?.unwrap_or_else(|| dir.join("key")),
        dir,
        origin: origin?,
        segment_bytes: segment_bytes?,
        on_failure: on_failure?,
        commit_wait_max: commit_wait_max?,
        recovery_interval: recovery_interval?,
        db_cache_bytes: db_cache_bytes?,
        batch_bytes_max: batch_bytes_max?,
    })
}

fn admin(s: &mut Settings) -> Option<Admin> {
    let Optional(listen) = listen(s, ("admin", "listen"))?;
    Some(Admin { listen })
}

fn identity(s: &mut Settings) -> Option<Identity> {
    let mut read =
        |key| s.optional(("identity", key), String::new(), |raw| text(raw, limits::IDENTITY_BYTES_MAX));
    let (pod, namespace, node) = (read("pod"), read("namespace"), read("node"));
    let service_account = read("service_account");
    Some(Identity { pod: pod?, namespace: namespace?, node: node?, service_account: service_account? })
}

fn log(s: &mut Settings) -> Option<Log> {
    let format = choice(s, ("log", "format"), LogFormat::Text, &LOG_FORMATS);
    let filter = s.optional(("log", "filter"), "info".to_owned(), parse_filter);
    Some(Log { format: format?, filter: filter? })
}
