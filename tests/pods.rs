//! Pods for real, in network namespaces: software that knows nothing of attestry, and a thousand connections at once while everything changes.
//!
//! Needs root, `ip`, nftables, iptables and python3, as `redirect.rs` does, whose network this uses. `real_servers` needs MariaDB, PostgreSQL, Redis and
//! Exim with their clients besides. The thousand need nothing else: both ends of them are this binary, run again.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

#[path = "tls/authority.rs"]
mod authority;
#[path = "support/ledger_reading.rs"]
mod ledger_reading;
#[path = "redirect/network.rs"]
#[allow(dead_code, reason = "dialers and acceptors are the other test's")]
mod network;
#[path = "pods/placed.rs"]
mod placed;
#[path = "pods/real_servers.rs"]
mod real_servers;
#[path = "pods/servers.rs"]
mod servers;
mod support;
#[path = "pods/thousand.rs"]
mod thousand;
