//! The life of a sidecar as its pod sees it: probes, the preStop hook, SIGTERM with both directions of traffic, descriptors, half-closed connections.
//!
//! The real binary runs in every case, asked over its admin endpoints and by its own probe commands, and what the ledger says of the end is read back.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

#[path = "life/admin.rs"]
mod admin;
#[path = "life/descriptors.rs"]
mod descriptors;
#[path = "life/end.rs"]
mod end;
#[path = "support/h2_peers.rs"]
mod h2_peers;
#[path = "life/half_closed.rs"]
mod half_closed;
#[path = "support/ledger_reading.rs"]
mod ledger_reading;
#[path = "life/probes.rs"]
mod probes;
#[path = "life/sockets.rs"]
mod sockets;
#[path = "life/start.rs"]
mod start;
mod support;
