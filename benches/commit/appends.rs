//! The ways in which a batch is made durable, each for a block of time: the bare disk, the ledger's writer alone, and the ledger behind its port.
//!
//! The bare disk gets as many bytes at a time as the frames of the same batch have. Each way has a file or a ledger of its own, on one file system.

use super::entries::Entries;
use super::ledgers::{Bare, Place, Running};
use super::threads;
use attestry::entry::PendingEntry;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Zeros written at a time.
const FILL_BYTES: usize = 1024 * 1024;

/// Submissions that are with the ledger at a time where it is kept busy: enough that one always waits.
const IN_FLIGHT: usize = 4;

/// A way to make batches durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// write + fdatasync into zeros that are on the disk already.
    Zeros,
    /// write + fdatasync at the end of a file.
    Growing,
    /// The ledger's writer, called on this thread.
    Writer,
    /// The ledger behind its port, a batch at a time.
    Port,
    /// The same with the next batches waiting.
    BusyPort,
}

impl Way {
    pub(super) const ALL: [Self; 5] = [Self::Zeros, Self::Growing, Self::Writer, Self::Port, Self::BusyPort];
}

/// What one way did, over all its blocks.
#[derive(Default)]
pub(super) struct Done {
    /// From the call to the answer, one for each commit.
    pub(super) latencies_ns: Vec<u64>,
    /// Time that the commits took: the sum of the latencies where they are made one by one, else the length of the blocks.
    pub(super) busy: Duration,
    /// CPU of the thread that writes and syncs.
    pub(super) committing_us: f64,
    /// CPU of all threads but the caller's, where the caller is not the one that writes.
    pub(super) all_us: f64,
}

/// All ways, ready to make batches of one shape durable.
pub(super) struct Ways {
    folder: PathBuf,
    batch: Vec<PendingEntry>,
    frame_bytes: usize,
    zeros: Raw,
    growing: Raw,
    bare: Bare,
    running: Running,
}

impl Ways {
    /// Prepares files and ledgers in a folder, which [`Ways::end`] removes.
    pub(super) fn prepare(place: Place, batch: usize, payload_bytes: usize) -> anyhow::Result<Self> {
        fs::create_dir(&place.dir)?;
        let batch = Entries::new(payload_bytes).batch(batch);
        let mut bare = Bare::create(&place.within("writer"))?;
        let frame_bytes = bare.commit(&batch)?;
        Ok(Self {
            zeros: Raw::create(&place.within("zeros"), frame_bytes, Kind::Zeros)?,
            growing: Raw::create(&place.within("growing"), frame_bytes, Kind::Growing)?,
            running: Running::start(&place.within("port"))?,
            folder: place.dir,
            batch,
            frame_bytes,
            bare,
        })
    }

    /// Bytes of a frame.
    pub(super) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Works in one way for `length`, and for one commit at least.
    pub(super) fn block(&mut self, way: Way, length: Duration, done: &mut Done) -> anyhow::Result<()> {
        threads::settle()?;
        let (own_us, process_us) = (threads::own_cpu_us()?, threads::process_cpu_us()?);
        let is_port = matches!(way, Way::Port | Way::BusyPort);
        let commit_us = if is_port { threads::cpu_us("commit")? } else { 0.0 };
        match way {
            Way::Zeros => one_by_one(length, done, || self.zeros.append())?,
            Way::Growing => one_by_one(length, done, || self.growing.append())?,
            Way::Writer => one_by_one(length, done, || {
                let begin = Instant::now();
                self.bare.commit(&self.batch)?;
                Ok(begin.elapsed())
            })?,
            Way::Port => one_by_one(length, done, || {
                let entries = self.batch.clone();
                let begin = Instant::now();
                let commit = self.running.submit(entries)?;
                self.running.receive(commit)?;
                Ok(begin.elapsed())
            })?,
            Way::BusyPort => self.keep_busy(length, done)?,
        }
        let own_us = threads::own_cpu_us()? - own_us;
        let committing_us = if is_port { threads::cpu_us("commit")? - commit_us } else { own_us };
        // What the block leaves to be done, the zeros of the next segment, is a cost of it.
        threads::settle()?;
        let all_us = threads::process_cpu_us()? - process_us;
        done.committing_us += committing_us;
        done.all_us += if is_port { all_us - own_us } else { all_us };
        Ok(())
    }

    fn keep_busy(&mut self, length: Duration, done: &mut Done) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut waiting = VecDeque::new();
        loop {
            while waiting.len() < IN_FLIGHT && begin.elapsed() < length {
                let entries = self.batch.clone();
                waiting.push_back((Instant::now(), self.running.submit(entries)?));
            }
            let Some((submitted, commit)) = waiting.pop_front() else { break };
            self.running.receive(commit)?;
            done.latencies_ns.push(nanos(submitted.elapsed()));
        }
        done.busy += begin.elapsed();
        Ok(())
    }

    /// Ends the ledgers and removes everything.
    pub(super) fn end(self) -> anyhow::Result<()> {
        self.running.stop()?;
        Ok(fs::remove_dir_all(self.folder)?)
    }
}

fn one_by_one(
    length: Duration,
    done: &mut Done,
    mut append: impl FnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let latency = append()?;
        done.latencies_ns.push(nanos(latency));
        done.busy += latency;
        if begin.elapsed() >= length {
            return Ok(());
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Zeros,
    Growing,
}

/// A file without any ledger, overwritten or grown up to the length of a segment.
struct Raw {
    file: File,
    kind: Kind,
    frame: Vec<u8>,
    offset: usize,
    end: usize,
}

impl Raw {
    fn create(place: &Place, frame_bytes: usize, kind: Kind) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&place.dir)?;
        let end = (place.segment_bytes as usize).max(2 * frame_bytes);
        if kind == Kind::Zeros {
            let zeros = vec![0; FILL_BYTES];
            for offset in (0..end).step_by(FILL_BYTES) {
                file.write_all_at(&zeros, offset as u64)?;
            }
        }
        file.sync_all()?;
        Ok(Self { file, kind, frame: vec![0x5a; frame_bytes], offset: 0, end })
    }

    /// Appends a frame, durably; at the end of the file it begins anew, which does not count.
    fn append(&mut self) -> anyhow::Result<Duration> {
        if self.offset + self.frame.len() > self.end {
            self.offset = 0;
            if self.kind == Kind::Growing {
                self.file.set_len(0)?;
                self.file.sync_all()?;
            }
        }
        let begin = Instant::now();
        self.file.write_all_at(&self.frame, self.offset as u64)?;
        self.file.sync_data()?;
        self.offset += self.frame.len();
        Ok(begin.elapsed())
    }
}
