//! The one writer of the log: entries become a signed frame, and the frame becomes durable.
//!
//! Invariants: the state in memory is that of the last durable frame and no other; a frame is signed before it is written and nobody is told
//! of it before it is durable; after any failure nothing is written to that segment but its cut. Threads, queues and what callers are told are
//! `committer`'s; the state after a restart is `open`'s.

use super::disk::{Disk, SegmentFile};
use super::frame::{FrameBuilder, narrow};
use super::head::Head;
use super::row::Row;
use super::segment;
use crate::clock::Clock;
use crate::entry::{self, Body, PendingEntry};
use crate::generated::v1;
use crate::limits::SEGMENT_LEFT_EARLY_BYTES;
use crate::merkle::{self, CompactRange, Hash};
use crate::note::{Checkpoint, Signer};
use std::io;
use std::sync::Arc;

/// The log's state after its last durable frame.
#[derive(Clone, Debug)]
pub struct State {
    /// The tree.
    pub range: CompactRange,
    /// Leaf hash of the last entry; zero where there is none.
    pub last_leaf: Hash,
    /// Committed time of the last entry.
    pub last_time_unix_nanos: u64,
}

/// Why a commit failed. Whether the frame is on the disk is not known; nothing of it may be released.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct WriteError {
    /// What was being done.
    pub step: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// What a frame has beside its entries, and an entry beside its body and payload, at the most: so the buffer has its room at once.
const FRAME_OVERHEAD_BYTES: usize = 4 * 1024;
const ENTRY_OVERHEAD_BYTES: usize = 8 + entry::SEAL_BYTES_MAX;

/// Appends group commits to the log.
pub struct Writer {
    disk: Box<dyn Disk>,
    clock: Arc<dyn Clock>,
    signer: Signer,
    origin: String,
    segment_bytes: u64,
    state: State,
    segment: Box<dyn SegmentFile>,
    segment_first: u64,
    offset: u64,
    /// The signed checkpoint of `state`; empty before the first commit of this writer.
    checkpoint: String,
    builder: FrameBuilder,
}

impl Writer {
    /// A writer that continues behind `state` in a new segment.
    pub fn begin(
        mut disk: Box<dyn Disk>,
        clock: Arc<dyn Clock>,
        signer: Signer,
        segment_bytes: u64,
        state: State,
    ) -> io::Result<Self> {
        let origin = signer.verifier_key().name().to_owned();
        let segment_first = state.range.size();
        let segment = disk.create_segment(segment_first, &segment::encode_header(segment_first, &origin))?;
        let (offset, builder, checkpoint) = (segment::HEADER_LEN, FrameBuilder::default(), String::new());
        Ok(Self {
            disk,
            clock,
            signer,
            origin,
            segment_bytes,
            state,
            segment,
            segment_first,
            offset,
            checkpoint,
            builder,
        })
    }

    /// Leaves in the tree.
    pub fn size(&self) -> u64 {
        self.state.range.size()
    }

    /// Commits `entries` as one frame. When this returns, the frame is durable, and the head that readers stop at includes it. On an error
    /// nothing of it may be released, and the segment must not be written again: call [`Writer::recover`].
    pub fn commit<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a PendingEntry> + Clone,
    ) -> Result<Row, WriteError> {
        let next = self.encode(entries.clone());
        let root = next.range.root();
        let checkpoint =
            Checkpoint { origin: self.origin.clone(), size: next.range.size(), root, extensions: Vec::new() };
        // Signed before it is written: the signature is part of what becomes durable, so nothing unsigned is ever left.
        let note = self.signer.sign(&checkpoint.text());
        self.builder.finish(entries.flat_map(|entry| &entry.payload), &note);
        self.rotate_if_full().map_err(failed("a new segment could not be created"))?;

        let frame = self.builder.bytes();
        // A crash from here on leaves a torn or a whole frame that nobody was told of: a start cuts the one and keeps the other.
        self.segment.write_at(frame, self.offset).map_err(failed("the segment could not be written"))?;
        self.segment.sync().map_err(failed("the segment could not be made durable"))?;
        // Durable. But durable in a file without a name helps nobody, so the name is looked at before anything is released.
        self.segment.check().map_err(failed("the ledger was changed by others"))?;

        let row = Row {
            first_index: self.state.range.size(),
            segment: self.segment_first,
            offset: self.offset,
            length: narrow(frame.len()),
            end_index: next.range.size(),
            root,
        };
        self.offset += frame.len() as u64;
        self.state = next;
        self.checkpoint = note;
        // The head may be lost in a crash: a start then learns from the segments alone, which hold at least as much.
        let head = self.head().encode_with_root(&root);
        self.disk.write_head(&head).map_err(failed("the head file could not be written"))?;
        Ok(row)
    }

    /// The published state.
    pub fn head(&self) -> Head {
        Head {
            range: self.state.range.clone(),
            segment: self.segment_first,
            offset: self.offset,
            last_leaf: self.state.last_leaf,
            checkpoint: self.checkpoint.clone(),
        }
    }

    /// After a failed commit: cuts what is uncertain, and continues in a new segment. An error leaves all as it is, to be tried again later.
    /// Returns what the log must say about its own damage.
    pub fn recover(&mut self) -> io::Result<Option<PendingEntry>> {
        let size = self.size();
        let damage = match self.segment.check() {
            // The failed frame may or may not be on the disk, now or after the next power cut. Nobody was told of it, so it goes.
            Ok(()) => self.segment.trim(self.offset).map(|()| None)?,
            Err(error) if size > self.segment_first => Some(v1::Damage {
                reason: error.to_string(),
                first_index: self.segment_first,
                end_index: size,
                segment: segment::file_name(self.segment_first),
                offset: 0,
            }),
            Err(_) => None,
        };
        self.start_segment()?;
        Ok(damage.map(|damage| PendingEntry::new(&Body::Damage(damage))))
    }

    /// After the last commit: cuts the zeros that were prepared ahead, so that the segment ends with its last frame.
    pub fn finish(&mut self) -> io::Result<()> {
        self.segment.trim(self.offset)
    }

    /// Encodes the entries into the builder's frame; returns the state that it leads to.
    fn encode<'a>(&mut self, entries: impl Iterator<Item = &'a PendingEntry> + Clone) -> State {
        let mut next = self.state.clone();
        // Time never goes back in the log, whatever the clock does.
        next.last_time_unix_nanos = next.last_time_unix_nanos.max(self.clock.unix_nanos());
        let bytes = |entry: &PendingEntry| ENTRY_OVERHEAD_BYTES + entry.body.len() + entry.payload_len();
        self.builder.begin(
            &next.range,
            self.offset,
            FRAME_OVERHEAD_BYTES + entries.clone().map(bytes).sum::<usize>(),
        );
        for pending in entries {
            let (index, previous, time) = (next.range.size(), next.last_leaf, next.last_time_unix_nanos);
            let leaf =
                self.builder.push(pending.body.len() + entry::SEAL_BYTES_MAX, pending.payload_len(), |out| {
                    entry::seal(index, &previous, time, &pending.body, out);
                });
            debug_assert!(leaf.len() <= entry::ENTRY_BYTES_MAX, "capture bounds an entry");
            next.last_leaf = merkle::leaf_hash(leaf);
            next.range.push(next.last_leaf);
        }
        next
    }

    /// A frame that does not fit into the prepared space goes into the next segment, if that is prepared or this one has its size.
    fn rotate_if_full(&mut self) -> io::Result<()> {
        let end = self.offset + self.builder.bytes().len() as u64;
        if end <= self.segment.capacity() || self.offset == segment::HEADER_LEN {
            return Ok(());
        }
        let is_large = self.offset >= self.segment_bytes.min(SEGMENT_LEFT_EARLY_BYTES);
        if end <= self.segment_bytes && !(is_large && self.disk.is_prepared()) {
            return Ok(());
        }
        // Only a segment that is still there is left behind for good.
        self.segment.check()?;
        self.segment.trim(self.offset)?;
        self.start_segment()
    }

    fn start_segment(&mut self) -> io::Result<()> {
        let first = self.size();
        self.segment = self.disk.create_segment(first, &segment::encode_header(first, &self.origin))?;
        (self.segment_first, self.offset) = (first, segment::HEADER_LEN);
        Ok(())
    }
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> WriteError {
    move |source| WriteError { step, source }
}
