//! TLS through `attestry run`: opened, spoken, passed on; who is believed; and what the ledger says of it.
//!
//! The peers are OpenSSL's command, tonic, and a second sidecar. Certificates are made anew for each test (`tls/authority.rs`), and the SPIFFE Workload API is
//! served by `tls/workload_api.rs`, after the standard's proto: the real agent, SPIRE's, is not among the tools of these tests. Handshakes and sessions by themselves are
//! tested beside their code.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

#[path = "tls/authority.rs"]
mod authority;
#[path = "tls/chain.rs"]
mod chain;
#[path = "support/ledger_reading.rs"]
mod ledger_reading;
#[path = "tls/opening.rs"]
mod opening;
#[path = "tls/passing.rs"]
mod passing;
#[path = "tls/peers.rs"]
mod peers;
#[path = "tls/rotation.rs"]
mod rotation;
#[path = "tls/service.rs"]
mod service;
#[path = "tls/spiffe.rs"]
mod spiffe;
mod support;
#[path = "tls/workload_api.rs"]
mod workload_api;

use attestry::entry::Body;
use attestry::generated::v1;
use authority::{Authority, Issued};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use support::sidecar::{Builder, Sidecar};
use tempfile::TempDir;

/// Ends a test that hangs; nothing here takes more than a second.
const BOUND: Duration = Duration::from_mins(1);

/// An authority, and who it has issued certificates to.
struct Scene {
    folder: TempDir,
    authority: Authority,
    /// attestry's own: a.example, spiffe://example.org/own.
    own: Issued,
    /// A client's: spiffe://example.org/client.
    client: Issued,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "root");
        let own = authority.issue_for("own", "DNS:a.example,URI:spiffe://example.org/own");
        let client = authority.issue_for("client", "URI:spiffe://example.org/client");
        Self { folder, authority, own, client }
    }

    /// A sidecar with this scene's own certificate and authorities.
    fn sidecar(&self, upstream: SocketAddr) -> Builder {
        Sidecar::builder(upstream)
            .set("tls", "certificate_file", &quoted(&self.own.certificate))
            .set("tls", "key_file", &quoted(&self.own.key))
            .set("tls", "authorities_file", &quoted(&self.authority.certificate))
    }
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_str().unwrap())
}

/// Every TLS session, or attempt at one, in the order of the ledger.
fn sessions(ledger: &Path) -> Vec<v1::Tls> {
    events(ledger).into_iter().filter_map(|event| event.tls).collect()
}

fn events(ledger: &Path) -> Vec<v1::ConnectionEvent> {
    let of = |body| if let Body::ConnectionEvents(events) = body { Some(events.events) } else { None };
    ledger_reading::bodies_of(ledger, of).into_iter().flatten().collect()
}

/// The sessions with one side, in order.
fn sessions_with(ledger: &Path, side: v1::Side) -> Vec<v1::Tls> {
    sessions(ledger).into_iter().filter(|tls| tls.side() == side).collect()
}

fn notices(ledger: &Path) -> Vec<v1::Notice> {
    ledger_reading::bodies_of(
        ledger,
        |body| if let Body::Notice(notice) = body { Some(notice) } else { None },
    )
}

fn closings(ledger: &Path) -> Vec<v1::ConnectionClosed> {
    ledger_reading::bodies_of(ledger, |body| {
        if let Body::ConnectionClosed(closed) = body { Some(closed) } else { None }
    })
}

/// Who made each call, as TLS has verified it.
fn callers(ledger: &Path) -> Vec<String> {
    let of = |body| if let Body::CallEvents(call) = body { Some(call.verified_peer) } else { None };
    let mut callers = ledger_reading::bodies_of(ledger, of);
    callers.sort();
    callers.dedup();
    callers
}
