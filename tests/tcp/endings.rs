//! How opaque connections end: a FIN each way and data behind the other's, a reset each way at each stage. Each arrives as what it was.

use crate::driver::Step;
use crate::duet::{BY_SERVER, Case, Wire, http};

const UNKNOWN: &[&str] = &[
    "opaque: the client's first bytes are no request line of HTTP/1, no preface of HTTP/2 and no ClientHello of TLS",
];
const SERVER_FIRST: &[&str] = &["opaque: the server spoke first"];
const RESET_BY_CLIENT: &str = "client: connection reset by the client";
const RESET_BY_SERVER: &str = "server: connection reset by the server";

/// A case of an opaque connection that has begun.
const fn tcp(name: &'static str, script: fn(&mut Wire) -> Step) -> Case {
    http(name, &[], script).finding(UNKNOWN)
}

pub(crate) const CASES: &[Case] = &[
    tcp("client_ends_first", |wire| {
        begin(wire)?;
        wire.client_ends()?;
        wire.server_ends()
    }),
    tcp("server_ends_first", |wire| {
        begin(wire)?;
        wire.server_ends()?;
        wire.client_ends()
    })
    .ending(BY_SERVER),
    tcp("the_server_goes_on_behind_the_clients_end", |wire| {
        begin(wire)?;
        wire.client_ends()?;
        wire.answers(b"one")?;
        wire.answers(&[0x55; 200_000])?;
        wire.server_ends()
    }),
    tcp("the_client_goes_on_behind_the_servers_end", |wire| {
        begin(wire)?;
        wire.server_ends()?;
        wire.asks(b"one")?;
        wire.asks(&[0x55; 200_000])?;
        wire.client_ends()
    })
    .ending(BY_SERVER),
    tcp("the_last_bytes_come_with_the_end", |wire| {
        begin(wire)?;
        wire.says(b"last words")?;
        wire.client_ends()?;
        wire.server_hears()?;
        wire.server.send(b"the same to you")?;
        wire.server_ends()
    }),
    tcp("client_resets_within_the_data", |wire| {
        begin(wire)?;
        wire.client_aborts()
    })
    .ending(RESET_BY_CLIENT),
    tcp("server_resets_within_the_data", |wire| {
        begin(wire)?;
        wire.server_aborts()
    })
    .ending(RESET_BY_SERVER),
    http("client_resets_before_any_byte", &[], Wire::client_aborts).finding(&[]).ending(RESET_BY_CLIENT),
    http("server_resets_before_any_byte", &[], |wire| {
        wire.server.accept()?;
        wire.server_aborts()
    })
    .finding(&[])
    .ending(RESET_BY_SERVER),
    http("client_resets_behind_the_greeting", &[], |wire| {
        wire.answers(b"220 hello\r\n")?;
        wire.client_aborts()
    })
    .finding(SERVER_FIRST)
    .ending(RESET_BY_CLIENT),
    // A FIN ends one way alone; a reset behind it still has to end the other.
    tcp("client_resets_behind_the_servers_end", |wire| {
        begin(wire)?;
        wire.server_ends()?;
        wire.client_aborts()
    })
    .ending(RESET_BY_CLIENT),
    tcp("server_resets_behind_the_clients_end", |wire| {
        begin(wire)?;
        wire.client_ends()?;
        wire.server_aborts()
    })
    .ending(RESET_BY_SERVER),
    tcp("server_resets_within_data_behind_the_clients_end", |wire| {
        begin(wire)?;
        wire.client_ends()?;
        wire.answers(b"more")?;
        wire.server_aborts()
    })
    .ending(RESET_BY_SERVER),
];

fn begin(wire: &mut Wire) -> Step {
    wire.exchange(b"\x01question", b"\x02answer")
}
