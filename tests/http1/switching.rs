//! Where HTTP ends on its connection: upgrades, WebSocket, h2c, CONNECT. What follows is anybody's, byte for byte, and recorded as opaque.

use crate::duet::{Case, call, http};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
const UPGRADE: &[u8] = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const WEBSOCKET: &[&str] = &["http1: a request line", "opaque: upgraded to websocket by request 1"];
const H2C: &[u8] = b"GET /h2c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
const CONNECT: &[u8] =
    b"CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\nProxy-Connection: keep-alive\r\n\r\n";
const TUNNEL: &[&str] = &["http1: a request line", "opaque: tunnel by CONNECT, request 1"];
const TUNNELLED: &[crate::duet::Call] = &[call("CONNECT b.example:443 200 ended", b"", b"")];
const CHAT: &[crate::duet::Call] = &[call("GET /chat 101 ended", b"", b"")];

pub(crate) const CASES: &[Case] = &[
    http("websocket", CHAT, |wire| {
        wire.exchange(UPGRADE, SWITCHED)?;
        wire.asks(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58")?;
        wire.answers(b"\x81\x05Hello")?;
        wire.answers(b"\x89\0GET / HTTP/1.1\r\n\r\n")?;
        wire.asks(b"HTTP/1.1 200 OK\r\n\r\n")
    })
    .finding(WEBSOCKET),
    http("websocket_whose_server_speaks_with_its_101", CHAT, |wire| {
        wire.asks(UPGRADE)?;
        wire.answers(&[SWITCHED, b"\x81\x05Hello"].concat())?;
        wire.asks(b"\x88\x80\0\0\0\0")
    })
    .finding(WEBSOCKET),
    // The bytes wait at attestry, since nobody knows yet what they are; the server has them as soon as it has decided.
    http("websocket_whose_client_speaks_before_the_101", CHAT, |wire| {
        wire.asks(UPGRADE)?;
        wire.says(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58")?;
        wire.answers(SWITCHED)?;
        wire.server_hears()?;
        wire.answers(b"\x81\x05Hello")
    })
    .finding(WEBSOCKET),
    http("websocket_whose_client_speaks_at_once_and_ends", CHAT, |wire| {
        wire.says(&[UPGRADE, b"\x88\x80\0\0\0\0"].concat())?;
        wire.server.bytes_waiting(UPGRADE.len())?;
        wire.answers(SWITCHED)?;
        wire.server_hears()?;
        wire.client_ends()?;
        wire.answers(b"\x88\0")
    })
    .finding(WEBSOCKET),
    http("websocket_behind_other_requests", &[call("GET /1 200 ended", b"", b"hello"), call("GET /chat 101 ended", b"", b"")], |wire| {
        wire.asks(&[b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n", UPGRADE].concat())?;
        wire.answers(OK)?;
        wire.answers(SWITCHED)?;
        wire.asks(b"\x81\x80\0\0\0\0")
    })
    .finding(&["http1: a request line", "opaque: upgraded to websocket by request 2"]),
    http("websocket_half_closed_each_way", CHAT, |wire| {
        wire.exchange(UPGRADE, SWITCHED)?;
        wire.asks(b"last words")?;
        wire.client_ends()?;
        wire.answers(b"and more of the server's")?;
        wire.server_ends()
    })
    .finding(WEBSOCKET),
    http("websocket_reset", CHAT, |wire| {
        wire.exchange(UPGRADE, SWITCHED)?;
        wire.answers(b"\x81\x05Hello")?;
        wire.server_aborts()
    })
    .finding(WEBSOCKET)
    .ending("server: connection reset by the server"),
    http("upgrade_refused", &[call("GET /chat 200 ended", b"", b"hello"), call("GET /next 200 ended", b"", b"hello")], |wire| {
        wire.exchange(UPGRADE, OK)?;
        wire.exchange(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n", OK)
    }),
    http("upgrade_refused_and_asked_for_again", &[call("GET /chat 200 ended", b"", b"hello"), call("GET /chat 101 ended", b"", b"")], |wire| {
        wire.says(&[UPGRADE, UPGRADE, b"\x81\x80\0\0\0\0"].concat())?;
        wire.server.bytes_waiting(UPGRADE.len())?;
        wire.answers(OK)?;
        wire.server.bytes_waiting(2 * UPGRADE.len())?;
        wire.answers(SWITCHED)?;
        wire.server_hears()
    })
    .finding(&["http1: a request line", "opaque: upgraded to websocket by request 2"]),
    http("upgrade_refused_with_a_request_behind_it", &[call("GET /chat 426 ended", b"", b""), call("GET /next 200 ended", b"", b"hello")], |wire| {
        wire.asks(UPGRADE)?;
        wire.says(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n")?;
        wire.answers(b"HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n")?;
        wire.server_hears()?;
        wire.answers(OK)
    }),
    // Nobody can know any more whether HTTP goes on behind the request: what was said goes on, and that it was not read is said too.
    http("upgrade_and_the_end_at_once", CHAT, |wire| {
        wire.says(&[UPGRADE, b"\x88\x80\0\0\0\0"].concat())?;
        wire.client_ends()?;
        wire.answers(SWITCHED)?;
        wire.answers(b"\x88\0")
    })
    .finding(&[
        "http1: a request line",
        "opaque: from the client: the sender ended within a message",
        "opaque: upgraded to websocket by request 1",
    ]),
    http("upgrade_with_a_body", &[call("POST /up 101 ended", b"body", b"")], |wire| {
        wire.asks(b"POST /up HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: foo/2, bar\r\ncontent-length: 4\r\n\r\nbo")?;
        wire.asks(b"dy")?;
        wire.answers(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: foo/2\r\n\r\n")?;
        wire.answers(b"any")?;
        wire.asks(b"thing")
    })
    .finding(&["http1: a request line", "opaque: upgraded to foo/2 by request 1"]),
    http("switch_within_the_requests_body", &[call("POST /up 101 ended", b"body", b"")], |wire| {
        wire.exchange(
            b"POST /up HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: foo\r\ncontent-length: 4\r\n\r\nbo",
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\nany",
        )?;
        wire.asks(b"dything")?;
        wire.answers(b"more")
    })
    .finding(&["http1: a request line", "opaque: upgraded to foo by request 1"]),
    // linkerd strips it, and so never sees the 101.
    http("h2c_is_not_stripped", &[call("GET /h2c 101 ended", b"", b"")], |wire| {
        wire.exchange(H2C, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")?;
        wire.answers(b"\0\0\0\x04\0\0\0\0\0")?;
        wire.asks(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
        wire.answers(b"\0\0\0\x04\x01\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x88")
    })
    .finding(&["http1: a request line", "opaque: upgraded to h2c by request 1"]),
    http("h2c_ignored", &[call("GET /h2c 200 ended", b"", b"hello"), call("GET /next 200 ended", b"", b"hello")], |wire| {
        wire.exchange(H2C, OK)?;
        wire.exchange(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n", OK)
    }),
    http("connect", TUNNELLED, |wire| {
        wire.exchange(CONNECT, b"HTTP/1.1 200 Connection Established\r\n\r\n")?;
        wire.asks(b"\x16\x03\x01 anything")?;
        wire.answers(b"back")?;
        wire.client_ends()?;
        wire.answers(b"rest")
    })
    .finding(TUNNEL),
    http("connect_headers_stay", TUNNELLED, |wire| {
        wire.asks(CONNECT)?;
        wire.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nVia: 1.1 x\r\n\r\n")?;
        wire.answers(b"tunnelled, not chunked")?;
        wire.asks(b"as well")
    })
    .finding(TUNNEL),
    http("connect_whose_client_speaks_at_once", TUNNELLED, |wire| {
        wire.says(&[CONNECT, b"early"].concat())?;
        wire.server.bytes_waiting(CONNECT.len())?;
        wire.answers(b"HTTP/1.1 200 OK\r\n\r\n220 hello\r\n")?;
        wire.server_hears()?;
        wire.asks(b"late")
    })
    .finding(TUNNEL),
    // More than waits: it goes on before the answer, and the ledger says why nobody knows what it is.
    http("connect_whose_client_says_much_at_once", TUNNELLED, |wire| {
        wire.asks(&[CONNECT, &[0x16; 100_000]].concat())?;
        wire.answers(b"HTTP/1.1 200 OK\r\n\r\n220 hello\r\n")?;
        wire.asks(b"late")
    })
    .finding(&[
        "http1: a request line",
        "opaque: from the client: more than 65536 bytes behind a request for another protocol, before its answer",
        "opaque: tunnel by CONNECT, request 1",
    ]),
    http("connect_refused", &[call("CONNECT b.example:443 403 ended", b"", b"hello"), call("GET /next 200 ended", b"", b"hello")], |wire| {
        wire.exchange(CONNECT, b"HTTP/1.1 403 Forbidden\r\ncontent-length: 5\r\n\r\nhello")?;
        wire.exchange(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n", OK)
    }),
    http("connect_of_http10", &[call("CONNECT b:1 200 ended", b"", b"")], |wire| {
        wire.exchange(b"CONNECT b:1 HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 Connected\r\n\r\n")?;
        wire.asks(b"a")?;
        wire.answers(b"b")
    })
    .finding(TUNNEL),
    // Odd targets are the server's to judge.
    http("connect_bad_requests", &[call("CONNECT /path 400 ended", b"", b""), call("CONNECT http://b.example/ 400 ended", b"", b"")], |wire| {
        let refused = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        wire.exchange(b"CONNECT /path HTTP/1.1\r\nhost: a\r\n\r\n", refused)?;
        wire.exchange(b"CONNECT http://b.example/ HTTP/1.1\r\nhost: a\r\n\r\n", refused)
    }),
    http("tunnel_reset_by_the_client", TUNNELLED, |wire| {
        wire.exchange(CONNECT, b"HTTP/1.1 200 OK\r\n\r\n")?;
        wire.asks(b"x")?;
        wire.client_aborts()
    })
    .finding(TUNNEL)
    .ending("client: connection reset by the client"),
];
