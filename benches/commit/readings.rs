//! How fast a ledger is verified, and how large its lookup tables are beside it.
//!
//! Verification has one thread for each of its stages, so that it may use more than one core: what counts is bytes and entries for each second of CPU.
//! The ledger was just written, so the page cache holds it.

use super::child::Filler;
use super::ledgers::{Extent, Place};
use super::starts::bytes;
use super::sweep::Shape;
use super::threads;
use anyhow::ensure;
use attestry::ledger::fsck::{self, Report, Verdict};
use attestry::ledger::{index, store};
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

/// A ledger of one shape, read.
pub(super) struct Reading {
    pub(super) shape: Shape,
    pub(super) entries: u64,
    pub(super) log_bytes: u64,
    pub(super) tables_bytes: u64,
    /// The segments alone.
    pub(super) segments: Speed,
    /// With the rows of the lookup tables held against them, as `attestry verify` does.
    pub(super) with_tables: Speed,
}

/// How fast it was verified: the quickest of some times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
}

/// Makes a ledger of `log_bytes` in `place`, and verifies it `rounds` times.
pub(super) fn measure(place: &Place, shape: Shape, log_bytes: u64, rounds: usize) -> anyhow::Result<Reading> {
    let place = place.within("reading");
    let dir = &place.dir;
    Filler::run(&place, shape, log_bytes, 0)?.stop()?;
    let (report, segments) = quickest(dir, false, rounds)?;
    let (_, with_tables) = quickest(dir, true, rounds)?;
    let (log_bytes, tables_bytes) = (Extent::read(dir)?.log_bytes, bytes(&index::folder(dir))?);
    fs::remove_dir_all(dir)?;
    Ok(Reading { shape, entries: report.entries, log_bytes, tables_bytes, segments, with_tables })
}

fn quickest(dir: &Path, with_tables: bool, rounds: usize) -> anyhow::Result<(Report, Speed)> {
    let (report, mut best) = verify(dir, with_tables)?;
    for _ in 1..rounds {
        let (_, speed) = verify(dir, with_tables)?;
        if speed.cpu_seconds < best.cpu_seconds {
            best = speed;
        }
    }
    Ok((report, best))
}

fn verify(dir: &Path, with_tables: bool) -> anyhow::Result<(Report, Speed)> {
    let (cpu_us, begin) = (threads::process_cpu_us()?, Instant::now());
    let rows = if with_tables { store::rows_of_copy(dir) } else { None };
    let options = fsck::Options {
        ledger: dir.to_owned(),
        rows,
        threads: NonZeroUsize::new(1),
        ..fsck::Options::default()
    };
    let report = fsck::verify(options, |_| {});
    let seconds = begin.elapsed().as_secs_f64();
    let cpu_seconds = (threads::process_cpu_us()? - cpu_us) / 1e6;
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    ensure!(report.verdict == Verdict::Intact, "the ledger is not intact: {}", faults.join("; "));
    Ok((report, Speed { seconds, cpu_seconds }))
}
