//! A file that is written in whole blocks past the page cache (O_DIRECT), where the file system can; through it where not.
//!
//! Past the cache a commit costs about half the CPU of one through it, and nothing is copied but the edges (docs/decisions/0016-past-the-page-cache.md).
//! Invariant: a block that holds earlier bytes is written again with exactly those bytes in front, so whatever becomes of that write, no byte before its
//! `offset` changes. What stands behind the last byte in its block is zeros. When something is durable is `disk`'s to say.

use super::placed::{BLOCK_BYTES, Placed, place_of, place_of_offset, start_at};
use crate::limits::{COPIED_WRITE_BYTES_MAX, SPARE_WRITE_BYTES};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// A long write whose bytes lie in another place in memory is copied in such pieces: the copy of a large frame would be memory that is kept.
const COPIED_PIECE_BYTES: usize = 256 * 1024;

/// The file, and what of it a write must repeat.
#[derive(Debug)]
pub(super) struct BlockFile {
    file: File,
    is_direct: bool,
    /// Where the last write ended; unknown at first and after one that failed.
    end: Option<u64>,
    /// The bytes of the block in which it ended, up to there.
    tail: Placed,
    scratch: Placed,
}

impl BlockFile {
    /// Makes the file at `path`, or empties the one that is there.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).read(true).write(true);
        let direct = options.clone().custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path);
        let direct = direct.map(|file| Self::new(file, true)).and_then(|mut file| {
            // Some file systems take the flag, and then no write; or none of this size.
            file.write_at(&[0; BLOCK_BYTES], 0).map(|()| file)
        });
        match direct {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Ok(Self::new(options.open(path)?, false))
            }
            other => other,
        }
    }

    /// A file that was opened without O_DIRECT.
    pub fn buffered(file: File) -> Self {
        Self::new(file, false)
    }

    fn new(file: File, is_direct: bool) -> Self {
        Self { file, is_direct, end: None, tail: Placed::default(), scratch: Placed::default() }
    }

    /// The file itself, for whatever writes nothing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes `bytes` at `offset`. What stood behind them in their last block may be zeros now.
    pub fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.is_direct {
            return self.file.write_all_at(bytes, offset);
        }
        if self.end != Some(offset) {
            self.read_tail(offset)?;
        }
        // Not known again before this write is through.
        self.end = None;
        if bytes.len() <= COPIED_WRITE_BYTES_MAX || place_of(bytes) != self.tail.len() {
            let mut at = offset;
            for piece in bytes.chunks(COPIED_PIECE_BYTES) {
                self.write_copied(piece, at)?;
                at += piece.len() as u64;
            }
        } else {
            self.write_in_place(bytes, offset)?;
        }
        self.end = Some(offset + bytes.len() as u64);
        Ok(())
    }

    /// Writes zeros up to `end`, in large pieces.
    pub fn fill(&mut self, end: u64) -> io::Result<()> {
        // Never touched, so the kernel takes no memory for them.
        let zeros = vec![0; SPARE_WRITE_BYTES + BLOCK_BYTES];
        let zeros = &zeros[start_at(&zeros, 0)..][..SPARE_WRITE_BYTES];
        let mut at = 0;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(zeros.len());
            // The last piece may be a part of a block: the file is then a little longer than asked for.
            let length = length.next_multiple_of(BLOCK_BYTES).min(zeros.len());
            self.file.write_all_at(&zeros[..length], at)?;
            at += length as u64;
        }
        self.end = None;
        Ok(())
    }

    /// Reads what stands before `offset` in its block.
    fn read_tail(&mut self, offset: u64) -> io::Result<()> {
        let before = place_of_offset(offset);
        self.tail.restart(0, 0);
        if before > 0 {
            self.tail.resize(BLOCK_BYTES);
            self.file.read_at(self.tail.as_mut_slice(), offset - before as u64)?;
            self.tail.resize(before);
        }
        Ok(())
    }

    fn write_copied(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let Self { file, tail, scratch, .. } = self;
        scratch.restart(0, 0);
        scratch.reserve(tail.len() + bytes.len() + BLOCK_BYTES);
        scratch.append(tail.as_slice());
        scratch.append(bytes);
        let length = scratch.len();
        tail.restart(0, 0);
        tail.append(&scratch.as_slice()[length - length % BLOCK_BYTES..]);
        scratch.resize(length.next_multiple_of(BLOCK_BYTES));
        file.write_all_at(scratch.as_slice(), offset - place_of_offset(offset) as u64)
    }

    /// Copies the edges alone: `bytes` has the same place within a block as `offset`, so the whole blocks between are written as they stand.
    fn write_in_place(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let Self { file, tail, scratch, .. } = self;
        let (front, rest) = bytes.split_at((BLOCK_BYTES - tail.len()) % BLOCK_BYTES);
        let (middle, back) = rest.split_at(rest.len() - rest.len() % BLOCK_BYTES);
        tail.append(front);
        scratch.restart(0, 0);
        scratch.append(back);
        scratch.resize(back.len().next_multiple_of(BLOCK_BYTES));
        let mut slices = [tail.as_slice(), middle, scratch.as_slice()].map(IoSlice::new);
        write_all_vectored_at(file, &mut slices, offset - place_of_offset(offset) as u64)?;
        tail.restart(0, 0);
        tail.append(back);
        Ok(())
    }
}

fn write_all_vectored_at(file: &File, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match rustix::io::pwritev(file, slices, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut slices, written);
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder() -> tempfile::TempDir {
        // A disk, where memory would take O_DIRECT and do nothing of it.
        tempfile::tempdir_in(std::env::var("CARGO_TARGET_TMPDIR").unwrap_or_else(|_| "target".into()))
            .unwrap()
    }

    /// Lengths around the borders of blocks and of what is copied.
    fn lengths() -> impl Iterator<Item = usize> {
        [1, 64, 4_031, 4_096, 1, 8_191, 3, 40_000, COPIED_WRITE_BYTES_MAX, 100_000, 4_096, 77_777, 5, 300_001]
            .into_iter()
    }

    #[test]
    fn what_is_appended_reads_back_with_zeros_behind_it_at_every_step() {
        let folder = folder();
        for is_direct in [true, false] {
            let path = folder.path().join("file");
            let mut file = BlockFile::create(&path).unwrap();
            if !is_direct {
                file = BlockFile::buffered(OpenOptions::new().read(true).write(true).open(&path).unwrap());
            }
            file.fill(500_000).unwrap();
            let (mut expected, mut frame) = (Vec::new(), Placed::default());
            for (round, length) in lengths().enumerate() {
                let offset = expected.len();
                // Every third is not where it would have to be to be written as it stands.
                frame.restart((if round % 3 == 2 { offset + 1 } else { offset }) as u64, 0);
                frame.append(&vec![u8::try_from(round).unwrap() + 1; length]);
                file.write_at(frame.as_slice(), offset as u64).unwrap();
                expected.extend_from_slice(frame.as_slice());
                let found = fs::read(&path).unwrap();
                assert!(found[..expected.len()] == expected, "direct: {is_direct}, write {round}");
                assert!(found[expected.len()..].iter().all(|&byte| byte == 0), "write {round}");
            }
        }
    }

    #[test]
    fn a_write_elsewhere_keeps_what_stands_before_it() {
        let folder = folder();
        let path = folder.path().join("file");
        let mut file = BlockFile::create(&path).unwrap();
        file.write_at(&[1; 10_000], 0).unwrap();
        file.write_at(&[2; 100], 9_000).unwrap();
        let found = fs::read(&path).unwrap();
        assert!(found[..9_000] == [1; 9_000] && found[9_000..9_100] == [2; 100]);
        assert!(found[9_100..].iter().all(|&byte| byte == 0));
    }
}
