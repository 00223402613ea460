//! The sidecar while something fails around it, seen by real gRPC peers: a full disk, a read-only one, one that hangs, a segment that is taken
//! away, an upstream that is not there, a drain, and peers that break its bounds.
//!
//! The real binary runs in every case but that of the hanging disk, which only a double can be. What the ledger then says of itself is read back.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

#[path = "failing_ledger/bounds.rs"]
mod bounds;
#[path = "failing_ledger/disk.rs"]
mod disk;
#[path = "failing_ledger/drain.rs"]
mod drain;
#[path = "wire/driver.rs"]
mod driver;
#[path = "support/faulty_disk.rs"]
mod faulty_disk;
#[path = "wire/frames.rs"]
mod frames;
#[path = "support/h2_peers.rs"]
mod h2_peers;
#[path = "wire/hpack.rs"]
mod hpack;
#[path = "support/ledger_reading.rs"]
mod ledger_reading;
#[path = "support/relay.rs"]
mod relay;
#[path = "support/small_ledger.rs"]
mod small_ledger;
#[path = "support/spoiled_disks.rs"]
mod spoiled_disks;
mod support;
#[path = "failing_ledger/upstream.rs"]
mod upstream;
