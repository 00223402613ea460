//! TCP that is not read, direct against relayed: between a scripted client and a scripted server that write exact bytes, `attestry run` changes nothing that either can see, up to
//! the way in which each direction ends, and delays nobody; and its ledger tells what each connection was.
//!
//! The cases are linkerd's transparency scenarios for TCP and many more. That the comparison can fail is shown by relays that lie (`LIES`); that a wait for detection would be
//! found, by a relay that has the server wait for the client. Set `WIRE_CASES` to a part of a case's name to play only those. Half-closed connections that are reaped, and
//! resets behind an end that nobody writes into, are in `life/half_closed.rs`.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

#[path = "tcp/bulk.rs"]
mod bulk;
#[path = "tcp/crooked.rs"]
mod crooked;
#[path = "wire/driver.rs"]
mod driver;
#[path = "tcp/duet.rs"]
mod duet;
#[path = "tcp/endings.rs"]
mod endings;
#[path = "wire/frames.rs"]
mod frames;
#[path = "tcp/held.rs"]
mod held;
#[path = "support/holding_port.rs"]
mod holding_port;
#[path = "tcp/openings.rs"]
mod openings;
#[path = "tcp/records.rs"]
mod records;
#[path = "support/relay.rs"]
#[allow(dead_code, reason = "the relay ends with the test's process")]
mod relay;
#[path = "tcp/socket.rs"]
mod socket;
mod support;
#[path = "tcp/terms.rs"]
mod terms;
#[path = "tcp/tls.rs"]
mod tls;
#[path = "tcp/told.rs"]
mod told;
#[path = "tcp/unread.rs"]
mod unread;

use crooked::{Crooked, Lie, Lies};
use driver::PATIENCE;
use duet::{Case, assert_found, assert_same};
use terms::{Hasty, OpaquePort, Patient};

#[test]
fn openings_are_the_same_direct_and_relayed() {
    assert_same::<Patient>(openings::CASES, PATIENCE);
}

#[test]
fn endings_are_the_same_direct_and_relayed() {
    assert_same::<Patient>(endings::CASES, PATIENCE);
}

#[test]
fn beginnings_that_stop_go_on_when_their_time_is_over() {
    assert_same::<Hasty>(terms::STOPPED, PATIENCE);
}

#[test]
fn what_goes_to_an_opaque_port_is_not_read() {
    assert_same::<OpaquePort>(terms::TO_AN_OPAQUE_PORT, PATIENCE);
}

#[test]
fn a_relay_without_a_lie_is_not_accused() {
    let cases = [openings::CASES, endings::CASES, terms::STOPPED, terms::TO_AN_OPAQUE_PORT].concat();
    assert_same::<Crooked<Told, 0>>(&cases, PATIENCE);
}

/// What proxies do to TCP, each told by a relay, and the case that must uncover it.
struct Told;

impl Lies for Told {
    const LIES: &'static [Lie] = &[
        Lie::None,
        Lie::ResetAsFin,
        Lie::FinAsReset,
        Lie::FinClosesBoth,
        Lie::FinWaits,
        Lie::ClientFirst,
        Lie::Bytes(|bytes| bytes[1..].to_vec()),
        Lie::Bytes(|bytes| [bytes, b"\0"].concat()),
    ];
}

#[test]
fn each_lie_of_a_relay_is_found() {
    let (openings, endings): (&[Case], &[Case]) = (openings::CASES, endings::CASES);
    for case in
        ["client_resets_within_the_data", "server_resets_within_the_data", "server_resets_before_any_byte"]
    {
        assert_found::<Crooked<Told, 1>>(endings, case);
    }
    assert_found::<Crooked<Told, 2>>(endings, "client_ends_first");
    assert_found::<Crooked<Told, 3>>(endings, "the_server_goes_on_behind_the_clients_end");
    assert_found::<Crooked<Told, 3>>(endings, "the_client_goes_on_behind_the_servers_end");
    assert_found::<Crooked<Told, 4>>(endings, "server_ends_first");
    assert_found::<Crooked<Told, 5>>(openings, "smtp_greets_first");
    assert_found::<Crooked<Told, 6>>(openings, "redis");
    assert_found::<Crooked<Told, 7>>(openings, "the_client_ends_within_a_beginning");
}
