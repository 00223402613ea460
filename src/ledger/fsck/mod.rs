//! Verifying a ledger: everything that its files claim is computed again (docs/ledger-format.md section 8).
//!
//! One pass over the segments, as a pipe of threads with bounded channels between them (`pipeline`):
//!
//! ```text
//!   walk ──▶ content × cores ──▶ log ──▶ messages × cores
//!   finds    decodes, hashes,    chain,   digests of messages
//!   frames   signatures          tree     that span entries
//! ```
//!
//! `walk` alone must go in the order of the file, and does little else. `content` sees one frame and nothing around it. `log` is where
//! order matters, and hashes only tree nodes; what entries claim of connections (`claims`) is checked on its way through both. `messages` is divided by call, because a digest runs on over all segments of a message.
//! Faults carry their order with them (`fault`), so that the list reads as if one thread had done it all.
//!
//! Invariants: files are opened for reading only, and no lock is taken, so it works beside a running writer and on a copy; memory does not
//! grow with the ledger; no input makes it panic. Not here: how frames and segments are read (`frame`, `segment`), and printing (`cli`).

mod claims;
mod content;
mod fault;
mod log;
mod messages;
mod pipeline;
mod rows;
mod start;
mod walk;

pub use fault::{FAULTS_LISTED_MAX, Fault, FaultKind, Place};
pub use rows::Rows;

use crate::merkle::Hash;
use crate::note::VerifierKey;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// What to verify, and against what.
#[derive(Default)]
pub struct Options {
    /// The ledger's folder.
    pub ledger: PathBuf,
    /// The log's key, where the caller knows it from elsewhere. Else the one in entry 0 is taken.
    pub key: Option<VerifierKey>,
    /// Files with earlier checkpoints, each of which the log must still contain.
    pub against: Vec<PathBuf>,
    /// The rows of the lookup tables, to be held against the segments.
    pub rows: Option<Rows>,
    /// Threads for each of the two stages that hash; as many as the process has cores where not given.
    pub threads: Option<NonZeroUsize>,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong.
    Intact,
    /// At least one fault.
    Damaged,
    /// No fault was found, but something is missing without which that says little.
    Unknown,
}

impl Verdict {
    /// The word that stands for it in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Damaged => "damaged",
            Self::Unknown => "unknown",
        }
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The answer.
    pub verdict: Verdict,
    /// Entries read.
    pub entries: u64,
    /// Calls that began among them.
    pub calls: u64,
    /// Segments listed.
    pub segments: usize,
    /// Bytes of all frames read.
    pub bytes: u64,
    /// Leaves in the tree.
    pub size: u64,
    /// The tree's root, where it is known.
    pub root: Option<Hash>,
    /// The log's origin, where it is known.
    pub origin: Option<String>,
    /// The key by which signatures were checked, if there was any.
    pub key: Option<VerifierKey>,
    /// Whether the caller gave it; else it is only what the ledger claims.
    pub key_given: bool,
    /// What is worth knowing and no fault. What could not be told begins with "Cannot tell".
    pub remarks: Vec<String>,
    /// The first [`FAULTS_LISTED_MAX`] faults, in the order of the log.
    pub faults: Vec<Fault>,
    /// All of them.
    pub faults_total: u64,
}

/// How far a verification has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Bytes of frames that are done.
    pub done_bytes: u64,
    /// Bytes of all segments, prepared space included.
    pub total_bytes: u64,
}

/// Verifies a ledger. `progress` is called now and then, on this thread.
pub fn verify(options: Options, progress: impl FnMut(Progress)) -> Report {
    let sink = fault::Sink::default();
    let known = start::read(&options, &sink);
    let threads = options.threads.or_else(|| std::thread::available_parallelism().ok());
    let end = pipeline::run(&options.ledger, &known, options.rows, threads, &sink, progress);
    compare_with_end(&known, &end, &sink);
    let found = sink.into_found();
    let (verdict, faults_total) = (found.verdict(), found.total);
    let (remarks, faults) = found.into_lists();
    Report {
        verdict,
        entries: end.log.entries,
        calls: end.log.calls,
        segments: known.segments.len(),
        bytes: end.log.bytes,
        size: end.walk.size,
        root: if end.walk.after_unknown { None } else { end.log.root() },
        origin: known.origin,
        key_given: options.key.is_some(),
        key: known.key,
        remarks,
        faults,
        faults_total,
    }
}

/// Step 8: the head, then each earlier checkpoint, against the tree that was found.
fn compare_with_end(known: &start::Known, end: &pipeline::End, sink: &fault::Sink) {
    let size = end.walk.size;
    if let Some(head) = &known.head {
        if head.size <= size {
            compare_root("the file head", head.size, &head.root, &end.log, sink);
        } else if end.walk.is_complete && !end.walk.reported_up_to_head {
            let message =
                format!("the file head names {} entries, and the segments end after {size}", head.size);
            sink.at_end(FaultKind::Truncated, Place::entries(size, head.size), message);
        }
    }
    for earlier in &known.against {
        let source = format!("the earlier checkpoint {}", earlier.path.display());
        match &earlier.checkpoint {
            Err(reason) => sink.at_end(
                FaultKind::Against,
                Place::default(),
                format!("{source} is none of this log: {reason}"),
            ),
            Ok(checkpoint) if checkpoint.size <= size => {
                compare_root(&source, checkpoint.size, &checkpoint.root, &end.log, sink);
            }
            Ok(checkpoint) if end.walk.is_complete => {
                let message =
                    format!("{source} is of {} entries, and the segments end after {size}", checkpoint.size);
                sink.at_end(FaultKind::Rollback, Place::entries(size, checkpoint.size), message);
            }
            Ok(checkpoint) => sink.cannot_tell(format!(
                "{source} is of {} entries, and the end cannot be read",
                checkpoint.size
            )),
        }
    }
}

fn compare_root(source: &str, size: u64, expected: &Hash, log: &log::Log, sink: &fault::Sink) {
    match log.root_at(size) {
        None => {
            sink.cannot_tell(format!(
                "{source} is of {size} entries, and the root of that tree is not known"
            ));
        }
        Some(found) if found == *expected => {}
        Some(found) => {
            let (expected, found) = (fault::base64(expected), fault::base64(&found));
            let message = format!(
                "{source} says that the tree of {size} entries has the root {expected}, and it has {found}"
            );
            sink.at_end(FaultKind::Fork, Place { end: Some(size), ..Place::default() }, message);
        }
    }
}
