//! What cannot be read as HTTP/1, or may be read in two ways: it goes on verbatim, and the ledger says so, with `on_unreadable = "forward"`.

use crate::duet::{Case, call, http};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// What the ledger says when the first request cannot be read.
macro_rules! unread {
    ($side:literal, $why:literal) => {
        &["http1: a request line", concat!("opaque: from the ", $side, ": ", $why)]
    };
}

pub(crate) const CASES: &[Case] = &[
    http("smuggling_by_coding_and_length", &[], |wire| {
        wire.asks(b"POST /s HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /inner HTTP/1.1\r\nhost: a\r\n\r\n")?;
        wire.answers(OK)?;
        wire.answers(OK)
    })
    .finding(unread!("client", "the request has a transfer-encoding and a content-length; readers would disagree on where it ends")),
    http("smuggling_by_two_lengths", &[], |wire| {
        wire.asks(b"POST /s HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: 5\r\n\r\nGET /")?;
        wire.answers(OK)
    })
    .finding(unread!("client", "the content-lengths differ; readers would disagree on where the message ends")),
    http("smuggling_by_an_odd_length", &[], |wire| {
        wire.asks(b"POST /s HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc")?;
        wire.answers(OK)
    })
    .finding(unread!("client", "the content-length is no number; its sender is broken")),
    http("smuggling_by_an_odd_coding", &[], |wire| {
        wire.asks(b"POST /s HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n")?;
        wire.answers(OK)
    })
    .finding(unread!("client", "the transfer-encoding is unknown, or chunked is not its last; readers would disagree on where the message ends")),
    http("smuggling_by_a_coding_of_http10", &[], |wire| {
        wire.asks(b"POST /s HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")?;
        wire.answers(OK)
    })
    .finding(unread!("client", "a message of HTTP/1.0 has a transfer-encoding; readers would disagree on where it ends")),
    http("smuggling_by_a_blank_before_the_colon", &[], |wire| {
        wire.asks(b"POST /s HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n")?;
        wire.answers(OK)
    })
    .finding(unread!("client", "the head is not HTTP/1: invalid header name; its sender is broken, or speaks another protocol")),
    http("request_with_folded_lines", &[], |wire| {
        wire.asks(b"GET /s HTTP/1.1\r\nhost: a\r\nfolded: one\r\n two\r\n\r\n")?;
        wire.answers(OK)
    })
    .finding(unread!("client", "the head is not HTTP/1: invalid header name; its sender is broken, or speaks another protocol")),
    http("a_line_without_a_colon", &[], |wire| {
        wire.asks(b"GET /s HTTP/1.1\r\nhost: a\r\nnocolon\r\n\r\n")?;
        wire.answers(OK)
    })
    .finding(unread!("client", "the head is not HTTP/1: invalid header name; its sender is broken, or speaks another protocol")),
    http("a_zero_byte_in_a_value", &[], |wire| {
        wire.asks(b"GET /s HTTP/1.1\r\nhost: a\r\nzero: a\0b\r\n\r\n")?;
        wire.answers(OK)
    })
    .finding(unread!("client", "the head is not HTTP/1: invalid header value; its sender is broken, or speaks another protocol")),
    http("connect_with_content", &[], |wire| {
        wire.asks(b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc")?;
        wire.answers(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    })
    .finding(unread!("client", "a CONNECT request has content; readers would disagree on where the tunnel begins")),
    http("garbage_behind_a_request", &[call("GET /1 200 ended", b"", b"hello")], |wire| {
        wire.exchange(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n", OK)?;
        wire.asks(b"\x01\x02 what is this?")?;
        wire.answers(b"nobody knows")
    })
    .finding(unread!("client", "the head is not HTTP/1: invalid token; its sender is broken, or speaks another protocol")),
    // The response to what was read before is read all the same.
    http("garbage_behind_a_request_before_its_response", &[call("GET /1 200 ended", b"", b"hello")], |wire| {
        wire.asks(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n\x01\x02")?;
        wire.answers(OK)?;
        wire.answers(b"\x03\x04")
    })
    .finding(unread!("client", "the head is not HTTP/1: invalid token; its sender is broken, or speaks another protocol")),
    http(
        "broken_chunks_of_the_client",
        &[call("POST /1 200 ended", b"abc", b"hello").cut("from the client: the chunked body is broken; its sender is")],
        |wire| {
            wire.asks(b"POST /1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n")?;
            wire.answers(OK)
        },
    )
    .finding(unread!("client", "the chunked body is broken; its sender is")),
    http(
        "broken_chunks_of_the_server",
        &[call("GET /1 - abandoned (from the server: the chunked body is broken; its sender is)", b"", b"abc")],
        |wire| {
            wire.exchange(
                b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n-1\r\n",
            )?;
            wire.asks(b"anything")
        },
    )
    .finding(unread!("server", "the chunked body is broken; its sender is")),
    http(
        "a_response_that_is_none",
        &[call(
            "GET /1 - abandoned (from the server: the head is not HTTP/1: invalid HTTP version; its sender is broken, or speaks another protocol)",
            b"",
            b"",
        )],
        |wire| {
            wire.exchange(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n", b"220 mail.example ESMTP\r\n")?;
            wire.exchange(b"QUIT\r\n", b"221 Bye\r\n")
        },
    )
    .finding(unread!("server", "the head is not HTTP/1: invalid HTTP version; its sender is broken, or speaks another protocol")),
    // A server that gives up an idle connection may say so.
    http("a_response_that_nobody_asked_for", &[call("GET /1 200 ended", b"", b"hello")], |wire| {
        wire.exchange(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n", OK)?;
        wire.answers(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
        wire.server_ends()
    })
    .finding(unread!("server", "bytes that answer no request"))
    .ending("server: closed by the server"),
    http(
        "a_switch_that_nobody_asked_for",
        &[call(
            "GET /1 - abandoned (from the server: the protocol was switched (101) without a request for it)",
            b"",
            b"",
        )],
        |wire| {
            wire.exchange(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n")?;
            wire.asks(b"x")?;
            wire.answers(b"y")
        },
    )
    .finding(unread!("server", "the protocol was switched (101) without a request for it")),
    // What there is of the head waits for the rest, and goes on when the server has spoken.
    http("the_server_gives_up_a_head_that_does_not_end", &[call("GET /1 200 ended", b"", b"hello")], |wire| {
        wire.exchange(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n", OK)?;
        wire.says(b"GET /2 HTTP/1.1\r\nhost: a\r\nx-slow")?;
        wire.answers(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
        wire.server_hears()?;
        wire.server_ends()
    })
    .finding(unread!("server", "bytes that answer no request"))
    .ending("server: closed by the server"),
    http("the_client_ends_within_its_head", &[], |wire| {
        wire.says(b"GET /1 HTTP/1.1\r\nhost: a\r\nx-cut")?;
        wire.client_ends()?;
        wire.answers(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    })
    .finding(unread!("client", "the sender ended within a message")),
    http("the_server_ends_within_its_head", &[call("GET /1 - abandoned (from the server: the sender ended within a message)", b"", b"")], |wire| {
        wire.asks(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n")?;
        wire.server.send(b"HTTP/1.1 200 OK\r\ncontent-le")?;
        wire.server_ends()
    })
    .finding(unread!("server", "the sender ended within a message"))
    .ending("server: closed by the server"),
    http("a_head_without_an_end", &[], |wire| {
        let field = format!("x: {}\r\n", "y".repeat(64 * 1024));
        wire.asks(format!("GET /1 HTTP/1.1\r\n{}", field.repeat(17)).as_bytes())?;
        wire.answers(b"HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n")
    })
    .finding(unread!("client", "the head is over 1048576 bytes; send less metadata or raise limits.header_list_bytes_max")),
    http("http_09", &[], |wire| {
        wire.exchange(b"GET /\r\n", b"<p>no head at all</p>")?;
        wire.server_ends()
    })
    .finding(&["opaque: the client's first bytes are a line that names no version of HTTP/1"])
    .ending("server: closed by the server"),
    http("http_2_by_its_request_line", &[], |wire| wire.exchange(b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", OK))
        .finding(&["opaque: the client's first bytes are a line that names no version of HTTP/1"]),
];
