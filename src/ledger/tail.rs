//! The end of an existing log: the newest segment walked from its beginning, which is all that a start has to read.
//!
//! Reads only. What is done about what it finds is `open`'s.

use super::frame::Frame;
use super::genuine::tree_after;
use super::segment::{self, Found, HeaderError, Segment};
use crate::entry;
use crate::generated::v1;
use crate::merkle::{self, CompactRange, Hash};
use crate::note::VerifierKey;
use std::io;
use std::path::Path;
use v1::entry::Body;

/// The last frame of the log.
#[derive(Debug)]
pub struct LastFrame {
    /// The segment it stands in.
    pub segment: u64,
    /// Where in it.
    pub offset: u64,
    /// The frame.
    pub frame: Frame,
}

/// What the end of the log looks like.
#[derive(Debug, Default)]
pub struct Tail {
    /// The tree up to the last frame.
    pub range: CompactRange,
    /// Leaf hash of the last entry.
    pub last_leaf: Hash,
    /// Committed time of the last entry.
    pub last_time_unix_nanos: u64,
    /// The last frame; `None` in a log without any.
    pub last: Option<LastFrame>,
    /// The last frame proves itself under the key.
    pub is_signed: bool,
    /// Bytes behind the last frame that are neither zeros nor a frame.
    pub torn_bytes: u64,
    /// The last entry is `Stopped`, and nothing stands behind it.
    pub clean_stop: bool,
    /// Places inside the newest segment that cannot be read, with good frames behind them.
    pub damage: Vec<v1::Damage>,
    /// The newest segment is of a format that cannot be continued.
    pub header_error: Option<HeaderError>,
}

impl Tail {
    /// Leaves in the tree up to the last frame.
    pub fn size(&self) -> u64 {
        self.range.size()
    }
}

/// Reads the end of the log: the newest segment that holds a frame. Empty ones behind it were left by starts that did not come to their first commit.
pub fn read(ledger: &Path, segments: &[u64], key: &VerifierKey) -> io::Result<Tail> {
    let mut unfinished_bytes = 0;
    for &first_index in segments.iter().rev() {
        let segment = Segment::open(ledger, first_index)?;
        let mut tail = walk(&segment, key)?;
        if tail.last.is_some() || tail.header_error.is_some() {
            // A first commit that was not finished stands in a segment of its own.
            tail.torn_bytes += unfinished_bytes;
            tail.clean_stop &= unfinished_bytes == 0;
            return Ok(tail);
        }
        unfinished_bytes += tail.torn_bytes;
    }
    Ok(Tail::default())
}

fn walk(segment: &Segment, key: &VerifierKey) -> io::Result<Tail> {
    let mut tail = Tail::default();
    if let Err(error @ HeaderError::Version(_)) = segment.check_header(None)? {
        tail.header_error = Some(error);
        return Ok(tail);
    }
    let mut offset = segment::HEADER_LEN;
    let mut next = segment.first_index();
    loop {
        let (at, frame) = match segment.at(offset)? {
            Found::End => break,
            Found::Frame(frame) if frame.header().first_index == next => (offset, frame),
            found @ (Found::Frame(_) | Found::Bad(_)) => {
                // A whole frame that is not the next one may still be the log's: entries before it are missing.
                let from = offset + u64::from(matches!(found, Found::Bad(_)));
                let found = segment.next_frame(from, |frame| is_genuine(frame, next, key))?;
                let Some((at, frame)) = found else {
                    tail.torn_bytes = segment.data_end(offset)? - offset;
                    break;
                };
                tail.damage.push(damage(segment, offset, next, frame.header().first_index));
                (at, frame)
            }
        };
        next = frame.header().end_index();
        offset = at + u64::from(frame.header().length);
        tail.last = Some(LastFrame { segment: segment.first_index(), offset: at, frame });
    }
    finish(&mut tail, key);
    Ok(tail)
}

fn damage(segment: &Segment, offset: u64, first_index: u64, end_index: u64) -> v1::Damage {
    let segment = segment::file_name(segment.first_index());
    v1::Damage {
        reason: "bytes that are no frame, with good frames behind them".into(),
        first_index,
        end_index,
        segment,
        offset,
    }
}

/// A frame that the key signed, at or behind the entry that is due: payload bytes that look like a frame are none.
fn is_genuine(frame: &Frame, next: u64, key: &VerifierKey) -> bool {
    frame.header().first_index >= next && tree_after(frame, key).is_some()
}

/// Reads the state after the last frame out of it. One signature is enough here: each frame's tree holds all leaves before it.
fn finish(tail: &mut Tail, key: &VerifierKey) {
    let Some(last) = &tail.last else { return };
    let Some(range) = tree_after(&last.frame, key) else { return };
    (tail.range, tail.is_signed) = (range, true);
    for stored in last.frame.entries().unwrap_or_default() {
        tail.last_leaf = merkle::leaf_hash(&stored.entry);
        if let Ok(entry) = entry::decode(stored.entry) {
            tail.last_time_unix_nanos = entry.committed_unix_nanos;
            tail.clean_stop = tail.torn_bytes == 0 && matches!(entry.body, Some(Body::Stopped(_)));
        }
    }
}
