//! A disk that fails on demand: the real one, with one operation that fails, fails although it was done, or hangs.
//!
//! What a failed operation leaves is as bad as the contract of [`Disk`] allows: a failed write leaves the first half of its bytes, a failed
//! fdatasync puts back what stood there before everything that was written since the last good one. Which faults to try, and what must hold then, stands with the tests.
#![allow(dead_code, reason = "each test takes what it needs")]

use attestry::ledger::disk::{Disk, FsDisk, SegmentFile};
use attestry::ledger::segment;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a ledger's writer asks of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    CreateSegment,
    OpenSegment,
    Write,
    Sync,
    Trim,
    WriteHead,
}

/// How it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not done, or only in part, and fails.
    Fails,
    /// It is done, and fails all the same.
    FailsButPersists,
    /// It does not come back until the fault is gone, and is done then.
    Hangs,
}

/// Which operation goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub op: Op,
    pub fault: Fault,
    /// The first occurrence that does, counted from 1 and from the moment at which the plan was made.
    pub occurrence: u64,
    /// All later ones do too, until [`Faults::clear`].
    pub stays: bool,
}

/// The switch of a [`FaultyDisk`], shared with the test.
#[derive(Clone, Default)]
pub struct Faults(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    seen: HashMap<Op, u64>,
    plan: Option<Plan>,
    met: bool,
}

impl Faults {
    /// From now on, this goes wrong.
    pub fn plan(&self, plan: Plan) {
        let mut state = self.lock();
        *state = State { plan: Some(plan), ..State::default() };
    }

    /// The fault is gone; what hangs comes back.
    pub fn clear(&self) {
        self.lock().plan = None;
        self.0.changed.notify_all();
    }

    /// Whether the plan's operation has come.
    pub fn were_met(&self) -> bool {
        self.lock().met
    }

    /// Waits until the plan's operation has come; false if it has not within `bound`.
    pub fn wait_until_met(&self, bound: Duration) -> bool {
        let wait = self.0.changed.wait_timeout_while(self.lock(), bound, |state| !state.met);
        wait.unwrap_or_else(PoisonError::into_inner).0.met
    }

    /// How often an operation was asked for since the last plan.
    pub fn count(&self, op: Op) -> u64 {
        self.lock().seen.get(&op).copied().unwrap_or_default()
    }

    /// One operation more: how it goes wrong, if it does. Hangs here.
    fn meet(&self, op: Op) -> Option<Fault> {
        let mut state = self.lock();
        let seen = state.seen.entry(op).or_default();
        *seen += 1;
        let seen = *seen;
        let due =
            |plan: &Plan| plan.op == op && (seen == plan.occurrence || plan.stays && seen > plan.occurrence);
        let fault = state.plan.filter(due)?.fault;
        state.met = true;
        self.0.changed.notify_all();
        if fault != Fault::Hangs {
            return Some(fault);
        }
        let hang = self.0.changed.wait_while(state, |state| state.plan.is_some());
        drop(hang.unwrap_or_else(PoisonError::into_inner));
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The real disk, until it fails.
pub struct FaultyDisk {
    ledger: PathBuf,
    disk: FsDisk,
    faults: Faults,
}

impl FaultyDisk {
    /// A disk for the ledger in `ledger`, which fails as `faults` says.
    pub fn new(ledger: &Path, segment_bytes: u64, faults: &Faults) -> Self {
        Self { ledger: ledger.to_owned(), disk: FsDisk::new(ledger, segment_bytes), faults: faults.clone() }
    }

    fn segment(&self, first_index: u64, file: Box<dyn SegmentFile>) -> io::Result<Box<dyn SegmentFile>> {
        let content = File::open(segment::folder(&self.ledger).join(segment::file_name(first_index)))?;
        Ok(Box::new(FaultySegment { file, content, faults: self.faults.clone(), unsynced: Vec::new() }))
    }
}

impl Disk for FaultyDisk {
    fn create_segment(&mut self, first_index: u64, header: &[u8]) -> io::Result<Box<dyn SegmentFile>> {
        match self.faults.meet(Op::CreateSegment) {
            Some(Fault::Fails) => Err(injected()),
            Some(_) => self.disk.create_segment(first_index, header).and(Err(injected())),
            None => {
                let file = self.disk.create_segment(first_index, header)?;
                self.segment(first_index, file)
            }
        }
    }

    fn open_segment(&mut self, first_index: u64) -> io::Result<Box<dyn SegmentFile>> {
        if self.faults.meet(Op::OpenSegment).is_some() {
            return Err(injected());
        }
        let file = self.disk.open_segment(first_index)?;
        self.segment(first_index, file)
    }

    fn write_head(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.faults.meet(Op::WriteHead) {
            Some(Fault::Fails) => Err(injected()),
            Some(_) => self.disk.write_head(bytes).and(Err(injected())),
            None => self.disk.write_head(bytes),
        }
    }
}

struct FaultySegment {
    file: Box<dyn SegmentFile>,
    /// The same file, for reading.
    content: File,
    faults: Faults,
    /// What stood where something was written since the last good fdatasync.
    unsynced: Vec<(u64, Vec<u8>)>,
}

impl SegmentFile for FaultySegment {
    fn capacity(&self) -> u64 {
        self.file.capacity()
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let fault = self.faults.meet(Op::Write);
        let written = if fault == Some(Fault::Fails) { &bytes[..bytes.len() / 2] } else { bytes };
        let mut before = vec![0; written.len()];
        // Behind the end of the file there is nothing to read, and nothing but zeros to put back.
        let _ = self.content.read_at(&mut before, offset)?;
        self.unsynced.push((offset, before));
        self.file.write_at(written, offset)?;
        if fault.is_some() { Err(injected()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.faults.meet(Op::Sync) {
            Some(Fault::Fails) => {
                for (offset, before) in self.unsynced.drain(..).rev() {
                    self.file.write_at(&before, offset)?;
                }
                Err(injected())
            }
            fault => {
                self.file.sync()?;
                self.unsynced.clear();
                if fault.is_some() { Err(injected()) } else { Ok(()) }
            }
        }
    }

    fn trim(&mut self, length: u64) -> io::Result<()> {
        match self.faults.meet(Op::Trim) {
            Some(Fault::Fails) => Err(injected()),
            Some(_) => self.file.trim(length).and(Err(injected())),
            None => self.file.trim(length),
        }
    }

    fn check(&self) -> io::Result<()> {
        self.file.check()
    }
}

fn injected() -> io::Error {
    io::Error::other("injected by the test")
}
