//! What a run has left in attestry's ledger: commits, bytes of the segments, bytes of the index beside them.

use anyhow::Context as _;
use attestry::ledger::frame::{FrameError, FrameHeader, HEADER_LEN};
use attestry::ledger::segment;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

/// Of a whole ledger.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stored {
    pub(super) commits: u64,
    /// In frames; what was prepared with zeros does not count.
    pub(super) segments_bytes: u64,
    /// On the disk, of the rebuildable index.
    pub(super) db_bytes: u64,
}

impl Stored {
    /// Of a ledger that nobody writes any more.
    pub(super) fn of(ledger: &Path) -> anyhow::Result<Self> {
        let mut stored = Self { db_bytes: blocks_bytes(&ledger.join("db"))?, ..Self::default() };
        for first_index in segment::list(ledger)? {
            let path = segment::folder(ledger).join(segment::file_name(first_index));
            stored.add_segment(&path).with_context(|| format!("segment {first_index}"))?;
        }
        Ok(stored)
    }

    /// Goes from frame to frame by the lengths in their headers, which is quick; whether they are right is for `verify`.
    fn add_segment(&mut self, path: &Path) -> anyhow::Result<()> {
        let (file, mut at) = (File::open(path)?, segment::HEADER_LEN);
        let bytes = file.metadata()?.len();
        while at + HEADER_LEN as u64 <= bytes {
            let mut header = [0; HEADER_LEN];
            file.read_exact_at(&mut header, at)?;
            let length = match FrameHeader::parse(&header) {
                Ok(frame) => u64::from(frame.length),
                Err(FrameError::Marker) if header == [0; HEADER_LEN] => break,
                Err(error) => return Err(error).with_context(|| format!("at byte {at}")),
            };
            (at, self.commits, self.segments_bytes) =
                (at + length, self.commits + 1, self.segments_bytes + length);
        }
        Ok(())
    }
}

fn blocks_bytes(folder: &Path) -> anyhow::Result<u64> {
    /// The unit of `st_blocks` (stat(2)).
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    for file in fs::read_dir(folder)? {
        let file = file?;
        bytes += if file.file_type()?.is_dir() {
            blocks_bytes(&file.path())?
        } else {
            file.metadata()?.blocks() * BLOCK_BYTES
        };
    }
    Ok(bytes)
}
