//! HTTP/1, direct against relayed: between a scripted client and a scripted server that write exact bytes, `attestry run` changes nothing that either can see, byte by byte, up to
//! the way in which each connection ends; and its ledger tells every call, with its content.
//!
//! The cases are linkerd's transparency scenarios for HTTP/1 (where linkerd removes or adds something, nothing changes here) and many more. That the comparison can fail is
//! shown by relays that lie (`LIES`); that the ledger's side of it can, by `a_wrong_claim_about_the_ledger_is_found`. Set `WIRE_CASES` to a part of a case's name to play only those.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

#[path = "tcp/crooked.rs"]
mod crooked;
#[path = "wire/driver.rs"]
mod driver;
#[path = "tcp/duet.rs"]
mod duet;
#[path = "http1/durable.rs"]
mod durable;
#[path = "http1/elsewhere.rs"]
mod elsewhere;
#[path = "http1/endings.rs"]
mod endings;
#[path = "wire/frames.rs"]
mod frames;
#[path = "http1/heads.rs"]
mod heads;
#[path = "tcp/held.rs"]
mod held;
#[path = "support/holding_port.rs"]
mod holding_port;
#[path = "http1/messages.rs"]
mod messages;
#[path = "support/relay.rs"]
#[allow(dead_code, reason = "the relay ends with the test's process")]
mod relay;
#[path = "tcp/socket.rs"]
mod socket;
#[path = "support/spoiled_disks.rs"]
#[allow(dead_code, reason = "one kind of disk is enough here")]
mod spoiled_disks;
mod support;
#[path = "http1/switching.rs"]
mod switching;
#[path = "tcp/told.rs"]
mod told;
#[path = "http1/unreadable.rs"]
mod unreadable;

use crooked::{Crooked, Lie, Lies};
use driver::PATIENCE;
use duet::{Case, assert_found, assert_same, call, differences, http};
use support::sidecar::Sidecar;

#[test]
fn messages_are_the_same_direct_and_relayed() {
    assert_same::<Sidecar>(messages::CASES, PATIENCE);
}

#[test]
fn heads_are_the_same_direct_and_relayed() {
    assert_same::<Sidecar>(heads::CASES, PATIENCE);
}

#[test]
fn endings_are_the_same_direct_and_relayed() {
    assert_same::<Sidecar>(endings::CASES, PATIENCE);
}

#[test]
fn upgrades_and_tunnels_are_the_same_direct_and_relayed() {
    assert_same::<Sidecar>(switching::CASES, PATIENCE);
}

#[test]
fn what_cannot_be_read_is_the_same_direct_and_relayed() {
    assert_same::<Sidecar>(unreadable::CASES, PATIENCE);
}

#[test]
fn a_relay_without_a_lie_is_not_accused() {
    assert_same::<Crooked<Told, 0>>(&all(), PATIENCE);
}

/// What proxies do to HTTP/1, each told by a relay, and the case that must uncover it.
struct Told;

impl Lies for Told {
    const LIES: &'static [Lie] = &[
        Lie::None,
        Lie::Bytes(|bytes| without(bytes, b"Connection: x-foo, close , TE\r\n")),
        Lie::Bytes(|bytes| replaced(bytes, b"hOST", b"host")),
        Lie::Bytes(|bytes| replaced(bytes, b"\r\n\r\n", b"\r\nvia: 1.1 crooked\r\n\r\n")),
        Lie::Bytes(|bytes| without(bytes, b"HTTP/1.1 102 Processing\r\n\r\n")),
        Lie::Bytes(|bytes| replaced(bytes, b"6 ;e=1\r\n", b"6\r\n")),
        Lie::Bytes(|bytes| replaced(bytes, b"Upgrade: h2c\r\n", b"")),
        Lie::Bytes(|bytes| replaced(bytes, b"folded: one\r\n two", b"folded: one two")),
        Lie::ResetAsFin,
        Lie::FinClosesBoth,
        Lie::FinAsReset,
    ];
}

#[test]
fn each_lie_of_a_relay_is_found() {
    let cases = all();
    assert_found::<Crooked<Told, 1>>(&cases, "connection_headers_stay");
    assert_found::<Crooked<Told, 2>>(&cases, "names_keep_case_order_and_number");
    assert_found::<Crooked<Told, 3>>(&cases, "request_without_a_body");
    assert_found::<Crooked<Told, 4>>(&cases, "informational_responses");
    assert_found::<Crooked<Told, 5>>(&cases, "chunked_both_ways_with_extensions_and_trailers");
    assert_found::<Crooked<Told, 6>>(&cases, "h2c_is_not_stripped");
    assert_found::<Crooked<Told, 7>>(&cases, "response_with_folded_lines");
    assert_found::<Crooked<Told, 8>>(&cases, "the_server_resets_a_body_that_runs_to_its_end");
    assert_found::<Crooked<Told, 9>>(&cases, "the_client_ends_before_the_response");
    assert_found::<Crooked<Told, 10>>(&cases, "the_server_ends_within_its_body");
}

/// The same case with claims about the ledger that are false: each is noticed.
#[test]
fn a_wrong_claim_about_the_ledger_is_found() {
    const SCRIPT: fn(&mut duet::Wire) -> driver::Step = |wire| {
        wire.exchange(
            b"PUT /claim HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        )
    };
    const CLAIMS: &[Case] = &[
        http("right", &[call("PUT /claim 200 ended", b"abc", b"hello")], SCRIPT),
        http("wrong_content", &[call("PUT /claim 200 ended", b"abd", b"hello")], SCRIPT),
        http("wrong_answer", &[call("PUT /claim 200 ended", b"abc", b"")], SCRIPT),
        http("wrong_status", &[call("PUT /claim 201 ended", b"abc", b"hello")], SCRIPT),
        http("wrong_number", &[], SCRIPT),
        http("wrong_end", &[call("PUT /claim 200 ended", b"abc", b"hello")], SCRIPT).ending(duet::BY_SERVER),
        http("wrong_protocol", &[call("PUT /claim 200 ended", b"abc", b"hello")], SCRIPT)
            .finding(&["http2: x"]),
    ];
    let found = differences::<Sidecar>(CLAIMS, PATIENCE);
    for case in CLAIMS {
        let is_found = found.iter().any(|found| found.starts_with(&format!("{}:", case.name)));
        assert_eq!(is_found, case.name != "right", "{}: {found:?}", case.name);
    }
}

fn all() -> Vec<Case> {
    [messages::CASES, heads::CASES, endings::CASES, switching::CASES, unreadable::CASES].concat()
}

fn replaced(bytes: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    match bytes.windows(what.len()).position(|window| window == what) {
        Some(at) => [&bytes[..at], by, &bytes[at + what.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

fn without(bytes: &[u8], what: &[u8]) -> Vec<u8> {
    replaced(bytes, what, b"")
}
