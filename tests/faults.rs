//! The ledger against everything that can go wrong under it: each operation of its disk failing in each way, and each state in which a
//! start may find its files.
//!
//! The statements are the same throughout: whatever a caller was told is committed can be read after a crash at any moment; whoever was told
//! otherwise is counted in a gap entry; the ledger continues in a new segment; the verifier finds it intact, or names what was really lost.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

#[path = "support/faulty_disk.rs"]
mod faulty_disk;
#[path = "faults/file_states.rs"]
mod file_states;
#[path = "support/ledger_reading.rs"]
mod ledger_reading;
#[path = "faults/matrix.rs"]
mod matrix;
#[path = "faults/refused_starts.rs"]
mod refused_starts;
#[path = "support/small_ledger.rs"]
mod small_ledger;
mod support;
