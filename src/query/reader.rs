//! The entries of a ledger in their order, over all its segments, up to the published head.
//!
//! Invariants: nothing that is not published is shown (docs/ledger-format.md section 7); a damaged place
//! costs its own entries and no others, and is reported; frames behind one are believed only if the log's key
//! signed them, because the payload of a damaged frame may imitate a frame; one frame is held at a time.
//! Without a head file (a copy of the segments alone) the last good frame is the end. What the entries mean
//! is `calls`' and `timeline`'s, and whether they are authentic is for `attestry verify` to say.

use crate::entry::{self, Body, EntryError};
use crate::generated::v1;
use crate::ledger::frame::Frame;
use crate::ledger::genuine;
use crate::ledger::head::Head;
use crate::ledger::segment::{self, Found, HeaderError, Segment};
use crate::note::VerifierKey;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

/// One entry at its place, with the payload that stands beside it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its place in the log.
    pub index: u64,
    /// When it was committed.
    pub committed_unix_nanos: u64,
    /// What it tells.
    pub body: Body,
    /// The payload, uncut.
    pub payload: Bytes,
}

/// What comes next in a ledger.
#[derive(Clone, Debug)]
pub enum Item {
    /// An entry.
    Record(Box<Record>),
    /// A place that was skipped.
    Damaged(Damaged),
}

/// A place at which something cannot be read. It was skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged place in segments/{} at offset {offset}: {reason}: run `attestry verify`", segment::file_name(*.segment))]
pub struct Damaged {
    /// First index (the name) of the segment.
    pub segment: u64,
    /// Where in it.
    pub offset: u64,
    /// What is wrong, and which entries are lost by it.
    pub reason: String,
}

/// Why a ledger cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No segments there.
    #[error(
        "{0} holds no ledger (no segments/ in it): name the ledger's folder with --ledger or ATTESTRY_LEDGER_DIR"
    )]
    NoLedger(PathBuf),
    /// The system refused.
    #[error("{path} cannot be read: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Written by a later version.
    #[error("segment {segment}: {source}")]
    Format {
        /// First index of the segment.
        segment: u64,
        /// Which version.
        source: HeaderError,
    },
}

/// Iterates over a ledger. At the end of what is published it gives `None`; after [`Reader::refresh`] it goes
/// on with what has come since.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    head: Option<Head>,
    /// Segments that are still to be opened.
    segments: VecDeque<u64>,
    segment: Option<Segment>,
    offset: u64,
    next_index: u64,
    ready: VecDeque<Item>,
}

impl Reader {
    /// Reads the ledger in `dir` from its first entry.
    pub fn open(dir: &Path) -> Result<Self, ReadError> {
        let mut reader = Self {
            dir: dir.to_path_buf(),
            head: None,
            segments: VecDeque::new(),
            segment: None,
            offset: 0,
            next_index: 0,
            ready: VecDeque::new(),
        };
        reader.refresh()?;
        Ok(reader)
    }

    /// Begins at the segment that holds entry `index`. Entries of that segment that stand before it come too.
    pub fn open_at(dir: &Path, index: u64) -> Result<Self, ReadError> {
        let mut reader = Self::open(dir)?;
        let before = reader.segments.iter().take_while(|&&first| first <= index).count().saturating_sub(1);
        reader.begin_with_segment(before);
        Ok(reader)
    }

    /// Begins with the newest `count` segments.
    pub fn open_newest(dir: &Path, count: usize) -> Result<Self, ReadError> {
        let mut reader = Self::open(dir)?;
        reader.begin_with_segment(reader.segments.len().saturating_sub(count));
        Ok(reader)
    }

    /// Learns what was published since: the head file, and new segments.
    pub fn refresh(&mut self) -> Result<(), ReadError> {
        // The head first: the segments that are listed after it hold all that it speaks of.
        self.read_head();
        let newest = self.head.as_ref().map_or(u64::MAX, |head| head.segment);
        let listed = segment::list(&self.dir).map_err(|source| self.list_error(source))?;
        let is_new = |first: u64| match (self.segments.back(), &self.segment) {
            (Some(&last), _) => first > last,
            (None, Some(current)) => first > current.first_index(),
            (None, None) => true,
        };
        let new: Vec<u64> = listed.into_iter().filter(|&first| first <= newest && is_new(first)).collect();
        self.segments.extend(new);
        Ok(())
    }

    fn begin_with_segment(&mut self, number: usize) {
        self.segments.drain(..number);
        self.next_index = self.segments.front().copied().unwrap_or(0);
    }

    fn list_error(&self, source: io::Error) -> ReadError {
        if source.kind() == io::ErrorKind::NotFound {
            return ReadError::NoLedger(self.dir.clone());
        }
        ReadError::Io { path: segment::folder(&self.dir), source }
    }

    fn read_head(&mut self) {
        match Head::read(&self.dir) {
            Ok(head) => self.head = head,
            // A head that was good before goes on to hold. One that never was is like none.
            Err(error) if self.head.is_none() && self.segment.is_none() => {
                self.report(0, 0, format!("{error}; reading to the last good frame instead"));
            }
            Err(_) => {}
        }
    }

    /// Reads one frame, or moves on to the next segment. False at the end.
    fn advance(&mut self) -> Result<bool, ReadError> {
        if self.next_index >= self.published_size() {
            return Ok(false);
        }
        let Some(segment) = &self.segment else { return self.next_segment("not there") };
        match segment.at(self.offset).map_err(|source| self.segment_error(source))? {
            Found::Frame(frame) if frame.header().end_index() > self.published_size() => {
                Ok(self.end_below_head("not there"))
            }
            Found::Frame(frame) => {
                self.take(&frame);
                Ok(true)
            }
            Found::End => self.next_segment("not there"),
            Found::Bad(error) => self.skip(&error.to_string()),
        }
    }

    /// Leaves in the published tree; without a head all that can be read counts as published.
    fn published_size(&self) -> u64 {
        self.head.as_ref().map_or(u64::MAX, |head| head.range.size())
    }

    /// Hands out a frame's entries.
    fn take(&mut self, frame: &Frame) {
        let header = frame.header();
        if header.first_index > self.next_index {
            self.report_missing(header.first_index, "not there");
        } else if header.first_index < self.next_index {
            let reason =
                format!("entries from {} on stand here a second time; they are left out", header.first_index);
            self.report_here(reason);
        }
        match frame.entries() {
            Ok(entries) => {
                for (stored, index) in entries.into_iter().zip(header.first_index..) {
                    if index >= self.next_index {
                        self.take_entry(index, stored.entry, stored.payload);
                    }
                }
            }
            Err(error) => self.report_here(format!(
                "{} cannot be read ({error})",
                span(header.first_index, header.end_index())
            )),
        }
        self.next_index = self.next_index.max(header.end_index());
        self.offset += u64::from(header.length);
    }

    fn take_entry(&mut self, index: u64, bytes: Bytes, payload: Bytes) {
        match entry::decode(bytes) {
            Ok(v1::Entry { body: Some(body), committed_unix_nanos, .. }) => {
                let record = Record { index, committed_unix_nanos, body, payload };
                self.ready.push_back(Item::Record(Box::new(record)));
            }
            // A body of a later version (docs/ledger-format.md section 9) is no damage, only nothing that can
            // be shown.
            Ok(_) | Err(EntryError::NoBody) => {}
            Err(error) => self.report_here(format!("entry {index} cannot be read ({error})")),
        }
    }

    /// Looks for the next frame of the log behind bytes that are none.
    fn skip(&mut self, error: &str) -> Result<bool, ReadError> {
        let Some(segment) = &self.segment else { return Ok(false) };
        let (next, size) = (self.next_index, self.published_size());
        let key =
            genuine::opened(&self.dir).and_then(|opened| opened.verifier_key.parse::<VerifierKey>().ok());
        let found = match key {
            Some(key) => segment
                .next_frame(self.offset + 1, |frame| {
                    let header = frame.header();
                    header.first_index >= next
                        && header.end_index() <= size
                        && genuine::tree_after(frame, &key).is_some()
                })
                .map_err(|source| self.segment_error(source))?,
            None => None,
        };
        match found {
            Some((offset, frame)) => {
                self.report_missing(frame.header().first_index, error);
                self.offset = offset;
                self.next_index = frame.header().first_index;
                self.take(&frame);
                Ok(true)
            }
            None => self.next_segment(error),
        }
    }

    /// Goes on with the next segment. `reason` says why entries that should have come before it did not.
    fn next_segment(&mut self, reason: &str) -> Result<bool, ReadError> {
        let Some(first_index) = self.segments.front().copied() else {
            // Without a head, what cannot be read at the end is a commit that was never finished.
            return Ok(self.head.is_some() && self.end_below_head(reason));
        };
        if first_index > self.next_index {
            self.report_missing(first_index, reason);
            self.next_index = first_index;
        }
        self.segments.pop_front();
        let segment = match Segment::open(&self.dir, first_index) {
            Ok(segment) => segment,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(source) => return Err(self.io_error(first_index, source)),
        };
        match segment.check_header(None).map_err(|source| self.io_error(first_index, source))? {
            Err(source @ HeaderError::Version(_)) => {
                return Err(ReadError::Format { segment: first_index, source });
            }
            Err(error) => self.report(first_index, 0, error.to_string()),
            Ok(()) => {}
        }
        (self.segment, self.offset) = (Some(segment), segment::HEADER_LEN);
        Ok(true)
    }

    /// The head speaks of more, and it cannot be read.
    fn end_below_head(&mut self, reason: &str) -> bool {
        let size = self.published_size();
        self.report_missing(size, reason);
        self.next_index = size;
        true
    }

    fn report_missing(&mut self, end_index: u64, reason: &str) {
        if end_index > self.next_index {
            self.report_here(format!("{} cannot be read ({reason})", span(self.next_index, end_index)));
        }
    }

    fn report_here(&mut self, reason: String) {
        let segment = self.segment.as_ref().map_or(0, Segment::first_index);
        self.report(segment, self.offset, reason);
    }

    fn report(&mut self, segment: u64, offset: u64, reason: String) {
        self.ready.push_back(Item::Damaged(Damaged { segment, offset, reason }));
    }

    fn segment_error(&self, source: io::Error) -> ReadError {
        self.io_error(self.segment.as_ref().map_or(0, Segment::first_index), source)
    }

    fn io_error(&self, first_index: u64, source: io::Error) -> ReadError {
        ReadError::Io { path: segment::folder(&self.dir).join(segment::file_name(first_index)), source }
    }
}

impl Iterator for Reader {
    type Item = Result<Item, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return self.ready.pop_front().map(Ok),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Entries `[first, end)` in words.
fn span(first: u64, end: u64) -> String {
    if end - first == 1 { format!("entry {first}") } else { format!("entries {first} to {}", end - 1) }
}
