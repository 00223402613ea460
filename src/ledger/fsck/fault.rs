//! Faults: their kinds, their places, and the list in which they are gathered from all threads.
//!
//! Invariant: the list is in the order of the log whatever the threads' order was, and never longer than it may be: beyond
//! [`FAULTS_LISTED_MAX`] the first in that order are kept and the others counted.

use super::Verdict;
use crate::ledger::segment;
use ::base64::{Engine as _, engine::general_purpose::STANDARD};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Faults that are listed; more are counted only. A reader of more than a thousand lines has understood.
pub const FAULTS_LISTED_MAX: usize = 1_000;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What is wrong. Declared in the order in which the checks of one entry and of one frame are reported.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind {
            $($(#[$doc])* $name,)*
        }

        impl FaultKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word for it in the format's document.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// The head file is not of its format.
    Head = "head",
    /// Entry 0 names another key than the one given, or an unusable one.
    Key = "key",
    /// The origin file differs from entry 0.
    Origin = "origin",
    /// A segment's header is wrong.
    SegmentHeader = "segment-header",
    /// Entries are not there, and no bytes in their place.
    MissingEntries = "missing-entries",
    /// Entries are there again.
    RepeatedEntries = "repeated-entries",
    /// Bytes that are no well-formed frame stand where entries are expected.
    DamagedFrame = "damaged-frame",
    /// Bytes that are no frame stand where nothing is expected.
    TrailingBytes = "trailing-bytes",
    /// An entry is not encoded as entries are.
    EntryEncoding = "entry-encoding",
    /// An entry states another index than its place.
    EntryIndex = "entry-index",
    /// An entry does not name the entry before it.
    EntryChain = "entry-chain",
    /// An entry was committed before the one before it.
    EntryTime = "entry-time",
    /// `opened` is missing in entry 0, or stands elsewhere.
    Genesis = "genesis",
    /// An entry's payload is not as long as its pieces.
    PayloadLength = "payload-length",
    /// A piece of payload has another digest than its entry says.
    PayloadDigest = "payload-digest",
    /// A segment of a message does not begin where the one before it ended.
    MessageOrder = "message-order",
    /// An entry says of a connection or a call what the format does not allow.
    EntryContent = "entry-content",
    /// A call names another verified peer than its connection.
    VerifiedPeer = "verified-peer",
    /// A frame's compact range is not that of the entries before it.
    Range = "range",
    /// A frame's checkpoint cannot be read, or is about another log or size.
    Checkpoint = "checkpoint",
    /// A frame's checkpoint signs another root than that of the entries.
    Root = "root",
    /// A frame's checkpoint is not signed by the log's key.
    Signature = "signature",
    /// The head names entries that are not there.
    Truncated = "truncated",
    /// The tree is not the one that the head or an earlier checkpoint says.
    Fork = "fork",
    /// An earlier checkpoint names entries that are not there.
    Rollback = "rollback",
    /// An earlier checkpoint cannot be used.
    Against = "against",
    /// A row of the lookup tables differs from the segments.
    DbRow = "db-row",
}

/// Where a fault is, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The number in the segment's name.
    pub segment: Option<u64>,
    /// Offset of the frame in it.
    pub offset: Option<u64>,
    /// Index of the entry, or of the first of several.
    pub index: Option<u64>,
    /// The first index behind several entries.
    pub end: Option<u64>,
}

impl Place {
    /// The entries `[index, end)`, wherever they should stand.
    pub(super) fn entries(index: u64, end: u64) -> Self {
        Self { index: Some(index), end: Some(end), ..Self::default() }
    }

    /// An offset in a segment.
    pub(super) fn offset(segment: u64, offset: u64) -> Self {
        Self { segment: Some(segment), offset: Some(offset), ..Self::default() }
    }

    /// An entry in a frame.
    pub(super) fn entry(segment: u64, offset: u64, index: u64) -> Self {
        Self { index: Some(index), ..Self::offset(segment, offset) }
    }

    /// The name of the segment's file.
    pub fn segment_name(&self) -> Option<String> {
        self.segment.map(segment::file_name)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            match (self.index, self.end) {
                (Some(index), Some(end)) => Some(format!("entries {index} up to but not including {end}")),
                (Some(index), None) => Some(format!("entry {index}")),
                (None, Some(end)) => Some(format!("the first {end} entries")),
                (None, None) => None,
            },
            self.segment_name().map(|name| format!("segment {name}")),
            self.offset.map(|offset| format!("offset {offset}")),
        ];
        out.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Where.
    pub place: Place,
    /// In words: what was expected, and what was found.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.to_string();
        let place = if place.is_empty() { place } else { format!(" in {place}") };
        write!(out, "{}{place}: {}.", self.kind.as_str(), self.message)
    }
}

/// Where a frame stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    /// How many frames were read before it.
    pub frame: u64,
    /// Its segment.
    pub segment: u64,
    /// Its offset there.
    pub offset: u64,
    /// Index of its first entry.
    pub first_index: u64,
}

/// The place of a fault in the list: that of its frame, then what stands before the frame, its entries, the frame as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    frame: u64,
    part: Part,
    position: u64,
    kind: FaultKind,
    event: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Before,
    Entry,
    Frame,
}

/// Gathers what all threads find.
#[derive(Default)]
pub(super) struct Sink(Mutex<Found>);

/// What was gathered.
#[derive(Default)]
pub(super) struct Found {
    faults: Vec<(Order, Fault)>,
    remarks: Vec<String>,
    missing: Vec<String>,
    /// All faults, listed or not.
    pub total: u64,
}

impl Sink {
    /// A fault that is met before frame number `frame`. Several of them keep the order in which they come.
    pub fn before_frame(&self, frame: u64, kind: FaultKind, place: Place, message: String) {
        let mut found = self.found();
        let position = found.total;
        found.add(
            Order { frame, part: Part::Before, position, kind, event: 0 },
            Fault { kind, place, message },
        );
    }

    /// A fault that is met behind the last frame.
    pub fn at_end(&self, kind: FaultKind, place: Place, message: String) {
        self.before_frame(u64::MAX, kind, place, message);
    }

    /// A fault of the entry at `position` in a frame, of its event number `event` where that matters.
    pub fn entry(&self, at: At, position: u64, kind: FaultKind, event: usize, message: String) {
        let place = Place::entry(at.segment, at.offset, at.first_index.saturating_add(position));
        let order = Order { frame: at.frame, part: Part::Entry, position, kind, event };
        self.found().add(order, Fault { kind, place, message });
    }

    /// A fault of a frame as a whole.
    pub fn frame(&self, at: At, kind: FaultKind, message: String) {
        self.behind_entries(at, 0, kind, message);
    }

    /// A fault that shows behind all entries of a frame, at the one at `position`.
    pub fn behind_entries(&self, at: At, position: u64, kind: FaultKind, message: String) {
        let place = Place::entry(at.segment, at.offset, at.first_index.saturating_add(position));
        let order = Order { frame: at.frame, part: Part::Frame, position: 0, kind, event: 0 };
        self.found().add(order, Fault { kind, place, message });
    }

    /// Something worth knowing.
    pub fn remark(&self, text: String) {
        self.found().remarks.push(text);
    }

    /// Something that is missing, without which there is no sure answer.
    pub fn cannot_tell(&self, text: String) {
        self.found().missing.push(text);
    }

    /// All that was gathered.
    pub fn into_found(self) -> Found {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Found {
    fn add(&mut self, order: Order, fault: Fault) {
        self.total += 1;
        self.faults.push((order, fault));
        // Sorted only when twice as many are there as are kept, so that a ledger full of faults costs little for each.
        if self.faults.len() >= 2 * FAULTS_LISTED_MAX {
            self.keep_first();
        }
    }

    fn keep_first(&mut self) {
        self.faults.sort_by_key(|(order, _)| *order);
        self.faults.truncate(FAULTS_LISTED_MAX);
    }

    /// Faults outweigh what is missing.
    pub fn verdict(&self) -> Verdict {
        match (self.total, self.missing.is_empty()) {
            (0, true) => Verdict::Intact,
            (0, false) => Verdict::Unknown,
            _ => Verdict::Damaged,
        }
    }

    /// The remarks, and the faults in order.
    pub fn into_lists(mut self) -> (Vec<String>, Vec<Fault>) {
        self.keep_first();
        let mut remarks: Vec<String> =
            self.missing.iter().map(|text| format!("Cannot tell: {text}.")).collect();
        remarks.append(&mut self.remarks);
        if self.total > self.faults.len() as u64 {
            remarks.push(format!(
                "{} faults were found; the first {} are listed.",
                self.total,
                self.faults.len()
            ));
        }
        (remarks, self.faults.into_iter().map(|(_, fault)| fault).collect())
    }
}

/// Bytes as roots are written in checkpoints.
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Bytes as digests and call ids are written.
pub(super) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_out_in_the_order_of_the_log_and_the_first_are_kept() {
        let sink = Sink::default();
        let at = |frame| At { frame, segment: 0, offset: 64, first_index: frame };
        sink.at_end(FaultKind::Truncated, Place::default(), "last".into());
        for frame in (0..2 * FAULTS_LISTED_MAX as u64).rev() {
            sink.frame(at(frame), FaultKind::Root, String::new());
            sink.entry(at(frame), 0, FaultKind::EntryChain, 0, String::new());
            sink.entry(at(frame), 0, FaultKind::EntryIndex, 0, String::new());
        }
        sink.before_frame(0, FaultKind::TrailingBytes, Place::default(), "one".into());
        sink.before_frame(0, FaultKind::Head, Place::default(), "two".into());
        let found = sink.into_found();
        assert_eq!((found.verdict(), found.total), (Verdict::Damaged, 6_003));
        let (remarks, faults) = found.into_lists();
        assert_eq!(remarks, ["6003 faults were found; the first 1000 are listed."]);
        assert_eq!(faults.len(), FAULTS_LISTED_MAX);
        let kinds: Vec<_> = faults[..6].iter().map(|fault| fault.kind.as_str()).collect();
        assert_eq!(kinds, ["trailing-bytes", "head", "entry-index", "entry-chain", "root", "entry-index"]);
    }

    #[test]
    fn a_place_reads_as_a_sentence() {
        assert_eq!(Place::default().to_string(), "");
        assert_eq!(Place::entries(3, 5).to_string(), "entries 3 up to but not including 5");
        assert_eq!(
            Place::entry(7, 64, 9).to_string(),
            "entry 9, segment 00000000000000000007.seg, offset 64"
        );
    }
}
