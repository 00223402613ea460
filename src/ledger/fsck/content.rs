//! What can be said of a frame by itself: its entries one by one, and its checkpoint (the parts of steps 6 and 7 that look at nothing else).
//!
//! Runs on many threads, and does most of the work: hashes each leaf, decodes each entry, verifies the signature, and checks each piece of
//! payload that is not part of a message. What an entry may say is `claims`'. What needs the frames before is `log`'s, messages are `messages`'.

use super::claims::contradictions;
use super::fault::{At, FaultKind, Sink, base64, hex};
use crate::entry::{self, PieceKind, pieces};
use crate::generated::v1;
use crate::ledger::frame::{Frame, HEADER_LEN, u32_at};
use crate::merkle::{Hash, leaf_hash};
use crate::note::{Checkpoint, Note, VerifierKey};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use v1::entry::Body;

/// A frame to be checked.
pub(super) struct Work {
    /// Where it stands.
    pub at: At,
    /// The frame.
    pub frame: Frame,
    /// The frame before it is not known.
    pub after_unknown: bool,
}

/// A frame whose own content has been checked.
pub(super) struct Content {
    /// Where it stands.
    pub at: At,
    /// Bytes of the frame.
    pub length: u32,
    /// The frame before it is not known.
    pub after_unknown: bool,
    /// The compact range that it states.
    pub range: Vec<Hash>,
    /// Its entries, as many as could be told apart.
    pub leaves: Vec<Leaf>,
    /// The index behind its last entry.
    pub end_index: u64,
    /// All its entries could be told apart, so the tree behind it is known.
    pub is_whole: bool,
    /// The root in its checkpoint, if that could be read.
    pub signed_root: Option<Hash>,
}

/// One entry of a frame.
pub(super) struct Leaf {
    /// Its leaf hash.
    pub hash: Hash,
    /// The entry, if it could be decoded.
    pub entry: Option<v1::Entry>,
    /// The payload beside it; `None` where its length is not that of its pieces, which then cannot be told apart.
    pub payload: Option<Bytes>,
}

/// Checks frames one by one.
#[derive(Clone, Copy)]
pub(super) struct Checker<'a> {
    /// The key by which checkpoints must be signed, if there is any.
    pub key: Option<&'a VerifierKey>,
    /// The log's origin, if it is known.
    pub origin: Option<&'a str>,
    /// Takes the faults.
    pub sink: &'a Sink,
}

impl Checker<'_> {
    /// Checks a frame.
    pub fn check(&self, work: Work) -> Content {
        let Work { at, frame, after_unknown } = work;
        let header = *frame.header();
        let (leaves, is_whole) = self.leaves(at, &frame);
        let signed_root = self.checkpoint(at, &frame);
        Content {
            at,
            length: header.length,
            after_unknown,
            range: frame.range(),
            leaves,
            end_index: header.end_index(),
            is_whole,
            signed_root,
        }
    }

    fn leaves(&self, at: At, frame: &Frame) -> (Vec<Leaf>, bool) {
        let count = u64::from(frame.header().entry_count);
        let mut parts = split(frame);
        let mut leaves = Vec::with_capacity(parts.entries_max());
        for position in 0.. {
            match parts.next() {
                Some(Ok(stored)) => leaves.push(self.leaf(at, position, stored)),
                Some(Err(problem)) => {
                    self.sink.entry(at, position.min(count - 1), FaultKind::EntryEncoding, 0, problem);
                    let is_whole = leaves.len() as u64 == count;
                    return (leaves, is_whole);
                }
                None => break,
            }
        }
        if parts.payload_left() > 0 {
            let message = format!(
                "{} bytes are left in the payload section behind the last entry's",
                parts.payload_left()
            );
            self.sink.behind_entries(at, count - 1, FaultKind::PayloadLength, message);
        }
        (leaves, true)
    }

    fn leaf(&self, at: At, position: u64, stored: Stored) -> Leaf {
        let hash = leaf_hash(&stored.entry);
        match entry::decode_any(stored.entry.clone()) {
            Ok(entry) => {
                let payload = self.entry(at, position, &entry, stored);
                Leaf { hash, entry: Some(entry), payload }
            }
            Err(problem) => {
                self.sink.entry(at, position, FaultKind::EntryEncoding, 0, problem.to_string());
                Leaf { hash, entry: None, payload: None }
            }
        }
    }

    /// Checks an entry; returns its payload where that has the right length.
    fn entry(&self, at: At, position: u64, entry: &v1::Entry, stored: Stored) -> Option<Bytes> {
        let index = at.first_index.saturating_add(position);
        if entry.index != index {
            let message = format!("the entry states the index {}, expected {index}", entry.index);
            self.sink.entry(at, position, FaultKind::EntryIndex, 0, message);
        }
        if matches!(entry.body, Some(Body::Opened(_))) != (index == 0) {
            let message = match index {
                0 => "entry 0 is not `opened`, the log's birth certificate",
                _ => "the entry is `opened`, which only entry 0 may be",
            };
            self.sink.entry(at, position, FaultKind::Genesis, 0, message.into());
        }
        for (event, problem) in entry.body.as_ref().map(contradictions).unwrap_or_default() {
            self.sink.entry(at, position, FaultKind::EntryContent, event, problem);
        }
        self.payload(at, position, entry.body.as_ref(), &stored).then_some(stored.payload)
    }

    /// Checks a payload against its entry; tells whether it has the length of its pieces.
    fn payload(&self, at: At, position: u64, body: Option<&Body>, stored: &Stored) -> bool {
        let Stored { payload, payload_len, .. } = stored;
        let pieces = body.map(pieces).unwrap_or_default();
        let expected = pieces.iter().fold(0_u64, |sum, piece| sum.saturating_add(piece.length));
        if expected != *payload_len || *payload_len != payload.len() as u64 {
            let whose = whose(body);
            let there = payload.len();
            let message = format!(
                "{whose}the payload is {payload_len} bytes long ({there} of them are in the frame), expected {expected}"
            );
            self.sink.entry(at, position, FaultKind::PayloadLength, 0, message);
            return false;
        }
        let mut rest = &payload[..];
        for piece in pieces {
            let (bytes, behind) =
                rest.split_at(usize::try_from(piece.length).expect("no longer than the payload"));
            rest = behind;
            let (event, what, expected) = match piece.kind {
                PieceKind::Fields(event, header) => (event, "list of header fields", &header.beside_sha256),
                PieceKind::Connection(event, connection) => (event, "data", &connection.payload_sha256),
                PieceKind::Segment(..) => continue,
            };
            let found = Sha256::digest(bytes);
            if found[..] != expected[..] {
                let (whose, found, expected) = (whose(body), hex(&found), hex(expected));
                let message = format!(
                    "{whose}the {what} of event {event} has the SHA-256 {found}, expected {expected}"
                );
                self.sink.entry(at, position, FaultKind::PayloadDigest, event, message);
            }
        }
        true
    }

    /// Checks the frame's checkpoint; returns the root in it.
    fn checkpoint(&self, at: At, frame: &Frame) -> Option<Hash> {
        let fault = |kind, message| self.sink.frame(at, kind, message);
        let unreadable =
            |error| fault(FaultKind::Checkpoint, format!("the checkpoint cannot be read: {error}"));
        let text = str::from_utf8(frame.checkpoint()).map_err(|error| unreadable(error.to_string())).ok()?;
        let note = Note::parse(text).map_err(|error| unreadable(error.to_string())).ok()?;
        if let Some(key) = self.key
            && let Err(error) = note.verify(key)
        {
            fault(FaultKind::Signature, error.to_string());
        }
        let checkpoint = Checkpoint::parse(&note.text).map_err(|error| unreadable(error.to_string())).ok()?;
        if !checkpoint.extensions.is_empty() {
            unreadable("it has more than three lines".into());
            return None;
        }
        let size = frame.header().end_index();
        let origin = self.origin.filter(|&origin| origin != checkpoint.origin);
        let message = match origin {
            Some(origin) => {
                format!("the checkpoint is of the origin {:?}, expected {origin:?}", checkpoint.origin)
            }
            None if checkpoint.size != size => {
                format!(
                    "the checkpoint (root {}) is of {} entries, expected {size}",
                    base64(&checkpoint.root),
                    checkpoint.size
                )
            }
            None => return Some(checkpoint.root),
        };
        fault(FaultKind::Checkpoint, message);
        Some(checkpoint.root)
    }
}

/// Whose an entry's payload is, to begin a message with.
fn whose(body: Option<&Body>) -> String {
    match body {
        Some(Body::CallEvents(events)) => format!("call {}: ", hex(&events.call)),
        Some(Body::ConnectionEvents(events)) => format!("connection {:016x}: ", events.connection),
        _ => String::new(),
    }
}

/// One entry as it stands in a frame.
pub(super) struct Stored {
    /// The leaf's bytes.
    pub entry: Bytes,
    /// The payload, as far as the frame holds it.
    pub payload: Bytes,
    /// How long the payload is to be.
    pub payload_len: u64,
}

/// Takes a frame's entries apart. Unlike [`Frame::entries`], which refuses the frame as a whole, it gives all that stand before a fault.
pub(super) fn split(frame: &Frame) -> Split<'_> {
    let header = frame.header();
    let at = HEADER_LEN + 32 * usize::from(header.range_count);
    let entries_end = at + header.entries_len as usize;
    Split {
        bytes: frame.bytes(),
        left: header.entry_count,
        at,
        entries_end,
        payload_at: entries_end,
        payload_end: entries_end + header.payload_len as usize,
    }
}

/// The entries of a frame; the last item is an error where the section does not divide exactly.
pub(super) struct Split<'a> {
    bytes: &'a Bytes,
    left: u32,
    at: usize,
    entries_end: usize,
    payload_at: usize,
    payload_end: usize,
}

impl Split<'_> {
    /// Bytes before an entry: its length, and its payload's.
    const PREFIX_LEN: usize = 8;

    /// No more entries than this can follow, whatever the frame's header says.
    fn entries_max(&self) -> usize {
        (self.left as usize).min((self.entries_end - self.at) / Self::PREFIX_LEN)
    }

    /// Bytes of the payload section that no entry has claimed.
    fn payload_left(&self) -> usize {
        self.payload_end.saturating_sub(self.payload_at)
    }

    /// Nothing comes behind a fault.
    fn fail(&mut self, problem: String) -> Result<Stored, String> {
        (self.left, self.at) = (0, self.entries_end);
        Err(problem)
    }

    fn entry(&mut self) -> Result<Stored, String> {
        let rest = self.entries_end - self.at;
        if rest < Self::PREFIX_LEN {
            return self.fail("the entries section ends before the entry's lengths".into());
        }
        let (entry_at, room) = (self.at + Self::PREFIX_LEN, rest - Self::PREFIX_LEN);
        let (length, payload_len) =
            (u32_at(self.bytes, self.at) as usize, u32_at(self.bytes, self.at + 4) as usize);
        if length > room {
            return self
                .fail(format!("the entry is to be {length} bytes long, and the section has {room} more"));
        }
        let payload_from = self.payload_at.min(self.payload_end);
        self.payload_at = self.payload_at.saturating_add(payload_len);
        let payload_to = self.payload_at.min(self.payload_end);
        self.left -= 1;
        self.at = entry_at + length;
        Ok(Stored {
            entry: self.bytes.slice(entry_at..self.at),
            payload: self.bytes.slice(payload_from..payload_to),
            payload_len: payload_len as u64,
        })
    }
}

impl Iterator for Split<'_> {
    type Item = Result<Stored, String>;

    fn next(&mut self) -> Option<Self::Item> {
        match (self.left, self.entries_end - self.at) {
            (0, 0) => None,
            (0, rest) => {
                Some(self.fail(format!("{rest} bytes are left in the entries section behind the last entry")))
            }
            _ => Some(self.entry()),
        }
    }
}
