//! The ledger as the benchmark runs it, with the bounds that the product has by default: as a whole behind its port, and its writer alone.

use anyhow::Context as _;
use attestry::clock::SystemClock;
use attestry::counters::Counters;
use attestry::entry::{PendingEntry, Receipt, Submission};
use attestry::generated::v1;
use attestry::ledger::disk::FsDisk;
use attestry::ledger::open::{self, Location};
use attestry::ledger::writer::Writer;
use attestry::ledger::{Commit, Ledger, LedgerHandle, OnFailure, Options, head, segment};
use attestry::limits;
use std::fs::{self, File};
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tower::Service as _;

/// A folder for a ledger, or for several things, and how long the segments are in it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) segment_bytes: u64,
}

impl Place {
    /// A place in it.
    pub(super) fn within(&self, name: &str) -> Self {
        Self { dir: self.dir.join(name), ..*self }
    }
}

/// A running ledger, each submission to which is one commit.
pub(super) struct Running {
    ledger: Ledger,
    handle: LedgerHandle,
    runtime: tokio::runtime::Runtime,
}

impl Running {
    /// Starts the ledger there.
    pub(super) fn start(place: &Place) -> anyhow::Result<Self> {
        // One thread, as each of the product's workers has: a receipt wakes it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (clock, counters) = (Arc::new(SystemClock), Arc::new(Counters::default()));
        let ledger = Ledger::start(&options(place), clock, counters, v1::Started::default())?;
        Ok(Self { handle: ledger.handle(), ledger, runtime })
    }

    /// Hands over a submission; its answer is waited for with [`Running::receive`].
    pub(super) fn submit(&mut self, entries: Vec<PendingEntry>) -> anyhow::Result<Commit> {
        let handle = &mut self.handle;
        self.runtime.block_on(async {
            poll_fn(|cx| handle.poll_ready(cx)).await?;
            Ok(handle.call(Submission { entries, wire_bytes: 0 }))
        })
    }

    /// Waits until a submission is durable.
    pub(super) fn receive(&self, commit: Commit) -> anyhow::Result<()> {
        match self.runtime.block_on(commit)? {
            Receipt::Committed { .. } => Ok(()),
            Receipt::Unrecorded => anyhow::bail!("the ledger let a submission pass unrecorded"),
        }
    }

    /// Ends it as a clean stop does.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        let Self { ledger, handle, runtime } = self;
        drop((handle, runtime));
        Ok(ledger.stop("the benchmark has ended")?)
    }
}

/// The writer of a new ledger, without queue, threads and tables.
pub(super) struct Bare {
    writer: Writer,
    _lock: File,
}

impl Bare {
    /// Opens a new ledger there.
    pub(super) fn create(place: &Place) -> anyhow::Result<Self> {
        let location = options(place).location;
        let examined = open::examine(&location)?;
        let disk = Box::new(FsDisk::new(&location.dir, location.segment_bytes));
        let clock = Arc::new(SystemClock);
        let opened = open::open(examined, disk, &location, clock, v1::Started::default(), None)?;
        let mut bare = Self { writer: opened.writer, _lock: opened.lock };
        bare.commit(&opened.first_entries)?;
        Ok(bare)
    }

    /// Commits a batch; returns the bytes of its frame.
    pub(super) fn commit(&mut self, entries: &[PendingEntry]) -> anyhow::Result<usize> {
        Ok(self.writer.commit(entries.iter())?.length as usize)
    }
}

fn options(place: &Place) -> Options {
    let Place { dir, segment_bytes } = place.clone();
    Options {
        location: Location {
            key_file: dir.join("key"),
            dir,
            origin: Some("bench.example/commit".into()),
            segment_bytes,
        },
        on_failure: OnFailure::Refuse,
        commit_wait_max: Duration::from_millis(limits::COMMIT_WAIT_MS_MAX),
        recovery_interval: Duration::from_millis(limits::RECOVERY_INTERVAL_MS),
        queue_max: limits::COMMIT_QUEUE_MAX,
        // A batch is full with its first submission: so the benchmark decides what a batch is.
        batch_bytes_max: 1,
        db_cache_bytes: limits::DB_CACHE_BYTES,
    }
}

/// How far the log in `dir` has come: bytes of all segments up to the published head, and of those in the newest.
pub(super) struct Extent {
    pub(super) log_bytes: u64,
    pub(super) newest_bytes: u64,
}

impl Extent {
    pub(super) fn read(dir: &Path) -> anyhow::Result<Self> {
        // The head is rewritten in place beside this reader, so that one read of it may be torn.
        let head = (0..100).find_map(|_| head::Head::read(dir).ok().flatten());
        let head = head.context("the ledger's head cannot be read")?;
        let mut log_bytes = head.offset;
        for first_index in segment::list(dir)?.into_iter().filter(|&first_index| first_index < head.segment) {
            log_bytes += fs::metadata(segment::folder(dir).join(segment::file_name(first_index)))?.len();
        }
        Ok(Self { log_bytes, newest_bytes: head.offset })
    }
}
