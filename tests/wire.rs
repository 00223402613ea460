//! Raw HTTP/2 frames, direct against relayed: between a scripted client and a scripted server that write exact bytes,
//! `attestry run` changes nothing that either can see, frame by frame and byte by byte, up to the way in which each
//! connection ends. There is no normalisation. And what the relay refuses, it refuses with a real peer's error code.
//!
//! Each test runs its cases one after another through one sidecar, whose ledger must then be intact and list each call.
//! Set `WIRE_CASES` to a part of a case's name to play only those.

#[path = "wire/control.rs"]
mod control;
#[path = "wire/crooked.rs"]
mod crooked;
#[path = "wire/driver.rs"]
mod driver;
#[path = "wire/endings.rs"]
mod endings;
#[path = "wire/fields.rs"]
mod fields;
#[path = "wire/frames.rs"]
mod frames;
#[path = "wire/framing.rs"]
mod framing;
#[path = "wire/hpack.rs"]
mod hpack;
#[path = "wire/refusals.rs"]
mod refusals;
#[path = "wire/script.rs"]
mod script;
#[path = "wire/tables.rs"]
mod tables;

mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use driver::PATIENCE;
use script::{Between, Case};
use serde_json::Value;
use support::sidecar::Sidecar;

impl Between for Sidecar {
    fn start(upstream: SocketAddr) -> Self {
        Self::start(upstream)
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn finish(mut self, mut paths: Vec<String>) -> Vec<String> {
        self.stop();
        self.verify();
        let mut listed: Vec<String> = self.calls().iter().map(method_of).collect();
        listed.sort();
        paths.sort();
        let (missing, surplus) = (without(&paths, &listed), without(&listed, &paths));
        let wrong = !missing.is_empty() || !surplus.is_empty();
        let told = format!(
            "of the servers' calls the ledger does not list {missing:?}, and lists besides {surplus:?}"
        );
        wrong.then_some(told).into_iter().collect()
    }
}

/// The path of a call that `attestry calls` lists, empty where it has none.
fn method_of(call: &Value) -> String {
    call["method"].as_str().unwrap_or_default().to_owned()
}

/// What `all` holds more often than `some`.
fn without(all: &[String], some: &[String]) -> Vec<String> {
    let mut rest = some.to_vec();
    let mut left = all.to_vec();
    left.retain(|item| rest.iter().position(|other| other == item).map(|at| rest.swap_remove(at)).is_none());
    left
}

#[test]
fn framing_is_the_same_direct_and_relayed() {
    assert_same::<Sidecar>(framing::CASES);
}

#[test]
fn fields_are_the_same_direct_and_relayed() {
    assert_same::<Sidecar>(fields::CASES);
}

#[test]
fn dynamic_tables_are_the_same_direct_and_relayed() {
    assert_same::<Sidecar>(tables::CASES);
}

#[test]
fn control_frames_are_the_same_direct_and_relayed() {
    assert_same::<Sidecar>(control::CASES);
}

#[test]
fn endings_are_the_same_direct_and_relayed() {
    assert_same::<Sidecar>(endings::CASES);
}

#[test]
fn h2_refuses_with_the_codes_that_the_cases_state() {
    let found = refusals::disagreements_of_h2(PATIENCE);
    assert!(found.is_empty(), "{}", told(&found));
}

#[test]
fn nghttp2_refuses_with_the_codes_that_the_cases_state() {
    let there = |program| Command::new(program).arg("--version").output().is_ok();
    if !there("nghttpd") || !there("nghttp") {
        return support::skip("nghttp2_refuses_with_the_codes_that_the_cases_state", "no nghttpd or nghttp");
    }
    let found = refusals::disagreements_of_nghttp2(PATIENCE);
    assert!(found.is_empty(), "{}", told(&found));
}

#[test]
fn what_cannot_be_recorded_is_refused_with_the_same_codes() {
    let found = refusals::differences::<Sidecar>(&wanted(), PATIENCE);
    assert!(found.is_empty(), "{}", told(&found));
}

#[test]
fn a_relay_without_a_lie_is_not_accused() {
    for cases in [framing::CASES, fields::CASES, tables::CASES, control::CASES, endings::CASES] {
        assert_same::<crooked::Crooked<0>>(cases);
    }
}

/// The table cases name their entries by hand-counted indices: each request must still mean the case's own path.
#[test]
fn the_table_cases_mean_what_they_say() {
    for case in tables::CASES {
        let listener = script::bind();
        let played = script::play(case, script::addr_of(&listener), &listener, PATIENCE);
        let played = played.expect("a case runs without a relay");
        let paths = script::calls_in(&played.client, &played.server);
        let meant = format!("/wire.Case/{}", case.name);
        assert!(!paths.is_empty() && paths.iter().all(|path| *path == meant), "{}: {paths:?}", case.name);
    }
}

#[test]
fn each_lie_of_a_relay_is_found() {
    assert_found::<1>();
    assert_found::<2>();
    assert_found::<3>();
    assert_found::<4>();
    assert_found::<5>();
    assert_found::<6>();
    assert_found::<7>();
    assert_found::<8>();
}

fn assert_same<B: Between>(cases: &[Case]) {
    let cases: Vec<Case> = cases.iter().filter(|case| case.name.contains(&wanted())).copied().collect();
    let found = script::differences::<B>(&cases, PATIENCE);
    assert!(found.is_empty(), "{}", told(&found));
}

/// The case that is made for this lie must fail through the relay that tells it. The patience is short, since a lie may
/// well be a frame that never comes.
fn assert_found<const LIE: usize>() {
    let name = crooked::LIES[LIE].case;
    let all = [framing::CASES, fields::CASES, tables::CASES, control::CASES, endings::CASES].concat();
    let case: Vec<Case> = all.into_iter().filter(|case| case.name == name).collect();
    assert_eq!(case.len(), 1, "there is one case {name}");
    let found = script::differences::<crooked::Crooked<LIE>>(&case, Duration::from_millis(500));
    assert!(!found.is_empty(), "nobody noticed the lie that {name} should uncover");
}

fn wanted() -> String {
    std::env::var("WIRE_CASES").unwrap_or_default()
}

fn told(found: &[String]) -> String {
    format!("{} differences:\n{}", found.len(), found.join("\n"))
}
