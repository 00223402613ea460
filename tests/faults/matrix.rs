//! Each write and each fdatasync of a run x {fails, fails but persisted, hangs}, once or until the disk is well again, in both modes of
//! `ledger.on_failure`.
//!
//! A run commits submissions one after the other over several segments while the fault is planned, looks at what a crash would leave, lets the
//! ledger recover, looks again, stops it and looks a last time.

use crate::faulty_disk::{Fault, Faults, Op, Plan};
use crate::ledger_reading::{assert_intact, bodies, crash, entries, entries_of, frames, gaps, starts};
use crate::small_ledger::{
    PATIENCE, numbers, options, runtime, start, start_faulty, submission, submit, submit_all, wire_bytes,
};
use attestry::entry::{Body, CommitError, Receipt};
use attestry::generated::v1;
use attestry::ledger::{LedgerHandle, OnFailure};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::path::Path;
use std::time::Duration;
use tokio::time::sleep;
use tower::Service as _;

/// Submissions of a run before anything is waited for: they fill two segments and begin a third.
const SUBMISSIONS: u64 = 7;

/// Past it a ledger whose disk hangs must answer. Short, because each hanging case waits that long.
const HANG_LIMIT: Duration = Duration::from_millis(150);

/// Between two tries of a submission while the ledger has yet to recover.
const RETRY_PAUSE: Duration = Duration::from_millis(3);

const FAULTS: [Fault; 3] = [Fault::Fails, Fault::FailsButPersists, Fault::Hangs];
const MODES: [OnFailure; 2] = [OnFailure::Refuse, OnFailure::Forward];

#[test]
fn each_write_of_a_segment() {
    run_all(Op::Write, SUBMISSIONS);
}

#[test]
fn each_sync_of_a_segment() {
    run_all(Op::Sync, SUBMISSIONS);
}

#[test]
fn each_write_of_the_head() {
    run_all(Op::WriteHead, SUBMISSIONS);
}

#[test]
fn each_new_segment() {
    run_all(Op::CreateSegment, 2);
}

#[test]
fn each_cut_of_a_segment() {
    run_all(Op::Trim, 2);
}

/// A fault while another is being recovered from: the recovery is an operation like any other.
#[test]
fn a_fault_within_the_recovery() {
    for op in [Op::Write, Op::Sync, Op::WriteHead, Op::CreateSegment, Op::Trim] {
        for fault in FAULTS {
            let folder = tempfile::tempdir().unwrap();
            let run = Run {
                name: format!("{op:?} {fault:?} within a recovery"),
                mode: OnFailure::Forward,
                folder: folder.path(),
            };
            // The first failed fdatasync leads to a recovery, in which the second plan is met as its first such operation.
            let first = Plan { op: Op::Sync, fault: Fault::Fails, occurrence: 2, stays: false };
            runtime().block_on(run.twice(first, Plan { op, fault, occurrence: 1, stays: false }));
        }
    }
}

/// A start whose disk fails says so, and the next one finds nothing that disturbs it.
#[test]
fn each_operation_of_a_start() {
    for op in [Op::CreateSegment, Op::Write, Op::Sync, Op::WriteHead, Op::Trim, Op::OpenSegment] {
        for fault in [Fault::Fails, Fault::FailsButPersists] {
            for has_history in [false, true] {
                start_on_a_failing_disk(Plan { op, fault, occurrence: 1, stays: false }, has_history);
            }
        }
    }
}

fn start_on_a_failing_disk(plan: Plan, has_history: bool) {
    let what = format!("{plan:?}, history: {has_history}");
    let (folder, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut dir = folder.path();
    if has_history {
        let ledger = start(&options(dir, OnFailure::Refuse)).unwrap();
        runtime().block_on(submit_all(&mut ledger.handle(), 0..3));
        crash(dir, crashed.path());
        ledger.stop("end").unwrap();
        dir = crashed.path();
    }
    let faults = Faults::default();
    faults.plan(plan);
    let started = start_faulty(&options(dir, OnFailure::Refuse), &faults);
    if !faults.were_met() {
        // A new ledger has nothing to open and nothing to cut.
        assert!(!has_history && matches!(plan.op, Op::Trim | Op::OpenSegment), "{what} was never met");
        return;
    }
    assert!(started.is_err(), "{what}: the start went on");
    let before = numbers(&entries(dir));
    faults.clear();
    let ledger = start(&options(dir, OnFailure::Refuse)).unwrap_or_else(|error| panic!("{what}: {error}"));
    runtime().block_on(submit_all(&mut ledger.handle(), 10..12));
    ledger.stop("end").unwrap();
    assert_intact(dir, &what);
    let expected = before.into_iter().chain(10..12).collect::<BTreeSet<_>>();
    assert_eq!(numbers(&entries(dir)), expected, "{what}");
    let opened = bodies(dir).into_iter().filter(|body| matches!(body, Body::Opened(_))).count();
    assert_eq!(opened, 1, "{what}");
}

/// Who looks at the answer to a failed submission only when the ledger has recovered is in a gap entry too.
#[test]
fn a_submission_whose_answer_is_taken_late_is_counted() {
    for mode in MODES {
        let folder = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let ledger = start_faulty(&options(folder.path(), mode), &faults).unwrap();
        let refused = runtime().block_on(async {
            let mut port = ledger.handle();
            faults.plan(Plan { op: Op::Sync, fault: Fault::Fails, occurrence: 1, stays: false });
            poll_fn(|cx| port.poll_ready(cx)).await.unwrap();
            let late = port.call(submission(0));
            assert!(faults.wait_until_met(PATIENCE));
            let mut told = Told::default();
            told.until_committed(&mut port, 1).await;
            told.take(0, late.await);
            told
        });
        ledger.stop("end").unwrap();
        refused.assert_in_gaps(&gaps(folder.path()), mode, &format!("{mode:?}"));
    }
}

/// A failed segment is never written again, not even by the last entry of a run: an end that cannot be recorded is an error, and what passed
/// or was refused before it is not forgotten.
#[test]
fn an_end_while_the_disk_fails_does_not_write_to_the_failed_segment() {
    for fault in [Fault::Fails, Fault::FailsButPersists] {
        let folder = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let ledger = start_faulty(&options(folder.path(), OnFailure::Refuse), &faults).unwrap();
        runtime().block_on(async {
            let mut port = ledger.handle();
            submit_all(&mut port, 0..1).await;
            faults.plan(Plan { op: Op::Sync, fault, occurrence: 1, stays: false });
            assert!(submit(&mut port, 1).await.is_err());
            // From here on no new segment can be had, so the ledger stays as it is.
            faults.plan(Plan { op: Op::CreateSegment, fault: Fault::Fails, occurrence: 1, stays: true });
        });
        let writes_before = faults.count(Op::Write);
        let stopped = ledger.stop("end");
        let wrote = faults.count(Op::Write) - writes_before;
        assert_eq!(wrote, 0, "{fault:?}: the failed segment was written again, and the end was {stopped:?}");
        assert!(stopped.is_err(), "{fault:?}: an end that is not in the ledger is no success");
        assert_intact(folder.path(), &format!("{fault:?}"));
    }
}

fn run_all(op: Op, occurrences: u64) {
    let cases: Vec<(Plan, OnFailure)> = FAULTS
        .into_iter()
        .flat_map(|fault| {
            (1..=occurrences)
                .flat_map(move |occurrence| [false, true].map(|stays| Plan { op, fault, occurrence, stays }))
        })
        // What hangs stays so until the disk is well in any case.
        .filter(|plan| plan.fault != Fault::Hangs || !plan.stays)
        .flat_map(|plan| MODES.map(|mode| (plan, mode)))
        .collect();
    for (plan, mode) in cases {
        let folder = tempfile::tempdir().unwrap();
        let run = Run { name: format!("{plan:?} {mode:?}"), mode, folder: folder.path() };
        runtime().block_on(run.once(plan));
    }
}

/// What callers were told.
#[derive(Debug, Default)]
struct Told {
    committed: BTreeSet<u64>,
    /// Refused, or let go on unrecorded, as the mode says.
    otherwise: BTreeSet<u64>,
    refused: bool,
    unrecorded: bool,
}

impl Told {
    fn take(&mut self, number: u64, answer: Result<Receipt, CommitError>) {
        match answer {
            Ok(Receipt::Committed { .. }) => drop(self.committed.insert(number)),
            Ok(Receipt::Unrecorded) => {
                self.unrecorded = true;
                self.otherwise.insert(number);
            }
            Err(CommitError::Refusing(reason)) => {
                self.refused = true;
                assert!(!reason.is_empty(), "submission {number} is refused without a reason");
                self.otherwise.insert(number);
            }
            Err(CommitError::Closed) => panic!("submission {number}: the ledger has ended"),
        }
    }

    /// Submits numbers from `first` on until one is committed; returns the next number.
    async fn until_committed(&mut self, port: &mut LedgerHandle, first: u64) -> u64 {
        let tries = u64::try_from(PATIENCE.as_millis() / RETRY_PAUSE.as_millis()).unwrap();
        for number in first..first + tries {
            self.take(number, submit(port, number).await);
            if self.committed.contains(&number) {
                return number + 1;
            }
            sleep(RETRY_PAUSE).await;
        }
        panic!("the ledger does not recover: {self:?}");
    }

    /// Callers were told what the mode says, and each of them is in a gap entry.
    fn assert_in_gaps(&self, gaps: &[v1::Gap], mode: OnFailure, name: &str) {
        let sum = |part: fn(&v1::Gap) -> u64| gaps.iter().map(part).sum::<u64>();
        let count = self.otherwise.len() as u64;
        let bytes: u64 = self.otherwise.iter().map(|&number| wire_bytes(number)).sum();
        let is_forward = mode == OnFailure::Forward;
        let expected = if is_forward { (count, bytes, 0) } else { (0, 0, count) };
        let found = (
            sum(|gap| gap.forwarded_submissions),
            sum(|gap| gap.forwarded_bytes),
            sum(|gap| gap.refused_submissions),
        );
        assert_eq!(
            found, expected,
            "{name}: forwarded submissions and bytes, refused submissions: {gaps:#?} {self:?}"
        );
        assert!(if is_forward { !self.refused } else { !self.unrecorded }, "{name}: {self:?}");
        for gap in gaps {
            assert!(gap.forwarded == is_forward && !gap.reason.is_empty(), "{name}: {gap:?}");
            assert!(gap.from_unix_nanos <= gap.to_unix_nanos, "{name}: {gap:?}");
        }
    }
}

/// One run against a fault.
struct Run<'a> {
    name: String,
    mode: OnFailure,
    folder: &'a Path,
}

impl Run<'_> {
    async fn once(&self, plan: Plan) {
        let faults = Faults::default();
        let ledger = self.start(&faults, plan);
        let (mut port, mut told) = (ledger.handle(), Told::default());
        faults.plan(plan);
        for number in 0..SUBMISSIONS {
            told.take(number, submit(&mut port, number).await);
        }
        self.assert_survives_a_crash(&told, "crash1");
        faults.clear();
        assert!(faults.were_met(), "{}: never met", self.name);
        assert!(!told.otherwise.is_empty(), "{}: nobody noticed", self.name);
        self.finish(port, ledger, told).await;
    }

    async fn twice(&self, first: Plan, second: Plan) {
        let faults = Faults::default();
        let ledger = self.start(&faults, second);
        let (mut port, mut told) = (ledger.handle(), Told::default());
        faults.plan(first);
        for number in 0..first.occurrence {
            told.take(number, submit(&mut port, number).await);
        }
        // In time: the recovery is not tried before its interval is over.
        faults.plan(second);
        assert!(faults.wait_until_met(PATIENCE), "{}: never met", self.name);
        self.assert_survives_a_crash(&told, "crash1");
        told.take(100, submit(&mut port, 100).await);
        faults.clear();
        self.finish(port, ledger, told).await;
    }

    fn start(&self, faults: &Faults, plan: Plan) -> attestry::ledger::Ledger {
        let mut options = options(&self.dir(), self.mode);
        options.recovery_interval = Duration::from_millis(20);
        if plan.fault == Fault::Hangs {
            options.commit_wait_max = HANG_LIMIT;
        }
        start_faulty(&options, faults).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The disk is well again: the ledger recovers, survives a crash, ends, and starts again.
    async fn finish(&self, mut port: LedgerHandle, ledger: attestry::ledger::Ledger, mut told: Told) {
        let next = told.until_committed(&mut port, 200).await;
        told.take(next, submit(&mut port, next).await);
        self.assert_survives_a_crash(&told, "crash2");
        drop(port);
        ledger.stop("end").unwrap_or_else(|error| panic!("{}: {error}", self.name));
        self.assert_holds(&self.dir(), &told);
        let gaps = gaps(&self.dir());
        told.assert_in_gaps(&gaps, self.mode, &self.name);
        self.assert_gaps_begin_segments();
        let again = start(&options(&self.dir(), self.mode)).unwrap();
        again.stop("end").unwrap();
        let starts = starts(&self.dir());
        assert!(
            starts[1].previous_stop_was_clean && starts[1].torn_bytes_cut == 0,
            "{}: {starts:?}",
            self.name
        );
        self.assert_holds(&self.dir(), &told);
    }

    fn dir(&self) -> std::path::PathBuf {
        self.folder.join("ledger")
    }

    /// What is on the disk now is intact and holds all that was committed, before and after a start.
    fn assert_survives_a_crash(&self, told: &Told, name: &str) {
        let copy = self.folder.join(name);
        crash(&self.dir(), &copy);
        self.assert_holds(&copy, told);
        let again =
            start(&options(&copy, self.mode)).unwrap_or_else(|error| panic!("{} {name}: {error}", self.name));
        again.stop("end").unwrap();
        self.assert_holds(&copy, told);
        let last = starts(&copy).pop().unwrap();
        assert!(!last.previous_stop_was_clean, "{} {name}", self.name);
    }

    fn assert_holds(&self, ledger: &Path, told: &Told) {
        let what = format!("{} in {}", self.name, ledger.display());
        assert_intact(ledger, &what);
        let numbers = numbers(&entries(ledger));
        let missing: Vec<_> = told.committed.difference(&numbers).collect();
        assert!(missing.is_empty(), "{what}: {missing:?} were committed and are missing; {told:?}");
    }

    fn assert_gaps_begin_segments(&self) {
        for placed in frames(&self.dir()) {
            let has_gap =
                entries_of(&placed.frame).iter().any(|entry| matches!(entry.body, Some(Body::Gap(_))));
            let begins = placed.frame.header().first_index == placed.segment;
            assert!(
                !has_gap || begins,
                "{}: a gap at {} in segment {}",
                self.name,
                placed.offset,
                placed.segment
            );
        }
    }
}

/// The matrix means something only if the same run without a fault is without loss, and crosses segments.
#[test]
fn a_run_without_a_fault_commits_everything() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = start_faulty(&options(folder.path(), OnFailure::Refuse), &Faults::default()).unwrap();
    runtime().block_on(submit_all(&mut ledger.handle(), 0..SUBMISSIONS));
    ledger.stop("end").unwrap();
    assert_intact(folder.path(), "no fault");
    assert_eq!(numbers(&entries(folder.path())), (0..SUBMISSIONS).collect());
    assert!(frames(folder.path()).iter().map(|placed| placed.segment).collect::<BTreeSet<_>>().len() >= 3);
}
