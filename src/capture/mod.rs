//! From frames to evidence: what one read of one direction of a connection says about its calls.
//!
//! Invariants: every byte of DATA that may go on is in the returned submission, or left out by the capture level on purpose; nothing that could not be read may
//! go on; memory is bounded by `streams_max` and by the caller's chunk. No I/O and no waiting: bytes in, a [`Submission`] out. It knows the commit port's types,
//! not the ledger; the pipe that waits for the commit is `crate::proxy::relay`. Parts: `stream` (one call's state), `draft` (entries being made), `policy` (levels, secrets).

mod connection;
mod draft;
mod ids;
mod policy;
mod stream;

pub use connection::{Connection, Ending, Failure, Milestone, Observed};
pub use ids::Ids;
pub use policy::{Policy, Redactor};

pub use crate::generated::v1::{Direction, Level, Side};

/// The bounds of what a connection may make attestry remember.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Frames and header blocks.
    pub units: crate::http2::UnitLimits,
    /// Streams tracked at a time.
    pub streams_max: usize,
}

/// The side that sends in `direction`.
pub fn sender(direction: Direction) -> Side {
    match direction {
        Direction::ClientToServer => Side::Client,
        Direction::ServerToClient => Side::Server,
        Direction::Unspecified => Side::Unspecified,
    }
}
