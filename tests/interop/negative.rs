//! Each client's calls to the server that misbehaves, direct and relayed, and what came of them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::cases::Case;
use super::compare;
use super::matrix::caught;
use super::misbehaving::{self, Misbehaving};
use super::peers::Client;
use super::stacks::Stack;
use super::ways::{Route, Way};

/// What came of one client's calls in one case.
#[derive(Default)]
pub(super) struct Outcome {
    /// The codes that its calls ended with, direct.
    pub(super) codes: Vec<i64>,
    pub(super) faults: Vec<String>,
}

/// By the case's name in the suite, and client.
pub(super) type Outcomes = BTreeMap<(String, Stack), Outcome>;

pub(super) fn play(stacks: &[Stack]) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for &stack in stacks {
        let direct = caught(|| run(Way::Direct, stack));
        for way in [Way::One, Way::Two] {
            let relayed = caught(|| run(way, stack));
            match (&direct, relayed) {
                (Ok(direct), Ok(relayed)) => add(&mut outcomes, stack, way, direct, relayed),
                (Err(fault), _) => note(&mut outcomes, stack, way, fault),
                (_, Err(fault)) => note(&mut outcomes, stack, way, &fault),
            }
        }
    }
    outcomes
}

/// What no case of a client is to blame for.
fn note(outcomes: &mut Outcomes, stack: Stack, way: Way, fault: &str) {
    let outcome = outcomes.entry(("(none)".to_owned(), stack)).or_default();
    outcome.faults.push(format!("{stack:?}, {}: {fault}", way.title()));
}

fn add(
    outcomes: &mut Outcomes,
    stack: Stack,
    way: Way,
    direct: &[(Case, Value)],
    relayed: Vec<(Case, Value)>,
) {
    for ((case, direct), (_, relayed)) in direct.iter().zip(relayed) {
        let name = case.suite.expect("each of these cases is one of the suite").to_owned();
        let outcome = outcomes.entry((name, stack)).or_default();
        if way == Way::One {
            outcome.codes.extend(codes(direct));
        }
        let faults = compare::faults_of_both(case, stack, None, direct.clone(), relayed);
        let told =
            faults.into_iter().map(|fault| format!("{stack:?}, {}, {}: {fault}", way.title(), case.name));
        outcome.faults.extend(told);
    }
}

fn codes(result: &Value) -> Vec<i64> {
    let one = result["code"].as_i64();
    let several = result["codes"].as_object().into_iter().flatten();
    one.into_iter().chain(several.map(|(code, _)| code.parse().unwrap())).collect()
}

fn run(way: Way, stack: Stack) -> Vec<(Case, Value)> {
    let server = Misbehaving::start();
    let mut route = Route::start(way, server.addr);
    let mut client = Client::start(stack, route.addr, server.addr, None);
    let mut results = Vec::new();
    for case in misbehaving::cases() {
        let result = client.run(&case.spec);
        results.push((case, result));
    }
    let faults = server.faults();
    assert!(faults.is_empty(), "the server found: {}", faults.join("; "));
    drop(client);
    for sidecar in route.sidecars.iter_mut().rev() {
        sidecar.stop();
        sidecar.verify();
    }
    let calls: i64 = results.iter().map(|(case, _)| case.calls).sum();
    for sidecar in &route.sidecars {
        let listed = sidecar.calls().len();
        assert!(i64::try_from(listed) == Ok(calls), "{calls} calls were made, the ledger lists {listed}");
    }
    results
}
