//! Real gRPC clients and servers, each pair of them direct and through `attestry run`: the results must be the same.
//!
//! Python (grpcio: C-core's HTTP/2), Node (@grpc/grpc-js: nghttp2) and tonic (h2) each play both parts in every case of
//! `interop/cases.rs`, so nine pairs make all calls twice. Afterwards the ledger must verify and list just those calls.
//! Exact frames are compared in `wire.rs`, not here.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use serde_json::Value;

use cases::{Case, End};
use peers::{Client, Server};
use support::sidecar::Sidecar;

#[path = "interop/cases.rs"]
mod cases;
#[path = "interop/compare.rs"]
mod compare;
#[path = "interop/peers.rs"]
mod peers;
mod support;
#[path = "interop/tonic_client.rs"]
mod tonic_client;
#[path = "interop/tonic_server.rs"]
mod tonic_server;

#[allow(clippy::all, clippy::pedantic, dead_code, unreachable_pub)]
mod generated {
    include!("interop/generated/attestry.interop.v1.rs");
}

const OK: i64 = 0;
const CANCELLED: i64 = 1;
const DEADLINE_EXCEEDED: i64 = 4;
const GENERATED: &str = "attestry.interop.v1.rs";

/// A gRPC library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stack {
    Python,
    Node,
    Tonic,
}

#[test]
fn python_calls_python() {
    compare_direct_and_relayed(Stack::Python, Stack::Python);
}

#[test]
fn python_calls_node() {
    compare_direct_and_relayed(Stack::Python, Stack::Node);
}

#[test]
fn python_calls_tonic() {
    compare_direct_and_relayed(Stack::Python, Stack::Tonic);
}

#[test]
fn node_calls_python() {
    compare_direct_and_relayed(Stack::Node, Stack::Python);
}

#[test]
fn node_calls_node() {
    compare_direct_and_relayed(Stack::Node, Stack::Node);
}

#[test]
fn node_calls_tonic() {
    compare_direct_and_relayed(Stack::Node, Stack::Tonic);
}

#[test]
fn tonic_calls_python() {
    compare_direct_and_relayed(Stack::Tonic, Stack::Python);
}

#[test]
fn tonic_calls_node() {
    compare_direct_and_relayed(Stack::Tonic, Stack::Node);
}

#[test]
fn tonic_calls_tonic() {
    compare_direct_and_relayed(Stack::Tonic, Stack::Tonic);
}

/// With `ATTESTRY_REGENERATE=1` writes the code of tonic's peers instead of comparing it.
#[test]
fn checked_in_code_is_what_the_schema_gives() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let folder = tempfile::tempdir().unwrap();
    let schema = protox::compile(["interop.proto"], [&sources]).unwrap();
    let mut generator = tonic_prost_build::configure().build_client(false).emit_rerun_if_changed(false);
    generator = generator.out_dir(folder.path());
    generator.compile_fds(schema).unwrap();
    let fresh = fs::read(folder.path().join(GENERATED)).unwrap();
    let stored = sources.join("generated").join(GENERATED);
    if env::var("ATTESTRY_REGENERATE").is_ok_and(|value| value == "1") {
        fs::write(stored, fresh).unwrap();
    } else {
        let remedy = "run: ATTESTRY_REGENERATE=1 cargo test --test interop checked_in";
        assert!(
            fs::read(stored).unwrap() == fresh,
            "tests/interop/generated is not what interop.proto gives; {remedy}"
        );
    }
}

fn compare_direct_and_relayed(client: Stack, server: Stack) {
    for stack in [client, server] {
        if let Some(why) = peers::missing(stack) {
            return support::skip(&format!("interop: {client:?} calls {server:?}"), &why);
        }
    }
    let direct = run_direct(client, server);
    let (relayed, sidecar) = run_relayed(client, server);
    let mut faults = Vec::new();
    for ((case, direct), (_, relayed)) in direct.iter().zip(&relayed) {
        faults.extend(faults_of(case, client, server, direct.clone(), relayed.clone()));
    }
    assert!(faults.is_empty(), "{client:?} calls {server:?}:\n{}", faults.join("\n"));
    ledger_lists(&sidecar.calls(), &relayed);
    sidecar.verify();
}

type Results = Vec<(Case, Value)>;

fn run_direct(client: Stack, server: Stack) -> Results {
    let mut server = Server::start(server);
    let mut client = Client::start(client, server.addr(), server.addr());
    run_cases(&mut client, &mut server)
}

/// The sidecar comes back stopped, for its ledger.
fn run_relayed(client: Stack, server: Stack) -> (Results, Sidecar) {
    let mut server = Server::start(server);
    let mut sidecar = Sidecar::start(server.addr());
    let mut client = Client::start(client, sidecar.addr, server.addr());
    let results = run_cases(&mut client, &mut server);
    drop(client);
    sidecar.stop();
    (results, sidecar)
}

fn run_cases(client: &mut Client, server: &mut Server) -> Results {
    let mut results = Vec::new();
    let mut run = |case: Case| {
        let result = client.run(&case.spec);
        results.push((case, result));
    };
    cases::all().into_iter().for_each(&mut run);
    run(cases::goaway_with_running_stream());
    server.wait();
    run(cases::unreachable());
    results
}

fn faults_of(case: &Case, client: Stack, server: Stack, direct: Value, relayed: Value) -> Vec<String> {
    let mut faults = Vec::new();
    for (way, result) in [("direct", &direct), ("relayed", &relayed)] {
        let found = compare::faults(case, client, server, result);
        faults.extend(found.into_iter().map(|fault| format!("{} ({way}): {fault}", case.name)));
    }
    let (direct, relayed) = (compare::comparable(case, direct), compare::comparable(case, relayed));
    if direct != relayed {
        faults.push(format!("{}: direct  {direct:.2000}\n{}: relayed {relayed:.2000}", case.name, case.name));
    }
    faults
}

/// The ledger lists just the calls that the client made, each with its method and the status that its client got.
fn ledger_lists(listed: &[Value], results: &[(Case, Value)]) {
    let mut difference: BTreeMap<(&str, i64), i64> = BTreeMap::new();
    for (case, result) in results {
        *difference.entry((case.path(), expected_status(case, result))).or_default() += case.calls;
    }
    for call in listed {
        let method = call["method"].as_str().unwrap_or("(none)");
        let status = call["status_code"].as_i64().unwrap_or(-1);
        // Both ends notice a deadline: the client's reset (CANCELLED) may come before the server's own end, or after it.
        let status = if status == DEADLINE_EXCEEDED { CANCELLED } else { status };
        *difference.entry((method, status)).or_default() -= 1;
    }
    difference.retain(|_, calls| *calls != 0);
    assert!(difference.is_empty(), "calls made less calls listed, by method and status: {difference:#?}");
}

/// The status that the ledger has for a case's calls.
fn expected_status(case: &Case, result: &Value) -> i64 {
    match case.end {
        _ if case.calls > 1 => OK,
        End::Client | End::Deadline => CANCELLED,
        _ => result["code"].as_i64().unwrap(),
    }
}
