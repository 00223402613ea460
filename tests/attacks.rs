//! Hostile peers: what they do to the sidecar's memory, to its processor, to its ledger, and to everybody beside them.
//!
//! Each test lays siege to the real binary with one worker thread. What must hold in each is told in `siege.rs`; the attacks are those of RFC 9113 section 10.5, RFC 7541
//! section 7.3, and the CVEs that came of them, and what HTTP/1 and TCP have in their place.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]
#![allow(clippy::cast_precision_loss, reason = "ratios are told, not computed with")]

#[path = "tls/authority.rs"]
mod authority;
#[path = "attacks/connections.rs"]
mod connections;
#[path = "wire/frames.rs"]
mod frames;
#[path = "support/h2_peers.rs"]
mod h2_peers;
#[path = "wire/hpack.rs"]
mod hpack;
#[path = "attacks/http1.rs"]
mod http1;
#[path = "attacks/http2.rs"]
mod http2;
#[path = "support/ledger_reading.rs"]
mod ledger_reading;
#[path = "attacks/siege.rs"]
mod siege;
#[path = "attacks/strays.rs"]
mod strays;
mod support;
#[path = "attacks/upstream.rs"]
mod upstream;
