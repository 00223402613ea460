//! Real gRPC clients and servers, each pair of them direct and through `attestry run`: the results must be the same.
//!
//! The five stacks of `interop/stacks.rs` each play both parts in every case of `interop/cases.rs` and `interop/suite.rs`,
//! so 25 pairs make all calls twice and more: `interop/ways.rs` has the ways that calls take. Afterwards each ledger must
//! verify and list just those calls. And each client calls a server that misbehaves (`interop/misbehaving.rs`).
//! `docs/interop.md` has the results. Exact frames are compared in `wire.rs`, not here.
//!
//! Every pair goes over one sidecar; over the other ways go each stack with itself and the pairs of `RING`. With
//! `INTEROP_FULL=1` every pair goes over every way. `INTEROP_PAIRS=go-java,python-go` plays only those.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

use std::path::Path;
use std::{env, fs};

use matrix::Pair;
use stacks::Stack;
use ways::Way;

#[path = "interop/cases.rs"]
mod cases;
#[path = "interop/compare.rs"]
mod compare;
#[path = "interop/document.rs"]
mod document;
#[path = "wire/frames.rs"]
mod frames;
#[path = "wire/hpack.rs"]
mod hpack;
#[path = "interop/matrix.rs"]
mod matrix;
#[path = "interop/misbehaving.rs"]
mod misbehaving;
#[path = "interop/negative.rs"]
mod negative;
#[path = "interop/peers.rs"]
mod peers;
#[path = "interop/report.rs"]
mod report;
#[path = "interop/stacks.rs"]
mod stacks;
#[path = "interop/suite.rs"]
mod suite;
mod support;
#[path = "interop/tonic_client.rs"]
mod tonic_client;
#[path = "interop/tonic_server.rs"]
mod tonic_server;
#[path = "interop/ways.rs"]
mod ways;

#[allow(clippy::all, clippy::pedantic, dead_code, unreachable_pub)]
mod generated {
    include!("interop/generated/attestry.interop.v1.rs");
}

const GENERATED: &str = "attestry.interop.v1.rs";
const REMEDY: &str = "INTEROP_FULL=1 ATTESTRY_REGENERATE=1 cargo test --test interop";
/// Besides each stack with itself, the pairs that go over every way: each stack once as client and once as server.
const RING: [Pair; 5] = [
    (Stack::Python, Stack::Go),
    (Stack::Go, Stack::Java),
    (Stack::Java, Stack::Node),
    (Stack::Node, Stack::Tonic),
    (Stack::Tonic, Stack::Python),
];

#[test]
fn every_pair_gets_the_same_results_direct_and_relayed() {
    let stacks = stacks_at_hand("interop");
    let named = env::var("INTEROP_PAIRS").ok();
    let is_named = |(client, server): Pair| {
        let name = format!("{client:?}-{server:?}").to_lowercase();
        named.as_ref().is_none_or(|named| named.split(',').any(|wanted| wanted == name))
    };
    let pairs = stacks.iter().flat_map(|&client| stacks.iter().map(move |&server| (client, server)));
    let wanted = pairs.filter(|&pair| is_named(pair)).map(|pair| (pair, ways_of(pair))).collect();
    let matrix = matrix::play(wanted);
    let mut faults = Vec::new();
    if named.is_none() && stacks.len() == Stack::ALL.len() {
        faults.extend(kept("pairs", &report::pairs(&matrix)));
    }
    for ((way, client, server), cell) in &matrix {
        let found = cell.all_faults().into_iter();
        faults.extend(found.map(|fault| format!("{client:?} calls {server:?}, {}: {fault}", way.title())));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_misbehaving_server_is_met_the_same_way_direct_and_relayed() {
    let stacks = stacks_at_hand("interop with a misbehaving server");
    let outcomes = negative::play(&stacks);
    let mut faults: Vec<String> = outcomes.values().flat_map(|outcome| outcome.faults.clone()).collect();
    if stacks.len() == Stack::ALL.len() {
        faults.extend(kept("misbehaving", &report::misbehaving(&outcomes)));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
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
    if document::regenerates() {
        fs::write(stored, fresh).unwrap();
    } else {
        let remedy = "run: ATTESTRY_REGENERATE=1 cargo test --test interop checked_in";
        assert!(
            fs::read(stored).unwrap() == fresh,
            "tests/interop/generated is not what interop.proto gives; {remedy}"
        );
    }
}

/// What is wrong with a part of the document, if so: one fault among others.
fn kept(part: &str, text: &str) -> Option<String> {
    matrix::caught(|| document::keep(part, text, REMEDY)).err()
}

/// The stacks that can be installed here; the others are skipped aloud.
fn stacks_at_hand(test: &str) -> Vec<Stack> {
    let missing = |stack: Stack| {
        stacks::missing(stack).map(|why| support::skip(&format!("{test}: {stack:?}"), &why)).is_some()
    };
    Stack::ALL.into_iter().filter(|&stack| !missing(stack)).collect()
}

fn ways_of(pair: Pair) -> Vec<Way> {
    let is_full = env::var("INTEROP_FULL").is_ok_and(|value| value == "1");
    if !is_full && pair.0 != pair.1 && !RING.contains(&pair) {
        return vec![Way::One];
    }
    let mut ways = Way::RELAYED.to_vec();
    ways.retain(|way| report::reason_not_to_play(*way, pair).is_none());
    if let Some(why) = ways::missing_openssl() {
        support::skip("interop with TLS", &why);
        ways.retain(|way| !way.has_tls());
    }
    ways
}
