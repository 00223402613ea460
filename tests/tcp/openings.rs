//! Who speaks first, and in what: server-first protocols, unknown ones, beginnings of known ones that come to nothing, beginnings that come byte by byte.
//!
//! The sidecar of these cases would ask an undecided connection for a minute (`detect.timeout_ms`), three times the longest wait of a case: whatever waits for that fails.

use crate::duet::{BY_SERVER, Case, call, http};

const SERVER_FIRST: &[&str] = &["opaque: the server spoke first"];
const UNKNOWN: &[&str] = &[
    "opaque: the client's first bytes are no request line of HTTP/1, no preface of HTTP/2 and no ClientHello of TLS",
];
const NO_VERSION: &[&str] = &["opaque: the client's first bytes are a line that names no version of HTTP/1"];
const CLIENT_ENDED: &[&str] = &["opaque: the client ended before a protocol showed"];
const SERVER_ENDED: &[&str] = &["opaque: the server ended before a protocol showed"];

pub(crate) const CASES: &[Case] = &[
    http("smtp_greets_first", &[], |wire| {
        wire.answers(b"220 mail.example ESMTP\r\n")?;
        wire.exchange(b"EHLO a.example\r\n", b"250-mail.example\r\n250 STARTTLS\r\n")?;
        wire.exchange(b"QUIT\r\n", b"221 bye\r\n")?;
        wire.server_ends()
    })
    .finding(SERVER_FIRST)
    .ending(BY_SERVER),
    http("mysql_greets_first", &[], |wire| {
        wire.answers(b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0")?;
        wire.exchange(b"\x20\0\0\x01\x85", b"\x07\0\0\x02\0\0\0\x02\0\0\0")
    })
    .finding(SERVER_FIRST),
    // Its first bytes are those of a frame of SETTINGS, as far as they go.
    http("a_greeting_that_begins_like_settings", &[], |wire| {
        wire.server.accept()?;
        wire.answers_in_pieces(b"\0\0\x05\x04\0\0\0\0\0hello", 1)?;
        wire.exchange(b"a", b"b")
    })
    .finding(SERVER_FIRST),
    http("the_server_says_one_byte_and_then_the_client_asks_http", &[], |wire| {
        wire.answers(b"+")?;
        wire.exchange(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    })
    .finding(SERVER_FIRST),
    http("redis", &[], |wire| {
        wire.exchange(b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n")?;
        wire.exchange(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", b"$-1\r\n")
    })
    .finding(NO_VERSION),
    // A word of letters could begin a request line, until its line ends.
    http("inline_commands", &[], |wire| wire.exchange(b"PING\r\n", b"+PONG\r\n")).finding(NO_VERSION),
    http("postgres", &[], |wire| wire.exchange(b"\0\0\0\x08\x04\xd2\x16\x2f", b"N")).finding(UNKNOWN),
    http("zeros", &[], |wire| wire.exchange(&[0; 1000], &[0; 1000])).finding(UNKNOWN),
    http("ssh_greets_both_ways", &[], |wire| {
        wire.answers(b"SSH-2.0-OpenSSH_9.2\r\n")?;
        wire.asks(b"SSH-2.0-Go\r\n")
    })
    .finding(SERVER_FIRST),
    http("nobody_says_anything", &[], |wire| {
        wire.client_ends()?;
        wire.server_ends()
    })
    .finding(CLIENT_ENDED),
    http("the_server_ends_without_a_word", &[], |wire| {
        wire.server.accept()?;
        wire.server_ends()?;
        wire.client_ends()
    })
    .finding(SERVER_ENDED)
    .ending(BY_SERVER),
    http("the_server_ends_without_a_word_and_the_client_goes_on", &[], |wire| {
        wire.server.accept()?;
        wire.server_ends()?;
        wire.asks(b"anybody there?")
    })
    .finding(SERVER_ENDED)
    .ending(BY_SERVER),
    http("the_client_ends_within_a_beginning", &[], |wire| {
        wire.says(b"GE")?;
        wire.client_ends()?;
        wire.answers(b"what?")
    })
    .finding(CLIENT_ENDED),
    http("the_client_ends_without_a_word_and_the_server_speaks", &[], |wire| {
        wire.client_ends()?;
        wire.answers(b"220 still here\r\n")
    })
    .finding(CLIENT_ENDED),
    http("http1_byte_by_byte", &[call("GET /slow 200 ended", b"", b"")], |wire| {
        wire.asks_in_pieces(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n", 1)?;
        wire.answers_in_pieces(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 1)
    }),
    http("http2_byte_by_byte", &[], |wire| {
        wire.asks_in_pieces(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 1)?;
        wire.answers_in_pieces(b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0", 1)
    })
    .finding(&["http2: the client's preface"]),
    http("http2_whose_server_speaks_first", &[], |wire| {
        wire.answers(b"\0\0\0\x04\0\0\0\0\0")?;
        wire.asks(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
    })
    .finding(&["http2: the server's SETTINGS"]),
    http("postgres_byte_by_byte", &[], |wire| wire.asks_in_pieces(b"\0\0\0\x08\x04\xd2\x16\x2f", 1))
        .finding(UNKNOWN),
    http("a_request_line_that_turns_out_to_be_none_byte_by_byte", &[], |wire| {
        wire.asks_in_pieces(b"STATS items\r\n", 1)?;
        wire.answers_in_pieces(b"END\r\n", 1)
    })
    .finding(NO_VERSION),
    // The preface up to its last byte.
    http("a_preface_that_turns_out_to_be_none", &[], |wire| {
        wire.asks(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r?")?;
        wire.answers(b"!")
    })
    .finding(NO_VERSION),
    http("tls_that_turns_out_to_be_none", &[], |wire| {
        wire.asks_in_pieces(b"\x16\x03\x01\0\x05\x02\0\0\x01\0", 1)?;
        wire.answers(b"!")
    })
    .finding(UNKNOWN),
    http("an_alert_for_an_answer", &[], |wire| {
        wire.exchange(b"\x15\x03\x01\0\x02\x02\x28", b"\x15\x03\x01\0\x02\x02\x28")
    })
    .finding(UNKNOWN),
];
