//! Segment files, read (docs/ledger-format.md sections 1 and 3): their names and header, and the frames that stand in them.
//!
//! Only `pread`s, no lock, bounded memory (one frame at a time): works beside a running writer, and on a copy. Which frames to believe is the
//! caller's decision. Writing is `writer`'s.

use super::frame::{Frame, FrameError, FrameHeader, HEADER_LEN as FRAME_HEADER_LEN, MARKER, u32_at, u64_at};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a segment's header; the first frame stands behind it.
pub const HEADER_LEN: u64 = 64;

/// The same, as the sizes of arrays and as the field of the header have it.
const HEADER_SIZE: usize = 64;
const HEADER_FIELD: u32 = 64;

/// The version of the ledger's format that this code reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes that are read at a time where zeros or a marker are looked for.
const SCAN_BYTES: usize = 256 * 1024;

const MAGIC: &[u8; 8] = b"ATSTRSEG";
const EXTENSION: &str = ".seg";

/// The folder of a ledger's segments.
pub fn folder(ledger: &Path) -> PathBuf {
    ledger.join("segments")
}

/// The name of the segment that begins with entry `first_index`.
pub fn file_name(first_index: u64) -> String {
    format!("{first_index:020}{EXTENSION}")
}

/// The first indexes of the segments in a ledger, in order. Other files in the folder are not the log's.
pub fn list(ledger: &Path) -> io::Result<Vec<u64>> {
    let mut indexes = Vec::new();
    for file in fs::read_dir(folder(ledger))? {
        indexes.extend(file?.file_name().to_str().and_then(parse_name));
    }
    indexes.sort_unstable();
    Ok(indexes)
}

fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    let well_formed = digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit());
    if well_formed { digits.parse().ok() } else { None }
}

/// The header of the segment that begins with entry `first_index`, in the log `origin`.
pub fn encode_header(first_index: u64, origin: &str) -> [u8; 64] {
    let mut bytes = [0; HEADER_SIZE];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&HEADER_FIELD.to_le_bytes());
    bytes[16..24].copy_from_slice(&first_index.to_le_bytes());
    bytes[24..56].copy_from_slice(&Sha256::digest(origin.as_bytes()));
    let checksum = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Why a segment's header is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file ends within it.
    #[error("the segment is {0} bytes long, shorter than its header of 64")]
    Short(u64),
    /// Not "ATSTRSEG".
    #[error("the segment does not begin with ATSTRSEG")]
    Magic,
    /// A format that this version does not know.
    #[error(
        "ledger format version {0} is not known to this attestry (it knows 1): use the version that wrote it"
    )]
    Version(u32),
    /// A field, the padding or the checksum is wrong.
    #[error("segment header: {0}")]
    Content(&'static str),
}

/// A segment, open for reading.
#[derive(Debug)]
pub struct Segment {
    file: File,
    first_index: u64,
}

/// What stands at a place in a segment.
#[derive(Debug)]
pub enum Found {
    /// A well-formed frame.
    Frame(Frame),
    /// Nothing but zeros, or the end of the file.
    End,
    /// Bytes that are no well-formed frame.
    Bad(FrameError),
}

impl Segment {
    /// Opens the segment that begins with entry `first_index`.
    pub fn open(ledger: &Path, first_index: u64) -> io::Result<Self> {
        let file = File::open(folder(ledger).join(file_name(first_index)))?;
        Ok(Self { file, first_index })
    }

    /// The index in the segment's name.
    pub fn first_index(&self) -> u64 {
        self.first_index
    }

    /// Bytes of the file now.
    pub fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Checks the header: magic, version, name, origin (where known) and checksum.
    pub fn check_header(&self, origin: Option<&str>) -> io::Result<Result<(), HeaderError>> {
        let bytes = self.read_up_to(0, HEADER_SIZE)?;
        let Some(bytes) = bytes.first_chunk::<64>() else {
            return Ok(Err(HeaderError::Short(bytes.len() as u64)));
        };
        let checksum_holds = u32_at(bytes, 60) == crc32fast::hash(&bytes[..60]);
        Ok(if bytes[..8] != MAGIC[..] {
            Err(HeaderError::Magic)
        } else if checksum_holds && u32_at(bytes, 8) != FORMAT_VERSION {
            Err(HeaderError::Version(u32_at(bytes, 8)))
        } else if !checksum_holds {
            Err(HeaderError::Content("the checksum does not match"))
        } else if u64_at(bytes, 16) != self.first_index {
            Err(HeaderError::Content("its first index is not that of the file's name"))
        } else if origin.is_some_and(|origin| bytes[24..56] != Sha256::digest(origin.as_bytes())[..]) {
            Err(HeaderError::Content("it belongs to a log of another origin"))
        } else if u32_at(bytes, 12) != HEADER_FIELD || u32_at(bytes, 56) != 0 {
            Err(HeaderError::Content("a fixed field has another value"))
        } else {
            Ok(())
        })
    }

    /// What stands at `offset`.
    pub fn at(&self, offset: u64) -> io::Result<Found> {
        let head = self.read_up_to(offset, FRAME_HEADER_LEN)?;
        let error = match FrameHeader::parse(&head) {
            Ok(header) if offset + u64::from(header.length) <= self.bytes()? => {
                let bytes = Bytes::from(self.read_up_to(offset, header.length as usize)?);
                match Frame::parse(&bytes) {
                    Ok(frame) => return Ok(Found::Frame(frame)),
                    Err(error) => error,
                }
            }
            Ok(_) => FrameError::Short,
            Err(error) => error,
        };
        let zeros = head.iter().all(|&byte| byte == 0) && self.only_zeros_from(offset)?;
        Ok(if zeros { Found::End } else { Found::Bad(error) })
    }

    /// The frame at `offset` whose header holds, though its checksum does not: nothing in it can be believed.
    pub fn damaged_at(&self, offset: u64) -> io::Result<Option<Frame>> {
        let head = self.read_up_to(offset, FRAME_HEADER_LEN)?;
        match FrameHeader::parse(&head) {
            Ok(header) if offset + u64::from(header.length) <= self.bytes()? => {
                let bytes = self.read_up_to(offset, header.length as usize)?;
                Ok(Frame::parse_damaged(&bytes.into()).ok())
            }
            _ => Ok(None),
        }
    }

    /// The next well-formed frame at or behind `from` that `accept` takes, with its offset.
    pub fn next_frame(&self, from: u64, accept: impl Fn(&Frame) -> bool) -> io::Result<Option<(u64, Frame)>> {
        let mut at = from;
        loop {
            let bytes = self.read_up_to(at, SCAN_BYTES)?;
            for (place, window) in (at..).zip(bytes.windows(MARKER.len())) {
                if window == MARKER
                    && let Found::Frame(frame) = self.at(place)?
                    && accept(&frame)
                {
                    return Ok(Some((place, frame)));
                }
            }
            if bytes.len() < SCAN_BYTES {
                return Ok(None);
            }
            // A marker may lie across the border of two reads.
            at += (SCAN_BYTES - (MARKER.len() - 1)) as u64;
        }
    }

    fn only_zeros_from(&self, offset: u64) -> io::Result<bool> {
        let mut at = offset;
        loop {
            let bytes = self.read_up_to(at, SCAN_BYTES)?;
            if bytes.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            if bytes.len() < SCAN_BYTES {
                return Ok(true);
            }
            at += SCAN_BYTES as u64;
        }
    }

    /// The offset behind the last byte that is not zero, `from` at least.
    pub fn data_end(&self, from: u64) -> io::Result<u64> {
        let (mut at, mut end) = (from, from);
        loop {
            let bytes = self.read_up_to(at, SCAN_BYTES)?;
            if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
                end = at + last as u64 + 1;
            }
            if bytes.len() < SCAN_BYTES {
                return Ok(end);
            }
            at += SCAN_BYTES as u64;
        }
    }

    fn read_up_to(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}
