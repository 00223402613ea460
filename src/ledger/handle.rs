//! The callers' end of the ledger: the commit port as a tower service, and the ledger's start and end.
//!
//! A call waits for a place in the bounded queue (`poll_ready`), then for its answer, and never longer than `commit_wait_max`: past it the ledger counts as failing,
//! since a disk that hangs is a disk that fails.

use super::committer::{Committer, Job};
use super::disk::Disk;
use super::health::{Health, OnFailure};
use super::index::{self, Indexer, OpenStore};
use super::open::{self, Location, OpenError, Opened};
use super::patience::Patience;
use super::store::SledStore;
use super::writer::WriteError;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::entry::{Body, CommitError, PendingEntry, Receipt, Submission};
use crate::generated::v1;
use crate::note::VerifierKey;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::PollSemaphore;
use tower::Service;

/// How a ledger is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is, and whose.
    pub location: Location,
    /// What happens to traffic while it cannot commit.
    pub on_failure: OnFailure,
    /// Longest wait for one commit.
    pub commit_wait_max: Duration,
    /// Pause between two tries to recover.
    pub recovery_interval: Duration,
    /// Submissions that may wait.
    pub queue_max: NonZeroUsize,
    /// Bytes of one group commit.
    pub batch_bytes_max: usize,
    /// Page cache of the lookup tables.
    pub db_cache_bytes: u64,
}

/// A running ledger.
pub struct Ledger {
    handle: LedgerHandle,
    verifier_key: VerifierKey,
    redaction_key: [u8; 32],
    thread: JoinHandle<Result<(), WriteError>>,
    stop_reason: Arc<Mutex<String>>,
}

impl Ledger {
    /// Opens the ledger and starts its threads. When this returns, its first entries are durable.
    pub fn start(
        options: &Options,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        started: v1::Started,
    ) -> Result<Self, OpenError> {
        Self::start_with(options, clock, counters, started, None)
    }

    /// The same on another disk, for tests that make it fail.
    pub fn start_with(
        options: &Options,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        started: v1::Started,
        disk: Option<Box<dyn Disk>>,
    ) -> Result<Self, OpenError> {
        let dir = &options.location.dir;
        let io = |step| move |source| OpenError::Io { dir: options.location.dir.clone(), step, source };
        let examined = open::examine(&options.location)?;
        let cache_bytes = options.db_cache_bytes;
        let open_store: OpenStore =
            Box::new(move |dir| SledStore::open(dir, cache_bytes).map(|store| Box::new(store) as _));
        let store = index::open_or_set_aside(dir, &open_store)
            .inspect_err(|error| tracing::error!(%error, "going on without lookup tables"))
            .ok();
        let known = store.as_ref().and_then(|store| store.head().ok().flatten());
        let disk =
            disk.unwrap_or_else(|| Box::new(super::disk::FsDisk::new(dir, options.location.segment_bytes)));
        let opened = open::open(examined, disk, &options.location, Arc::clone(&clock), started, known)?;

        let Opened { mut writer, lock, verifier_key, redaction_key, first_entries } = opened;
        writer.commit(first_entries.iter()).map_err(|error| io(error.step)(error.source))?;
        let indexer =
            store.map(|store| Indexer::start(dir.clone(), store, open_store, writer.head())).transpose();
        let indexer = indexer.map_err(io("the index thread cannot be started"))?;
        let health = Arc::new(Health::new(options.on_failure, Arc::clone(&counters)));
        let (jobs, queue) = channel();
        let committer = Committer {
            writer,
            indexer,
            health: Arc::clone(&health),
            counters: Arc::clone(&counters),
            clock: Arc::clone(&clock),
            batch_bytes_max: options.batch_bytes_max,
            recovery_interval: options.recovery_interval,
            unsaid: Vec::new(),
            _lock: lock,
        };
        let stop_reason = Arc::new(Mutex::new(String::new()));
        let reason = Arc::clone(&stop_reason);
        let run = move || committer.run(&queue, || stopped(&reason, &counters));
        let thread = thread::Builder::new().name("commit".into()).spawn(run);
        let thread = thread.map_err(io("the commit thread cannot be started"))?;
        let places = PollSemaphore::new(Arc::new(Semaphore::new(options.queue_max.get())));
        let wait_max = options.commit_wait_max;
        let patience = Patience::default();
        let handle = LedgerHandle {
            jobs,
            places,
            place: None,
            place_deadline: None,
            patience,
            health,
            clock,
            wait_max,
        };
        Ok(Self { handle, verifier_key, redaction_key, thread, stop_reason })
    }

    /// A commit port. Clones share the queue and its bound.
    pub fn handle(&self) -> LedgerHandle {
        self.handle.clone()
    }

    /// Whether it can commit, for whoever has no business with it: this does not keep the ledger from ending.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.handle.health)
    }

    /// The key that the ledger verifies under.
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.verifier_key
    }

    /// The key of the digests that stand for secrets in metadata; known to whoever has the signing key.
    pub fn redaction_key(&self) -> &[u8; 32] {
        &self.redaction_key
    }

    /// Commits what waits, writes the last entry, and ends. Returns when every handle is dropped and all is durable.
    pub fn stop(self, reason: &str) -> Result<(), WriteError> {
        reason.clone_into(&mut self.stop_reason.lock().unwrap_or_else(PoisonError::into_inner));
        drop(self.handle);
        self.thread.join().unwrap_or_else(|_| {
            Err(WriteError {
                step: "the commit thread panicked",
                source: std::io::Error::other("see the log"),
            })
        })
    }
}

fn stopped(reason: &Mutex<String>, counters: &Counters) -> PendingEntry {
    let reason = reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let counters = counters.snapshot().into_iter();
    let counters = counters.map(|(name, value)| v1::Counter { name: name.into(), value }).collect();
    PendingEntry::new(&Body::Stopped(v1::Stopped { reason, counters }))
}

/// The commit port of a ledger. A handle and its answers belong to one task; another task takes a clone.
pub struct LedgerHandle {
    jobs: Sender<Job>,
    places: PollSemaphore,
    place: Option<OwnedSemaphorePermit>,
    /// How long a place is waited for, while the queue is full.
    place_deadline: Option<Instant>,
    patience: Patience,
    health: Arc<Health>,
    clock: Arc<dyn Clock>,
    wait_max: Duration,
}

impl LedgerHandle {
    /// Why the ledger cannot commit, while it is failing and `on_failure` is "refuse".
    pub fn refusing(&self) -> Option<String> {
        self.health.refusing()
    }

    /// Puts a submission into the queue; `None` where nobody serves it any more.
    fn send(&self, submission: Submission, place: Option<OwnedSemaphorePermit>) -> Option<Waiting> {
        let (answer, receipt) = oneshot::channel();
        self.jobs.send(Job { submission, answer, _place: place }).ok()?;
        let (deadline, patience) = (Instant::now() + self.wait_max, self.patience.clone());
        let clock = Arc::clone(&self.clock);
        Some(Waiting { receipt, deadline, patience, clock, wait_max: self.wait_max })
    }
}

impl Clone for LedgerHandle {
    /// The clone has no place in the queue yet.
    fn clone(&self) -> Self {
        let (jobs, places) = (self.jobs.clone(), self.places.clone());
        let (health, clock) = (Arc::clone(&self.health), Arc::clone(&self.clock));
        Self {
            jobs,
            places,
            place: None,
            place_deadline: None,
            patience: Patience::default(),
            health,
            clock,
            wait_max: self.wait_max,
        }
    }
}

impl Service<Submission> for LedgerHandle {
    type Response = Receipt;
    type Error = CommitError;
    type Future = Commit;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CommitError>> {
        // A failing ledger answers at once, so nobody has to wait for a place.
        if self.place.is_none() && !self.health.is_failing() {
            match self.places.poll_acquire(cx) {
                Poll::Ready(place) => self.place = place,
                Poll::Pending => {
                    // The queue is full. A ledger that stays so is one that hangs.
                    let deadline = *self.place_deadline.get_or_insert_with(|| Instant::now() + self.wait_max);
                    ready!(self.patience.poll_over(deadline, cx));
                    fail_hung(&self.health, self.wait_max, self.clock.as_ref());
                }
            }
        }
        self.place_deadline = None;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, submission: Submission) -> Commit {
        let wire_bytes = submission.wire_bytes;
        let health = Arc::clone(&self.health);
        // One read may make a second submission (its connection's end); it goes along without a place of its own.
        let place = self.place.take();
        let waiting = if health.is_failing() { None } else { self.send(submission, place) };
        // Counted now: whoever waits behind others may ask only after a recovery.
        let answered = waiting.is_none().then(|| health.outcome(wire_bytes));
        Commit { waiting, answered, health, wire_bytes }
    }
}

/// The answer to one submission.
pub struct Commit {
    /// `None` where the ledger was failing already.
    waiting: Option<Waiting>,
    /// What was answered at once.
    answered: Option<Result<Receipt, CommitError>>,
    health: Arc<Health>,
    wire_bytes: u64,
}

struct Waiting {
    receipt: oneshot::Receiver<Result<Receipt, CommitError>>,
    deadline: Instant,
    patience: Patience,
    clock: Arc<dyn Clock>,
    wait_max: Duration,
}

impl Future for Commit {
    type Output = Result<Receipt, CommitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { waiting, answered, health, wire_bytes } = &mut *self;
        if let Some(Waiting { receipt, deadline, patience, clock, wait_max }) = waiting {
            if let Poll::Ready(answer) = Pin::new(&mut *receipt).poll(cx) {
                return Poll::Ready(answer.unwrap_or(Err(CommitError::Closed)));
            }
            ready!(patience.poll_over(*deadline, cx));
            // From here on the committer does not answer; if it just has, that counts.
            receipt.close();
            if let Ok(answer) = receipt.try_recv() {
                return Poll::Ready(answer);
            }
            fail_hung(health, *wait_max, clock.as_ref());
        }
        Poll::Ready(answered.take().unwrap_or_else(|| health.outcome(*wire_bytes)))
    }
}

fn fail_hung(health: &Health, wait_max: Duration, clock: &dyn Clock) {
    let limit = wait_max.as_millis();
    health.fail(
        format!("a commit took longer than {limit} ms (ledger.commit_wait_ms_max)"),
        clock.unix_nanos(),
    );
}
