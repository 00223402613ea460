//! The row of the lookup tables that each commit makes: where its frame stands, and the tree that it led to.
//!
//! Rows are made from the log and are no evidence. Where they are kept is `store`'s, when they are written `index`'s.

use super::frame::{u32_at, u64_at};
use crate::merkle::Hash;

/// One commit: where its frame stands, and the tree it led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Index of the frame's first entry; the key.
    pub first_index: u64,
    /// First index (the name) of its segment.
    pub segment: u64,
    /// Offset of the frame in it.
    pub offset: u64,
    /// Bytes of the frame.
    pub length: u32,
    /// Index behind the frame's last entry.
    pub end_index: u64,
    /// Root of the tree up to there.
    pub root: Hash,
}

impl Row {
    /// Bytes of a row without its key.
    pub(super) const LEN: usize = 60;

    /// The row without its key.
    pub(super) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.segment.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.length.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.end_index.to_le_bytes());
        bytes[28..].copy_from_slice(&self.root);
        bytes
    }

    /// Reads what [`Row::encode`] wrote.
    pub(super) fn decode(first_index: [u8; 8], bytes: &[u8; Self::LEN]) -> Self {
        Self {
            first_index: u64::from_be_bytes(first_index),
            segment: u64_at(bytes, 0),
            offset: u64_at(bytes, 8),
            length: u32_at(bytes, 16),
            end_index: u64_at(bytes, 20),
            root: *bytes[28..].first_chunk().expect("32 of 60 bytes are left"),
        }
    }
}
