//! The verdict on the thousand: what may have failed when, and whether the ledgers have every call and every connection that the clients know of.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use serde_json::Value;

use super::driver::SERVICE;
use super::kinds::Kind;
use super::tally::{CONNECT, Failure, Line};
use crate::ledger_reading;
use crate::placed::{Placed, text};
use crate::support::sidecar::{calls, verify};

/// At most so many cases are quoted in a panic.
const QUOTED_MAX: usize = 10;

/// A sidecar's ledger, listed.
pub(super) struct Ledger {
    folder: PathBuf,
    /// Calls by the last part of their path, which is their id.
    calls: HashMap<String, Value>,
    connections: Vec<Value>,
}

impl Ledger {
    pub(super) fn read(sidecar: &Placed) -> Self {
        let mut by_id = HashMap::new();
        for call in calls(&sidecar.ledger) {
            let id = text(&call, "method").rsplit('/').next().unwrap().to_owned();
            let twice = by_id.insert(id, call);
            assert!(twice.is_none(), "a call is there twice: {twice:?}");
        }
        Self { folder: sidecar.ledger.clone(), calls: by_id, connections: sidecar.connections() }
    }
}

/// Fails with the first of some cases.
fn none(what: &str, cases: impl Iterator<Item = String>) {
    let cases: Vec<String> = cases.collect();
    let first = cases.iter().take(QUOTED_MAX).cloned().collect::<Vec<_>>().join("\n");
    assert!(cases.is_empty(), "{}: {what}\n{first}", cases.len());
}

/// Prints what failed, by phase, kind and failure.
pub(super) fn print(run: &str, lines: &[Line]) {
    let completed = lines.iter().filter(|line| matches!(line, Line::Completed { .. })).count();
    let connections = lines.iter().filter(|line| matches!(line, Line::Connection { .. })).count();
    println!("{run}: {completed} calls completed on {connections} connections");
    let mut failures: BTreeMap<(&str, Kind, Failure), (usize, &str)> = BTreeMap::new();
    for line in lines {
        if let Line::Failed { phase, kind, failure, why, .. } = line {
            failures.entry((phase, *kind, *failure)).or_insert((0, why)).0 += 1;
        }
    }
    for ((phase, kind, failure), (count, why)) in failures {
        println!("  {phase:<16} {kind:<9} {failure:<10} {count:>5}  {why}");
    }
}

/// Nothing has failed but in these phases, and there only so.
pub(super) fn must_have_failed_only_in(lines: &[Line], allowed: &BTreeMap<&str, &[Failure]>) {
    let is_wrong = |line: &&Line| match line {
        Line::Failed { phase, failure, .. } => {
            !allowed.get(phase.as_str()).is_some_and(|some| some.contains(failure))
        }
        _ => false,
    };
    none("failures that should not be", lines.iter().filter(is_wrong).map(|line| format!("{line:?}")));
}

/// The ledgers verify, nothing is open any more in any of them, and nothing was turned away or refused.
pub(super) fn must_be_whole(ledgers: &[Ledger]) {
    for ledger in ledgers {
        verify(&ledger.folder);
        let open = ledger.connections.iter().filter(|connection| connection["state"] != "closed");
        none("connections without an end", open.map(ToString::to_string));
        let counters = &ledger_reading::stops(&ledger.folder)[0].counters;
        let count =
            |name: &str| counters.iter().find(|counter| counter.name == name).map(|counter| counter.value);
        for name in [
            "connections_open",
            "connections_refused",
            "commit_failures",
            "refused_submissions",
            "unrecorded_submissions",
        ] {
            assert_eq!(count(name), Some(0), "{name} of {}", ledger.folder.display());
        }
        assert_eq!(count("calls_started"), count("calls_ended"), "calls of {}", ledger.folder.display());
        assert_eq!(
            count("connections_accepted"),
            Some(ledger.connections.len() as u64),
            "{}",
            ledger.folder.display()
        );
    }
}

/// Every call that a client counts as completed is in the ledgers of both sides, as far as they can read it, and went well there. What a client was told to
/// try again has never been passed on.
pub(super) fn calls_are_recorded(lines: &[Line], client: &Ledger, service: &[&Ledger]) {
    let (mut missing, mut compared) = (Vec::new(), 0);
    for line in lines {
        let Line::Completed { kind, id } = line else { continue };
        let at_service: Vec<&Value> = service.iter().filter_map(|ledger| ledger.calls.get(id)).collect();
        let found = [client.calls.get(id).into_iter().collect(), at_service];
        for ((side, found), is_read) in ["client", "service"].iter().zip(&found).zip(kind.is_read_at()) {
            compared += usize::from(is_read);
            let is_well = |call: &&&Value| {
                call["state"] == "ended" && [0, 200].contains(&call["status_code"].as_i64().unwrap())
            };
            if found.iter().filter(is_well).count() != usize::from(is_read)
                || found.len() != usize::from(is_read)
            {
                missing.push(format!(
                    "{id} at the {side}: {}",
                    found.iter().map(ToString::to_string).collect::<String>()
                ));
            }
        }
    }
    none("completed calls that the ledgers do not have, or not so", missing.into_iter());
    println!("  {compared} entries of completed calls compared");
    let passed_on = lines.iter().filter_map(|line| match line {
        Line::Failed { failure: Failure::TryAgain, phase, id, .. } if phase == "relief" => {
            service.iter().find_map(|ledger| ledger.calls.get(id)).map(ToString::to_string)
        }
        _ => None,
    });
    none("calls that a client must try again, and that were passed on", passed_on);
}

/// What is known of a connection by both: its destination's port, the bytes to the server, the bytes to the client.
type Facts = (u16, u64, u64);

/// The connection's port at the service, from what was dialled.
fn dialled_port(connection: &Value) -> u16 {
    let is_fixed = connection["interception"] == "fixed";
    let dialled = text(connection, if is_fixed { "upstream" } else { "original_destination" });
    dialled.rsplit(':').next().unwrap().parse().unwrap()
}

fn facts(connection: &Value) -> Facts {
    let bytes = |way: &str| connection[way].as_u64().unwrap();
    (dialled_port(connection), bytes("bytes_to_server"), bytes("bytes_to_client"))
}

/// Every connection that a client had is in its sidecar's ledger, and nothing else is, with the same bytes where both know its end; and in the ledgers of the
/// service, if something was answered on it. (By the client's port they cannot be told: NAT changes that where two clients have the same.)
pub(super) fn connections_are_recorded(lines: &[Line], client: &Ledger, service: &[&Ledger]) {
    client.connections.iter().for_each(|connection| must_be_described(connection, true));
    service
        .iter()
        .flat_map(|ledger| &ledger.connections)
        .for_each(|connection| must_be_described(connection, false));
    let mut recorded = [count_facts(&[client]), count_facts(service)];
    let (mut missing, mut answered, mut connected) = (Vec::new(), PerPort::new(), PerPort::new());
    for line in lines {
        // A connection that is reset at once was accepted all the same, though its client has not heard of it.
        if let Line::Failed { kind, id, .. } = line
            && id == CONNECT
        {
            *connected.entry(kind.port()).or_default() += 1;
        }
        let &Line::Connection { kind, sent, received, calls, is_clean } = line else { continue };
        *answered.entry(kind.port()).or_default() += usize::from(calls > 0);
        *connected.entry(kind.port()).or_default() += 1;
        // HTTP/2's ends are told by GOAWAYs that may cross.
        if is_clean && matches!(kind, Kind::Http1 | Kind::Greeting | Kind::Chatter | Kind::Sealed) {
            for (facts, side) in recorded.iter_mut().zip(["client", "service"]) {
                match facts.get_mut(&(kind.port(), sent, received)) {
                    Some(count) if *count > 0 => *count -= 1,
                    _ => missing.push(format!("{line:?} at the {side}")),
                }
            }
        }
    }
    none("connections that the ledgers do not have, or not so", missing.into_iter());
    assert_eq!(
        count_ports(&[client]),
        connected,
        "connections at the client's sidecar, by port, and what the clients had"
    );
    for (port, count) in count_ports(service) {
        let (least, most) = (answered[&port], connected[&port]);
        assert!(
            (least..=most).contains(&count),
            "port {port}: {count} at the service, {least} answered, {most} connected"
        );
    }
}

type PerPort = BTreeMap<u16, usize>;

fn count_ports(ledgers: &[&Ledger]) -> PerPort {
    let connections = ledgers.iter().flat_map(|ledger| &ledger.connections);
    connections.fold(PerPort::new(), |mut counts, connection| {
        *counts.entry(dialled_port(connection)).or_default() += 1;
        counts
    })
}

fn count_facts(ledgers: &[&Ledger]) -> HashMap<Facts, usize> {
    let connections = ledgers.iter().flat_map(|ledger| &ledger.connections);
    connections.fold(HashMap::new(), |mut counts, connection| {
        *counts.entry(facts(connection)).or_default() += 1;
        counts
    })
}

/// How a connection came and what was found in it.
fn must_be_described(connection: &Value, is_at_client: bool) {
    let port = dialled_port(connection);
    let kind = Kind::all().find(|kind| kind.port() == port).unwrap();
    assert_eq!(connection["direction"], if is_at_client { "outbound" } else { "inbound" }, "{connection}");
    match (is_at_client, kind) {
        (true, Kind::Mesh) => assert_eq!(connection["upstream"], format!("{SERVICE}:{port}"), "{connection}"),
        (true, _) => {
            assert_eq!(connection["original_destination"], format!("{SERVICE}:{port}"), "{connection}");
        }
        (false, _) => {
            assert_eq!(connection["original_destination"], format!("10.77.1.2:{port}"), "{connection}");
        }
    }
    let protocol = match kind {
        Kind::Sealed | Kind::Secure if is_at_client => "tls_passthrough",
        Kind::Grpc | Kind::Mesh | Kind::Secure => "http2",
        Kind::Http1 => "http1",
        Kind::Greeting | Kind::Chatter | Kind::Sealed => "opaque",
    };
    // One that broke before anything was said on it has none.
    let found = connection["protocols"].as_array().unwrap();
    let is_silent = facts(connection).1 == 0 || facts(connection).2 == 0;
    assert!(found.iter().all(|found| found["protocol"] == protocol) || is_silent, "{kind}: {connection}");
    assert!(found.len() == 1 || is_silent, "{kind}: {connection}");
}

/// Both sidecars have shown each generation of their certificates to the other.
pub(super) fn certificates_were_replaced(client: &Ledger, service: &[&Ledger], generations: usize) {
    let shown = |ledgers: &[&Ledger], side: &str, id: &str| {
        let connections = ledgers.iter().flat_map(|ledger| &ledger.connections);
        let peers = connections
            .map(|connection| &connection[side]["verified_peer"])
            .filter(|peer| peer["spiffe_id"] == id);
        peers.map(|peer| text(peer, "certificate_sha256").to_owned()).collect::<BTreeSet<_>>().len()
    };
    assert_eq!(
        shown(&[client], "tls_server", "spiffe://pods.example/service"),
        generations,
        "by the service's sidecar"
    );
    assert_eq!(
        shown(service, "tls_client", "spiffe://pods.example/client"),
        generations,
        "by the client's sidecar"
    );
    assert_eq!(shown(service, "tls_client", "spiffe://pods.example/application"), 1, "by the application");
    let failed: HashSet<&str> = [client]
        .into_iter()
        .chain(service.iter().copied())
        .flat_map(|ledger| &ledger.connections)
        .flat_map(|connection| [&connection["tls_client"]["failure"], &connection["tls_server"]["failure"]])
        .filter_map(Value::as_str)
        .collect();
    println!("  handshakes failed by: {failed:?}");
}
