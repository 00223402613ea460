//! How connections end: in good order, in the middle of a message, by a reset. What was cut must never look complete.

use crate::duet::{BY_SERVER, Case, call, http};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
/// What is said of a request that will never be whole, though it was answered.
const CUT: &str = "from the client: the sender ended within a message";
const RESET_BY_CLIENT: &str = "client: connection reset by the client";
const RESET_BY_SERVER: &str = "server: connection reset by the server";

pub(crate) const CASES: &[Case] = &[
    http("the_client_ends_before_the_response", &[call("GET /half 200 ended", b"", b"hello")], |wire| {
        wire.asks(b"GET /half HTTP/1.1\r\nhost: a\r\n\r\n")?;
        wire.client_ends()?;
        wire.answers(OK)
    }),
    http(
        "the_client_ends_behind_pipelined_requests",
        &[call("GET /1 200 ended", b"", b"hello"), call("GET /2 200 ended", b"", b"hello")],
        |wire| {
            wire.asks(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n")?;
            wire.client_ends()?;
            wire.answers(OK)?;
            wire.answers(OK)
        },
    ),
    http("the_server_closes_an_idle_connection", &[call("GET /idle 200 ended", b"", b"hello")], |wire| {
        wire.exchange(b"GET /idle HTTP/1.1\r\nhost: a\r\n\r\n", OK)?;
        wire.server_ends()?;
        wire.client_ends()
    })
    .ending(BY_SERVER),
    http(
        "the_server_closes_behind_its_last_response",
        &[call("GET /last 200 ended", b"", b"hello")],
        |wire| {
            wire.asks(b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
            wire.server.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello")?;
            wire.server_ends()
        },
    )
    .ending(BY_SERVER),
    http(
        "the_server_closes_without_an_answer",
        &[call("GET /none - abandoned (closed by the server)", b"", b"")],
        |wire| {
            wire.asks(b"GET /none HTTP/1.1\r\nhost: a\r\n\r\n")?;
            wire.server_ends()
        },
    )
    .ending(BY_SERVER),
    http(
        "the_client_ends_within_its_body",
        &[call("PUT /cut - abandoned (from the client: the sender ended within a message)", b"half", b"")],
        |wire| {
            wire.asks(b"PUT /cut HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nhalf")?;
            wire.client_ends()?;
            wire.server_ends()
        },
    ),
    http(
        "the_client_ends_within_its_chunks_and_is_answered",
        &[call("PUT /cut 400 ended", b"half", b"no").cut(CUT)],
        |wire| {
            wire.asks(b"PUT /cut HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")?;
            wire.client_ends()?;
            wire.answers(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno")
        },
    ),
    http(
        "the_client_resets_within_its_body",
        &[call("PUT /cut - abandoned (connection reset by the client)", b"half", b"")],
        |wire| {
            wire.asks(b"PUT /cut HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nhalf")?;
            wire.client_aborts()
        },
    )
    .ending(RESET_BY_CLIENT),
    http(
        "the_client_resets_instead_of_waiting",
        &[call("GET /slow - abandoned (connection reset by the client)", b"", b"")],
        |wire| {
            wire.asks(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")?;
            wire.client_aborts()
        },
    )
    .ending(RESET_BY_CLIENT),
    http(
        "the_client_resets_within_the_response",
        &[call("GET /long - abandoned (connection reset by the client)", b"", b"half")],
        |wire| {
            wire.exchange(
                b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf",
            )?;
            wire.client_aborts()
        },
    )
    .ending(RESET_BY_CLIENT),
    http(
        "the_server_ends_within_its_body",
        &[call("GET /cut - abandoned (from the server: the sender ended within a message)", b"", b"half")],
        |wire| {
            wire.exchange(
                b"GET /cut HTTP/1.1\r\nhost: a\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf",
            )?;
            wire.server_ends()
        },
    )
    .ending(BY_SERVER),
    http(
        "the_server_ends_within_its_chunks",
        &[call("GET /cut - abandoned (from the server: the sender ended within a message)", b"", b"half")],
        |wire| {
            wire.exchange(
                b"GET /cut HTTP/1.1\r\nhost: a\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            )?;
            wire.server_ends()
        },
    )
    .ending(BY_SERVER),
    http(
        "the_server_ends_before_the_last_line_of_its_chunks",
        &[call("GET /cut - abandoned (from the server: the sender ended within a message)", b"", b"half")],
        |wire| {
            wire.exchange(
                b"GET /cut HTTP/1.1\r\nhost: a\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
            )?;
            wire.server_ends()
        },
    )
    .ending(BY_SERVER),
    http(
        "the_server_resets_within_its_body",
        &[call("GET /cut - abandoned (connection reset by the server)", b"", b"half")],
        |wire| {
            wire.exchange(
                b"GET /cut HTTP/1.1\r\nhost: a\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf",
            )?;
            wire.server_aborts()
        },
    )
    .ending(RESET_BY_SERVER),
    // The only sign that this body is not whole.
    http(
        "the_server_resets_a_body_that_runs_to_its_end",
        &[call("GET /cut - abandoned (connection reset by the server)", b"", b"half")],
        |wire| {
            wire.exchange(b"GET /cut HTTP/1.1\r\nhost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nhalf")?;
            wire.server_aborts()
        },
    )
    .ending(RESET_BY_SERVER),
    http(
        "the_server_resets_instead_of_answering",
        &[call("GET /none - abandoned (connection reset by the server)", b"", b"")],
        |wire| {
            wire.asks(b"GET /none HTTP/1.1\r\nhost: a\r\n\r\n")?;
            wire.server_aborts()
        },
    )
    .ending(RESET_BY_SERVER),
    http("the_server_resets_an_idle_connection", &[call("GET /idle 200 ended", b"", b"hello")], |wire| {
        wire.exchange(b"GET /idle HTTP/1.1\r\nhost: a\r\n\r\n", OK)?;
        wire.server_aborts()
    })
    .ending(RESET_BY_SERVER),
    http(
        "early_response_and_the_server_closes",
        &[call("POST /early 413 ended", b"a lo", b"no").cut(CUT)],
        |wire| {
            wire.asks(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\na lo")?;
            wire.answers(
                b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno",
            )?;
            wire.server_ends()?;
            wire.client_ends()
        },
    )
    .ending(BY_SERVER),
];
