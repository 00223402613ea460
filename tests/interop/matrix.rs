//! The matrix of pairs of stacks and ways between them: plays the cells that are wanted, and tells what came of them.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;

use serde_json::Value;

use super::cases::{self, Case, End};
use super::compare;
use super::peers::{Client, Server};
use super::stacks::Stack;
use super::support::sidecar::Sidecar;
use super::ways::{Route, Way};

const OK: i64 = 0;
const CANCELLED: i64 = 1;
const DEADLINE_EXCEEDED: i64 = 4;
/// Pairs that are played at the same time: as many as cores where the tests must keep their time.
const WORKERS: usize = 2;

/// A client's stack and a server's.
pub(super) type Pair = (Stack, Stack);

/// What came of all cases over one way.
#[derive(Default)]
pub(super) struct Cell {
    /// Of each case, by name: what was not as it must be, in sentences.
    pub(super) cases: BTreeMap<&'static str, Vec<String>>,
    /// What no single case is to blame for: a ledger that is not as it must be, a peer that did not start.
    pub(super) faults: Vec<String>,
}

impl Cell {
    pub(super) fn is_same(&self, case: &str) -> bool {
        self.cases.get(case).is_some_and(Vec::is_empty)
    }

    pub(super) fn all_faults(&self) -> Vec<String> {
        let of_cases = self
            .cases
            .iter()
            .flat_map(|(name, faults)| faults.iter().map(move |fault| format!("{name}: {fault}")));
        of_cases.chain(self.faults.iter().cloned()).collect()
    }
}

pub(super) type Matrix = BTreeMap<(Way, Stack, Stack), Cell>;

/// Plays each pair over its ways.
pub(super) fn play(wanted: Vec<(Pair, Vec<Way>)>) -> Matrix {
    let (queue, matrix) = (Mutex::new(VecDeque::from(wanted)), Mutex::new(Matrix::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some((pair, ways)) = queue.lock().unwrap().pop_front() else { return };
                    let cells = play_pair(pair, &ways);
                    matrix.lock().unwrap().extend(cells);
                }
            });
        }
    });
    matrix.into_inner().unwrap()
}

fn play_pair((client, server): Pair, ways: &[Way]) -> Matrix {
    let mut cells = Matrix::new();
    for direct_way in [Way::Direct, Way::DirectTls] {
        let ways: Vec<Way> = ways.iter().copied().filter(|way| way.direct() == direct_way).collect();
        if ways.is_empty() {
            continue;
        }
        let direct = caught(|| run(direct_way, (client, server)).0);
        for way in ways {
            let cell = match &direct {
                Ok(direct) => caught(|| relayed(way, (client, server), direct)).unwrap_or_else(broken),
                Err(fault) => broken(format!("{}: {fault}", direct_way.title())),
            };
            cells.insert((way, client, server), cell);
        }
    }
    cells
}

fn broken(fault: String) -> Cell {
    Cell { faults: vec![fault], ..Cell::default() }
}

/// The panics of peers and sidecars are this cell's faults, and not the end of the matrix.
pub(super) fn caught<T>(play: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(play)).map_err(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
    })
}

type Results = Vec<(Case, Value)>;

fn relayed(way: Way, (client, server): Pair, direct: &Results) -> Cell {
    let (mut relayed, route) = run(way, (client, server));
    for ((_, direct), (case, relayed)) in direct.iter().zip(&mut relayed) {
        if is_race_of_grpc_js(case, client, relayed) {
            relayed.clone_from(direct);
        }
    }
    let mut cell = Cell::default();
    for ((case, direct), (_, relayed)) in direct.iter().zip(&relayed) {
        let faults = compare::faults_of_both(case, client, Some(server), direct.clone(), relayed.clone());
        cell.cases.insert(case.name, faults);
    }
    for sidecar in &route.sidecars {
        let checked = caught(|| {
            sidecar.verify();
            let listed = sidecar.calls();
            ledger_lists(&listed, &relayed, way);
            compression_shows(&listed, server);
        });
        cell.faults.extend(checked.err());
    }
    cell
}

/// The sidecars come back stopped, for their ledgers.
fn run(way: Way, pair: Pair) -> (Results, Route) {
    let (client, server) = pair;
    let mut server = Server::start(server, way.credentials());
    let mut route = Route::start(way, server.addr());
    let mut client = Client::start(client, route.addr, server.addr(), way.credentials());
    let mut results = Vec::new();
    let mut run = |case: Case| {
        let result = client.run(&case.spec);
        results.push((case, result));
    };
    cases::all().into_iter().filter(|case| case.is_playable(pair)).for_each(&mut run);
    run(cases::goaway_with_running_stream());
    server.wait();
    run(cases::unreachable());
    drop(client);
    // The one that the client knows first: the others are its servers.
    route.sidecars.iter_mut().rev().for_each(Sidecar::stop);
    (results, route)
}

/// The ledger lists just the calls that the client made, each with its method and the status that its client got.
/// grpc-js goes on writing into a stream that its server has ended, and fails by itself where the end comes between two of its writes: seen over TLS alone, in some runs.
fn is_race_of_grpc_js(case: &Case, client: Stack, result: &Value) -> bool {
    let is_late_write = result["message"] == "Write error: write after end";
    client == Stack::Node && case.name == "early_end_bidi" && is_late_write
}

fn ledger_lists(listed: &[Value], results: &[(Case, Value)], way: Way) {
    let mut difference: BTreeMap<(&str, i64), i64> = BTreeMap::new();
    // Where the server's handshake comes before the client's, a server that is gone is found out before there is a call; but a client without TLS, at
    // the first of two sidecars, is answered.
    let made = |case: &Case| !(way.has_tls() && case.end == End::Unreachable);
    for (case, result) in results.iter().filter(|(case, _)| made(case)) {
        *difference.entry((case.path(), expected_status(case, result))).or_default() += case.calls;
    }
    for call in listed {
        let method = call["method"].as_str().unwrap_or("(none)");
        let status = call["status_code"].as_i64().unwrap_or(-1);
        // Both ends notice a deadline: the client's reset (CANCELLED) may come before the server's own end, or after it.
        let status = if status == DEADLINE_EXCEEDED { CANCELLED } else { status };
        *difference.entry((method, status)).or_default() -= 1;
    }
    for (case, result) in results.iter().filter(|(case, _)| way == Way::Mesh && !made(case)) {
        let calls = difference.entry((case.path(), expected_status(case, result))).or_default();
        *calls += if *calls < 0 { case.calls } else { 0 };
    }
    difference.retain(|_, calls| *calls != 0);
    assert!(difference.is_empty(), "calls made less calls listed, by method and status: {difference:#?}");
}

/// The ledger has the bytes as they were on the wire: of the suite's two compressed unary calls, the side that compresses
/// has few. grpc-js servers cannot.
fn compression_shows(listed: &[Value], server: Stack) {
    let calls = |request_bytes: Range<u64>, response_bytes: Range<u64>| {
        let is_within = |call: &Value, name: &str, range: &Range<u64>| {
            call[name].as_u64().is_some_and(|bytes| range.contains(&bytes))
        };
        let is_such = |call: &&Value| {
            is_within(call, "request_bytes", &request_bytes)
                && is_within(call, "response_bytes", &response_bytes)
        };
        listed.iter().filter(is_such).count()
    };
    let [few, request, response] = [0..10_000, 271_828..272_000, 314_159..315_000];
    assert_eq!(
        calls(few.clone(), response),
        1,
        "the ledger shows client_compressed_unary's request compressed"
    );
    let compresses = usize::from(server != Stack::Node);
    assert_eq!(
        calls(request, few),
        compresses,
        "the ledger shows server_compressed_unary's response compressed"
    );
}

/// The status that the ledger has for a case's calls.
fn expected_status(case: &Case, result: &Value) -> i64 {
    match case.end {
        _ if case.calls > 1 => OK,
        End::Client | End::Deadline => CANCELLED,
        _ => result["code"].as_i64().unwrap(),
    }
}
