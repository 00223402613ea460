//! Whether the ledger can commit, shared by the committer and everybody who waits for it.
//!
//! Two states: sound, and failing (since when, why, and what passed or was refused since). Failing is told to callers as `ledger.on_failure` says; the numbers become
//! the gap entry of the recovery.

use crate::counters::Counters;
use crate::entry::{Body, CommitError, PendingEntry, Receipt};
use crate::generated::v1;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What happens to traffic while the ledger cannot commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing passes unrecorded.
    Refuse,
    /// Traffic passes unrecorded, and is counted.
    Forward,
}

/// The state of the ledger.
#[derive(Debug)]
pub struct Health {
    on_failure: OnFailure,
    counters: Arc<Counters>,
    /// Read on each submission; `failure` is locked only while failing.
    failing: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    from_unix_nanos: u64,
    submissions: u64,
    wire_bytes: u64,
}

impl Health {
    /// A sound ledger.
    pub fn new(on_failure: OnFailure, counters: Arc<Counters>) -> Self {
        Self { on_failure, counters, failing: AtomicBool::new(false), failure: Mutex::new(None) }
    }

    /// Whether the ledger cannot commit.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// The ledger cannot commit, from now on until [`Health::recovered`]. The first reason stands.
    pub fn fail(&self, reason: String, now_unix_nanos: u64) {
        let mut failure = self.lock();
        if failure.is_none() {
            tracing::error!(reason, on_failure = ?self.on_failure, "the ledger cannot commit");
            *failure =
                Some(Failure { reason, from_unix_nanos: now_unix_nanos, submissions: 0, wire_bytes: 0 });
            self.failing.store(true, Ordering::Release);
        }
    }

    /// Why the ledger cannot commit; `None` while it is sound.
    pub fn failing(&self) -> Option<String> {
        if self.is_failing() { self.lock().as_ref().map(|failure| failure.reason.clone()) } else { None }
    }

    /// Why nothing passes now; `None` while the ledger is sound, or failing and forwarding.
    pub fn refusing(&self) -> Option<String> {
        if self.on_failure == OnFailure::Refuse { self.failing() } else { None }
    }

    /// What a caller is told whose submission is not in the ledger, counted for the gap entry.
    pub fn outcome(&self, wire_bytes: u64) -> Result<Receipt, CommitError> {
        let mut failure = self.lock();
        let gone = || "its commit failed; the ledger commits again by now".into();
        let reason = failure.as_mut().map_or_else(gone, |failure| {
            failure.submissions += 1;
            failure.wire_bytes += wire_bytes;
            failure.reason.clone()
        });
        match self.on_failure {
            OnFailure::Refuse => {
                self.counters.refused_submissions.add(1);
                Err(CommitError::Refusing(reason))
            }
            OnFailure::Forward => {
                self.counters.unrecorded_submissions.add(1);
                Ok(Receipt::Unrecorded)
            }
        }
    }

    /// The ledger can commit again. Returns the entry that says what happened meanwhile; until it is committed, nothing else may be.
    pub fn recovered(&self, now_unix_nanos: u64) -> Option<PendingEntry> {
        let mut failure = self.lock();
        let failed = failure.take()?;
        self.failing.store(false, Ordering::Release);
        tracing::warn!(reason = failed.reason, submissions = failed.submissions, "the ledger commits again");
        let forwarded = self.on_failure == OnFailure::Forward;
        let count = |of_this_kind: bool, count: u64| if of_this_kind { count } else { 0 };
        Some(PendingEntry::new(&Body::Gap(v1::Gap {
            reason: failed.reason,
            from_unix_nanos: failed.from_unix_nanos,
            to_unix_nanos: now_unix_nanos,
            forwarded,
            forwarded_submissions: count(forwarded, failed.submissions),
            forwarded_bytes: count(forwarded, failed.wire_bytes),
            refused_submissions: count(!forwarded, failed.submissions),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
