//! The file operations of the ledger's writer, as a trait: what a fault-injecting double stands in for, and nothing else.
//!
//! Each durable effect says what is safe after it. A returned error means *uncertain*: the caller never writes the same file again as if
//! nothing had happened. When and why these are called is `writer`'s.

use super::block_file::BlockFile;
use super::{head, segment};
use crate::limits::SEGMENT_FIRST_FILL_BYTES;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Bytes of the head file, zeros behind what it says: a compact range and a note take some 2,500 at the most.
const HEAD_ROOM_BYTES: usize = 4096;

/// Where a ledger's segments and head are written.
pub trait Disk: Send {
    /// Creates the segment that begins with entry `first_index`, replacing one of that name that holds no frame. After it, the file, its header
    /// and its name are durable.
    fn create_segment(&mut self, first_index: u64, header: &[u8]) -> io::Result<Box<dyn SegmentFile>>;

    /// Whether the next segment is prepared with zeros, so that going over to it would make commits quicker.
    fn is_prepared(&mut self) -> bool {
        false
    }

    /// Opens an existing segment, to trim it or to make its last frame certain.
    fn open_segment(&mut self, first_index: u64) -> io::Result<Box<dyn SegmentFile>>;

    /// Publishes the head. Not synced: after a crash it may be older than the segments, never newer.
    fn write_head(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// One segment, open for writing.
pub trait SegmentFile: Send {
    /// Bytes of the file: frames that end within it overwrite zeros that are on the disk already.
    fn capacity(&self) -> u64;

    /// Writes `bytes` at `offset`; fails if the file became shorter than it was written. Nothing is safe yet. What stands behind the bytes in their last
    /// block of the disk may be zeros afterwards: a frame has nothing but prepared zeros behind it.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// fdatasync: all that was written is durable.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to `length`, durably.
    fn trim(&mut self, length: u64) -> io::Result<()>;

    /// Fails unless the segment's name still names this file, and the file is at least as long as it was written.
    fn check(&self) -> io::Result<()>;
}

/// The real disk.
#[derive(Debug)]
pub struct FsDisk {
    ledger: PathBuf,
    head: Option<File>,
    is_first: bool,
    spare: super::spare::Spare,
}

impl FsDisk {
    /// A disk for the ledger in `ledger`, whose segments are prepared with `segment_bytes` of zeros each.
    pub fn new(ledger: &Path, segment_bytes: u64) -> Self {
        let spare = super::spare::Spare::new(&segment::folder(ledger), segment_bytes);
        Self { ledger: ledger.to_path_buf(), head: None, is_first: true, spare }
    }

    fn segment_path(&self, first_index: u64) -> PathBuf {
        segment::folder(&self.ledger).join(segment::file_name(first_index))
    }
}

impl Disk for FsDisk {
    fn create_segment(&mut self, first_index: u64, header: &[u8]) -> io::Result<Box<dyn SegmentFile>> {
        let path = self.segment_path(first_index);
        let prepared = self.spare.take();
        let file = if let Some((mut file, spare_path)) = prepared {
            file.write_at(header, 0)?;
            file.file().sync_data()?;
            // Its zeros and its header are durable; a crash before the rename leaves a spare, which no reader takes for a segment.
            fs::rename(spare_path, &path)?;
            file
        } else {
            // At a start a few zeros are written ahead at once; later that would be a stall in the middle of commits.
            let zeros =
                if self.is_first { self.spare.segment_bytes().min(SEGMENT_FIRST_FILL_BYTES) } else { 0 };
            create_unprepared(&path, header, zeros)?
        };
        self.is_first = false;
        // The name is durable after this; a crash before it leaves the ledger as it was.
        File::open(segment::folder(&self.ledger))?.sync_all()?;
        self.spare.prepare();
        FsSegment::new(path, file)
    }

    fn is_prepared(&mut self) -> bool {
        self.spare.is_ready()
    }

    fn open_segment(&mut self, first_index: u64) -> io::Result<Box<dyn SegmentFile>> {
        let path = self.segment_path(first_index);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        FsSegment::new(path, BlockFile::buffered(file))
    }

    fn write_head(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(file) = &self.head {
            return file.write_all_at(bytes, 0);
        }
        // The first one of a writer becomes durable under its name, and with room for all that follow: a crash never leaves an empty head.
        let path = head::path(&self.ledger);
        let unnamed = path.with_extension("new");
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(&unnamed)?;
        file.write_all_at(&[bytes, &[0; HEAD_ROOM_BYTES]].concat()[..HEAD_ROOM_BYTES.max(bytes.len())], 0)?;
        file.sync_all()?;
        fs::rename(unnamed, path)?;
        File::open(&self.ledger)?.sync_all()?;
        self.head = Some(file);
        Ok(())
    }
}

/// A segment without a spare at hand: the first of a run, or the disk was too slow or too full to prepare one. Zeros are written ahead up
/// to `filled`; beyond them the file grows with its frames, which costs each commit more, and nothing else. It gets its name once its header is durable.
fn create_unprepared(path: &Path, header: &[u8], filled: u64) -> io::Result<BlockFile> {
    let unnamed = path.with_extension("new");
    let mut file = BlockFile::create(&unnamed)?;
    if let Err(error) = file.fill(filled) {
        tracing::warn!(%error, segment = %path.display(), "no zeros could be prepared; commits grow the file instead");
        file.file().set_len(0)?;
    }
    file.write_at(header, 0)?;
    file.file().sync_all()?;
    fs::rename(unnamed, path)?;
    Ok(file)
}

#[derive(Debug)]
struct FsSegment {
    path: PathBuf,
    file: BlockFile,
    inode: (u64, u64),
    capacity: u64,
    length: u64,
}

impl FsSegment {
    #[expect(clippy::new_ret_no_self, reason = "callers know only the trait")]
    fn new(path: PathBuf, file: BlockFile) -> io::Result<Box<dyn SegmentFile>> {
        let metadata = file.file().metadata()?;
        let (inode, length) = ((metadata.dev(), metadata.ino()), metadata.len());
        Ok(Box::new(Self { path, file, inode, capacity: length, length }))
    }

    fn gone(&self, why: &str) -> io::Error {
        io::Error::other(format!("segment {} {why} while it was in use", self.path.display()))
    }
}

impl SegmentFile for FsSegment {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // Writing would make a file that others cut as long again as it was, with a hole for what is lost.
        if self.file.file().metadata()?.len() < self.length {
            return Err(self.gone("was truncated"));
        }
        self.file.write_at(bytes, offset)?;
        self.length = self.length.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.file().sync_data()
    }

    fn trim(&mut self, length: u64) -> io::Result<()> {
        self.file.file().set_len(length)?;
        self.file.file().sync_all()?;
        (self.capacity, self.length) = (length, length);
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        let now = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.gone("was removed")),
            Err(error) => return Err(error),
        };
        if (now.dev(), now.ino()) != self.inode {
            return Err(self.gone("was replaced"));
        }
        if now.len() < self.length { Err(self.gone("was truncated")) } else { Ok(()) }
    }
}
