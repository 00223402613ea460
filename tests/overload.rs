//! More clients than there are places: those inside are served as before, all others learn at once that the service is unavailable, and the ledger has the sum of them.
//!
//! The real binary, real HTTP/2 and gRPC clients. How soon is not asserted; `cargo bench --bench stress -- overload` reports it.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

#[path = "support/h2_peers.rs"]
mod h2_peers;
#[path = "support/ledger_reading.rs"]
mod ledger_reading;
mod support;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use attestry::entry::Body;
use attestry::generated::demo_v1::GetBalanceRequest;
use attestry::generated::demo_v1::accounts_client::AccountsClient;
use attestry::generated::v1::notice;
use attestry::limits::TURNED_AWAY_PLACES;
use h2_peers::{Client, EchoServer, PATIENCE, call, call_until_served, message, runtime};
use ledger_reading::{assert_intact, bodies, stops};
use support::sidecar::Sidecar;
use tokio::task::JoinSet;

const PLACES: usize = 20;
const CLIENTS: usize = 10 * PLACES;
const CALLS_OF_EACH: usize = 20;

const WAVES: usize = 300;
const CLIENTS_OF_A_WAVE: usize = 16;

/// Growth of resident memory from idle to its peak: less than the read buffers of so many connections.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

/// Connections that stay silent, far more than are told why there is no room for them.
const SILENT: usize = 1_500;
/// Descriptors that are neither inside nor being told: on their way from the listener to a worker, and those of the process itself.
const OTHER_DESCRIPTORS: usize = 128 + 64;

/// A sidecar with so many places.
fn sidecar(server: &EchoServer, places: usize) -> Sidecar {
    Sidecar::builder(server.addr)
        .set("limits", "connections_max", &places.to_string())
        .set("proxy", "workers", "1")
        .start()
}

/// Fills every place; each client inside has made a call.
async fn fill(addr: SocketAddr, places: usize) -> Vec<Client> {
    let mut inside = Vec::new();
    for _ in 0..places {
        let mut client = Client::connect(addr).await;
        let content = message(b"first");
        assert!(client.call(&content).await.is_echo_of(&content));
        inside.push(client);
    }
    inside
}

#[test]
fn ten_times_the_connections_are_served_or_told_unavailable() {
    let server = EchoServer::start();
    let mut sidecar = sidecar(&server, PLACES);
    let (addr, content) = (sidecar.addr, message(b"overload"));
    let idle = resident_kib(&sidecar, "VmRSS:");
    let tries_until_served = runtime().block_on(async {
        let inside = fill(addr, PLACES).await;
        let mut calls = JoinSet::new();
        for mut client in inside {
            let content = content.clone();
            calls.spawn(async move {
                for number in 0..CALLS_OF_EACH {
                    let outcome = client.call(&content).await;
                    assert!(outcome.is_echo_of(&content), "call {number} of one inside: {outcome:?}");
                }
                Some(client)
            });
        }
        for _ in PLACES..CLIENTS {
            let content = content.clone();
            calls.spawn(async move {
                let outcome = call(addr, &content).await;
                let reason = outcome.unavailable().unwrap_or_else(|| panic!("one outside: {outcome:?}"));
                assert!(reason.contains("connections_max"), "{reason}");
                None
            });
        }
        // All have stayed until the last was turned away.
        let inside = calls.join_all().await;
        assert_eq!(inside.iter().flatten().count(), PLACES);
        drop(inside);
        let before = call_until_served(addr).await;
        assert!(before.iter().all(|outcome| outcome.unavailable().is_some()), "{before:?}");
        before.len()
    });
    let growth = resident_kib(&sidecar, "VmHWM:").saturating_sub(idle);
    sidecar.stop();
    assert!(growth <= GROWTH_KIB_MAX, "resident memory grew by {growth} KiB");

    let answered = PLACES * (1 + CALLS_OF_EACH) + 1;
    let listed = sidecar.calls();
    assert!(listed.iter().all(|call| call["status"] == "OK"), "{listed:?}");
    assert_eq!(listed.len(), answered, "each call that was served is in the ledger, and no other");
    let opened =
        bodies(&sidecar.ledger_dir).iter().filter(|body| matches!(body, Body::ConnectionOpened(_))).count();
    assert_eq!(opened, PLACES + 1, "connections in the ledger");
    must_be_summed(&sidecar, CLIENTS - PLACES + tries_until_served);
}

/// Nobody holds more than a bounded number of places by saying nothing: the others are reset at once.
#[test]
fn a_flood_of_silent_connections_holds_a_bounded_number_of_descriptors() {
    let server = EchoServer::start();
    let mut sidecar = sidecar(&server, 2);
    let addr = sidecar.addr;
    let runtime = runtime();
    let mut inside = runtime.block_on(fill(addr, 2));
    let idle = resident_kib(&sidecar, "VmRSS:");
    let flood = thread::spawn(move || {
        let connections = (0..SILENT).map(|_| TcpStream::connect(addr).unwrap());
        connections.inspect(|socket| socket.set_nonblocking(true).unwrap()).collect::<Vec<_>>()
    });
    let mut descriptors_peak = 0;
    while !flood.is_finished() {
        descriptors_peak = descriptors_peak.max(descriptors(&sidecar));
        thread::yield_now();
    }
    let mut open = flood.join().unwrap();
    let end = Instant::now() + PATIENCE;
    while !open.is_empty() {
        assert!(Instant::now() < end, "{} connections are still open", open.len());
        descriptors_peak = descriptors_peak.max(descriptors(&sidecar));
        open.retain_mut(
            |socket| matches!(socket.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock),
        );
    }
    let content = message(b"still there");
    for client in &mut inside {
        assert!(runtime.block_on(client.call(&content)).is_echo_of(&content));
    }
    let growth = resident_kib(&sidecar, "VmHWM:").saturating_sub(idle);
    drop(inside);
    sidecar.stop();
    eprintln!(
        "{SILENT} silent connections: {descriptors_peak} descriptors at the most, {growth} KiB more resident"
    );
    assert!(descriptors_peak <= TURNED_AWAY_PLACES + OTHER_DESCRIPTORS, "{descriptors_peak} descriptors");
    assert!(growth <= GROWTH_KIB_MAX, "resident memory grew by {growth} KiB");
    must_be_summed(&sidecar, SILENT);
}

#[test]
fn each_client_is_told_in_its_own_protocol() {
    let server = EchoServer::start();
    let mut sidecar = sidecar(&server, 1);
    let addr = sidecar.addr;
    let inside = runtime().block_on(fill(addr, 1));

    let status = runtime().block_on(async {
        let mut client = AccountsClient::connect(format!("http://{addr}")).await.unwrap();
        client.get_balance(GetBalanceRequest { account: "alice".into() }).await.unwrap_err()
    });
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    assert!(status.message().contains("connections_max"), "{status:?}");

    let mut http1 = TcpStream::connect(addr).unwrap();
    http1.set_read_timeout(Some(PATIENCE)).unwrap();
    http1.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    http1.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("connections_max"), "{answer}");

    drop(inside);
    sidecar.stop();
    // A tonic client connects anew when it is told to go away.
    let told = told(&sidecar);
    assert!(told >= 2, "{told}");
    must_be_summed(&sidecar, told);
}

/// Nothing but the submissions themselves wakes the committer here: the interval at which it would look again by itself is an hour. Each wave is over before the next one begins,
/// so one submission that did not wake it would never be committed, and its call not end.
#[test]
fn every_submission_wakes_the_committer() {
    let server = EchoServer::start();
    let mut sidecar = Sidecar::builder(server.addr)
        .set("ledger", "recovery_interval_ms", "3600000")
        .set("ledger", "commit_wait_ms_max", "600000")
        .start();
    let content = message(b"wake");
    runtime().block_on(async {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS_OF_A_WAVE {
            clients.push(Client::connect(sidecar.addr).await);
        }
        for wave in 0..WAVES {
            let mut calls = JoinSet::new();
            for mut client in clients.drain(..) {
                let content = content.clone();
                calls.spawn(async move { (client.call(&content).await, client) });
            }
            for (outcome, client) in calls.join_all().await {
                assert!(outcome.is_echo_of(&content), "wave {wave}: {outcome:?}");
                clients.push(client);
            }
        }
    });
    sidecar.stop();
    assert_intact(&sidecar.ledger_dir, "waves");
}

/// The connections turned away, as the entries of the ledger sum them.
fn told(sidecar: &Sidecar) -> usize {
    let notices = bodies(&sidecar.ledger_dir).into_iter().filter_map(|body| match body {
        Body::Notice(notice) if notice.r#type() == notice::Type::TurnedAway => Some(notice),
        _ => None,
    });
    let counts = notices.map(|notice| {
        assert!(notice.reason.contains("connections_max"), "{notice:?}");
        assert!(notice.from_unix_nanos <= notice.to_unix_nanos, "{notice:?}");
        usize::try_from(notice.count).unwrap()
    });
    counts.sum()
}

/// The ledger's sums and the counter must say that so many were turned away, and the ledger verify.
fn must_be_summed(sidecar: &Sidecar, turned_away: usize) {
    assert_eq!(told(sidecar), turned_away, "turned away, as the ledger's entries sum it");
    let stopped = stops(&sidecar.ledger_dir).pop().expect("a clean end");
    let refused = stopped.counters.into_iter().find(|counter| counter.name == "connections_refused");
    assert_eq!(refused.map(|counter| counter.value), Some(turned_away as u64));
    assert_intact(&sidecar.ledger_dir, "overload");
}

fn descriptors(sidecar: &Sidecar) -> usize {
    fs::read_dir(format!("/proc/{}/fd", sidecar.pid())).unwrap().count()
}

/// A line of `/proc/PID/status`, in KiB.
fn resident_kib(sidecar: &Sidecar, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
