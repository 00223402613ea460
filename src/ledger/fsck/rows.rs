//! The rows of the lookup tables, held against the segments.
//!
//! They are no evidence, and can be rebuilt: a fault here says that reads through them may go wrong, not that the log does. Rows may end
//! before the log does, since they are written behind it. Where rows come from is `store`'s; here they are only a sequence. Frames that need
//! none may have one.

use super::content::Content;
use super::fault::{FaultKind, Place, Sink, base64};
use crate::ledger::row::{Position, Row, is_due};
use crate::merkle::Hash;

/// All rows, in ascending order of their first index. An error ends them.
pub type Rows = Box<dyn Iterator<Item = Result<Row, String>> + Send>;

const REMEDY: &str = "the log itself is not touched by this; the next `attestry run` rebuilds db/";

/// Goes along the frames with the rows.
pub(super) struct RowCheck<'a> {
    rows: std::iter::Peekable<Rows>,
    /// The frame before.
    before: Option<Position>,
    sink: &'a Sink,
}

impl<'a> RowCheck<'a> {
    /// Checks no rows where there are none.
    pub fn new(rows: Option<Rows>, sink: &'a Sink) -> Self {
        let rows = rows.unwrap_or_else(|| Box::new(std::iter::empty()));
        Self { rows: rows.peekable(), before: None, sink }
    }

    /// Holds the rows up to a frame against it. `root` is that of the tree behind the frame, where it is known.
    pub fn frame(&mut self, content: &Content, root: Option<Hash>) {
        let (first_index, at) = (content.at.first_index, (content.at.segment, content.at.offset));
        // What stood before something unknown may have had the row.
        let is_due = is_due(self.before.replace(at), at) && !content.after_unknown;
        while let Some(Ok(row)) =
            self.rows.next_if(|row| row.as_ref().is_ok_and(|row| row.first_index < first_index))
        {
            // Behind something unknown, the rows of what is missing come first.
            if !content.after_unknown {
                self.fault(
                    row.first_index,
                    &format!("the row {} is of a frame that is not there", text(&row)),
                );
            }
        }
        match self.rows.peek().cloned() {
            Some(Ok(row)) if row.first_index == first_index => {
                let expected = Row {
                    first_index,
                    segment: content.at.segment,
                    offset: content.at.offset,
                    length: content.length,
                    end_index: content.end_index,
                    root: root.unwrap_or(row.root),
                };
                if row != expected {
                    self.fault(first_index, &format!("the row {} should be {}", text(&row), text(&expected)));
                }
                self.rows.next();
            }
            // There is one for a later frame, so this one's was not merely not written yet.
            Some(Ok(_)) if is_due => self.fault(first_index, "there is no row for the frame"),
            Some(_) | None => {}
        }
    }

    /// Reports the rows that stand behind the log's last frame.
    pub fn end(self, size: u64) {
        for row in self.rows {
            match row {
                Ok(row) if row.first_index >= size => {
                    let place = Place { index: Some(row.first_index), ..Place::default() };
                    let message = format!("the row {} is of a frame that is not there; {REMEDY}", text(&row));
                    self.sink.at_end(FaultKind::DbRow, place, message);
                }
                Ok(_) => {}
                Err(error) => {
                    self.sink.at_end(
                        FaultKind::DbRow,
                        Place::default(),
                        format!("the rows cannot be read: {error}; {REMEDY}"),
                    );
                }
            }
        }
    }

    fn fault(&self, index: u64, message: &str) {
        let place = Place { index: Some(index), ..Place::default() };
        self.sink.at_end(FaultKind::DbRow, place, format!("{message}; {REMEDY}"));
    }
}

fn text(row: &Row) -> String {
    let Row { first_index, segment, offset, length, end_index, root } = row;
    let root = base64(root);
    format!(
        "(entry {first_index}: segment {segment}, offset {offset}, {length} bytes, {end_index} entries, root {root})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::fsck::fault::At;
    use crate::limits::INDEX_ROW_SPACING_BYTES;

    fn content(first_index: u64, after_unknown: bool) -> Content {
        Content {
            at: At { frame: 0, segment: 0, offset: offset_of(first_index), first_index },
            length: 100,
            after_unknown,
            range: Vec::new(),
            leaves: Vec::new(),
            end_index: first_index + 1,
            is_whole: true,
            signed_root: None,
        }
    }

    fn row(first_index: u64) -> Row {
        let offset = offset_of(first_index);
        Row { first_index, segment: 0, offset, length: 100, end_index: first_index + 1, root: [7; 32] }
    }

    /// Each two frames begin in one stretch.
    fn offset_of(first_index: u64) -> u64 {
        64 + INDEX_ROW_SPACING_BYTES / 2 * first_index
    }

    /// Holds `rows` against frames 0 to 6 without 4, so that 5 stands behind something unknown; returns the indexes of the faults.
    fn faults(rows: Vec<Result<Row, String>>) -> Vec<Option<u64>> {
        let sink = Sink::default();
        let mut check = RowCheck::new(Some(Box::new(rows.into_iter())), &sink);
        for first_index in [0, 1, 2, 3, 5, 6] {
            check.frame(&content(first_index, first_index == 5), (first_index < 4).then_some([7; 32]));
        }
        check.end(7);
        let (_, faults) = sink.into_found().into_lists();
        assert!(faults.iter().all(|fault| fault.kind == FaultKind::DbRow && fault.message.contains(REMEDY)));
        faults.iter().map(|fault| fault.place.index).collect()
    }

    #[test]
    fn rows_that_agree_are_no_fault_and_may_end_early() {
        assert_eq!(faults(vec![]), []);
        assert_eq!(faults(vec![Ok(row(0))]), []);
        assert_eq!(faults((0..7).map(row).map(Ok).collect()), [], "more than are needed");
        assert_eq!(faults([0, 2, 4, 6].map(row).map(Ok).to_vec()), []);
    }

    #[test]
    fn rows_that_differ_are_named() {
        assert_eq!(faults(vec![Ok(Row { root: [8; 32], ..row(0) })]), [Some(0)]);
        assert_eq!(faults([0, 6].map(row).map(Ok).to_vec()), [Some(2)], "a hole");
        let beyond = [row(0), Row { first_index: 1, ..row(3) }, row(2), row(6), row(9)];
        assert_eq!(faults(beyond.map(Ok).to_vec()), [Some(1), Some(9)], "of frames that are not there");
        assert_eq!(faults(vec![Ok(row(0)), Err("broken".into())]), [None]);
    }
}
