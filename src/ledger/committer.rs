//! The committer: one plain thread that turns whatever waits in the queue into one frame, one fdatasync, and one answer each.
//!
//! Group commit without a timer: a batch is what came while the batch before was being synced. After a failure everything is answered at once as
//! `ledger.on_failure` says, and recovery is tried at an interval. The callers' end is `handle`'s; what a frame is, `writer`'s.

use super::health::Health;
use super::index::Indexer;
use super::writer::{WriteError, Writer};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::entry::{CommitError, PendingEntry, Receipt, Submission};
use crate::limits::BATCH_ENTRIES_MAX;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// A submission in the queue.
pub(super) struct Job {
    pub submission: Submission,
    pub answer: oneshot::Sender<Result<Receipt, CommitError>>,
    /// The job's place in the bounded queue, free again when it is answered.
    pub _place: Option<OwnedSemaphorePermit>,
}

/// What the thread owns.
pub(super) struct Committer {
    pub writer: Writer,
    pub indexer: Option<Indexer>,
    pub health: Arc<Health>,
    pub counters: Arc<Counters>,
    pub clock: Arc<dyn Clock>,
    pub batch_bytes_max: usize,
    pub recovery_interval: Duration,
    /// What the log must say at the next recovery, because it could not at the last.
    pub unsaid: Vec<PendingEntry>,
    /// Held for as long as this writer writes.
    pub _lock: File,
}

impl Committer {
    /// Serves the queue until its last sender is gone, then writes what `stopped` gives as the last entry and trims the segment.
    pub(super) fn run(
        mut self,
        queue: &Receiver<Job>,
        stopped: impl FnOnce() -> PendingEntry,
    ) -> Result<(), WriteError> {
        let mut recover_at = Instant::now();
        loop {
            if self.health.is_failing() && Instant::now() >= recover_at {
                self.try_recovery();
                recover_at = Instant::now() + self.recovery_interval;
            }
            let first = match self.next_job(queue, recover_at) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let batch = self.gather(first, queue);
            if self.health.is_failing() {
                self.refuse(batch);
            } else if !self.commit(batch) {
                recover_at = Instant::now() + self.recovery_interval;
            }
        }
        self.finish(stopped())
    }

    fn next_job(&self, queue: &Receiver<Job>, recover_at: Instant) -> Result<Job, RecvTimeoutError> {
        // Never without a limit: whoever waited too long may declare the ledger failing while nothing is in the queue, and then nothing more comes.
        let wait = if self.health.is_failing() {
            recover_at.saturating_duration_since(Instant::now())
        } else {
            self.recovery_interval
        };
        queue.recv_timeout(wait)
    }

    /// Everything that waits already, up to the bounds of a batch.
    fn gather(&self, first: Job, queue: &Receiver<Job>) -> Vec<Job> {
        let size = |job: &Job| {
            let payload: usize =
                job.submission.entries.iter().map(|entry| entry.body.len() + entry.payload_len()).sum();
            (payload, job.submission.entries.len())
        };
        let (mut bytes, mut entries) = size(&first);
        let mut batch = vec![first];
        while bytes < self.batch_bytes_max && entries < BATCH_ENTRIES_MAX {
            let Ok(job) = queue.try_recv() else { break };
            let (more_bytes, more_entries) = size(&job);
            (bytes, entries) = (bytes + more_bytes, entries + more_entries);
            batch.push(job);
        }
        batch
    }

    /// Commits and answers; false where nothing of the batch may be released.
    fn commit(&mut self, batch: Vec<Job>) -> bool {
        let entries = batch.iter().flat_map(|job| &job.submission.entries);
        match self.append(entries) {
            Ok(size) => {
                for job in batch {
                    // Whoever gave up waiting has closed its end; the entries are in the ledger all the same.
                    let _ = job.answer.send(Ok(Receipt::Committed { size }));
                }
                true
            }
            Err(error) => {
                self.fail(&error);
                self.refuse(batch);
                false
            }
        }
    }

    fn append<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a PendingEntry> + Clone,
    ) -> Result<u64, WriteError> {
        let row = self.writer.commit(entries)?;
        self.counters.commits.add(1);
        if let Some(indexer) = &self.indexer {
            indexer.committed(row, self.writer.head());
        }
        Ok(row.end_index)
    }

    /// Continues in a new segment, whose first entries say what was lost and what passed or was refused meanwhile.
    fn try_recovery(&mut self) {
        let damage = match self.writer.recover() {
            Ok(damage) => damage,
            Err(error) => {
                tracing::warn!(%error, "the ledger still cannot commit");
                return;
            }
        };
        let Some(gap) = self.health.recovered(self.clock.unix_nanos()) else { return };
        self.unsaid.extend(damage.into_iter().chain([gap]));
        let (unsaid, size) = (std::mem::take(&mut self.unsaid), self.writer.size());
        if let Err(error) = self.append(unsaid.iter()) {
            // What is durable already, though something behind it failed, is not said twice.
            if self.writer.size() == size {
                self.unsaid = unsaid;
            }
            self.fail(&error);
        }
    }

    /// Answers what is not in the ledger, and counts it before anything is recovered: the gap entry tells of all that was refused or let pass.
    fn refuse(&self, batch: Vec<Job>) {
        // Whoever gave up waiting has counted itself.
        for job in batch.into_iter().filter(|job| !job.answer.is_closed()) {
            let _ = job.answer.send(self.health.outcome(job.submission.wire_bytes));
        }
    }

    fn fail(&self, error: &WriteError) {
        self.counters.commit_failures.add(1);
        self.health.fail(error.to_string(), self.clock.unix_nanos());
    }

    fn finish(mut self, stopped: PendingEntry) -> Result<(), WriteError> {
        if self.health.is_failing() {
            self.try_recovery();
        }
        if self.health.is_failing() {
            let source = std::io::Error::other("the ledger cannot commit");
            return Err(WriteError { step: "the last entry could not be written", source });
        }
        self.append([stopped].iter())?;
        let trimmed = self.writer.finish();
        trimmed.map_err(|source| WriteError { step: "the segment could not be trimmed", source })
    }
}
