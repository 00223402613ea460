//! The walk: which frames stand where, and what stands in the place of those that do not (steps 4 and 5).
//!
//! Invariant: a frame is handed on at most once, in the order of the files, with the knowledge of whether the one before it is known. What a
//! frame says is not looked at here, but for its first index; and for its signature where it was searched for behind damage.

use super::content::{Work, split};
use super::fault::{At, FaultKind, Place, Sink, hex};
use super::start::Known;
use crate::entry;
use crate::generated::v1;
use crate::ledger::frame::{Frame, FrameError};
use crate::ledger::segment::{Found, HEADER_LEN, HeaderError, Segment, file_name};
use crate::note::{Checkpoint, Note, VerifierKey};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use v1::entry::Body;

/// What the walk knows when it is over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WalkEnd {
    /// The index behind the last entry.
    pub size: u64,
    /// Something unknown stands between the last frame and that index.
    pub after_unknown: bool,
    /// The last segment could be read, so nothing is behind `size`.
    pub is_complete: bool,
    /// The entries from `size` up to the head's size were reported as missing or damaged.
    pub reported_up_to_head: bool,
}

/// The walk over the segments of one ledger.
pub(super) struct Walk<'a, F> {
    ledger: &'a Path,
    known: &'a Known,
    sink: &'a Sink,
    hand_on: F,
    /// The index that is expected next.
    next: u64,
    /// Frames handed on.
    frames: u64,
    /// What stands before `next` is not known.
    after_unknown: bool,
    /// The last frame of this segment, so far.
    newest: Option<Frame>,
    /// The last segment could be read.
    is_complete: bool,
    /// From where entries were reported as missing that reach up to the head's size.
    reported_from: Option<u64>,
}

/// Why a segment is left without having been walked to its end.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Header(HeaderError),
}

impl<'a, F: FnMut(Work)> Walk<'a, F> {
    /// A walk that gives each frame to `hand_on`.
    pub fn new(ledger: &'a Path, known: &'a Known, sink: &'a Sink, hand_on: F) -> Self {
        Self {
            ledger,
            known,
            sink,
            hand_on,
            next: 0,
            frames: 0,
            after_unknown: false,
            newest: None,
            is_complete: true,
            reported_from: None,
        }
    }

    /// Walks all segments.
    pub fn run(mut self) -> WalkEnd {
        let known = self.known;
        for (position, &number) in known.segments.iter().enumerate() {
            self.join(number);
            let following = known.segments.get(position + 1).copied();
            if let Err(unread) = self.segment(number, following) {
                self.skip(number, following, &unread);
            }
        }
        WalkEnd {
            size: self.next,
            after_unknown: self.after_unknown,
            is_complete: self.is_complete,
            reported_up_to_head: self.reported_from.is_some_and(|from| from <= self.next),
        }
    }

    /// Step from one segment to the next: its number must be the index that is expected.
    fn join(&mut self, number: u64) {
        let message = format!("the segment begins with entry {number}, expected {}", self.next);
        self.expect(number, Place::offset(number, 0), message);
    }

    /// Compares the index that stands at a place with the one expected there; goes on with the former.
    fn expect(&mut self, found: u64, place: Place, message: String) {
        if found > self.next {
            self.missing(FaultKind::MissingEntries, place, found, message);
        } else if found < self.next {
            let place = Place { index: Some(found), end: Some(self.next), ..place };
            self.fault(FaultKind::RepeatedEntries, place, message);
            self.continue_unknown(found);
        }
    }

    fn segment(&mut self, number: u64, following: Option<u64>) -> Result<(), Unread> {
        self.newest = None;
        let segment = Segment::open(self.ledger, number)?;
        match segment.check_header(self.known.origin.as_deref())? {
            Ok(()) => {}
            Err(version @ HeaderError::Version(_)) => return Err(Unread::Header(version)),
            Err(error) => {
                self.fault(FaultKind::SegmentHeader, Place::offset(number, 0), error.to_string());
                if matches!(error, HeaderError::Short(_)) {
                    return Ok(());
                }
            }
        }
        self.frames(&segment, following)
    }

    fn frames(&mut self, segment: &Segment, following: Option<u64>) -> Result<(), Unread> {
        let mut offset = HEADER_LEN;
        loop {
            offset = match segment.at(offset)? {
                Found::End => return Ok(()),
                Found::Frame(frame) => self.frame(segment, offset, frame),
                Found::Bad(error) => {
                    let Some((offset, frame)) = self.search(segment, offset, &error)? else {
                        self.tail(segment, offset, following, &error);
                        return Ok(());
                    };
                    self.frame(segment, offset, frame)
                }
            };
        }
    }

    /// Takes a well-formed frame; returns the offset behind it.
    fn frame(&mut self, segment: &Segment, offset: u64, frame: Frame) -> u64 {
        let header = *frame.header();
        let place = Place::offset(segment.first_index(), offset);
        let message = format!("the frame begins with entry {}, expected {}", header.first_index, self.next);
        if header.first_index != self.next {
            self.expect(header.first_index, place, message);
        }
        let at = At {
            frame: self.frames,
            segment: segment.first_index(),
            offset,
            first_index: header.first_index,
        };
        self.newest = Some(frame.clone());
        (self.hand_on)(Work { at, frame, after_unknown: self.after_unknown });
        self.after_unknown = false;
        self.frames += 1;
        self.next = header.end_index();
        offset + u64::from(header.length)
    }

    /// Looks behind a bad place for the next frame that the key signed.
    fn search(
        &mut self,
        segment: &Segment,
        bad: u64,
        error: &FrameError,
    ) -> Result<Option<(u64, Frame)>, Unread> {
        let Some(key) = &self.known.key else { return Ok(None) };
        let next = self.next;
        let found = segment
            .next_frame(bad + 1, |frame| frame.header().first_index >= next && is_signed(frame, key))?;
        // A writer at work may have completed the frame here while the search went on behind it.
        if let Found::Frame(frame) = segment.at(bad)? {
            return Ok(Some((bad, frame)));
        }
        if let Some((offset, frame)) = &found {
            let about = about(segment, bad);
            let message =
                format!("{error}, expected entry {next}{about}; the next frame stands at offset {offset}");
            let place = Place::offset(segment.first_index(), bad);
            self.missing(FaultKind::DamagedFrame, place, frame.header().first_index, message);
        }
        Ok(found)
    }

    /// What stands behind the last frame of a segment, and is not zero.
    fn tail(&mut self, segment: &Segment, offset: u64, following: Option<u64>, error: &FrameError) {
        let number = segment.first_index();
        let place = Place::offset(number, offset);
        let due = following.or(self.known.head.as_ref().map(|head| head.size));
        match due {
            Some(due) if self.next < due => {
                let (next, about) = (self.next, about(segment, offset));
                let message = format!("{error}, expected entry {next}{about}, and no frame could be found behind it");
                let (next, after_unknown) = (self.next, self.after_unknown);
                self.missing(FaultKind::DamagedFrame, place, due, message);
                if following.is_none() {
                    // The tree ends where the last frame ended.
                    (self.next, self.after_unknown) = (next, after_unknown);
                }
            }
            _ if following.is_none() && !self.newest_is_stopped() => self.sink.remark(format!(
                "Behind offset {offset} of segment {} stands an unfinished commit, of which nothing was released.",
                file_name(number)
            )),
            _ => {
                let message = format!("bytes that are no frame stand behind the last one ({error})");
                self.fault(FaultKind::TrailingBytes, place, message);
            }
        }
    }

    /// Whether the last entry of this segment so far says that nothing comes behind it.
    fn newest_is_stopped(&self) -> bool {
        let last = self.newest.as_ref().and_then(|frame| split(frame).map_while(Result::ok).last());
        let entry = last.and_then(|last| entry::decode_any(last.entry).ok());
        matches!(entry.and_then(|entry| entry.body), Some(Body::Stopped(_)))
    }

    /// Goes on behind a segment that cannot be read.
    fn skip(&mut self, number: u64, following: Option<u64>, unread: &Unread) {
        self.sink.cannot_tell(format!("segment {} cannot be read: {unread}", file_name(number)));
        self.is_complete = following.is_some();
        self.continue_unknown(following.unwrap_or(self.next));
    }

    /// Reports entries `[next, end)` as not there, and goes on behind them.
    fn missing(&mut self, kind: FaultKind, place: Place, end: u64, message: String) {
        self.fault(kind, Place { index: Some(self.next), end: Some(end), ..place }, message);
        if self.known.head.as_ref().is_some_and(|head| head.size <= end) {
            self.reported_from = Some(self.reported_from.map_or(self.next, |from| from.min(self.next)));
        }
        self.continue_unknown(end);
    }

    fn continue_unknown(&mut self, next: u64) {
        self.next = next;
        self.after_unknown = true;
    }

    fn fault(&self, kind: FaultKind, place: Place, message: String) {
        self.sink.before_frame(self.frames, kind, place, message);
    }
}

/// Calls that a damaged frame names: the flipped bit may be in these names too, so this is a hint and no more.
const CALLS_NAMED_MAX: usize = 8;

/// What a damaged frame was about, as far as its bytes still say.
fn about(segment: &Segment, offset: u64) -> String {
    let Ok(Some(frame)) = segment.damaged_at(offset) else { return String::new() };
    let mut calls = BTreeSet::new();
    for stored in split(&frame).map_while(Result::ok) {
        if let Ok(v1::Entry { body: Some(Body::CallEvents(events)), .. }) = entry::decode_any(stored.entry) {
            calls.insert(hex(&events.call));
        }
    }
    if calls.is_empty() {
        return String::new();
    }
    let named: Vec<String> = calls.iter().take(CALLS_NAMED_MAX).cloned().collect();
    let more = if calls.len() > named.len() { " and others" } else { "" };
    format!(" (it speaks of call {}{more})", named.join(", "))
}

fn is_signed(frame: &Frame, key: &VerifierKey) -> bool {
    let note = str::from_utf8(frame.checkpoint()).ok().and_then(|text| Note::parse(text).ok());
    note.is_some_and(|note| note.verify(key).is_ok() && Checkpoint::parse(&note.text).is_ok())
}
