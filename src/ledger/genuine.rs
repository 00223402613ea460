//! What proves itself without the rest of the log: a frame that the log's key signed, and what entry 0 says of the log.
//!
//! Bytes of a payload may look like a frame; the key's signature over the tree that it completes tells the two apart.

use super::frame::Frame;
use super::segment::{self, Found, Segment};
use crate::entry::{self, Body};
use crate::generated::v1;
use crate::merkle::{self, CompactRange};
use crate::note::{Checkpoint, Note, VerifierKey};
use std::path::Path;

/// The tree after the frame, if `key` signed it.
pub fn tree_after(frame: &Frame, key: &VerifierKey) -> Option<CompactRange> {
    let mut range = CompactRange::from_parts(frame.header().first_index, frame.range()).ok()?;
    for stored in frame.entries().ok()? {
        range.push(merkle::leaf_hash(&stored.entry));
    }
    let note = std::str::from_utf8(frame.checkpoint()).ok()?;
    is_signed(note, &range, key).then_some(range)
}

/// Whether `note` is a checkpoint of `tree` by `key`.
pub fn is_signed(note: &str, tree: &CompactRange, key: &VerifierKey) -> bool {
    let checkpoint = Note::parse(note).ok().filter(|note| note.verify(key).is_ok());
    let checkpoint = checkpoint.and_then(|note| Checkpoint::parse(&note.text).ok());
    checkpoint.is_some_and(|checkpoint| (checkpoint.size, checkpoint.root) == (tree.size(), tree.root()))
}

/// What entry 0 says of the log, if it is there and readable.
pub fn opened(ledger: &Path) -> Option<v1::Opened> {
    let Ok(Found::Frame(frame)) = Segment::open(ledger, 0).ok()?.at(segment::HEADER_LEN) else { return None };
    match entry::decode(frame.entries().ok()?.into_iter().next()?.entry).ok()?.body? {
        Body::Opened(opened) => Some(opened),
        _ => None,
    }
}
