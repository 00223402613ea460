//! The head file: the newest published state of the ledger (docs/ledger-format.md section 7).
//!
//! Never newer than what is durable: it is written behind each commit and not synced. Readers of a live ledger stop at it; a start learns from
//! it what the segments must at least hold.

use super::frame::{narrow, u32_at, u64_at};
use super::genuine;
use crate::merkle::{CompactRange, Hash};
use crate::note::VerifierKey;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

const MAGIC: &[u8; 8] = b"ATSTHEAD";
const FIXED_LEN: usize = 100;

/// A running writer may be in the middle of its write, which takes microseconds.
const READ_ATTEMPTS_MAX: usize = 5;
const READ_PAUSE: Duration = Duration::from_millis(1);

/// The head file's path.
pub fn path(ledger: &Path) -> PathBuf {
    ledger.join("head")
}

/// A state of the log, at the end of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The tree's compact range, and with it its size and root.
    pub range: CompactRange,
    /// First index (the name) of the segment that holds the last frame.
    pub segment: u64,
    /// Where that frame ends in it.
    pub offset: u64,
    /// Leaf hash of the last entry.
    pub last_leaf: Hash,
    /// The signed checkpoint of that tree, as the last frame has it. Whoever wants to continue the log from here verifies it first: the rest of the file
    /// is protected against accidents alone.
    pub checkpoint: String,
}

/// Why a head file tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// It cannot be read.
    #[error("the head file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not what the format says.
    #[error("the head file is damaged: {0}")]
    Content(&'static str),
}

impl Head {
    /// Reads a ledger's head; `None` where there is no such file.
    pub fn read(ledger: &Path) -> Result<Option<Self>, HeadError> {
        for attempt in 1.. {
            let decoded = match fs::read(path(ledger)) {
                Ok(bytes) => Self::decode(&bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            match decoded {
                Err(_) if attempt < READ_ATTEMPTS_MAX => thread::sleep(READ_PAUSE),
                other => return other.map(Some).map_err(HeadError::Content),
            }
        }
        Ok(None)
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with_root(&self.range.root())
    }

    /// The same where the root of `range` is known already.
    pub(super) fn encode_with_root(&self, root: &Hash) -> Vec<u8> {
        let hashes = self.range.hashes();
        let mut bytes = Vec::with_capacity(FIXED_LEN + 32 * hashes.len() + 8 + self.checkpoint.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.range.size().to_le_bytes());
        bytes.extend_from_slice(root);
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        bytes.extend_from_slice(&self.last_leaf);
        bytes.extend_from_slice(&narrow(hashes.len()).to_le_bytes());
        for hash in hashes {
            bytes.extend_from_slice(hash);
        }
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&narrow(self.checkpoint.len()).to_le_bytes());
        bytes.extend_from_slice(self.checkpoint.as_bytes());
        bytes
    }

    /// Reads the bytes of a head.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() < FIXED_LEN + 4 {
            return Err("it is too short");
        }
        if bytes[..8] != MAGIC[..] {
            return Err("it does not begin with ATSTHEAD");
        }
        let end = (u32_at(bytes, 96) as usize).saturating_mul(32).saturating_add(FIXED_LEN);
        if end > bytes.len() - 4 || u32_at(bytes, end) != crc32fast::hash(&bytes[..end]) {
            return Err("its checksum does not match");
        }
        let (hashes, _) = bytes[FIXED_LEN..end].as_chunks::<32>();
        let range = CompactRange::from_parts(u64_at(bytes, 8), hashes.to_vec())
            .map_err(|_| "its compact range does not fit its size")?;
        if bytes[16..48] != range.root() {
            return Err("its root is not that of its compact range");
        }
        let last_leaf = *bytes[64..96].first_chunk().expect("32 bytes");
        let checkpoint = note_in(&bytes[end + 4..]).unwrap_or_default();
        Ok(Self { range, segment: u64_at(bytes, 48), offset: u64_at(bytes, 56), last_leaf, checkpoint })
    }

    /// Whether `key` has signed this state.
    pub fn is_signed_by(&self, key: &VerifierKey) -> bool {
        genuine::is_signed(&self.checkpoint, &self.range, key)
    }
}

/// The note behind the checksum: its length, and its text.
fn note_in(bytes: &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let note = rest.get(..u32::from_le_bytes(*length) as usize)?;
    String::from_utf8(note.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_every_flipped_bit_is_refused() {
        let mut range = CompactRange::new();
        for leaf in 0..11 {
            range.push([leaf; 32]);
        }
        let head = Head { range, segment: 3, offset: 4711, last_leaf: [9; 32], checkpoint: "a note".into() };
        let bytes = head.encode();
        assert_eq!(Head::decode(&bytes), Ok(head.clone()));
        let longer = [bytes.clone(), vec![1, 2, 3]].concat();
        assert_eq!(Head::decode(&longer), Ok(head), "what stands behind it has no meaning");
        for bit in 0..(bytes.len() - "a note".len() - 4) * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::decode(&flipped).is_err(), "bit {bit}");
        }
    }
}
