//! What holds frames together: the chain of entries, their times, and the tree (the parts of steps 6 and 7 that look back).
//!
//! Runs on one thread, in the order of the log; of hashes it computes only the inner nodes of the tree.

use super::claims::Peers;
use super::content::Content;
use super::fault::{FaultKind, Sink, base64, hex};
use super::start::Known;
use crate::generated::v1;
use crate::merkle::{CompactRange, Hash, empty_root};
use std::collections::BTreeMap;
use v1::entry::Body;

/// The log as far as it was read.
#[derive(Debug)]
pub(super) struct Log {
    /// Entries read.
    pub entries: u64,
    /// Calls that began among them.
    pub calls: u64,
    /// Bytes of the frames read.
    pub bytes: u64,
    /// The tree so far; `None` behind something unknown.
    range: Option<CompactRange>,
    /// Leaf hash of the entry before; `None` behind something unknown.
    previous: Option<Hash>,
    peers: Peers,
    last_time_unix_nanos: u64,
    /// The roots at the sizes that will be asked for, where the tree had them.
    roots: BTreeMap<u64, Option<Hash>>,
}

impl Log {
    /// A log of no entries that will be asked for its roots at the sizes in head and earlier checkpoints.
    pub fn new(known: &Known) -> Self {
        let earlier = known.against.iter().filter_map(|earlier| earlier.checkpoint.as_ref().ok());
        let sizes = earlier.map(|checkpoint| checkpoint.size).chain(known.head.iter().map(|head| head.size));
        let mut roots: BTreeMap<u64, Option<Hash>> = sizes.map(|size| (size, None)).collect();
        roots.insert(0, Some(empty_root()));
        Self {
            entries: 0,
            calls: 0,
            bytes: 0,
            range: Some(CompactRange::new()),
            previous: None,
            peers: Peers::default(),
            last_time_unix_nanos: 0,
            roots,
        }
    }

    /// The root of the tree so far, if it is known.
    pub fn root(&self) -> Option<Hash> {
        self.range.as_ref().map(CompactRange::root)
    }

    /// The root of the tree when it had `size` leaves, one of the sizes asked for at the beginning.
    pub fn root_at(&self, size: u64) -> Option<Hash> {
        self.roots.get(&size).copied().flatten()
    }

    /// Appends a frame; tells whether what follows it follows something known.
    pub fn append(&mut self, content: &Content, sink: &Sink) -> bool {
        if content.after_unknown {
            self.forget();
        }
        self.bytes += u64::from(content.length);
        self.entries += content.leaves.len() as u64;
        self.chain(content, sink);
        self.grow(content, sink);
        self.range.is_some()
    }

    fn forget(&mut self) {
        (self.range, self.previous) = (None, None);
        self.peers.forget();
    }

    fn chain(&mut self, content: &Content, sink: &Sink) {
        for (position, leaf) in (0..).zip(&content.leaves) {
            let is_first = content.at.first_index == 0 && position == 0;
            let expected = if is_first { Some([0; 32]) } else { self.previous };
            if let Some(entry) = &leaf.entry {
                if let Some(expected) = expected.filter(|expected| entry.previous[..] != expected[..]) {
                    let found = hex(&entry.previous);
                    let message =
                        format!("the entry names {found} as the leaf before it, expected {}", hex(&expected));
                    sink.entry(content.at, position, FaultKind::EntryChain, 0, message);
                }
                let (time, last) = (entry.committed_unix_nanos, self.last_time_unix_nanos);
                if time < last {
                    let message =
                        format!("the entry was committed at {time} ns, expected no less than {last}");
                    sink.entry(content.at, position, FaultKind::EntryTime, 0, message);
                }
                self.last_time_unix_nanos = time;
                self.calls +=
                    u64::from(matches!(&entry.body, Some(Body::CallEvents(call)) if call.sequence == 1));
                if let Some(problem) = entry.body.as_ref().and_then(|body| self.peers.take(body)) {
                    sink.entry(content.at, position, FaultKind::VerifiedPeer, 0, problem);
                }
            } else {
                self.peers.forget();
            }
            self.previous = Some(leaf.hash);
        }
    }

    /// Appends the frame's leaves to the tree, and compares the root with the signed one.
    fn grow(&mut self, content: &Content, sink: &Sink) {
        let tree = self.check_range(content, sink);
        let (Some(mut tree), true) = (tree, content.is_whole) else {
            self.forget();
            return;
        };
        self.note_root(&tree);
        for leaf in &content.leaves {
            tree.push(leaf.hash);
            self.note_root(&tree);
        }
        let found = tree.root();
        if let Some(expected) = content.signed_root.filter(|signed| *signed != found) {
            let (expected, found) = (base64(&expected), base64(&found));
            let message = format!("the checkpoint signs the root {expected}, and the entries give {found}");
            sink.frame(content.at, FaultKind::Root, message);
        }
        self.range = Some(tree);
    }

    /// The tree before the frame, as the frame states it: a frame proves itself, so that one altered entry is a fault of its own
    /// frame and of no other. Where it cannot be a range of that size, the tree as known from the frames before.
    fn check_range(&mut self, content: &Content, sink: &Sink) -> Option<CompactRange> {
        let known = self.range.take();
        let fault = |message| sink.frame(content.at, FaultKind::Range, message);
        let stated = match CompactRange::from_parts(content.at.first_index, content.range.clone()) {
            Ok(stated) => stated,
            Err(error) => {
                fault(error.to_string());
                return known;
            }
        };
        if let Some(known) = known.filter(|known| *known != stated) {
            let (expected, found) = (base64(&known.root()), base64(&stated.root()));
            fault(format!(
                "the frame's range gives the root {found}, and the entries before it give {expected}"
            ));
        }
        Some(stated)
    }

    fn note_root(&mut self, tree: &CompactRange) {
        if let Some(root) = self.roots.get_mut(&tree.size()) {
            *root = Some(tree.root());
        }
    }
}
