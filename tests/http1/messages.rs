//! Messages and their framing: where bodies end, what has none, what comes before the final response, and who answers whom.

use crate::driver::Step;
use crate::duet::{BY_SERVER, Case, Wire, call, http};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

pub(crate) const CASES: &[Case] = &[
    http("request_without_a_body", &[call("GET /none 200 ended", b"", b"hello")], |wire| {
        wire.exchange(b"GET /none HTTP/1.1\r\nHost: a.example\r\n\r\n", OK)
    }),
    http(
        "request_body_with_content_length",
        &[call("POST /length 200 ended", b"question", b"hello")],
        |wire| {
            wire.exchange(
                b"POST /length HTTP/1.1\r\nHost: a.example\r\nContent-Length: 8\r\n\r\nquestion",
                OK,
            )
        },
    ),
    http("request_body_chunked", &[call("POST /chunked 200 ended", b"question", b"hello")], |wire| {
        wire.exchange(
            b"POST /chunked HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nquest\r\n3\r\nion\r\n0\r\n\r\n",
            OK,
        )
    }),
    http("content_length_zero_is_preserved", &[call("POST /zero 200 ended", b"", b"")], |wire| {
        wire.exchange(
            b"POST /zero HTTP/1.1\r\nhost: a.example\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        )
    }),
    http("bodyless_post_gets_no_framing", &[call("POST /bodyless 200 ended", b"", b"hello")], |wire| {
        wire.exchange(b"POST /bodyless HTTP/1.1\r\nhost: a.example\r\n\r\n", OK)
    }),
    http(
        "chunked_both_ways_with_extensions_and_trailers",
        &[call("POST /trailers 200 ended", b"question", b"answer")],
        |wire| {
            wire.asks(b"POST /trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: Sum\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            wire.asks(
                b"00005;name=\"a;b\" ; flag\r\nquest\r\n3\r\nion\r\n0;last\r\nSum: 17\r\nsum: 18\r\n\r\n",
            )?;
            wire.answers(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\nTrailer: X\r\n\r\n6 ;e=1\r\nanswer\r\n",
            )?;
            wire.answers(b"000\r\nX: done\r\n\r\n")
        },
    ),
    http("chunks_cut_anywhere", &[call("PUT /cut 200 ended", b"question", b"answer")], |wire| {
        wire.asks_in_pieces(
            b"PUT /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;e\r\nquest\r\n3\r\nion\r\n0\r\nT: 1\r\n\r\n",
            1,
        )?;
        wire.answers_in_pieces(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nanswer\r\n0\r\n\r\n",
            1,
        )
    }),
    // More of them than are read at a time.
    http("a_body_of_very_many_chunks", &[call("PUT /many 200 ended", &[b'c'; 5_000], b"hello")], |wire| {
        let chunks = b"1\r\nc\r\n".repeat(5_000);
        wire.asks(
            &[
                b"PUT /many HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
                &chunks[..],
                b"0\r\n\r\n",
            ]
            .concat(),
        )?;
        wire.answers(OK)
    }),
    http(
        "keep_alive",
        &[
            call("GET /1 200 ended", b"", b"hello"),
            call("POST /2 201 ended", b"body", b""),
            call("GET /3 404 ended", b"", b"no"),
        ],
        |wire| {
            wire.exchange(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n", OK)?;
            wire.exchange(
                b"POST /2 HTTP/1.1\r\nhost: b\r\ncontent-length: 4\r\n\r\nbody",
                b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n",
            )?;
            wire.exchange(
                b"GET /3 HTTP/1.1\r\nhost: c\r\n\r\n",
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno",
            )
        },
    ),
    http(
        "pipelined_at_once_and_answered_at_once",
        &[
            call("GET /1 200 ended", b"", b"hello"),
            call("POST /2 200 ended", b"abc", b"hello"),
            call("GET /3 204 ended", b"", b""),
        ],
        |wire| {
            let post = b"POST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
            wire.asks(
                &[&b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n"[..], post, b"GET /3 HTTP/1.1\r\nhost: a\r\n\r\n"]
                    .concat(),
            )?;
            wire.answers(&[OK, OK, b"HTTP/1.1 204 No Content\r\n\r\n"].concat())
        },
    ),
    http(
        "pipelined_and_answered_one_by_one",
        &[call("GET /1 200 ended", b"", b"hello"), call("GET /2 200 ended", b"", b"hello")],
        |wire| {
            wire.asks(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n")?;
            wire.answers(OK)?;
            wire.answers(OK)
        },
    ),
    http(
        "head_has_no_body_whatever_its_fields_say",
        &[
            call("HEAD /length 200 ended", b"", b""),
            call("HEAD /chunked 200 ended", b"", b""),
            call("GET /next 200 ended", b"", b"hello"),
        ],
        |wire| {
            wire.exchange(
                b"HEAD /length HTTP/1.1\r\nhost: a\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n",
            )?;
            wire.exchange(
                b"HEAD /chunked HTTP/1.1\r\nhost: a\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            )?;
            wire.exchange(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n", OK)
        },
    ),
    http(
        "bodyless_statuses",
        &[
            call("DELETE /204 204 ended", b"", b""),
            call("GET /304 304 ended", b"", b""),
            call("GET /next 200 ended", b"", b"hello"),
        ],
        |wire| {
            wire.exchange(
                b"DELETE /204 HTTP/1.1\r\nhost: a\r\n\r\n",
                b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n",
            )?;
            wire.exchange(
                b"GET /304 HTTP/1.1\r\nhost: a\r\nif-none-match: \"x\"\r\n\r\n",
                b"HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 1234\r\n\r\n",
            )?;
            wire.exchange(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n", OK)
        },
    ),
    http("response_to_the_end_of_the_connection", &[call("GET /eof 200 ended", b"", b"all of it")], |wire| {
        wire.asks(b"GET /eof HTTP/1.1\r\nhost: a\r\n\r\n")?;
        wire.answers(b"HTTP/1.1 200 OK\r\n\r\nall ")?;
        wire.answers(b"of it")?;
        wire.server_ends()
    })
    .ending(BY_SERVER),
    http("empty_response_to_the_end_of_the_connection", &[call("GET /eof 200 ended", b"", b"")], |wire| {
        wire.exchange(
            b"GET /eof HTTP/1.1\r\nhost: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        )?;
        wire.server_ends()
    })
    .ending(BY_SERVER),
    http(
        "response_with_another_coding_runs_to_the_end",
        &[call("GET /gzip 200 ended", b"", b"\x1f\x8bzip")],
        |wire| {
            wire.exchange(
                b"GET /gzip HTTP/1.1\r\nhost: a\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n\x1f\x8bzip",
            )?;
            wire.server_ends()
        },
    )
    .ending(BY_SERVER),
    http("http10_with_host", &[call("GET /ten 200 ended", b"", b"bye")], |wire| {
        wire.exchange(
            b"GET /ten HTTP/1.0\r\nHost: transparency.test.svc.cluster.local\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nbye",
        )?;
        wire.server_ends()
    })
    .ending(BY_SERVER),
    http("http10_without_host", &[call("GET /ten 200 ended", b"", b"bye")], |wire| {
        wire.exchange(b"GET /ten HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nbye")?;
        wire.server_ends()
    })
    .ending(BY_SERVER),
    http(
        "http10_keep_alive",
        &[call("GET /1 200 ended", b"", b"one"), call("GET /2 200 ended", b"", b"two")],
        |wire| {
            wire.exchange(
                b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\none",
            )?;
            wire.exchange(
                b"GET /2 HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 3\r\n\r\ntwo",
            )
        },
    ),
    http("informational_responses", &[call("GET /hints 200 ended", b"", b"hello")], |wire| {
        wire.asks(b"GET /hints HTTP/1.1\r\nhost: a\r\n\r\n")?;
        wire.answers(b"HTTP/1.1 102 Processing\r\n\r\n")?;
        wire.answers(b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\n")?;
        wire.answers(b"HTTP/1.1 103 Early Hints\r\nLink: </t.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")?;
        wire.answers(OK)
    }),
    http("the_client_waits_for_100_continue", &[call("PUT /big 200 ended", b"question", b"hello")], |wire| {
        wire.asks(b"PUT /big HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 8\r\n\r\n")?;
        wire.answers(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        wire.exchange(b"question", OK)
    }),
    http("expect_without_100", &[call("PUT /big 200 ended", b"question", b"hello")], |wire| {
        wire.asks(b"PUT /big HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 8\r\n\r\n")?;
        wire.exchange(b"question", OK)
    }),
    http(
        "expect_refused_with_417_and_sent_all_the_same",
        &[call("PUT /big 417 ended", b"question", b""), call("GET /next 200 ended", b"", b"hello")],
        |wire| {
            wire.exchange(
                b"PUT /big HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 8\r\n\r\n",
                b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n",
            )?;
            wire.asks(b"question")?;
            wire.exchange(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n", OK)
        },
    ),
    http(
        "expect_refused_with_417_and_closed",
        &[call("PUT /big 417 ended", b"", b"").cut("from the client: the sender ended within a message")],
        |wire| {
            wire.exchange(
                b"PUT /big HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 8\r\n\r\n",
                b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            )?;
            wire.server_ends()?;
            wire.client_ends()
        },
    )
    .ending(BY_SERVER),
    http(
        "early_response_and_the_body_goes_on",
        &[call("POST /early 413 ended", b"a long body", b"too much")],
        |wire| {
            wire.asks(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\na lo")?;
            wire.answers(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 8\r\n\r\ntoo much")?;
            wire.asks(b"ng body")
        },
    ),
    http(
        "response_overtakes_a_chunked_request",
        &[call("POST /echo 200 ended", b"firstsecond", b"firstsecond")],
        |wire| {
            wire.asks(b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
            wire.answers(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
            wire.asks(b"6\r\nsecond\r\n")?;
            wire.answers(b"6\r\nsecond\r\n")?;
            wire.asks(b"0\r\n\r\n")?;
            wire.answers(b"0\r\n\r\n")
        },
    ),
    http(
        "absolute_uri_differs_from_host",
        &[call("GET http://b.example/x?y 200 ended", b"", b"hello")],
        |wire| wire.exchange(b"GET http://b.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n", OK),
    ),
    http("options_asterisk", &[call("OPTIONS * 200 ended", b"", b"")], |wire| {
        wire.exchange(
            b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nAllow: GET, HEAD\r\nContent-Length: 0\r\n\r\n",
        )
    }),
    http(
        "methods_and_targets_of_all_kinds",
        &[
            call("PROPFIND /dav/ 207 ended", b"<a/>", b"<b/>"),
            call("M-SEARCH * 200 ended", b"", b"hello"),
            call("get /%2e%2E/a//b;c=d?e=f&g#h 200 ended", b"", b"hello"),
            call("QUERY /caf\u{e9}?\"<>\\^`{|} 200 ended", b"q", b"hello"),
        ],
        |wire| {
            wire.exchange(
                b"PROPFIND /dav/ HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n<a/>",
                b"HTTP/1.1 207 Multi-Status\r\ncontent-length: 4\r\n\r\n<b/>",
            )?;
            wire.exchange(b"M-SEARCH * HTTP/1.1\r\nhost: a\r\n\r\n", OK)?;
            wire.exchange(b"get /%2e%2E/a//b;c=d?e=f&g#h HTTP/1.1\r\nhost: a\r\n\r\n", OK)?;
            let query = "QUERY /caf\u{e9}?\"<>\\^`{|} HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nq";
            wire.exchange(query.as_bytes(), OK)
        },
    ),
    http("multipart_ranges", &[call("GET /range 206 ended", b"", b"--B\r\n\r\na\r\n--B--\r\n")], |wire| {
        wire.exchange(
            b"GET /range HTTP/1.1\r\nhost: a\r\nrange: bytes=0-0,-1\r\n\r\n",
            b"HTTP/1.1 206 Partial Content\r\ncontent-type: multipart/byteranges; boundary=B\r\ncontent-length: 17\r\n\r\n--B\r\n\r\na\r\n--B--\r\n",
        )
    }),
    http(
        "grpc_web_binary",
        &[call(
            "grpc_web POST /a.B/C 0 ended",
            b"\0\0\0\0\x03abc",
            b"\0\0\0\0\x02de\x80\0\0\0\x10grpc-status: 0\r\n",
        )],
        |wire| {
            wire.asks(b"POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web+proto\r\ncontent-length: 8\r\n\r\n\0\0\0\0\x03abc")?;
            wire.answers(b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web+proto\r\ntransfer-encoding: chunked\r\n\r\n7\r\n\0\0\0\0\x02de\r\n15\r\n\x80\0\0\0\x10grpc-status: 0\r\n\r\n0\r\n\r\n")
        },
    ),
    http(
        "grpc_web_text",
        &[call("POST /a.B/C 200 ended", b"AAAAAANhYmM=", b"AAAAAAJkZQ==gAAAABBncnBjLXN0YXR1czogMA0K")],
        grpc_web_text,
    ),
];

fn grpc_web_text(wire: &mut Wire) -> Step {
    wire.asks(b"POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web-text\r\ncontent-length: 12\r\n\r\nAAAAAANhYmM=")?;
    wire.answers(b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web-text\r\ncontent-length: 40\r\n\r\nAAAAAAJkZQ==gAAAABBncnBjLXN0YXR1czogMA0K")
}
