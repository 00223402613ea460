//! The capture level decides which bytes of a call are in the ledger, and a secret's bytes never are, at no level.
//!
//! The real binary, a real client and an echoing server. What is stored is looked for in the segments as they are on the disk.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

#[path = "support/h2_peers.rs"]
mod h2_peers;
mod support;

use bytes::Bytes;
use h2_peers::{EchoServer, PATIENCE, message, runtime};
use http::Request;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use support::sidecar::Sidecar;
use tokio::net::TcpStream;
use tokio::time::timeout;

const MARKER: &[u8] = b"the-bytes-of-the-message";
const SECRET: &[u8] = b"a-secret-that-is-nobodys-business";
const PLAIN: &[u8] = b"a-value-that-may-be-seen";

/// One call whose message comes back, with a secret in its metadata and something that is none.
async fn call(addr: SocketAddr) {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method("POST")
        .uri("http://test/levels.Levels/Echo")
        .header("content-type", "application/grpc")
        .header("authorization", SECRET)
        .header("x-session-token", SECRET)
        .header("x-plain", PLAIN);
    let mut requests = requests.ready().await.unwrap();
    let (response, mut body) = requests.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from(message(MARKER)), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut received = Vec::new();
    while let Some(piece) = body.data().await {
        received.extend(piece.unwrap());
    }
    assert_eq!(received, message(MARKER), "the call is what it would be without a sidecar");
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

/// How often `bytes` stand in the segments.
fn count(ledger: &Path, bytes: &[u8]) -> usize {
    let segments = fs::read_dir(ledger.join("segments")).unwrap();
    let found = |path| fs::read(path).unwrap().windows(bytes.len()).filter(|window| *window == bytes).count();
    segments.map(|segment| found(segment.unwrap().path())).sum()
}

/// Makes the call at `level`, and returns how often the ledger holds the message and the plain value.
fn stored_at(level: &str) -> (usize, usize) {
    let server = EchoServer::start();
    let mut sidecar = Sidecar::builder(server.addr).set("capture", "level", &format!("{level:?}")).start();
    runtime().block_on(async { timeout(PATIENCE, call(sidecar.addr)).await.expect("a call ends") });
    sidecar.stop();
    sidecar.verify();
    let calls = sidecar.calls();
    assert_eq!(calls.len(), 1, "at {level} the ledger says that the call happened");
    assert_eq!((&calls[0]["method"], &calls[0]["level"]), (&"/levels.Levels/Echo".into(), &level.into()));
    assert_eq!(count(&sidecar.ledger_dir, SECRET), 0, "a secret is stored at {level}");
    (count(&sidecar.ledger_dir, MARKER), count(&sidecar.ledger_dir, PLAIN))
}

#[test]
fn request_response_keeps_both_messages() {
    assert_eq!(stored_at("RequestResponse"), (2, 1));
}

#[test]
fn request_keeps_what_the_client_sent() {
    assert_eq!(stored_at("Request"), (1, 1));
}

#[test]
fn metadata_keeps_no_message() {
    assert_eq!(stored_at("Metadata"), (0, 1));
}

#[test]
fn none_keeps_that_the_call_happened() {
    assert_eq!(stored_at("None"), (0, 0));
}
