//! The row of the lookup tables that each commit makes: where its frame stands, and the tree that it led to.
//!
//! Rows are made from the log and are no evidence. Where they are kept is `store`'s, when they are written `index`'s.

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
