//! The frame of a group commit: its bytes, made and read (docs/ledger-format.md section 4).
//!
//! Pure: bytes in, bytes out. A [`Frame`] is well-formed (marker, lengths, both checksums), which says nothing about its entries, its
//! root or its signature: those are `fsck`'s. Where frames stand in files is `segment`'s.

use super::placed::Placed;
use crate::merkle::{CompactRange, Hash};
use bytes::Bytes;

/// The resynchronising marker that each frame begins with.
pub const MARKER: [u8; 8] = [0x8a, b'A', b'T', b'S', b'T', b'F', b'R', 0x0a];

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 40;

/// Bytes of the checksum that a frame ends with.
const TRAILER_LEN: usize = 4;

/// Bytes that stand before each entry in the entries section: its length, and its payload's.
const ENTRY_PREFIX_LEN: usize = 8;

/// Bytes of payload that are copied and summed in turn: they stay in the first cache.
const CHECKSUM_PIECE_BYTES: usize = 8 * 1024;

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than the frame's header, or than its stated length.
    #[error("the frame ends after the end of the file")]
    Short,
    /// The first 8 bytes are others.
    #[error("no frame marker")]
    Marker,
    /// The header's checksum does not match.
    #[error("frame header checksum is {found:08x}, computed {computed:08x}")]
    HeaderChecksum {
        /// As stored.
        found: u32,
        /// Over the bytes found.
        computed: u32,
    },
    /// The sections' lengths do not add up to the frame's, or it has no entry.
    #[error("the lengths in the frame header do not add up")]
    Lengths,
    /// The frame's checksum does not match.
    #[error("frame checksum is {found:08x}, computed {computed:08x}")]
    Checksum {
        /// As stored.
        found: u32,
        /// Over the bytes found.
        computed: u32,
    },
    /// The entries section does not divide into the stated number of entries.
    #[error("the entries section does not divide into {0} entries")]
    Entries(u32),
}

/// The fixed header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the whole frame.
    pub length: u32,
    /// Entries in it, at least 1.
    pub entry_count: u32,
    /// Index of the first of them.
    pub first_index: u64,
    /// Bytes of the entries section.
    pub entries_len: u32,
    /// Bytes of the payload section.
    pub payload_len: u32,
    /// Hashes in the range section.
    pub range_count: u16,
    /// Bytes of the checkpoint section.
    pub checkpoint_len: u16,
}

impl FrameHeader {
    /// Reads a header: marker, checksum, and that the lengths add up.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() < MARKER.len() {
            return Err(FrameError::Short);
        }
        if bytes[..8] != MARKER {
            return Err(FrameError::Marker);
        }
        let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else { return Err(FrameError::Short) };
        let (found, computed) = (u32_at(bytes, 36), crc32fast::hash(&bytes[..36]));
        if found != computed {
            return Err(FrameError::HeaderChecksum { found, computed });
        }
        let header = Self {
            length: u32_at(bytes, 8),
            entry_count: u32_at(bytes, 12),
            first_index: u64_at(bytes, 16),
            entries_len: u32_at(bytes, 24),
            payload_len: u32_at(bytes, 28),
            range_count: u16_at(bytes, 32),
            checkpoint_len: u16_at(bytes, 34),
        };
        let adds_up = header.expected_len() == u64::from(header.length) && header.entry_count > 0;
        if adds_up { Ok(header) } else { Err(FrameError::Lengths) }
    }

    /// The index behind the frame's last entry.
    pub fn end_index(&self) -> u64 {
        self.first_index.saturating_add(u64::from(self.entry_count))
    }

    fn expected_len(&self) -> u64 {
        let fixed = (HEADER_LEN + TRAILER_LEN) as u64 + 32 * u64::from(self.range_count);
        fixed + u64::from(self.entries_len) + u64::from(self.payload_len) + u64::from(self.checkpoint_len)
    }

    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MARKER);
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.entry_count.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_index.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.entries_len.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[32..34].copy_from_slice(&self.range_count.to_le_bytes());
        bytes[34..36].copy_from_slice(&self.checkpoint_len.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..36]);
        bytes[36..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

/// A well-formed frame, as it stands in a segment.
#[derive(Clone, Debug)]
pub struct Frame {
    header: FrameHeader,
    bytes: Bytes,
}

impl Frame {
    /// Takes the frame at the beginning of `bytes`, which may be longer.
    pub fn parse(bytes: &Bytes) -> Result<Self, FrameError> {
        let Self { header, bytes } = Self::parse_damaged(bytes)?;
        let length = bytes.len();
        let (found, computed) = (u32_at(&bytes, length - 4), crc32fast::hash(&bytes[..length - 4]));
        if found == computed {
            Ok(Self { header, bytes })
        } else {
            Err(FrameError::Checksum { found, computed })
        }
    }

    /// The same without the frame's own checksum: only to say what a damaged frame was about, for nothing in it can be believed.
    pub fn parse_damaged(bytes: &Bytes) -> Result<Self, FrameError> {
        let header = FrameHeader::parse(bytes)?;
        let length = header.length as usize;
        if bytes.len() < length {
            Err(FrameError::Short)
        } else {
            Ok(Self { header, bytes: bytes.slice(..length) })
        }
    }

    /// The fixed header.
    pub fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// The frame's bytes, marker to checksum.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The compact range of the tree before this frame, as stated.
    pub fn range(&self) -> Vec<Hash> {
        let (hashes, _) = self.bytes[HEADER_LEN..self.entries_start()].as_chunks::<32>();
        hashes.to_vec()
    }

    /// The entries, in order, each with its payload. Fails where the section does not divide exactly.
    pub fn entries(&self) -> Result<Vec<StoredEntry>, FrameError> {
        let error = FrameError::Entries(self.header.entry_count);
        let (mut at, mut payload_at) = (self.entries_start(), self.payload_start());
        let (entries_end, payload_end) = (self.payload_start(), self.checkpoint_start());
        // The count is not trusted for an allocation: each entry takes at least its prefix.
        let mut entries =
            Vec::with_capacity((self.header.entry_count as usize).min((entries_end - at) / ENTRY_PREFIX_LEN));
        for _ in 0..self.header.entry_count {
            let body_at = at + ENTRY_PREFIX_LEN;
            if body_at > entries_end {
                return Err(error);
            }
            let end = body_at.saturating_add(u32_at(&self.bytes, at) as usize);
            let payload = payload_at.saturating_add(u32_at(&self.bytes, at + 4) as usize);
            if end > entries_end || payload > payload_end {
                return Err(error);
            }
            entries.push(StoredEntry {
                entry: self.bytes.slice(body_at..end),
                payload: self.bytes.slice(payload_at..payload),
            });
            (at, payload_at) = (end, payload);
        }
        if (at, payload_at) == (entries_end, payload_end) { Ok(entries) } else { Err(error) }
    }

    /// The signed note of the tree's checkpoint after this frame.
    pub fn checkpoint(&self) -> &[u8] {
        &self.bytes[self.checkpoint_start()..self.bytes.len() - TRAILER_LEN]
    }

    fn entries_start(&self) -> usize {
        HEADER_LEN + 32 * usize::from(self.header.range_count)
    }

    fn payload_start(&self) -> usize {
        self.entries_start() + self.header.entries_len as usize
    }

    fn checkpoint_start(&self) -> usize {
        self.payload_start() + self.header.payload_len as usize
    }
}

/// One entry in a frame: the leaf's bytes, and the payload that stands beside it.
#[derive(Clone, Debug)]
pub struct StoredEntry {
    /// The leaf's bytes.
    pub entry: Bytes,
    /// The payload.
    pub payload: Bytes,
}

/// Builds frames, one after another, in one reused buffer.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    buffer: Placed,
    header: Option<FrameHeader>,
}

impl FrameBuilder {
    /// Begins a frame behind the tree that `range` describes, of some `bytes`. It is expected to be written at `offset` of a file, and quicker written there.
    pub fn begin(&mut self, range: &CompactRange, offset: u64, bytes: usize) {
        self.buffer.restart(offset, bytes);
        self.buffer.resize(HEADER_LEN);
        for hash in range.hashes() {
            self.buffer.append(hash);
        }
        self.header = Some(FrameHeader {
            length: 0,
            entry_count: 0,
            first_index: range.size(),
            entries_len: 0,
            payload_len: 0,
            range_count: u16::try_from(range.hashes().len()).expect("a compact range has at most 64 hashes"),
            checkpoint_len: 0,
        });
    }

    /// Appends an entry of at most `entry_bytes_max` that `encode` writes; returns its bytes, for its leaf hash. The `payload_len` bytes beside it are
    /// given at the end.
    pub fn push(
        &mut self,
        entry_bytes_max: usize,
        payload_len: usize,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> &[u8] {
        let at = self.buffer.len();
        self.buffer.append(&[0; ENTRY_PREFIX_LEN]);
        self.buffer.append_with(entry_bytes_max, encode);
        let entry_at = at + ENTRY_PREFIX_LEN;
        let entry_len = narrow(self.buffer.len() - entry_at);
        let payload_len = narrow(payload_len);
        if let Some(header) = &mut self.header {
            header.entry_count += 1;
            header.entries_len += narrow(self.buffer.len() - at);
            header.payload_len += payload_len;
        }
        let bytes = &mut self.buffer.as_mut_slice()[at..];
        bytes[..4].copy_from_slice(&entry_len.to_le_bytes());
        bytes[4..ENTRY_PREFIX_LEN].copy_from_slice(&payload_len.to_le_bytes());
        &bytes[ENTRY_PREFIX_LEN..]
    }

    /// Ends the frame with the payloads, in the order of their entries, and the signed checkpoint of the tree after it.
    pub fn finish<'a>(&mut self, payloads: impl Iterator<Item = &'a Bytes>, checkpoint: &str) {
        let mut header = self.header.take().expect("finish follows begin");
        let payload_at = self.buffer.len();
        let length = payload_at + header.payload_len as usize + checkpoint.len() + TRAILER_LEN;
        header.length = narrow(length);
        header.checkpoint_len =
            u16::try_from(checkpoint.len()).expect("a note of one short origin and one signature");
        self.buffer.as_mut_slice()[..HEADER_LEN].copy_from_slice(&header.encode());
        self.buffer.reserve(length - payload_at);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(self.buffer.as_slice());
        for payload in payloads {
            // Summed while the copy is in the processor's cache.
            for piece in payload.chunks(CHECKSUM_PIECE_BYTES) {
                self.buffer.append(piece);
                checksum.update(piece);
            }
        }
        self.buffer.append(checkpoint.as_bytes());
        checksum.update(checkpoint.as_bytes());
        self.buffer.append(&checksum.finalize().to_le_bytes());
        debug_assert_eq!(self.buffer.len(), length, "the payloads are those whose lengths were given");
    }

    /// The finished frame's bytes.
    pub fn bytes(&self) -> &[u8] {
        debug_assert!(self.header.is_none(), "bytes follows finish");
        self.buffer.as_slice()
    }
}

/// A length inside a frame or a head, which the batch bound keeps far below 4 GiB.
pub(super) fn narrow(length: usize) -> u32 {
    u32::try_from(length).expect("a frame is bounded far below 4 GiB")
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Bytes {
        let mut range = CompactRange::new();
        for leaf in 0..5 {
            range.push([leaf; 32]);
        }
        let mut builder = FrameBuilder::default();
        builder.begin(&range, 64, 0);
        builder.push(5, 7, |out| out.extend_from_slice(b"first"));
        assert_eq!(builder.push(6, 0, |out| out.extend_from_slice(b"second")), b"second");
        let payloads = [Bytes::from_static(b"pay"), Bytes::from_static(b"load")];
        builder.finish(payloads.iter(), "note");
        Bytes::copy_from_slice(builder.bytes())
    }

    #[test]
    fn a_frame_reads_back_as_it_was_built() {
        let frame = Frame::parse(&sample()).unwrap();
        assert_eq!((frame.header().first_index, frame.header().end_index()), (5, 7));
        assert_eq!(frame.range().len(), 2);
        assert_eq!(frame.checkpoint(), b"note");
        let entries = frame.entries().unwrap();
        assert_eq!(
            (entries[0].entry.as_ref(), entries[0].payload.as_ref()),
            (&b"first"[..], &b"payload"[..])
        );
        assert_eq!((entries[1].entry.as_ref(), entries[1].payload.as_ref()), (&b"second"[..], &b""[..]));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let bytes = sample();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::parse(&flipped.into()).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Frame::parse(&bytes.slice(..length)).is_err(), "cut at {length}");
        }
    }
}
