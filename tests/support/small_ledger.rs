//! A ledger of small segments in a temporary folder, and numbered submissions to it, for tests that make it fail.
//!
//! A submission is two entries, one of them with payload; its number can be found again in the first. Reading back is `ledger_reading`'s.
#![allow(dead_code, reason = "each test takes what it needs")]

use crate::faulty_disk::{Faults, FaultyDisk};
use attestry::clock::{Clock, SystemClock};
use attestry::counters::Counters;
use attestry::entry::{Body, CommitError, PendingEntry, Receipt, Submission};
use attestry::generated::v1;
use attestry::ledger::disk::Disk;
use attestry::ledger::open::{Location, OpenError};
use attestry::ledger::{Ledger, LedgerHandle, OnFailure, Options};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tower::Service as _;

/// Three submissions or so.
pub const SEGMENT_BYTES: u64 = 8 * 1024;

/// The log's name.
pub const ORIGIN: &str = "test.example/faults";

const PAYLOAD_BYTES: usize = 2 * 1024;

/// The longest wait for anything here; it bounds a failing test and decides nothing else.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How such a ledger is run. Its key is `DIR/key`.
pub fn options(dir: &Path, on_failure: OnFailure) -> Options {
    Options {
        location: location(dir),
        on_failure,
        commit_wait_max: PATIENCE,
        recovery_interval: Duration::from_millis(10),
        queue_max: NonZeroUsize::new(64).unwrap(),
        batch_bytes_max: 1 << 20,
        db_cache_bytes: 1 << 20,
    }
}

/// Where it is.
pub fn location(dir: &Path) -> Location {
    Location {
        dir: dir.to_owned(),
        key_file: dir.join("key"),
        origin: Some(ORIGIN.into()),
        segment_bytes: SEGMENT_BYTES,
    }
}

/// Starts it on the real disk.
pub fn start(options: &Options) -> Result<Ledger, OpenError> {
    start_with(options, Arc::new(SystemClock), None)
}

/// Starts it on a disk that fails as `faults` says.
pub fn start_faulty(options: &Options, faults: &Faults) -> Result<Ledger, OpenError> {
    let disk = FaultyDisk::new(&options.location.dir, options.location.segment_bytes, faults);
    start_with(options, Arc::new(SystemClock), Some(Box::new(disk)))
}

/// Starts it on any disk, with any clock.
pub fn start_with(
    options: &Options,
    clock: Arc<dyn Clock>,
    disk: Option<Box<dyn Disk>>,
) -> Result<Ledger, OpenError> {
    Ledger::start_with(options, clock, Arc::new(Counters::default()), v1::Started::default(), disk)
}

/// Submission number `number`.
pub fn submission(number: u64) -> Submission {
    let payload = vec![u8::try_from(number % 251).unwrap(); PAYLOAD_BYTES];
    let event = v1::ConnectionEvent {
        r#type: v1::connection_event::Type::Goaway.into(),
        payload_length: payload.len() as u64,
        payload_sha256: Sha256::digest(&payload).to_vec().into(),
        payload_stored: true,
        ..Default::default()
    };
    let events = v1::ConnectionEvents { connection: number + 1, events: vec![event], ..Default::default() };
    let events = PendingEntry::with_payload(&Body::ConnectionEvents(events), vec![payload.into()]);
    let closed =
        v1::ConnectionClosed { connection: number + 1, reason: "numbered".into(), ..Default::default() };
    Submission {
        entries: vec![PendingEntry::new(&Body::ConnectionClosed(closed)), events],
        wire_bytes: wire_bytes(number),
    }
}

/// The same without payload: one entry, and a short frame.
pub fn short_submission(number: u64) -> Submission {
    let mut submission = submission(number);
    submission.entries.truncate(1);
    submission
}

/// What submission number `number` says it holds back.
pub fn wire_bytes(number: u64) -> u64 {
    1_000 + number
}

/// The numbers of the submissions that a ledger holds.
pub fn numbers(entries: &[v1::Entry]) -> BTreeSet<u64> {
    let number = |entry: &v1::Entry| match &entry.body {
        Some(Body::ConnectionClosed(closed)) if closed.reason == "numbered" => Some(closed.connection - 1),
        _ => None,
    };
    entries.iter().filter_map(number).collect()
}

/// Commits submission number `number`; the answer must come.
pub async fn submit(port: &mut LedgerHandle, number: u64) -> Result<Receipt, CommitError> {
    answer_to(port, submission(number)).await
}

/// Commits any submission; the answer must come.
pub async fn answer_to(port: &mut LedgerHandle, submission: Submission) -> Result<Receipt, CommitError> {
    let answer = async {
        poll_fn(|cx| port.poll_ready(cx)).await?;
        port.call(submission).await
    };
    tokio::time::timeout(PATIENCE, answer).await.expect("every submission is answered")
}

/// Commits the submissions in `numbers`, of which each must succeed.
pub async fn submit_all(port: &mut LedgerHandle, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        let receipt = submit(port, number).await;
        assert!(matches!(receipt, Ok(Receipt::Committed { .. })), "submission {number}: {receipt:?}");
    }
}

/// A runtime for one test.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
