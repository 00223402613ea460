//! Each key with its type, its default and its range: from given values to the checked `Config`.
//!
//! Invariants: this file is the only list of keys, since a key exists by being read here; every key of a section is
//! read before any of them can end the section, so that all faults are found in one pass. Defaults and ranges are in
//! `limits`.

use super::fault::{Faults, Problem};
use super::settings::{KnownKey, Raw, Settings};
use super::{
    Capture, CaptureLevel, Config, Identity, Ledger, Limits, Log, LogFormat, OnFailure, Proxy, Upstream,
};
use crate::limits;
use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const LISTEN: KnownKey = ("proxy", "listen");
const UPSTREAM: KnownKey = ("proxy", "upstream");

pub(super) const CAPTURE_LEVELS: [(&str, CaptureLevel); 4] = [
    ("RequestResponse", CaptureLevel::RequestResponse),
    ("Request", CaptureLevel::Request),
    ("Metadata", CaptureLevel::Metadata),
    ("None", CaptureLevel::None),
];
pub(super) const ON_FAILURES: [(&str, OnFailure); 2] =
    [("refuse", OnFailure::Refuse), ("forward", OnFailure::Forward)];
pub(super) const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Reads every section; ends in a whole `Config` or in all its faults.
pub(super) fn config(mut settings: Settings) -> Result<Config, Faults> {
    let sections = sections(&mut settings);
    let origins = settings.finish()?;
    let (proxy, capture, limits, ledger, identity, log) =
        sections.expect("a section is absent only where a key of it is faulty, and then `finish` has failed");
    Ok(Config { proxy, capture, limits, ledger, identity, log, origins })
}

pub(super) fn known_keys() -> Vec<KnownKey> {
    let mut nothing_given = Settings::new(None, std::iter::empty());
    sections(&mut nothing_given);
    nothing_given.known().to_vec()
}

fn sections(s: &mut Settings) -> Option<(Proxy, Capture, Limits, Ledger, Identity, Log)> {
    let (proxy, capture, limits) = (proxy(s), capture(s), limits(s));
    let (ledger, identity, log) = (ledger(s), identity(s), log(s));
    Some((proxy?, capture?, limits?, ledger?, identity?, log?))
}

fn proxy(s: &mut Settings) -> Option<Proxy> {
    let listen = s.required(LISTEN, "\"127.0.0.1:15001\"", parse_listen);
    let upstream = s.required(UPSTREAM, "\"127.0.0.1:50051\"", parse_upstream);
    let workers = integer(s, ("proxy", "workers"), limits::WORKERS, limits::WORKERS_RANGE);
    let connect_timeout = millis(
        s,
        ("proxy", "connect_timeout_ms"),
        limits::CONNECT_TIMEOUT_MS,
        limits::CONNECT_TIMEOUT_MS_RANGE,
    );
    let drain_timeout =
        millis(s, ("proxy", "drain_timeout_ms"), limits::DRAIN_TIMEOUT_MS, limits::DRAIN_TIMEOUT_MS_RANGE);
    let (listen, upstream) = (listen?, upstream?);
    check_no_loop(s, listen, &upstream);
    Some(Proxy {
        listen,
        upstream,
        workers: NonZeroUsize::new(workers?),
        connect_timeout: connect_timeout?,
        drain_timeout: drain_timeout?,
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
    Some(Limits {
        header_list_bytes_max: header_list_bytes_max?,
        frame_bytes_max: frame_bytes_max?,
        streams_max: streams_max?,
        hold_bytes_max: hold_bytes_max?,
        connections_max: connections_max?,
        commit_queue_max: commit_queue_max?,
        continuations_max: continuations_max?,
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

/// A connection that is forwarded to this listener itself would open the next one, and so on to `connections_max`.
fn check_no_loop(s: &mut Settings, listen: SocketAddr, upstream: &Upstream) {
    if upstream.loops_to(listen) {
        let problem = Problem::Text {
            found: upstream.to_string(),
            reason: format!("which leads back to proxy.listen ({listen})"),
            remedy: "write the address of the service behind this sidecar".to_owned(),
        };
        s.fault_in(UPSTREAM, problem);
    }
}

fn millis(s: &mut Settings, key: KnownKey, default: u64, range: RangeInclusive<u64>) -> Option<Duration> {
    integer(s, key, default, range).map(Duration::from_millis)
}

/// An integer of any width, `NonZero` ones too: each is read from its decimal digits.
fn integer<T>(s: &mut Settings, key: KnownKey, default: T, range: RangeInclusive<T>) -> Option<T>
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

fn choice<T: Copy>(s: &mut Settings, key: KnownKey, default: T, names: &[(&str, T)]) -> Option<T> {
    s.optional(key, default, |raw| {
        let given = text(raw, limits::TEXT_BYTES_MAX)?;
        names.iter().find(|(name, _)| *name == given).map(|(_, value)| *value).ok_or_else(|| {
            let quoted: Vec<_> = names.iter().map(|(name, _)| format!("{name:?}")).collect();
            unfit(&given, "which is not one of its values", &format!("write {}", quoted.join(" or ")))
        })
    })
}

fn parse_listen(raw: &Raw) -> Result<SocketAddr, Problem> {
    let given = text(raw, limits::TEXT_BYTES_MAX)?;
    given.parse().map_err(|_| {
        unfit(
            &given,
            "which is not an IP address with a port",
            "write one such as \"127.0.0.1:15001\" or \"[::]:15001\"",
        )
    })
}

fn parse_upstream(raw: &Raw) -> Result<Upstream, Problem> {
    let given = text(raw, limits::TEXT_BYTES_MAX)?;
    given.parse().map_err(|reason: super::upstream::UpstreamError| {
        unfit(
            &given,
            &reason.to_string(),
            "write host:port, such as \"127.0.0.1:50051\" or \"greeter.default.svc:50051\"",
        )
    })
}

fn parse_path(raw: &Raw) -> Result<PathBuf, Problem> {
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
fn parse_origin(raw: &Raw) -> Result<Option<String>, Problem> {
    let given = text(raw, limits::ORIGIN_BYTES_MAX)?;
    if given.contains(|c: char| c.is_whitespace() || c == '+') {
        let remedy = "write a host name with a path, such as \"example.org/payments/attestry\"";
        return Err(unfit(&given, "which has a space or a plus sign in it", remedy));
    }
    Ok(Some(given).filter(|origin| !origin.is_empty()))
}

fn parse_filter(raw: &Raw) -> Result<String, Problem> {
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
fn text(raw: &Raw, bytes_max: usize) -> Result<String, Problem> {
    let given = match raw {
        Raw::Text(given) | Raw::Variable(given) => given,
        Raw::Integer(_) | Raw::Other(_) => return Err(wrong_type(raw, "a string", &"\"...\" in quotes")),
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

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn wrong_type(raw: &Raw, expected: &'static str, example: &impl Display) -> Problem {
    Problem::Type { expected, found: raw.describe(), example: example.to_string() }
}

fn unfit(found: &str, reason: &str, remedy: &str) -> Problem {
    Problem::Text { found: found.to_owned(), reason: reason.to_owned(), remedy: remedy.to_owned() }
}
