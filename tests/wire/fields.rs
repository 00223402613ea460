//! Cases of header fields: how a block is encoded, what it holds, and in which shape a response answers.
//!
//! A block that decodes but breaks HTTP/2's rules is forwarded: its receiver decides, and answers here as a real one
//! would (RST_STREAM PROTOCOL_ERROR). Blocks that do not decode are in `refusals.rs`.

use crate::driver::Step;
use crate::frames::{code, data, flag, frame, goaway, headers, kind, rst_stream, setting};
use crate::hpack::{NEWEST, at, huffman, indexed, int, keep, literal, literal_at, never, string};
use crate::script::{Case, Wire, answer, message, request_for, response, trailers};

pub(crate) const CASES: &[Case] = &[
    Case { name: "trailers_only", script: trailers_only },
    Case { name: "trailers_only_as_headers_and_empty_data", script: headers_and_empty_data },
    Case { name: "informational", script: informational },
    Case { name: "expect_100_continue", script: expect_100_continue },
    Case { name: "odd_authority", script: odd_authority },
    Case { name: "host_beside_authority", script: host_beside_authority },
    Case { name: "odd_pseudo_headers", script: odd_pseudo_headers },
    Case { name: "malformed_names_and_values", script: malformed_names_and_values },
    Case { name: "malformed_responses", script: malformed_responses },
    Case { name: "connection_specific_fields", script: connection_specific_fields },
    Case { name: "content_length_that_lies", script: content_length_that_lies },
    Case { name: "values_of_high_bytes", script: values_of_high_bytes },
    Case { name: "metadata_order_and_duplicates", script: metadata_order_and_duplicates },
    Case { name: "binary_metadata", script: binary_metadata },
    Case { name: "encodings_of_one_field", script: encodings_of_one_field },
    Case { name: "empty_blocks", script: empty_blocks },
    Case { name: "request_trailers", script: request_trailers },
    Case { name: "connect_requests", script: connect_requests },
    Case { name: "push_promise", script: push_promise },
    Case { name: "push_promise_of_wrong_streams", script: push_promise_of_wrong_streams },
];

fn trailers_only(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::END_STREAM, &message(b"")))?;
    let block = [response(), literal("grpc-status", "12"), literal("grpc-message", "n%C3%A9ant")].concat();
    wire.server_sends(&headers(1, flag::END_STREAM, &block))
}

/// What some proxies make of trailers-only. A relay must bring each as it is.
fn headers_and_empty_data(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::END_STREAM, &message(b"")))?;
    wire.server_sends(&headers(1, flag::NONE, &[response(), literal("grpc-status", "5")].concat()))?;
    wire.server_sends(&data(1, flag::END_STREAM, b""))
}

fn informational(wire: &mut Wire) -> Step {
    wire.hello()?;
    for (stream, codes) in [(1, &["100"][..]), (3, &["103"]), (5, &["100", "102", "103", "103", "199"])] {
        wire.call(stream)?;
        for code in codes {
            let block = [literal_at(at::STATUS, code), literal("link", "</style.css>; rel=preload")].concat();
            wire.server_sends(&headers(stream, flag::NONE, &block))?;
        }
        wire.client_sends(&data(stream, flag::END_STREAM, &message(b"")))?;
        wire.server_sends(&answer(stream))?;
    }
    Ok(())
}

fn expect_100_continue(wire: &mut Wire) -> Step {
    wire.hello()?;
    let block = [wire.request(), literal("expect", "100-continue")].concat();
    wire.client_sends(&headers(1, flag::NONE, &block))?;
    wire.server_sends(&headers(1, flag::NONE, &literal_at(at::STATUS, "100")))?;
    wire.client_sends(&data(1, flag::END_STREAM, &message(b"only now")))?;
    wire.server_sends(&answer(1))?;
    wire.client_sends(&headers(3, flag::NONE, &block))?;
    wire.server_sends(&headers(3, flag::END_STREAM, &literal_at(at::STATUS, "417")))?;
    wire.client_sends(&rst_stream(3, code::CANCEL))
}

fn odd_authority(wire: &mut Wire) -> Step {
    let odd: [&[u8]; 9] = [
        b"",
        b"extension/x y",
        b"user:secret@wire.test",
        b"w\xc3\xafre.test",
        b"\xff\xfe",
        b"wire.test:99999",
        b"[::1",
        b"a,b",
        b"/unix/socket",
    ];
    wire.hello()?;
    let path = path_of(wire);
    let bare = [indexed(at::POST), indexed(at::HTTP), path.clone()].concat();
    wire.client_sends(&headers(1, flag::END_STREAM, &bare))?;
    wire.server_sends(&answer(1))?;
    for (stream, authority) in (3..).step_by(2).zip(odd) {
        let block = [&bare[..], &literal_at(at::AUTHORITY, authority)].concat();
        wire.client_sends(&headers(stream, flag::END_STREAM, &block))?;
        wire.server_sends(&answer(stream))?;
    }
    Ok(())
}

fn host_beside_authority(wire: &mut Wire) -> Step {
    wire.hello()?;
    let path = path_of(wire);
    let start = [indexed(at::POST), indexed(at::HTTP), path].concat();
    let blocks = [
        [literal_at(at::AUTHORITY, "wire.test"), literal("host", "wire.test")].concat(),
        [literal_at(at::AUTHORITY, "wire.test"), literal("host", "other.test")].concat(),
        [literal("host", "wire.test"), literal("host", "second.test")].concat(),
        literal("host", ""),
    ];
    for (stream, block) in (1..).step_by(2).zip(blocks) {
        wire.client_sends(&headers(stream, flag::END_STREAM, &[&start[..], &block].concat()))?;
        wire.server_sends(&answer(stream))?;
    }
    Ok(())
}

fn odd_pseudo_headers(wire: &mut Wire) -> Step {
    let (method, scheme, path) = (indexed(at::POST), indexed(at::HTTP), path_of(wire));
    let blocks = [
        ("no scheme", [&method[..], &path].concat()),
        ("no path", [&method[..], &scheme].concat()),
        ("no method", [&scheme[..], &path].concat()),
        ("empty path", [&method[..], &scheme, &literal_at(at::PATH, "")].concat()),
        ("odd path", [&method[..], &scheme, &literal_at(at::PATH, "no slash #?\x7f")].concat()),
        ("asterisk", [&literal(":method", "OPTIONS")[..], &scheme, &literal_at(at::PATH, "*")].concat()),
        ("scheme of another kind", [&method[..], &literal(":scheme", "coap+tcp"), &path].concat()),
        ("scheme twice", [&method[..], &scheme, &scheme, &path].concat()),
        ("path twice", [&method[..], &scheme, &path, &path].concat()),
        ("method twice", [&method[..], &indexed(at::GET), &scheme, &path].concat()),
        ("after a field", [&method[..], &scheme, &literal("te", "trailers"), &path].concat()),
        ("unknown", [&method[..], &scheme, &path, &literal(":version", "2")].concat()),
        ("of a response", [&method[..], &scheme, &path, &indexed(at::STATUS)].concat()),
        ("lower-case method", [&literal(":method", "p\x00st")[..], &scheme, &path].concat()),
    ];
    wire.hello()?;
    each_refused(wire, &blocks)
}

fn malformed_names_and_values(wire: &mut Wire) -> Step {
    let request = wire.request();
    let fields: [(&str, &[u8], &[u8]); 12] = [
        ("upper case", b"X-Upper", b"v"),
        ("empty name", b"", b"v"),
        ("space in name", b"x y", b"v"),
        ("colon in name", b"x:y", b"v"),
        ("high byte in name", b"x\xe9", b"v"),
        ("line feed in name", b"x\ny", b"v"),
        ("line feed in value", b"x-value", b"a\nb"),
        ("carriage return in value", b"x-value", b"a\rb"),
        ("NUL in value", b"x-value", b"a\0b"),
        ("space before value", b"x-value", b" v"),
        ("tab behind value", b"x-value", b"v\t"),
        ("empty value", b"x-value", b""),
    ];
    let blocks = fields.map(|(why, name, value)| (why, [&request[..], &literal(name, value)].concat()));
    wire.hello()?;
    each_refused(wire, &blocks)
}

fn malformed_responses(wire: &mut Wire) -> Step {
    let blocks = [
        literal_at(at::CONTENT_TYPE, "application/grpc"),
        [indexed(at::STATUS), indexed(at::STATUS)].concat(),
        [response(), indexed(at::STATUS)].concat(),
        literal_at(at::STATUS, "20"),
        literal_at(at::STATUS, "2000"),
        literal_at(at::STATUS, "ok"),
        [response(), literal("X-Upper", "v")].concat(),
        [response(), literal("connection", "close")].concat(),
        [indexed(at::STATUS), indexed(at::POST)].concat(),
    ];
    wire.hello()?;
    for (stream, block) in (1..).step_by(2).zip(blocks) {
        wire.call(stream)?;
        wire.server_sends(&headers(stream, flag::NONE, &block))?;
        wire.client_sends(&rst_stream(stream, code::PROTOCOL_ERROR))?;
    }
    // Trailers with a pseudo-header, trailers without END_STREAM, and a second block of trailers.
    wire.call(101)?;
    wire.server_sends(&headers(101, flag::NONE, &response()))?;
    wire.server_sends(&headers(101, flag::NONE, &trailers()))?;
    wire.server_sends(&headers(101, flag::END_STREAM, &[indexed(at::STATUS), trailers()].concat()))?;
    wire.server_sends(&headers(101, flag::END_STREAM, &trailers()))?;
    wire.client_sends(&rst_stream(101, code::PROTOCOL_ERROR))
}

fn connection_specific_fields(wire: &mut Wire) -> Step {
    let request = wire.request();
    let fields = [
        ("connection", "keep-alive"),
        ("connection", "te"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", ""),
    ];
    let blocks = fields.map(|(name, value)| (name, [&request[..], &literal(name, value)].concat()));
    wire.hello()?;
    each_refused(wire, &blocks)
}

fn content_length_that_lies(wire: &mut Wire) -> Step {
    wire.hello()?;
    let request = wire.request();
    for (stream, length) in [(1, "3"), (3, "300"), (5, "-1"), (7, "a lot")] {
        let block = [&request[..], &literal("content-length", length)].concat();
        wire.client_sends(&headers(stream, flag::NONE, &block))?;
        wire.client_sends(&data(stream, flag::END_STREAM, &message(b"nine bytes")))?;
        wire.server_sends(&headers(
            stream,
            flag::NONE,
            &[&response()[..], &literal("content-length", length)].concat(),
        ))?;
        wire.server_sends(&data(stream, flag::END_STREAM, &message(b"nine bytes")))?;
    }
    Ok(())
}

fn values_of_high_bytes(wire: &mut Wire) -> Step {
    wire.hello()?;
    let high: Vec<u8> = (0x80..=0xff).collect();
    let visible: Vec<u8> = (0x20..=0x7e).collect();
    let fields =
        [literal("x-high", &high), literal("x-visible", &visible), literal("x-tab", "a\tb")].concat();
    wire.client_sends(&headers(1, flag::END_STREAM, &[wire.request(), fields.clone()].concat()))?;
    wire.server_sends(&headers(1, flag::NONE, &[response(), fields.clone()].concat()))?;
    let status = [trailers(), literal("grpc-message", "caf\u{e9} \u{2615} raw UTF-8"), fields].concat();
    wire.server_sends(&headers(1, flag::END_STREAM, &status))
}

fn metadata_order_and_duplicates(wire: &mut Wire) -> Step {
    wire.hello()?;
    let order = [
        ("x-a", "1"),
        ("x-b", "1"),
        ("x-a", "2"),
        ("x-a", "1"),
        ("x-b", ""),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ];
    let fields: Vec<u8> = order.iter().flat_map(|(name, value)| literal(name, value)).collect();
    wire.client_sends(&headers(1, flag::END_STREAM, &[wire.request(), fields.clone()].concat()))?;
    wire.server_sends(&headers(1, flag::NONE, &[response(), fields.clone()].concat()))?;
    let twice = [trailers(), literal("grpc-status", "13"), fields].concat();
    wire.server_sends(&headers(1, flag::END_STREAM, &twice))
}

fn binary_metadata(wire: &mut Wire) -> Step {
    wire.hello()?;
    let values = ["AAEC/w", "AAEC/w==", "AAEC_w", "", "AAEC,/w==", "not base64 !", "AA=EC"];
    let fields: Vec<u8> = values.iter().flat_map(|value| literal("x-trace-bin", value)).collect();
    wire.client_sends(&headers(1, flag::END_STREAM, &[wire.request(), fields.clone()].concat()))?;
    wire.server_sends(&headers(1, flag::NONE, &[response(), fields.clone()].concat()))?;
    let details = literal("grpc-status-details-bin", "CAUSB25lYW50");
    wire.server_sends(&headers(1, flag::END_STREAM, &[trailers(), details, fields].concat()))
}

/// One field in every representation and with every encoding of its strings, minimal and not.
fn encodings_of_one_field(wire: &mut Wire) -> Step {
    wire.hello()?;
    let plain = string("x-encoded");
    let long_integer =
        [&[0x00][..], &int(7, 0, 9), b"x-encoded", &[0x7f, 0x80, 0x80, 0x00], &[b'v'; 127]].concat();
    let representations = [
        never("x-encoded", "secret"),
        literal("x-encoded", "v"),
        keep("x-encoded", "v"),
        indexed(NEWEST),
        literal_at(NEWEST, "by dynamic name"),
        [int(4, 0x10, NEWEST), string("never, by dynamic name")].concat(),
        [vec![0x40], huffman("x-huffman"), huffman("both \u{e9}\x7f~|")].concat(),
        [vec![0x00], plain.clone(), huffman("value alone")].concat(),
        [vec![0x00], huffman("x-name-alone"), string("v")].concat(),
        [vec![0x00], plain, huffman("")].concat(),
        long_integer,
    ];
    for (stream, field) in (1..).step_by(2).zip(&representations) {
        wire.client_sends(&headers(stream, flag::END_STREAM, &[&wire.request()[..], field].concat()))?;
        wire.server_sends(&headers(
            stream,
            flag::END_STREAM,
            &[&response()[..], field, &trailers()].concat(),
        ))?;
    }
    Ok(())
}

/// HEADERS without any field: malformed as a request or a response, allowed as trailers.
fn empty_blocks(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.client_sends(&headers(1, flag::END_STREAM, b""))?;
    wire.server_sends(&rst_stream(1, code::PROTOCOL_ERROR))?;
    wire.call(3)?;
    wire.client_sends(&headers(3, flag::END_STREAM, b""))?;
    wire.server_sends(&headers(3, flag::NONE, b""))?;
    wire.server_sends(&headers(3, flag::NONE, &response()))?;
    wire.server_sends(&headers(3, flag::END_STREAM, b""))
}

fn request_trailers(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::NONE, &message(b"body")))?;
    wire.client_sends(&headers(1, flag::END_STREAM, &literal("x-checksum", "93")))?;
    wire.server_sends(&answer(1))
}

/// CONNECT (RFC 9113 section 8.5) and extended CONNECT (RFC 8441): no gRPC, and forwarded as HTTP.
fn connect_requests(wire: &mut Wire) -> Step {
    wire.hello_with(&[], &[(8, 1)])?;
    let method = literal(":method", "CONNECT");
    let plain = [&method[..], &literal_at(at::AUTHORITY, "wire.test:443")].concat();
    wire.client_sends(&headers(1, flag::NONE, &plain))?;
    let extended = [&method[..], &literal(":protocol", "websocket"), &request_for("/chat")[1..]].concat();
    wire.client_sends(&headers(3, flag::NONE, &extended))?;
    for stream in [1, 3] {
        wire.server_sends(&headers(stream, flag::NONE, &indexed(at::STATUS)))?;
        wire.client_sends(&data(stream, flag::NONE, b"\x81\x02hi"))?;
        wire.server_sends(&data(stream, flag::NONE, b"\x81\x02ho"))?;
        wire.server_sends(&data(stream, flag::END_STREAM, b""))?;
        wire.client_sends(&data(stream, flag::END_STREAM, b""))?;
    }
    Ok(())
}

fn push_promise(wire: &mut Wire) -> Step {
    wire.hello_with(&[(setting::ENABLE_PUSH, 1)], &[])?;
    wire.call(1)?;
    let pseudo = [indexed(at::GET), indexed(at::HTTP), literal_at(at::PATH, "/pushed")].concat();
    let block = [pseudo, literal_at(at::AUTHORITY, "wire.test"), keep("x-pushed", "1")].concat();
    let promise = |promised: u32, block: &[u8]| [&promised.to_be_bytes()[..], block].concat();
    wire.server_sends(&frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &promise(2, &block)))?;
    let split = [
        frame(kind::PUSH_PROMISE, flag::PADDED, 1, &padded_promise(4, &block[..3])),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, &block[3..]),
    ];
    wire.server_sends(&split.concat())?;
    wire.client_sends(&rst_stream(4, code::REFUSED_STREAM))?;
    wire.server_sends(&answer(1))?;
    // The dynamic table counts the promises' fields as well.
    wire.server_sends(&headers(2, flag::NONE, &[response(), indexed(NEWEST)].concat()))?;
    wire.server_sends(&data(2, flag::END_STREAM, b"pushed"))
}

/// Promises that only an error can follow: of a stream that is open, on one that is not, and from a client.
fn push_promise_of_wrong_streams(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    let promise = |promised: u32| [&promised.to_be_bytes()[..], &request_for("/wire.Case/wrong")].concat();
    wire.server_sends(&frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &promise(1)))?;
    wire.server_sends(&frame(kind::PUSH_PROMISE, flag::END_HEADERS, 77, &promise(2)))?;
    wire.client_sends(&frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &promise(4)))?;
    wire.client_sends(&goaway(0, code::PROTOCOL_ERROR, b"not to be promised"))?;
    wire.server_sends(&answer(1))
}

fn padded_promise(promised: u32, block: &[u8]) -> Vec<u8> {
    [&[2][..], &promised.to_be_bytes(), block, &[0, 0]].concat()
}

fn path_of(wire: &Wire) -> Vec<u8> {
    literal_at(at::PATH, format!("/wire.Case/{}", wire.name()))
}

/// Sends each block as a request of its own; the server resets each as malformed.
fn each_refused(wire: &mut Wire, blocks: &[(&str, Vec<u8>)]) -> Step {
    for (stream, (_, block)) in (1..).step_by(2).zip(blocks) {
        wire.client_sends(&headers(stream, flag::END_STREAM, block))?;
        wire.server_sends(&rst_stream(stream, code::PROTOCOL_ERROR))?;
    }
    Ok(())
}
