//! Heads as they stand: case, order, duplicates, white space, bytes that are no ASCII, lengths, and how they come. Nothing is added, removed, joined or repaired.

use crate::driver::Step;
use crate::duet::{Case, Wire, call, http};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

const ONE: &[crate::duet::Call] = &[call("GET /head 200 ended", b"", b"hello")];

pub(crate) const CASES: &[Case] = &[
    // linkerd and most proxies remove these; here they are the peers' own.
    http("connection_headers_stay", ONE, |wire| {
        wire.asks(b"GET /head HTTP/1.1\r\nHost: a\r\nConnection: x-foo, close , TE\r\nx-foo: bar\r\nKeep-Alive: timeout=500\r\nProxy-Connection: keep-alive\r\nTE: trailers, deflate;q=0.5\r\nUpgrade-Insecure-Requests: 1\r\nMax-Forwards: 3\r\nVia: 1.0 fred\r\nProxy-Authorization: Basic AA==\r\n\r\n")?;
        wire.answers(b"HTTP/1.1 200 OK\r\nConnection: x-server, keep-alive\r\nx-server: 1\r\nKeep-Alive: 500\r\nProxy-Authenticate: Basic\r\nProxy-Connection: a\r\ncontent-length: 5\r\n\r\nhello")
    }),
    http("names_keep_case_order_and_number", ONE, |wire| {
        wire.asks(b"GET /head HTTP/1.1\r\nX-b: 2\r\nhOST: a\r\nx-A: 1\r\nX-B: 3\r\naccept: */*\r\nAccept: text/plain\r\nCookie: a=1\r\ncookie: b=2\r\nx-B: 2\r\n\r\n")?;
        wire.answers(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nserver: none\r\nset-cookie: b=2\r\nDATE: never\r\nContent-LENGTH: 5\r\n\r\nhello")
    }),
    http("values_keep_their_white_space", ONE, |wire| {
        wire.asks(b"GET /head HTTP/1.1\r\nhost:a\r\nempty:\r\nblank:  \t \r\npadded: \t both \t\r\ninner: a  b\tc , ,d\r\n\r\n")?;
        wire.answers(b"HTTP/1.1 200 OK\r\nempty:\r\npadded:    x    \r\ncontent-length:5\t\r\n\r\nhello")
    }),
    http("values_of_eight_bits", ONE, |wire| {
        wire.asks(b"GET /head HTTP/1.1\r\nhost: a\r\nlatin: caf\xe9 \xff\x80\r\nutf8: \xc3\xa9\r\n\r\n")?;
        wire.answers(b"HTTP/1.1 200 Tr\xe8s bien\r\nlatin: \xe9\x80\r\ncontent-length: 5\r\n\r\nhello")
    }),
    http("response_with_folded_lines", ONE, |wire| {
        wire.asks(b"GET /head HTTP/1.1\r\nhost: a\r\n\r\n")?;
        wire.answers(b"HTTP/1.1 200 OK\r\nfolded: one\r\n two\r\n\tthree\r\ncontent-length: 5\r\n\r\nhello")
    }),
    http(
        "status_lines_without_a_reason",
        &[
            call("GET /1 200 ended", b"", b""),
            call("GET /2 299 ended", b"", b""),
            call("GET /3 999 ended", b"", b""),
        ],
        |wire| {
            wire.exchange(
                b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n",
                b"HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n",
            )?;
            wire.exchange(
                b"GET /2 HTTP/1.1\r\nhost: a\r\n\r\n",
                b"HTTP/1.1 299\r\ncontent-length: 0\r\n\r\n",
            )?;
            wire.exchange(
                b"GET /3 HTTP/1.1\r\nhost: a\r\n\r\n",
                b"HTTP/1.1 999 What: ever\r\ncontent-length: 0\r\n\r\n",
            )
        },
    ),
    http("lines_that_end_in_a_bare_feed", &[call("POST /head 200 ended", b"abc", b"hello")], |wire| {
        wire.asks(b"POST /head HTTP/1.1\nhost: a\r\ncontent-length: 3\n\nabc")?;
        wire.answers(b"HTTP/1.1 200 OK\ncontent-length: 5\n\r\nhello")
    }),
    http(
        "empty_lines_before_requests",
        &[call("GET /1 200 ended", b"", b"hello"), call("GET /2 200 ended", b"", b"hello")],
        |wire| {
            wire.asks(b"\r\n\r\n\nGET /1 HTTP/1.1\r\nhost: a\r\n\r\n")?;
            wire.answers(OK)?;
            wire.asks(b"\r\n\r\n")?;
            wire.exchange(b"GET /2 HTTP/1.1\r\nhost: a\r\n\r\n", OK)
        },
    ),
    http(
        "several_hosts_and_none",
        &[
            call("GET /head 200 ended", b"", b"hello"),
            call("GET /head 200 ended", b"", b"hello"),
            call("GET /head 200 ended", b"", b"hello"),
        ],
        |wire| {
            wire.exchange(b"GET /head HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", OK)?;
            wire.exchange(b"GET /head HTTP/1.1\r\n\r\n", OK)?;
            wire.exchange(b"GET /head HTTP/1.1\r\nhost:\r\n\r\n", OK)
        },
    ),
    http("the_same_content_length_twice", &[call("POST /head 200 ended", b"abc", b"hello")], |wire| {
        wire.asks(b"POST /head HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nContent-Length: 3\r\n\r\nabc")?;
        wire.answers(b"HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello")
    }),
    http("heads_byte_by_byte", ONE, |wire| {
        wire.asks_in_pieces(b"GET /head HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n", 1)?;
        wire.answers_in_pieces(OK, 1)
    }),
    http("heads_in_two_halves", ONE, |wire| {
        wire.says(b"GET /head HTTP/1.1\r\nHost: a.exa")?;
        wire.asks(b"mple\r\n\r\n")?;
        wire.answers(OK)
    }),
    http("heads_of_200_kilobytes", ONE, |wire| {
        let long = "v".repeat(200 * 1024);
        wire.asks(format!("GET /head HTTP/1.1\r\nhost: a\r\nlong: {long}\r\n\r\n").as_bytes())?;
        wire.answers(format!("HTTP/1.1 200 OK\r\nlong: {long}\r\ncontent-length: 5\r\n\r\nhello").as_bytes())
    }),
    http("heads_of_a_thousand_fields", ONE, |wire| {
        let fields = (0..1000).map(|number| format!("x-{number}: {number}\r\n")).collect::<Vec<_>>().concat();
        wire.asks(format!("GET /head HTTP/1.1\r\nhost: a\r\n{fields}\r\n").as_bytes())?;
        wire.answers(format!("HTTP/1.1 200 OK\r\n{fields}content-length: 5\r\n\r\nhello").as_bytes())
    }),
    http("trailers_of_20_kilobytes", &[call("GET /head 200 ended", b"", b"hello")], long_trailers),
];

fn long_trailers(wire: &mut Wire) -> Step {
    let long = "t".repeat(20 * 1024);
    wire.asks(b"GET /head HTTP/1.1\r\nhost: a\r\n\r\n")?;
    wire.answers(
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nlong: {long}\r\n\r\n"
        )
        .as_bytes(),
    )
}
