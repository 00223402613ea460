//! The commit port under many callers: a submission waits for commits, and for nothing else.
//!
//! The ledger's own clock of recovery ticks once an hour here, so that a submission which nobody was woken for stays where it is, and the test says so.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

#[path = "support/faulty_disk.rs"]
mod faulty_disk;
#[path = "support/small_ledger.rs"]
mod small_ledger;

use attestry::entry::Receipt;
use attestry::ledger::{Commit, LedgerHandle, OnFailure};
use small_ledger::{PATIENCE, options, runtime, short_submission, start};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::thread;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::timeout;
use tower::Service as _;

/// Callers on each of two threads; each is a connection in one direction, which waits for its oldest answer alone.
const CALLERS: u64 = 8;
const ROUNDS: u64 = 200;

#[test]
fn no_submission_waits_for_a_tick() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path(), OnFailure::Refuse);
    options.location.segment_bytes = 1 << 20;
    options.recovery_interval = Duration::from_hours(1);
    let ledger = start(&options).unwrap();
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let handle = ledger.handle();
            thread::spawn(move || work(&handle))
        })
        .collect();
    for worker in workers {
        worker.join().expect("every submission is answered");
    }
    ledger.stop("the test is over").unwrap();
}

fn work(handle: &LedgerHandle) {
    let local = LocalSet::new();
    // A peer that has gone away without a word: its answer comes, and nobody asks for it.
    let mut absent = handle.clone();
    let callers: Vec<_> =
        (0..CALLERS).map(|caller| local.spawn_local(call(handle.clone(), caller))).collect();
    local.block_on(&runtime(), async {
        let unasked = submit(&mut absent, 0).await;
        for caller in callers {
            timeout(PATIENCE, caller).await.expect("a submission waits for ever").unwrap();
        }
        drop(unasked);
    });
}

/// Bursts of one to four submissions; of each burst one stays open while the next is sent.
async fn call(mut port: LedgerHandle, caller: u64) {
    let mut held = VecDeque::new();
    for round in 0..ROUNDS {
        for number in 0..=(caller + round) % 4 {
            held.push_back(submit(&mut port, number).await);
        }
        while held.len() > 1 {
            committed(held.pop_front().unwrap()).await;
        }
    }
    for answer in held {
        committed(answer).await;
    }
}

async fn submit(port: &mut LedgerHandle, number: u64) -> Commit {
    poll_fn(|cx| port.poll_ready(cx)).await.unwrap();
    port.call(short_submission(number))
}

async fn committed(answer: Commit) {
    assert!(matches!(answer.await, Ok(Receipt::Committed { .. })));
}
