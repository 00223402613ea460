//! The commit port: what capture hands to the ledger, and what comes back.
//!
//! The port itself is `tower::Service<Submission, Response = Receipt, Error = CommitError>`, so that a wait limit, a test double
//! or another ledger is a layer or a service. The types are pure and stand here, so that capture does not know the ledger.

use super::PendingEntry;

/// The evidence of what one read of a socket brought: committed as one, in order, before any of its bytes goes on.
#[derive(Clone, Debug, Default)]
pub struct Submission {
    /// In the order in which they happened.
    pub entries: Vec<PendingEntry>,
    /// Bytes of the wire that wait for this submission; counted when they have to go on unrecorded.
    pub wire_bytes: u64,
}

/// The answer to a submission: its bytes may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Signed and durable; the tree had this many leaves after the commit.
    Committed {
        /// Leaves in the tree.
        size: u64,
    },
    /// The ledger cannot commit and `ledger.on_failure` is "forward": counted, and told in the gap entry at recovery.
    Unrecorded,
}

/// The other answer: the ledger does not hold the submission, so nothing of it may go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The ledger cannot commit, and `ledger.on_failure` is "refuse".
    #[error("the ledger cannot commit: {0}")]
    Refusing(String),
    /// The committer has ended: attestry is stopping.
    #[error("the ledger is closed")]
    Closed,
}
