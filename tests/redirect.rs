//! `attestry redirect` for real, in network namespaces of the tests' own: what it installs and leaves behind, where connections then go,
//! and the sidecar behind it.
//!
//! Needs root, `ip`, nftables, iptables and python3. Ports and addresses are fixed: each test has a network to itself.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

#[path = "redirect/installing.rs"]
mod installing;
#[path = "support/ledger_reading.rs"]
mod ledger_reading;
#[path = "redirect/network.rs"]
mod network;
#[path = "redirect/paths.rs"]
mod paths;
#[path = "redirect/sidecars.rs"]
mod sidecars;
mod support;
