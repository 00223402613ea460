//! How long the start of a large ledger takes and how much it reads: after a clean stop, after a kill with a torn tail, and without the lookup tables.
//!
//! Before each start the newest segment was filled to three quarters, since that is what a start has to walk.

use super::child::{Filler, Ready};
use super::ledgers::{Extent, Place};
use super::sweep::Shape;
use anyhow::{Context as _, ensure};
use attestry::ledger::segment::{self, Found, HEADER_LEN, Segment};
use attestry::ledger::{head, index};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How the process before ended, and what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// A clean stop.
    Stopped,
    /// SIGKILL in the middle of commits; half a frame behind the last, and the zeros behind that.
    Killed,
    /// A clean stop, and the folder db/ was removed.
    WithoutTables,
}

/// The starts of one kind.
pub(super) struct Starts {
    pub(super) before: Before,
    /// The page cache held nothing of the ledger.
    pub(super) is_cold: bool,
    pub(super) ready: Vec<Ready>,
}

/// A large ledger, and how it was started.
pub(super) struct Started {
    pub(super) shape: Shape,
    pub(super) segment_bytes: u64,
    pub(super) log_bytes: u64,
    pub(super) commits: u64,
    pub(super) fill_seconds: f64,
    pub(super) tables_bytes: u64,
    pub(super) starts: Vec<Starts>,
}

/// Makes a ledger of `log_bytes` in `place`, and starts it `rounds` times in each way.
pub(super) fn measure(place: &Place, shape: Shape, log_bytes: u64, rounds: usize) -> anyhow::Result<Started> {
    let place = place.within("large");
    let dir = &place.dir;
    let newest_bytes = place.segment_bytes / 4 * 3;
    let fill = |fill_bytes| Filler::run(&place, shape, fill_bytes, newest_bytes);
    let running = fill(log_bytes)?;
    let filled = running.filled;
    running.stop()?;
    let (log_bytes, tables_bytes) = (Extent::read(dir)?.log_bytes, bytes(&index::folder(dir))?);
    let mut running = fill(0)?;
    let mut starts = Vec::new();
    // Those without tables come last: what rebuilds them in the background is not to disturb the others.
    for before in [Before::Stopped, Before::Killed, Before::WithoutTables] {
        for is_cold in [false, true] {
            let mut ready = Vec::new();
            for _ in 0..rounds {
                end(running, before, dir)?;
                if is_cold {
                    forget(dir)?;
                }
                running = fill(0)?;
                ready.push(running.ready);
            }
            starts.push(Starts { before, is_cold, ready });
        }
    }
    running.stop()?;
    fs::remove_dir_all(dir)?;
    Ok(Started {
        shape,
        segment_bytes: place.segment_bytes,
        log_bytes,
        commits: filled.commits,
        fill_seconds: filled.seconds,
        tables_bytes,
        starts,
    })
}

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "a clean stop",
            Self::Killed => "a kill, half a frame at the end",
            Self::WithoutTables => "a clean stop, db/ removed",
        })
    }
}

fn end(running: Filler, before: Before, dir: &Path) -> anyhow::Result<()> {
    match before {
        Before::Stopped => running.stop(),
        Before::Killed => {
            running.kill()?;
            tear(dir)
        }
        Before::WithoutTables => {
            running.stop()?;
            Ok(fs::remove_dir_all(index::folder(dir))?)
        }
    }
}

/// Puts the first half of the newest segment's first frame behind its last: what is left where a machine goes down in the middle of a write.
fn tear(dir: &Path) -> anyhow::Result<()> {
    let head = head::Head::read(dir)?.context("the killed ledger has no head")?;
    let segment = Segment::open(dir, head.segment)?;
    let mut offset = head.offset;
    while let Found::Frame(frame) = segment.at(offset)? {
        offset += u64::from(frame.header().length);
    }
    let Found::Frame(first) = segment.at(HEADER_LEN)? else {
        anyhow::bail!("the newest segment has no frame");
    };
    let path = segment::folder(dir).join(segment::file_name(head.segment));
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&first.bytes()[..first.bytes().len() / 2], offset)?;
    Ok(file.sync_all()?)
}

/// Has the kernel forget what it holds of the ledger's files.
fn forget(dir: &Path) -> anyhow::Result<()> {
    for file in files(dir)? {
        File::open(&file)?.sync_all()?;
        let input = format!("if={}", file.display());
        let status = Command::new("dd").args([&input, "iflag=nocache", "count=0", "status=none"]).status();
        let status = status.context("dd (coreutils) cannot be started")?;
        ensure!(status.success(), "dd ended with {status}");
    }
    Ok(())
}

/// Bytes of all files below a folder.
pub(super) fn bytes(dir: &Path) -> anyhow::Result<u64> {
    let lengths = files(dir)?.into_iter().map(|file| Ok(fs::metadata(file)?.len()));
    lengths.sum()
}

fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}
