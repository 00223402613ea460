//! A row of the lookup tables: where a frame stands, and the tree that it led to; and which frames get one.
//!
//! Rows are made from the log and are no evidence. Where they are kept is `store`'s, when they are written `index`'s.

use crate::limits::INDEX_ROW_SPACING_BYTES;
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

/// Where a frame stands: its segment, and its offset in it.
pub type Position = (u64, u64);

impl Row {
    /// Where its frame stands.
    pub fn position(&self) -> Position {
        (self.segment, self.offset)
    }
}

/// Whether the frame at `at` gets a row, where `before` is the frame before it or the last one that got one: that is the first frame to begin in each stretch of
/// [`INDEX_ROW_SPACING_BYTES`] of a segment. So which frames have rows follows from the log alone, and where there is none, the
/// frame is found by a short walk from the last row before it.
pub fn is_due(before: Option<Position>, at: Position) -> bool {
    let stretch = |(segment, offset): Position| (segment, offset / INDEX_ROW_SPACING_BYTES);
    before.map(stretch) != Some(stretch(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_of_each_stretch_and_of_each_segment_has_a_row() {
        let next = 7 * INDEX_ROW_SPACING_BYTES;
        assert!(is_due(None, (0, 64)));
        assert!(!is_due(Some((0, 64)), (0, 900)));
        assert!(!is_due(Some((0, next - 900)), (0, next - 1)));
        assert!(is_due(Some((0, next - 1)), (0, next)) && is_due(Some((0, 64)), (0, next + 5)));
        assert!(is_due(Some((0, 64)), (12, 64)));
    }
}
