//! Cases of how streams and connections end: half-close in each order, frames on streams that are closed or were never
//! opened, many streams at once, and every way in which a TCP connection goes.

use crate::driver::Step;
use crate::frames::{
    PREFACE, code, data, flag, frame, goaway, headers, kind, rst_stream, settings, window_update,
};
use crate::script::{Case, Wire, answer, message, response, trailers};

pub(crate) const CASES: &[Case] = &[
    Case { name: "server_ends_before_the_client", script: server_ends_first },
    Case { name: "trailers_while_the_client_still_sends", script: trailers_while_the_client_still_sends },
    Case { name: "client_ends_with_headers", script: client_ends_with_headers },
    Case { name: "bidirectional_turns", script: bidirectional_turns },
    Case { name: "streams_1000_at_once", script: streams_1000_at_once },
    Case { name: "streams_interleaved", script: streams_interleaved },
    Case { name: "streams_out_of_order_and_even", script: streams_out_of_order },
    Case { name: "frames_on_idle_streams", script: frames_on_idle_streams },
    Case { name: "frames_on_closed_streams", script: frames_on_closed_streams },
    Case { name: "headers_on_stream_0", script: headers_on_stream_0 },
    Case { name: "client_half_closes_after_its_request", script: client_half_closes },
    Case { name: "server_half_closes_and_the_client_sends_on", script: server_half_closes },
    Case { name: "server_closes_within_a_frame", script: server_closes_within_a_frame },
    Case { name: "client_closes_within_a_frame", script: client_closes_within_a_frame },
    Case { name: "client_closes_within_a_header_block", script: client_closes_within_a_header_block },
    Case { name: "server_closes_with_a_call_open", script: server_closes_with_a_call_open },
    Case { name: "client_aborts", script: client_aborts },
    Case { name: "server_aborts", script: server_aborts },
    Case { name: "server_aborts_behind_its_answer", script: server_aborts_behind_its_answer },
    Case { name: "server_aborts_behind_the_clients_end", script: server_aborts_behind_the_clients_end },
    Case { name: "client_aborts_behind_the_servers_end", script: client_aborts_behind_the_servers_end },
    Case { name: "client_closes_within_its_preface", script: client_closes_within_its_preface },
    Case { name: "nothing_is_ever_sent", script: nothing_is_ever_sent },
    Case { name: "data_up_to_the_end", script: data_up_to_the_end },
];

fn server_ends_first(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    wire.server_sends(&data(1, flag::END_STREAM, &message(b"no trailers")))?;
    wire.client_sends(&data(1, flag::NONE, &message(b"the client goes on")))?;
    wire.client_sends(&data(1, flag::END_STREAM, b""))
}

fn trailers_while_the_client_still_sends(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::NONE, &message(b"1")))?;
    wire.server_sends(&answer(1))?;
    wire.client_sends(&data(1, flag::NONE, &message(b"2")))?;
    wire.server_sends(&window_update(1, 100))?;
    wire.client_sends(&headers(1, flag::END_STREAM, &trailers()))
}

fn client_ends_with_headers(wire: &mut Wire) -> Step {
    wire.hello()?;
    let request = wire.request();
    wire.client_sends(&headers(1, flag::END_STREAM, &request))?;
    wire.server_sends(&answer(1))
}

fn bidirectional_turns(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    for turn in 0..100_u32 {
        wire.client_sends(&data(1, flag::NONE, &message(&turn.to_be_bytes())))?;
        wire.server_sends(&data(1, flag::NONE, &message(&turn.to_le_bytes())))?;
    }
    wire.server_sends(&headers(1, flag::END_STREAM, &trailers()))?;
    wire.client_sends(&data(1, flag::END_STREAM, b""))
}

fn streams_1000_at_once(wire: &mut Wire) -> Step {
    wire.hello()?;
    let streams = || (1..2000).step_by(2);
    let request = wire.request();
    wire.client_sends(
        &streams().flat_map(|stream| headers(stream, flag::NONE, &request)).collect::<Vec<_>>(),
    )?;
    let question = message(b"one of many");
    wire.client_sends(
        &streams().flat_map(|stream| data(stream, flag::END_STREAM, &question)).collect::<Vec<_>>(),
    )?;
    wire.server_sends(&streams().rev().flat_map(answer).collect::<Vec<_>>())
}

fn streams_interleaved(wire: &mut Wire) -> Step {
    wire.hello()?;
    let streams = [1, 3, 5, 7];
    for stream in streams {
        wire.call(stream)?;
    }
    let text = message(&[0x33; 4000]);
    for (index, part) in text.chunks(100).enumerate() {
        let frames: Vec<u8> =
            streams.iter().skip(index % 4).flat_map(|stream| data(*stream, flag::NONE, part)).collect();
        wire.client_sends(&frames)?;
    }
    for stream in [5, 1, 7, 3] {
        wire.server_sends(&answer(stream))?;
        wire.client_sends(&rst_stream(stream, code::NO_ERROR))?;
    }
    Ok(())
}

/// A client must use odd and growing ids (RFC 9113 section 5.1.1); a server says so, not the relay.
fn streams_out_of_order(wire: &mut Wire) -> Step {
    wire.hello()?;
    for stream in [7, 3, 0x7fff_ffff] {
        wire.call(stream)?;
        wire.server_sends(&answer(stream))?;
    }
    wire.client_sends(&headers(4, flag::END_STREAM, &crate::script::request_for("/wire.Case/even")))?;
    wire.server_sends(&goaway(7, code::PROTOCOL_ERROR, b""))
}

fn frames_on_idle_streams(wire: &mut Wire) -> Step {
    wire.hello()?;
    let idle = [
        data(9, flag::NONE, b"idle"),
        rst_stream(9, code::CANCEL),
        window_update(9, 100),
        data(10, flag::END_STREAM, b""),
    ];
    wire.client_sends(&idle.concat())?;
    wire.server_sends(&idle.concat())?;
    wire.server_sends(&headers(11, flag::NONE, &response()))?;
    wire.server_sends(&goaway(0, code::PROTOCOL_ERROR, b"idle"))
}

fn frames_on_closed_streams(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.unary(1)?;
    let closed = [
        data(1, flag::NONE, &message(b"after the end")),
        headers(1, flag::END_STREAM, &trailers()),
        window_update(1, 5),
        frame(kind::PRIORITY, flag::NONE, 1, &[0; 5]),
        rst_stream(1, code::CANCEL),
        data(1, flag::END_STREAM, b""),
    ];
    wire.client_sends(&closed.concat())?;
    wire.server_sends(&rst_stream(1, code::STREAM_CLOSED))?;
    wire.server_sends(&closed.concat())?;
    wire.client_sends(&goaway(0, code::STREAM_CLOSED, b""))
}

fn headers_on_stream_0(wire: &mut Wire) -> Step {
    wire.hello()?;
    let request = wire.request();
    wire.client_sends(&headers(0, flag::END_STREAM, &request))?;
    wire.server_sends(&goaway(0, code::PROTOCOL_ERROR, b"HEADERS on 0"))
}

/// The client's FIN behind its last request says nothing about the answer, which must still come.
fn client_half_closes(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::END_STREAM, &message(b"my last")))?;
    wire.client.half_close()?;
    wire.server.end()?;
    wire.server_sends(&answer(1))?;
    wire.server_sends(&goaway(1, code::NO_ERROR, b"bye"))
}

fn server_half_closes(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.server_sends(&[answer(1), goaway(1, code::NO_ERROR, b"bye")].concat())?;
    wire.server.half_close()?;
    wire.client.end()?;
    wire.client_sends(&data(1, flag::END_STREAM, &message(b"for who still listens")))
}

fn server_closes_within_a_frame(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    let part = &data(1, flag::NONE, &message(&[4; 5000]))[..3000];
    wire.server.send(part)?;
    wire.server.half_close()?;
    wire.client.end().map(drop)
}

fn client_closes_within_a_frame(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client.send(&data(1, flag::NONE, &message(b"cut in its header"))[..7])?;
    wire.client.half_close()?;
    wire.server.end().map(drop)
}

fn client_closes_within_a_header_block(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.unary(1)?;
    let request = wire.request();
    wire.client.send(&frame(kind::HEADERS, flag::END_STREAM, 3, &request[..20]))?;
    wire.client.half_close()?;
    wire.server.end().map(drop)
}

fn server_closes_with_a_call_open(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    wire.server.half_close()?;
    wire.client.end().map(drop)
}

fn client_aborts(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    wire.client.abort()?;
    wire.server.end().map(drop)
}

fn server_aborts(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    wire.server.abort()?;
    wire.client.end().map(drop)
}

/// Nobody waits for the answer to arrive before the reset is sent.
fn server_aborts_behind_its_answer(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.server.send(&answer(1))?;
    wire.server.abort()?;
    wire.client.end().map(drop)
}

fn server_aborts_behind_the_clients_end(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client.half_close()?;
    wire.server.end()?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    wire.server.abort()?;
    wire.client.end().map(drop)
}

fn client_aborts_behind_the_servers_end(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.server.half_close()?;
    wire.client.end()?;
    wire.client_sends(&data(1, flag::NONE, &message(b"to nobody")))?;
    wire.client.abort()?;
    wire.server.end().map(drop)
}

fn client_closes_within_its_preface(wire: &mut Wire) -> Step {
    wire.client.send(&PREFACE[..14])?;
    wire.client.half_close()?;
    wire.server.end().map(drop)
}

fn nothing_is_ever_sent(wire: &mut Wire) -> Step {
    wire.client.half_close()?;
    wire.server.end().map(drop)
}

/// Everything that was sent before the end arrives before the end, also when all leaves at once.
fn data_up_to_the_end(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    let body: Vec<u8> =
        message(&vec![8; 400_000]).chunks(16_384).flat_map(|part| data(1, flag::NONE, part)).collect();
    let all = [headers(1, flag::NONE, &response()), body, headers(1, flag::END_STREAM, &trailers())].concat();
    wire.server.send(&[all, goaway(1, code::NO_ERROR, b""), settings(&[])].concat())?;
    wire.server.half_close()?;
    wire.client.end().map(drop)
}
