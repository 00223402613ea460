//! Cases of frames that steer a connection or a stream: SETTINGS, PING, WINDOW_UPDATE, PRIORITY, GOAWAY, RST_STREAM.
//!
//! All of them are end to end through the relay, and in order with everything else of their direction.

use crate::driver::Step;
use crate::frames::{
    PREFACE, code, data, flag, frame, goaway, headers, kind, ping, rst_stream, setting, settings,
    settings_ack, window_update,
};
use crate::script::{Case, Wire, answer, message, response, trailers};

pub(crate) const CASES: &[Case] = &[
    Case { name: "ping_both_ways", script: ping_both_ways },
    Case { name: "ping_in_order_with_the_rest", script: ping_in_order },
    Case { name: "ping_of_16000", script: ping_flood },
    Case { name: "settings_of_every_kind", script: settings_of_every_kind },
    Case { name: "settings_unknown_and_repeated", script: settings_unknown_and_repeated },
    Case { name: "settings_with_forbidden_values", script: settings_with_forbidden_values },
    Case { name: "settings_never_acknowledged", script: settings_never_acknowledged },
    Case { name: "initial_window_size_changes", script: initial_window_size_changes },
    Case { name: "window_update_of_0", script: window_update_of_0 },
    Case { name: "window_update_past_its_maximum", script: window_update_past_its_maximum },
    Case { name: "more_data_than_the_window", script: more_data_than_the_window },
    Case { name: "priority_frames", script: priority_frames },
    Case { name: "goaway_graceful", script: goaway_graceful },
    Case { name: "goaway_with_debug_data_and_running_stream", script: goaway_with_running_stream },
    Case { name: "goaway_codes_of_the_server", script: goaway_codes_of_the_server },
    Case { name: "goaway_codes_of_the_client", script: goaway_codes_of_the_client },
    Case { name: "goaway_growing_and_large_debug_data", script: goaway_growing },
    Case { name: "reset_codes_of_the_client", script: reset_codes_of_the_client },
    Case { name: "reset_codes_of_the_server", script: reset_codes_of_the_server },
    Case { name: "reset_no_error_in_the_body", script: reset_no_error_in_the_body },
    Case { name: "reset_no_error_after_trailers", script: reset_no_error_after_trailers },
    Case { name: "reset_no_error_after_headers_with_end", script: reset_no_error_after_headers_with_end },
    Case { name: "reset_behind_data_in_one_segment", script: reset_behind_data },
    Case { name: "reset_before_the_response", script: reset_before_the_response },
    Case { name: "resets_that_cross", script: resets_that_cross },
    Case { name: "reset_1000_times", script: reset_1000_times },
    Case { name: "first_frame_is_not_settings", script: first_frame_is_not_settings },
    Case { name: "server_settings_first", script: server_settings_first },
    Case { name: "client_settings_late", script: client_settings_late },
    Case { name: "client_waits_for_the_server", script: client_waits_for_the_server },
    Case { name: "server_settings_late", script: server_settings_late },
];

/// All codes of RFC 9113 section 7, one that nobody assigned, and the largest.
const CODES: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0x99, 0xffff_ffff];

/// Odd stream ids from 1 on, each with something.
fn by_stream<T>(items: impl IntoIterator<Item = T>) -> impl Iterator<Item = (u32, T)> {
    (1..).step_by(2).zip(items)
}

fn ping_both_ways(wire: &mut Wire) -> Step {
    wire.hello()?;
    for opaque in [b"\0\0\0\0\0\0\0\0", b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8", b"opaque!!"] {
        wire.client_sends(&ping(flag::NONE, *opaque))?;
        wire.server_sends(&ping(flag::ACK, *opaque))?;
        wire.server_sends(&ping(flag::NONE, *opaque))?;
        wire.client_sends(&ping(flag::ACK, *opaque))?;
    }
    // An answer that nobody asked for, and one with other bytes than the question.
    wire.client_sends(&ping(flag::ACK, *b"unasked."))?;
    wire.server_sends(&ping(flag::NONE, *b"question"))?;
    wire.client_sends(&ping(flag::ACK, *b"mistaken"))
}

fn ping_in_order(wire: &mut Wire) -> Step {
    wire.hello()?;
    let mut stream = headers(1, flag::NONE, &wire.request());
    for index in 0..50_u64 {
        stream.extend(data(1, flag::NONE, &message(&index.to_be_bytes())));
        stream.extend(ping(flag::NONE, index.to_be_bytes()));
        stream.extend(window_update(0, 1));
        stream.extend(settings(&[]));
    }
    wire.client_sends(&stream)?;
    wire.server_sends(&answer(1))
}

fn ping_flood(wire: &mut Wire) -> Step {
    wire.hello()?;
    let flood: Vec<u8> = (0..16_000_u64).flat_map(|index| ping(flag::NONE, index.to_be_bytes())).collect();
    wire.client_sends(&flood)?;
    wire.server_sends(&flood)?;
    wire.unary(1)
}

fn settings_of_every_kind(wire: &mut Wire) -> Step {
    let params = [
        (setting::HEADER_TABLE_SIZE, 8192),
        (setting::ENABLE_PUSH, 0),
        (setting::MAX_CONCURRENT_STREAMS, 1),
        (setting::INITIAL_WINDOW_SIZE, 1 << 20),
        (setting::MAX_FRAME_SIZE, 32_768),
        (setting::MAX_HEADER_LIST_SIZE, 8192),
    ];
    wire.hello_with(&params, &params)?;
    wire.unary(1)?;
    for (id, value) in params {
        wire.client_sends(&settings(&[(id, value)]))?;
        wire.server_sends(&settings_ack())?;
        wire.server_sends(&settings(&[(id, value)]))?;
        wire.client_sends(&settings_ack())?;
    }
    wire.unary(3)
}

fn settings_unknown_and_repeated(wire: &mut Wire) -> Step {
    let odd = [
        (0, 0),
        (7, 1),
        (0x4242, 0xffff_ffff),
        (0xffff, 7),
        (setting::MAX_CONCURRENT_STREAMS, 5),
        (3, 6),
        (3, 7),
    ];
    wire.hello_with(&odd, &odd)?;
    wire.unary(1)?;
    let many: Vec<(u16, u32)> = (0..2000).map(|index| (0x1000 + index, u32::from(index))).collect();
    wire.server_sends(&settings(&many))?;
    wire.client_sends(&settings_ack())?;
    wire.unary(3)
}

/// Each is a connection error at its receiver (RFC 9113 section 6.5.2), which says so itself.
fn settings_with_forbidden_values(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.unary(1)?;
    let forbidden = [
        (setting::ENABLE_PUSH, 2),
        (setting::INITIAL_WINDOW_SIZE, 1 << 31),
        (setting::MAX_FRAME_SIZE, 16_383),
        (setting::MAX_FRAME_SIZE, 1 << 24),
    ];
    for param in forbidden {
        wire.client_sends(&settings(&[param]))?;
    }
    wire.server_sends(&goaway(1, code::PROTOCOL_ERROR, b""))
}

fn settings_never_acknowledged(wire: &mut Wire) -> Step {
    wire.client.send(&[PREFACE, &settings(&[])[..]].concat())?;
    wire.server.preface()?;
    wire.server.frame()?;
    wire.server_sends(&settings(&[(setting::HEADER_TABLE_SIZE, 0)]))?;
    wire.unary(1)?;
    // Acknowledged although only one was sent, then twice.
    wire.client_sends(&settings_ack().repeat(2))?;
    wire.unary(3)
}

fn initial_window_size_changes(wire: &mut Wire) -> Step {
    wire.hello_with(&[(setting::INITIAL_WINDOW_SIZE, 0)], &[])?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::END_STREAM, &message(b"")))?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    wire.client_sends(&window_update(1, 10))?;
    wire.server_sends(&data(1, flag::NONE, b"\0\0\0\0\x10first"))?;
    for size in [5, 0, 0x7fff_ffff, 65_535] {
        wire.client_sends(&settings(&[(setting::INITIAL_WINDOW_SIZE, size)]))?;
        wire.server_sends(&settings_ack())?;
    }
    wire.client_sends(&window_update(0, 0x7fff_0000))?;
    wire.server_sends(&data(1, flag::NONE, b" and a rest"))?;
    wire.server_sends(&headers(1, flag::END_STREAM, &trailers()))
}

/// An error of the stream, or of the connection on stream 0 (RFC 9113 section 6.9).
fn window_update_of_0(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&window_update(1, 0))?;
    wire.server_sends(&rst_stream(1, code::PROTOCOL_ERROR))?;
    wire.server_sends(&window_update(0, 0))?;
    wire.client_sends(&goaway(0, code::PROTOCOL_ERROR, b""))
}

fn window_update_past_its_maximum(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&window_update(1, 0x7fff_ffff))?;
    wire.server_sends(&rst_stream(1, code::FLOW_CONTROL_ERROR))?;
    wire.client_sends(&window_update(0, 0x7fff_ffff))?;
    wire.server_sends(&goaway(1, code::FLOW_CONTROL_ERROR, b""))
}

/// The relay keeps no windows: the receiver finds the fault.
fn more_data_than_the_window(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::NONE, &[0; 16_384]).repeat(5))?;
    wire.server_sends(&rst_stream(1, code::FLOW_CONTROL_ERROR))?;
    wire.server_sends(&goaway(1, code::FLOW_CONTROL_ERROR, b""))
}

fn priority_frames(wire: &mut Wire) -> Step {
    wire.hello()?;
    let priority = |stream, depends: u32, weight: u8| {
        frame(kind::PRIORITY, flag::NONE, stream, &[&depends.to_be_bytes()[..], &[weight]].concat())
    };
    wire.client_sends(&[priority(3, 0, 200), priority(5, 0x8000_0003, 0), priority(99, 5, 255)].concat())?;
    let block = [&[0x80, 0, 0, 3, 15][..], &wire.request()].concat();
    wire.client_sends(&headers(1, flag::PRIORITY, &block))?;
    let padded = [&[3, 0, 0, 0, 0, 9][..], &wire.request(), &[0; 3]].concat();
    wire.client_sends(&headers(7, flag::PRIORITY | flag::PADDED | flag::END_STREAM, &padded))?;
    // A stream that depends on itself, before and after it has closed; and the frame from a server.
    wire.client_sends(&priority(1, 1, 1))?;
    wire.server_sends(&priority(1, 0, 7))?;
    wire.server_sends(&[answer(1), answer(7)].concat())?;
    wire.client_sends(&priority(7, 7, 1))
}

fn goaway_graceful(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.server_sends(&[goaway(0x7fff_ffff, code::NO_ERROR, b""), ping(flag::NONE, *b"draining")].concat())?;
    wire.call(3)?;
    wire.client_sends(&ping(flag::ACK, *b"draining"))?;
    wire.server_sends(&goaway(3, code::NO_ERROR, b""))?;
    for stream in [1, 3] {
        wire.client_sends(&data(stream, flag::END_STREAM, &message(b"late")))?;
        wire.server_sends(&answer(stream))?;
    }
    wire.server.half_close()?;
    wire.client.end().map(drop)
}

/// Streams at or below the last one go on; a new one above it is still carried, and the server ignores it.
fn goaway_with_running_stream(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.call(3)?;
    wire.server_sends(&goaway(1, code::NO_ERROR, b"max_age \x00\xff"))?;
    wire.call(5)?;
    wire.client_sends(&data(1, flag::END_STREAM, &message(b"still here")))?;
    wire.server_sends(&answer(1))?;
    wire.client_sends(&goaway(0, code::NO_ERROR, b"closing too"))
}

fn goaway_codes_of_the_server(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    for code in CODES {
        wire.server_sends(&goaway(1, code, b"why"))?;
    }
    wire.server_sends(&answer(1))
}

fn goaway_codes_of_the_client(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    for code in CODES {
        wire.client_sends(&goaway(0, code, b"why"))?;
    }
    wire.server_sends(&answer(1))
}

fn goaway_growing(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.server_sends(&goaway(1, code::NO_ERROR, &[b'd'; 16_376]))?;
    // The last stream may not grow (RFC 9113 section 6.8); that too is for the client to say.
    wire.server_sends(&goaway(101, code::ENHANCE_YOUR_CALM, b"too_many_pings"))?;
    wire.server_sends(&answer(1))
}

fn reset_codes_of_the_client(wire: &mut Wire) -> Step {
    wire.hello()?;
    for (stream, code) in by_stream(CODES) {
        wire.call(stream)?;
        wire.client_sends(&data(stream, flag::NONE, &message(b"part")))?;
        wire.client_sends(&rst_stream(stream, code))?;
    }
    Ok(())
}

fn reset_codes_of_the_server(wire: &mut Wire) -> Step {
    wire.hello()?;
    for (stream, code) in by_stream(CODES) {
        wire.call(stream)?;
        wire.server_sends(&headers(stream, flag::NONE, &response()))?;
        wire.server_sends(&data(stream, flag::NONE, &message(b"part")))?;
        wire.server_sends(&rst_stream(stream, code))?;
    }
    Ok(())
}

/// Not a clean end: gRPC makes INTERNAL of it, and only if it stays a reset.
fn reset_no_error_in_the_body(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    wire.server_sends(&data(1, flag::NONE, b"\0\0\0\0\x40only the beginning"))?;
    wire.server_sends(&rst_stream(1, code::NO_ERROR))
}

/// Early close: the server has answered all, and does not want the rest of the request (RFC 9113 section 8.1).
fn reset_no_error_after_trailers(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::NONE, &message(b"more is to come")))?;
    wire.server_sends(&[answer(1), rst_stream(1, code::NO_ERROR)].concat())?;
    wire.client_sends(&data(1, flag::NONE, &message(b"sent before the reset came")))?;
    wire.client_sends(&rst_stream(1, code::NO_ERROR))?;
    wire.call(3)?;
    wire.server_sends(&answer(3))?;
    wire.server_sends(&rst_stream(3, code::NO_ERROR))
}

fn reset_no_error_after_headers_with_end(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    let only = headers(1, flag::END_STREAM, &[response(), trailers()].concat());
    wire.server_sends(&[only, rst_stream(1, code::NO_ERROR)].concat())
}

fn reset_behind_data(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&[data(1, flag::NONE, &message(&[1; 9000])), rst_stream(1, code::CANCEL)].concat())?;
    wire.call(3)?;
    let cut = [
        headers(3, flag::NONE, &response()),
        data(3, flag::NONE, &message(&[2; 9000])),
        rst_stream(3, code::INTERNAL_ERROR),
    ];
    wire.server_sends(&cut.concat())
}

fn reset_before_the_response(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.server_sends(&rst_stream(1, code::REFUSED_STREAM))?;
    let at_once = [headers(3, flag::END_STREAM, &wire.request()), rst_stream(3, code::CANCEL)].concat();
    wire.client_sends(&at_once)
}

fn resets_that_cross(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client.send(&[data(1, flag::NONE, &message(b"x")), rst_stream(1, code::CANCEL)].concat())?;
    wire.server.send(&[headers(1, flag::NONE, &response()), rst_stream(1, code::INTERNAL_ERROR)].concat())?;
    wire.server.frames(2)?;
    wire.client.frames(2)?;
    // Both go on as if nothing had been reset.
    wire.client_sends(&[data(1, flag::END_STREAM, b""), rst_stream(1, code::CANCEL)].concat())?;
    wire.server_sends(&[headers(1, flag::END_STREAM, &trailers()), rst_stream(1, code::NO_ERROR)].concat())
}

fn reset_1000_times(wire: &mut Wire) -> Step {
    wire.hello()?;
    let mut frames = Vec::new();
    for (stream, _) in by_stream(0..1000) {
        frames.extend(headers(stream, flag::END_STREAM, &wire.request()));
        frames.extend(rst_stream(stream, code::CANCEL));
    }
    wire.client_sends(&frames)?;
    wire.server_sends(&goaway(1999, code::ENHANCE_YOUR_CALM, b"too_many_resets"))
}

/// A connection error at the server (RFC 9113 section 3.4), which says so; the client's call was heard all the same.
fn first_frame_is_not_settings(wire: &mut Wire) -> Step {
    let request = headers(1, flag::END_STREAM, &wire.request());
    wire.client.send(&[&PREFACE[..], &request].concat())?;
    wire.server.preface()?;
    wire.server.frame()?;
    wire.server_sends(&goaway(0, code::PROTOCOL_ERROR, b"no SETTINGS"))
}

/// The server may speak as soon as it has accepted (RFC 9113 section 3.4).
fn server_settings_first(wire: &mut Wire) -> Step {
    wire.server.accept()?;
    wire.server.send(&settings(&[(setting::MAX_CONCURRENT_STREAMS, 100)]))?;
    wire.client.send(&[PREFACE, &settings(&[])[..]].concat())?;
    wire.client.frame()?;
    wire.server.preface()?;
    wire.server.frame()?;
    wire.client_sends(&settings_ack())?;
    wire.server_sends(&settings_ack())?;
    wire.unary(1)
}

fn client_settings_late(wire: &mut Wire) -> Step {
    wire.client.send(PREFACE)?;
    wire.server.preface()?;
    wire.server_sends(&[settings(&[]), ping(flag::NONE, *b"are you?")].concat())?;
    wire.client_sends(&settings(&[]))?;
    wire.client_sends(&[settings_ack(), ping(flag::ACK, *b"are you?")].concat())?;
    wire.server_sends(&settings_ack())?;
    wire.unary(1)
}

/// A client that says nothing at all until it has heard the server.
fn client_waits_for_the_server(wire: &mut Wire) -> Step {
    wire.server_sends(&settings(&[]))?;
    wire.client.send(&[PREFACE, &settings(&[])[..], &settings_ack()].concat())?;
    wire.server.preface()?;
    wire.server.frames(2)?;
    wire.server_sends(&settings_ack())?;
    wire.unary(1)
}

/// The client's first call arrives before the server has said anything.
fn server_settings_late(wire: &mut Wire) -> Step {
    wire.client.send(&[PREFACE, &settings(&[])[..]].concat())?;
    wire.server.preface()?;
    wire.server.frame()?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::END_STREAM, &message(b"patient")))?;
    wire.server_sends(&[settings(&[]), settings_ack(), answer(1)].concat())?;
    wire.client_sends(&settings_ack())
}
