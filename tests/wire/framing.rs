//! Cases of frames as such: padding, sizes, splits, unknown types, flags without a meaning, CONTINUATION.
//!
//! DATA boundaries, padding and the cut of a header block carry no meaning for gRPC, and must arrive unchanged all the
//! same: padding counts against flow control, and a receiver's own limits count frames.

use crate::driver::Step;
use crate::frames::{
    PREFACE, code, data, flag, frame, goaway, headers, kind, padded, ping, setting, settings, settings_ack,
    window_update,
};
use crate::hpack::{literal, literal_at};
use crate::script::{Case, Wire, answer, message, response, trailers};

pub(crate) const CASES: &[Case] = &[
    Case { name: "padded_data", script: padded_data },
    Case { name: "padded_headers", script: padded_headers },
    Case { name: "padding_longer_than_its_frame", script: padding_longer_than_its_frame },
    Case { name: "empty_data", script: empty_data },
    Case { name: "data_of_1_byte_20000_times", script: data_of_1_byte },
    Case { name: "data_of_5_bytes_314159_bytes", script: data_of_5_bytes },
    Case { name: "every_byte_in_its_own_segment", script: every_byte_in_its_own_segment },
    Case { name: "preface_in_pieces_of_1_byte", script: preface_in_pieces },
    Case { name: "whole_call_in_one_segment", script: whole_call_in_one_segment },
    Case { name: "unknown_frame_types", script: unknown_frame_types },
    Case { name: "extension_frames_in_use", script: extension_frames_in_use },
    Case { name: "undefined_flags_and_reserved_bits", script: undefined_flags_and_reserved_bits },
    Case { name: "frames_of_1_mib", script: frames_of_1_mib },
    Case { name: "frame_of_the_largest_size", script: frame_of_the_largest_size },
    Case { name: "oversize_frame", script: oversize_frame },
    Case { name: "continuation_of_1_byte_each", script: continuation_of_1_byte },
    Case { name: "continuation_without_bytes", script: continuation_without_bytes },
    Case { name: "continuation_in_response_and_trailers", script: continuation_in_response },
    Case { name: "continuation_in_many_segments", script: continuation_in_many_segments },
    Case { name: "header_list_of_60_kib", script: header_list_of_60_kib },
    Case { name: "frames_of_wrong_length", script: frames_of_wrong_length },
    Case { name: "frames_on_a_wrong_stream", script: frames_on_a_wrong_stream },
    Case { name: "messages_across_frames", script: messages_across_frames },
];

/// Enough credit for what the larger cases send, since these peers say what real ones would.
const CREDIT_OCTETS: u32 = 32 << 20;

fn padded_data(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    let text = message(b"padded");
    for pad in [0, 1, 255] {
        wire.client_sends(&data(1, flag::PADDED, &padded(pad, &text)))?;
        wire.client_sends(&data(1, flag::PADDED, &padded(pad, b"")))?;
    }
    // Padding is not always zeros: a receiver may complain, and the relay must not decide that for it.
    wire.client_sends(&data(1, flag::PADDED | flag::END_STREAM, b"\x05\x00\x00\x00\x00\x00noise"))?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    for pad in [255, 1, 0] {
        wire.server_sends(&data(1, flag::PADDED, &padded(pad, &text)))?;
    }
    wire.server_sends(&headers(1, flag::END_STREAM, &trailers()))
}

fn padded_headers(wire: &mut Wire) -> Step {
    wire.hello()?;
    let request = wire.request();
    for (stream, pad) in [(1, 0), (3, 1), (5, 255)] {
        wire.client_sends(&headers(stream, flag::PADDED | flag::END_STREAM, &padded(pad, &request)))?;
        wire.server_sends(&headers(stream, flag::PADDED, &padded(pad, &response())))?;
        wire.server_sends(&headers(stream, flag::PADDED | flag::END_STREAM, &padded(pad, &trailers())))?;
    }
    let (first, rest) = request.split_at(10);
    let split = [
        frame(kind::HEADERS, flag::PADDED | flag::END_STREAM, 7, &padded(200, first)),
        frame(kind::CONTINUATION, flag::END_HEADERS, 7, rest),
    ];
    wire.client_sends(&split.concat())?;
    wire.server_sends(&answer(7))
}

/// RFC 9113 section 6.1: a connection error of type PROTOCOL_ERROR, and the receiver says so, not the relay.
fn padding_longer_than_its_frame(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::PADDED, &[200, 1, 2, 3]))?;
    wire.server_sends(&goaway(1, code::PROTOCOL_ERROR, b"pad"))
}

fn empty_data(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::NONE, b"").repeat(200))?;
    wire.client_sends(&data(1, flag::NONE, &message(b"")))?;
    wire.client_sends(&data(1, flag::NONE, b""))?;
    wire.client_sends(&data(1, flag::END_STREAM, b""))?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    wire.server_sends(&data(1, flag::NONE, b"").repeat(200))?;
    wire.server_sends(&data(1, flag::END_STREAM, b""))
}

fn data_of_1_byte(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    let frames: Vec<u8> =
        message(&vec![b'x'; 19_995]).chunks(1).flat_map(|byte| data(1, flag::NONE, byte)).collect();
    wire.client_sends(&frames)?;
    wire.client_sends(&data(1, flag::END_STREAM, b""))?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    wire.server_sends(&frames)?;
    wire.server_sends(&headers(1, flag::END_STREAM, &trailers()))
}

/// The size of gRPC's own interop case no_df_padding_sanity_test, which tripped servers' and proxies' small-frame limits.
fn data_of_5_bytes(wire: &mut Wire) -> Step {
    wire.hello_with(&[(setting::INITIAL_WINDOW_SIZE, CREDIT_OCTETS)], &[])?;
    wire.server_sends(&window_update(0, CREDIT_OCTETS))?;
    wire.client_sends(&window_update(0, CREDIT_OCTETS))?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::END_STREAM, &message(b"")))?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    let frames: Vec<u8> =
        message(&vec![7; 314_159]).chunks(5).flat_map(|five| data(1, flag::NONE, five)).collect();
    wire.server_sends(&frames)?;
    wire.server_sends(&headers(1, flag::END_STREAM, &trailers()))
}

fn every_byte_in_its_own_segment(wire: &mut Wire) -> Step {
    wire.hello()?;
    let question =
        [headers(1, flag::NONE, &wire.request()), data(1, flag::END_STREAM, &message(b"slowly"))].concat();
    wire.client.send_pieces(&question, 1)?;
    wire.server.frames(2)?;
    wire.server.send_pieces(&answer(1), 1)?;
    wire.client.frames(3).map(drop)
}

fn preface_in_pieces(wire: &mut Wire) -> Step {
    wire.client.send_pieces(&[PREFACE, &settings(&[])[..]].concat(), 1)?;
    wire.server.preface()?;
    wire.server.frame()?;
    wire.server_sends(&[settings(&[]), settings_ack()].concat())?;
    wire.client_sends(&settings_ack())?;
    wire.unary(1)
}

fn whole_call_in_one_segment(wire: &mut Wire) -> Step {
    let question =
        [headers(1, flag::NONE, &wire.request()), data(1, flag::END_STREAM, &message(b"at once"))].concat();
    wire.client.send(&[&PREFACE[..], &settings(&[]), &question].concat())?;
    wire.server.preface()?;
    wire.server.frames(3)?;
    wire.server_sends(&[settings(&[]), settings_ack(), answer(1), goaway(1, code::NO_ERROR, b"")].concat())
}

fn unknown_frame_types(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    let mut frames = Vec::new();
    for unknown in [0x0a, 0x0d, 0x42, 0xfa, 0xff] {
        for stream in [0, 1, 2, 99] {
            frames.extend(frame(unknown, 0xff, stream, b"opaque \x00\xff"));
            frames.extend(frame(unknown, flag::NONE, stream, b""));
        }
    }
    frames.extend(frame(0xfa, 0x05, 1, &[9; 16_384]));
    wire.client_sends(&frames)?;
    wire.server_sends(&frames)?;
    wire.client_sends(&data(1, flag::END_STREAM, &message(b"")))?;
    wire.server_sends(&answer(1))
}

/// ALTSVC (RFC 7838), ORIGIN (RFC 8336) and PRIORITY_UPDATE (RFC 9218): types that some peers do know.
fn extension_frames_in_use(wire: &mut Wire) -> Step {
    wire.hello_with(&[(9, 1)], &[(8, 1), (9, 1)])?;
    wire.server_sends(&frame(0x0a, flag::NONE, 0, b"\x00\x09wire.testh2=\":443\"; ma=60"))?;
    wire.server_sends(&frame(0x0c, flag::NONE, 0, b"\x00\x10http://wire.test"))?;
    wire.client_sends(&frame(0x10, flag::NONE, 0, b"\x00\x00\x00\x01u=1, i"))?;
    wire.unary(1)
}

fn undefined_flags_and_reserved_bits(wire: &mut Wire) -> Step {
    const RESERVED: u32 = 0x8000_0000;
    wire.hello()?;
    wire.client_sends(&headers(RESERVED | 1, 0xd2, &wire.request()))?;
    wire.client_sends(&data(RESERVED | 1, 0xf6, &message(b"flags")))?;
    wire.client_sends(&ping(0xfe, *b"flagged!"))?;
    wire.client_sends(&window_update(RESERVED, RESERVED | 0x4d))?;
    wire.client_sends(&frame(kind::SETTINGS, 0xfe, RESERVED, b""))?;
    wire.server_sends(&headers(RESERVED | 1, 0xd2, &response()))?;
    wire.server_sends(&frame(kind::RST_STREAM, 0xff, RESERVED | 1, &code::CANCEL.to_be_bytes()))?;
    wire.server_sends(&frame(kind::GOAWAY, 0xff, RESERVED, &[0x80, 0, 0, 1, 0, 0, 0, 0]))
}

fn frames_of_1_mib(wire: &mut Wire) -> Step {
    const MIB: usize = 1 << 20;
    let params = [(setting::MAX_FRAME_SIZE, 1 << 20), (setting::INITIAL_WINDOW_SIZE, CREDIT_OCTETS)];
    wire.hello_with(&params, &params)?;
    wire.server_sends(&window_update(0, CREDIT_OCTETS))?;
    wire.client_sends(&window_update(0, CREDIT_OCTETS))?;
    wire.call(1)?;
    let text = message(&vec![0x5a; 3 * MIB - 5]);
    for part in text.chunks(MIB) {
        wire.client_sends(&data(1, flag::NONE, part))?;
    }
    wire.client_sends(&frame(0xfa, 1, 1, &text[..MIB]))?;
    wire.client_sends(&data(1, flag::END_STREAM, b""))?;
    wire.server_sends(&headers(1, flag::NONE, &response()))?;
    wire.server_sends(&text.chunks(MIB).flat_map(|part| data(1, flag::NONE, part)).collect::<Vec<_>>())?;
    wire.server_sends(&headers(1, flag::END_STREAM, &trailers()))
}

/// 2^24 - 1 octets: the most that a frame's length can say, and that a peer may allow (RFC 9113 section 6.5.2).
fn frame_of_the_largest_size(wire: &mut Wire) -> Step {
    const LARGEST: u32 = (1 << 24) - 1;
    let params = [(setting::MAX_FRAME_SIZE, LARGEST), (setting::INITIAL_WINDOW_SIZE, CREDIT_OCTETS)];
    wire.hello_with(&[], &params)?;
    wire.server_sends(&window_update(0, CREDIT_OCTETS))?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::END_STREAM, &message(&vec![0xa5; LARGEST as usize - 5])))?;
    wire.server_sends(&answer(1))
}

fn oversize_frame(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::NONE, &vec![0; 16_385]))?;
    wire.server_sends(&goaway(1, code::FRAME_SIZE_ERROR, b""))
}

fn continuation_of_1_byte(wire: &mut Wire) -> Step {
    wire.hello()?;
    let block = wire.request();
    wire.client_sends(&split_block(1, flag::END_STREAM, &block, 1))?;
    wire.server_sends(&answer(1))
}

fn continuation_without_bytes(wire: &mut Wire) -> Step {
    wire.hello()?;
    let block = wire.request();
    let empty = frame(kind::CONTINUATION, flag::NONE, 1, b"");
    let parts = [
        frame(kind::HEADERS, flag::END_STREAM, 1, b""),
        empty.repeat(3),
        frame(kind::CONTINUATION, flag::NONE, 1, &block),
        empty.repeat(2),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, b""),
    ];
    wire.client_sends(&parts.concat())?;
    wire.server_sends(&answer(1))
}

fn continuation_in_response(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    wire.client_sends(&data(1, flag::END_STREAM, &message(b"")))?;
    wire.server_sends(&split_block(1, flag::NONE, &response(), 3))?;
    wire.server_sends(&data(1, flag::NONE, &message(b"answer")))?;
    wire.server_sends(&split_block(1, flag::END_STREAM, &trailers(), 2))
}

/// Each part of the block leaves by itself: the relay may not hold a part for ever, nor send the half of one.
fn continuation_in_many_segments(wire: &mut Wire) -> Step {
    wire.hello()?;
    let block = split_block(1, flag::END_STREAM, &wire.request(), 20);
    wire.client.send_pieces(&block, 13)?;
    wire.server.frame_of(kind::HEADERS)?;
    wire.client_sends(&ping(flag::NONE, *b"the next"))?;
    wire.server_sends(&answer(1))
}

fn header_list_of_60_kib(wire: &mut Wire) -> Step {
    wire.hello_with(
        &[(setting::MAX_HEADER_LIST_SIZE, 1 << 17)],
        &[(setting::MAX_HEADER_LIST_SIZE, 1 << 17)],
    )?;
    let large: Vec<u8> =
        (0..60).flat_map(|index| literal(format!("x-large-{index}"), "v".repeat(1000).as_bytes())).collect();
    wire.client_sends(&split_block(1, flag::END_STREAM, &[wire.request(), large.clone()].concat(), 16_384))?;
    wire.server_sends(&split_block(1, flag::NONE, &[response(), large.clone()].concat(), 16_384))?;
    let one_value = literal_at(58, "a".repeat(61_440).as_bytes());
    wire.server_sends(&split_block(1, flag::END_STREAM, &[trailers(), one_value].concat(), 16_384))
}

/// Frames whose length their type forbids. Their receiver answers FRAME_SIZE_ERROR; the relay must bring both.
fn frames_of_wrong_length(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    let wrong = [
        frame(kind::PING, flag::NONE, 0, b"7 bytes"),
        frame(kind::RST_STREAM, flag::NONE, 1, b"\x00\x00\x08"),
        frame(kind::SETTINGS, flag::NONE, 0, b"\x00\x04\x00\x00\x00"),
        frame(kind::SETTINGS, flag::ACK, 0, b"\x00\x04\x00\x00\x00\x01"),
        frame(kind::WINDOW_UPDATE, flag::NONE, 1, b"\x00\x00\x01"),
        frame(kind::GOAWAY, flag::NONE, 0, b"\x00\x00\x00\x00\x00\x00\x00"),
        frame(kind::PRIORITY, flag::NONE, 1, b"\x00\x00\x00\x00"),
        data(1, flag::PADDED, b""),
    ];
    wire.client_sends(&wrong.concat())?;
    wire.server_sends(&wrong.concat())?;
    wire.server_sends(&goaway(1, code::FRAME_SIZE_ERROR, b""))
}

/// Frames that belong on a stream sent on stream 0, and the reverse.
fn frames_on_a_wrong_stream(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    let wrong = [
        data(0, flag::NONE, b"nowhere"),
        frame(kind::PING, flag::NONE, 1, b"8 bytes."),
        frame(kind::RST_STREAM, flag::NONE, 0, &[0, 0, 0, 8]),
        frame(kind::SETTINGS, flag::NONE, 1, b""),
        frame(kind::GOAWAY, flag::NONE, 1, &[0; 8]),
        frame(kind::PRIORITY, flag::NONE, 0, &[0; 5]),
    ];
    wire.client_sends(&wrong.concat())?;
    wire.server_sends(&wrong.concat())?;
    wire.server_sends(&goaway(1, code::PROTOCOL_ERROR, b""))
}

/// gRPC messages that begin and end anywhere in DATA: a prefix split over frames, several messages in one frame.
fn messages_across_frames(wire: &mut Wire) -> Step {
    wire.hello()?;
    wire.call(1)?;
    let three = [message(b"one"), message(b""), message(b"three")].concat();
    wire.client_sends(&data(1, flag::NONE, &three))?;
    for at in [2, 5, 7] {
        let (first, rest) = three.split_at(at);
        wire.client_sends(&[data(1, flag::NONE, first), data(1, flag::NONE, rest)].concat())?;
    }
    // The stream ends within a message, and one message has a flag byte that gRPC does not know.
    wire.client_sends(&data(1, flag::NONE, b"\x80\x00\x00\x00\x02ok"))?;
    wire.client_sends(&data(1, flag::END_STREAM, b"\x01\x00\x00\x00\x09short"))?;
    wire.server_sends(&answer(1))
}

/// A header block as HEADERS and CONTINUATION frames of at most `part_bytes`.
fn split_block(stream: u32, flags: u8, block: &[u8], part_bytes: usize) -> Vec<u8> {
    let parts: Vec<&[u8]> = block.chunks(part_bytes).collect();
    let mut frames = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let last = if index + 1 == parts.len() { flag::END_HEADERS } else { flag::NONE };
        let (kind, flags) =
            if index == 0 { (kind::HEADERS, flags | last) } else { (kind::CONTINUATION, last) };
        frames.extend(frame(kind, flags, stream, part));
    }
    frames
}
