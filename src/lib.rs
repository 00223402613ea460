//! attestry: a transparent gRPC and HTTP/2 sidecar whose every relayed frame is signed and durable in a
//! tamper-evident ledger before it is forwarded.
//!
//! Modules stand bottom up; each imports only from those above it in this list (`tests/tidy.rs` checks it).
//! Built without the `proxy` feature, the package is the reader and verifier alone.

pub mod clock;
pub mod counters;
pub mod limits;

pub mod generated;

pub mod entry;
pub mod grpc;
pub mod http1;
pub mod http2;
pub mod merkle;
pub mod note;
pub mod tls;

pub mod ledger;

#[cfg(feature = "proxy")]
pub mod credentials;

#[cfg(feature = "proxy")]
pub mod capture;
#[cfg(feature = "proxy")]
pub mod proxy;

pub mod query;

#[cfg(feature = "proxy")]
pub mod app;
pub mod cli;
pub mod config;
#[cfg(feature = "proxy")]
pub mod redirect;
pub mod telemetry;
