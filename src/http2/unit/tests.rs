//! Tests of the unit reader: every frame type, every bound and broken form, and any cutting of the stream.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::http2::frame;

const LIMITS: UnitLimits =
    UnitLimits { frame_bytes_max: 16_384, header_list_bytes_max: 4096, continuations_max: 4 };

fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let mut bytes = FrameHeader { length, kind, flags, stream }.encode().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// All units of `bytes`, which has to consist of whole ones.
fn units(bytes: &[u8]) -> Result<Vec<Unit>, UnitError> {
    let mut reader = UnitReader::new(LIMITS);
    let chunk = Bytes::copy_from_slice(bytes);
    let (mut at, mut units) = (0, Vec::new());
    while let Some(unit) = reader.next(&chunk, &mut at)? {
        units.push(unit);
    }
    assert_eq!(at, bytes.len());
    Ok(units)
}

fn one(bytes: &[u8]) -> Unit {
    let mut all = units(bytes).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn error(bytes: &[u8]) -> UnitError {
    let reader = UnitReader::new(LIMITS);
    match reader.complete_len(bytes) {
        Err(early) => {
            assert_eq!(units(bytes), Err(early), "the bound is the same wherever it is found");
            early
        }
        Ok(_) => units(bytes).unwrap_err(),
    }
}

fn field(name: &str, value: &str) -> Field {
    let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Field { name: copy(name), value: copy(value), never_indexed: false }
}

#[test]
fn each_frame_type_is_read() {
    let sent = [
        frame::settings(&[(1, 0), (0xfa, 7), (1, 4096)]),
        frame::settings_ack(),
        frame::window_update(0, 1 << 30),
        frame::headers_literal(1, false, &[(":status", "200"), ("a", "1"), ("a", "0")], 16_384),
        raw(kind::DATA, 0, 1, b"hello"),
        raw(kind::DATA, flag::PADDED, 1, b"\x02hi\0\0"),
        raw(kind::DATA, flag::PADDED | flag::END_STREAM, 1, b"\0"),
        raw(kind::DATA, flag::END_STREAM, 1, b""),
        raw(kind::PRIORITY, 0, 3, &[0; 5]),
        frame::rst_stream(3, 0x99),
        frame::ping(false, *b"abcdefgh"),
        frame::ping(true, *b"12345678"),
        frame::goaway(u32::MAX, 11, b"calm"),
        raw(0xfa, 0xff, 0, b"anything"),
        raw(kind::WINDOW_UPDATE, 0, 5, &[0x80, 0, 0, 0]),
    ];
    let data =
        |text: &'static str, pad, end_stream| UnitBody::Data { data: Bytes::from(text), pad, end_stream };
    let expected = [
        (0, UnitBody::Settings { params: vec![(1, 0), (0xfa, 7), (1, 4096)] }),
        (0, UnitBody::SettingsAck),
        (0, UnitBody::WindowUpdate { increment: 1 << 30 }),
        (
            1,
            UnitBody::Headers {
                fields: vec![field(":status", "200"), field("a", "1"), field("a", "0")],
                end_stream: false,
                malformed: None,
            },
        ),
        (1, data("hello", None, false)),
        (1, data("hi", Some(2), false)),
        (1, data("", Some(0), true)),
        (1, data("", None, true)),
        (3, UnitBody::Priority),
        (3, UnitBody::Reset { code: 0x99 }),
        (0, UnitBody::Ping { ack: false, opaque: *b"abcdefgh" }),
        (0, UnitBody::Ping { ack: true, opaque: *b"12345678" }),
        (0, UnitBody::GoAway { last_stream: u32::MAX >> 1, code: 11, debug: Bytes::from("calm") }),
        (0, UnitBody::Unknown { kind: 0xfa, flags: 0xff, payload: Bytes::from("anything") }),
        (5, UnitBody::WindowUpdate { increment: 0 }),
    ];
    let expected: Vec<_> = expected.into_iter().map(|(stream, body)| Unit { stream, body }).collect();
    assert_eq!(units(&sent.concat()).unwrap(), expected);
}

#[test]
fn data_shares_the_chunk() {
    let chunk = Bytes::from(raw(kind::DATA, flag::PADDED, 1, b"\x01payload\0"));
    let unit = UnitReader::new(LIMITS).next(&chunk, &mut 0).unwrap().unwrap();
    let UnitBody::Data { data, .. } = unit.body else { panic!("not DATA") };
    assert_eq!(data, "payload");
    assert_eq!(data.as_ptr(), chunk[10..].as_ptr());
}

#[test]
fn broken_frames_are_named_and_keep_their_payload() {
    for (kind, flags, stream, payload) in [
        (kind::DATA, 0, 0, &b"x"[..]),
        (kind::DATA, flag::PADDED, 1, b""),
        (kind::DATA, flag::PADDED, 1, b"\x01"),
        (kind::DATA, flag::PADDED, 1, b"\xff123"),
        (kind::DATA, flag::PADDED, 1, b"\x04123"),
        (kind::PRIORITY, 0, 1, &[0; 4]),
        (kind::PRIORITY, 0, 0, &[0; 5]),
        (kind::RST_STREAM, 0, 1, &[0; 3]),
        (kind::RST_STREAM, 0, 1, &[0; 5]),
        (kind::RST_STREAM, 0, 0, &[0; 4]),
        (kind::SETTINGS, 0, 0, &[0; 7]),
        (kind::SETTINGS, 0, 1, &[0; 6]),
        (kind::SETTINGS, flag::ACK, 0, &[0; 6]),
        (kind::PING, 0, 0, &[0; 7]),
        (kind::PING, 0, 1, &[0; 8]),
        (kind::GOAWAY, 0, 0, &[0; 7]),
        (kind::GOAWAY, 0, 1, &[0; 8]),
        (kind::WINDOW_UPDATE, 0, 1, &[0; 3]),
        (kind::WINDOW_UPDATE, 0, 0, &[]),
    ] {
        let unit = one(&raw(kind, flags, stream, payload));
        assert_eq!(unit.stream, stream);
        let UnitBody::Broken { kind: k, flags: f, payload: p, why } = unit.body else {
            panic!("kind {kind} {payload:?} is not broken: {:?}", unit.body)
        };
        assert_eq!((k, f, &p[..]), (kind, flags, payload));
        assert!(!why.is_empty());
    }
    // Padding of all the rest is allowed: the content is empty then.
    assert!(matches!(
        one(&raw(kind::DATA, flag::PADDED, 1, b"\x03123")).body,
        UnitBody::Data { pad: Some(3), .. }
    ));
}

#[test]
fn a_header_block_is_one_unit_over_its_continuations() {
    let all = flag::PADDED | flag::PRIORITY | flag::END_STREAM;
    let sent = [
        raw(kind::HEADERS, all, 1, b"\x02\0\0\0\0\x10\x82\x86\0\0"),
        raw(kind::CONTINUATION, 0, 1, b""),
        raw(kind::CONTINUATION, 0, 1, b"\x84\x40\x01x"),
        raw(kind::CONTINUATION, flag::END_HEADERS, 1, b"\x01y"),
    ];
    let unit = one(&sent.concat());
    let fields =
        vec![field(":method", "GET"), field(":scheme", "http"), field(":path", "/"), field("x", "y")];
    assert_eq!(
        unit,
        Unit { stream: 1, body: UnitBody::Headers { fields, end_stream: true, malformed: None } }
    );
    let reader = UnitReader::new(LIMITS);
    assert_eq!(reader.complete_len(&sent[..3].concat()), Ok(0));
    assert_eq!(reader.complete_len(&sent.concat()), Ok(sent.concat().len()));
}

#[test]
fn a_promise_is_read_with_its_padding() {
    let bytes =
        raw(kind::PUSH_PROMISE, flag::PADDED | flag::END_HEADERS, 1, b"\x01\x80\0\0\x02\x82\x86\x84\0");
    let UnitBody::PushPromise { promised, fields, malformed } = one(&bytes).body else {
        panic!("no promise")
    };
    assert_eq!((promised, fields.len(), malformed), (2, 3, None));
    let zero = raw(kind::PUSH_PROMISE, flag::END_HEADERS, 1, b"\0\0\0\0\x82\x86\x84");
    assert!(matches!(one(&zero).body, UnitBody::PushPromise { malformed: Some(Malformed::StreamZero), .. }));
}

#[test]
fn headers_on_stream_zero_still_move_the_table() {
    let sent = [
        raw(kind::HEADERS, flag::END_HEADERS, 0, b"\x40\x01x\x01y"),
        raw(kind::HEADERS, flag::END_HEADERS, 1, b"\xbe"),
    ];
    let units = units(&sent.concat()).unwrap();
    assert!(matches!(units[0].body, UnitBody::Headers { malformed: Some(Malformed::StreamZero), .. }));
    let expected = UnitBody::Headers { fields: vec![field("x", "y")], end_stream: false, malformed: None };
    assert_eq!(units[1].body, expected);
}

#[test]
fn malformed_blocks_go_on() {
    let bytes = raw(kind::HEADERS, flag::END_HEADERS, 1, b"\0\x01X\x01y");
    assert!(matches!(one(&bytes).body, UnitBody::Headers { malformed: Some(Malformed::UppercaseName), .. }));
}

#[test]
fn block_frames_too_short_for_their_parts_end_the_connection() {
    for (kind, flags, payload) in [
        (kind::HEADERS, flag::PRIORITY, &[0; 4][..]),
        (kind::HEADERS, flag::PRIORITY | flag::PADDED, &[0; 5]),
        (kind::PUSH_PROMISE, 0, &[0; 3]),
        (kind::PUSH_PROMISE, flag::PADDED, &[0; 4]),
    ] {
        let error = error(&raw(kind, flags | flag::END_HEADERS, 1, payload));
        assert_eq!(error, UnitError::BlockTooShort { stream: 1 }, "{kind} {flags} {payload:?}");
        assert_eq!(error.h2_code(), code::FRAME_SIZE_ERROR);
    }
    let paddings = [
        (kind::HEADERS, &b""[..]),
        (kind::HEADERS, b"\x02\x82"),
        (kind::PUSH_PROMISE, b"\x02\0\0\0\x02\x82"),
    ];
    for (kind, payload) in paddings {
        let error = error(&raw(kind, flag::PADDED | flag::END_HEADERS, 1, payload));
        assert_eq!(error, UnitError::BlockPadding { stream: 1 });
        assert_eq!(error.h2_code(), code::PROTOCOL_ERROR);
    }
    // As much padding as there is room for leaves an empty block.
    let empty = raw(kind::HEADERS, flag::PADDED | flag::END_HEADERS, 1, b"\x01\0");
    assert!(
        matches!(one(&empty).body, UnitBody::Headers { fields, malformed: None, .. } if fields.is_empty())
    );
}

#[test]
fn only_continuations_of_the_same_stream_may_follow() {
    let open = raw(kind::HEADERS, 0, 1, b"\x82");
    for (kind, stream) in
        [(kind::DATA, 1), (kind::PING, 0), (0xfa, 1), (kind::HEADERS, 1), (kind::CONTINUATION, 3)]
    {
        let error = error(&[open.clone(), raw(kind, flag::END_HEADERS, stream, &[0; 8])].concat());
        assert_eq!(error, UnitError::InterleavedContinuation { block_stream: 1, kind, stream });
        assert_eq!(error.h2_code(), code::PROTOCOL_ERROR);
    }
    let lone = raw(kind::CONTINUATION, flag::END_HEADERS, 7, b"");
    assert_eq!(error(&lone), UnitError::UnexpectedContinuation { stream: 7 });
    assert_eq!(error(&lone).h2_code(), code::PROTOCOL_ERROR);
}

#[test]
fn bounds_are_checked_before_the_bytes_have_come() {
    let reader = UnitReader::new(LIMITS);
    let too_large = FrameHeader { length: 16_385, kind: kind::DATA, flags: 0, stream: 1 }.encode();
    let error = reader.complete_len(&too_large).unwrap_err();
    assert!(matches!(error, UnitError::FrameTooLarge { length: 16_385, .. }));
    assert_eq!(error.h2_code(), code::FRAME_SIZE_ERROR);
    assert_eq!(
        reader.complete_len(&FrameHeader { length: 16_384, kind: 0, flags: 0, stream: 1 }.encode()),
        Ok(0)
    );

    let list =
        |length| FrameHeader { length, kind: kind::HEADERS, flags: flag::END_HEADERS, stream: 1 }.encode();
    let error = reader.complete_len(&list(4096 + BLOCK_SLACK_BYTES + 1)).unwrap_err();
    assert_eq!(error, UnitError::HeaderListTooLarge { stream: 1, header_list_bytes_max: 4096 });
    assert_eq!(error.h2_code(), code::ENHANCE_YOUR_CALM);
    assert_eq!(reader.complete_len(&list(4096 + BLOCK_SLACK_BYTES)), Ok(0));

    let mut flood = raw(kind::HEADERS, 0, 1, b"");
    for _ in 0..4 {
        flood.extend(raw(kind::CONTINUATION, 0, 1, b""));
    }
    assert_eq!(reader.complete_len(&flood), Ok(0));
    flood.extend(&raw(kind::CONTINUATION, flag::END_HEADERS, 1, b"")[..HEADER_LEN]);
    let error = reader.complete_len(&flood).unwrap_err();
    assert_eq!(error, UnitError::TooManyContinuations { stream: 1, continuations_max: 4 });
    assert_eq!(error.h2_code(), code::ENHANCE_YOUR_CALM);

    let mut long = raw(kind::HEADERS, 0, 1, &[0x82; 4000]);
    long.extend(FrameHeader { length: 2000, kind: kind::CONTINUATION, flags: 0, stream: 1 }.encode());
    assert!(matches!(reader.complete_len(&long), Err(UnitError::HeaderListTooLarge { .. })));
}

#[test]
fn a_decoded_list_over_the_bound_ends_the_connection() {
    // `:method: GET` counts 42 octets: 97 of them fit into 4096.
    assert!(units(&raw(kind::HEADERS, flag::END_HEADERS, 1, &[0x82; 97])).is_ok());
    let error = error(&raw(kind::HEADERS, flag::END_HEADERS, 1, &[0x82; 98]));
    assert_eq!(error, UnitError::HeaderListTooLarge { stream: 1, header_list_bytes_max: 4096 });
    assert_eq!(error.h2_code(), code::ENHANCE_YOUR_CALM);
}

#[test]
fn garbage_in_a_block_is_a_compression_error() {
    let error = error(&raw(kind::HEADERS, flag::END_HEADERS, 1, &[0x80]));
    assert_eq!(error, UnitError::Hpack(HpackError::InvalidIndex { index: 0 }));
    assert_eq!(error.h2_code(), code::COMPRESSION_ERROR);
}

#[test]
fn an_error_waits_until_the_units_before_it_are_taken() {
    let good = frame::ping(false, [0; 8]);
    let bad = raw(kind::CONTINUATION, 0, 1, b"");
    let both = [good.clone(), bad.clone()].concat();
    let mut reader = UnitReader::new(LIMITS);
    assert_eq!(reader.complete_len(&both), Ok(good.len()));
    assert_eq!(reader.complete_len(&bad), Err(UnitError::UnexpectedContinuation { stream: 1 }));
    let (chunk, mut at) = (Bytes::from(both), 0);
    assert!(reader.next(&chunk, &mut at).unwrap().is_some());
    assert!(reader.next(&chunk, &mut at).is_err());
    assert_eq!(at, good.len(), "the place of the error is kept");
}

#[test]
fn what_is_wanted_grows_with_what_is_known() {
    let reader = UnitReader::new(LIMITS);
    let block =
        [raw(kind::HEADERS, 0, 1, b"\x82"), raw(kind::CONTINUATION, flag::END_HEADERS, 1, b"\x86\x84")]
            .concat();
    assert_eq!(reader.bytes_wanted(b""), 9);
    assert_eq!(reader.bytes_wanted(&block[..8]), 9);
    assert_eq!(reader.bytes_wanted(&block[..9]), 10 + 9);
    assert_eq!(reader.bytes_wanted(&block[..18]), 10 + 9);
    assert_eq!(reader.bytes_wanted(&block[..19]), 10 + 11);
    assert_eq!(reader.bytes_wanted(&[&block[..], b"more"].concat()), 10 + 11);
    let too_large = FrameHeader { length: 1 << 20, kind: kind::DATA, flags: 0, stream: 1 }.encode();
    assert_eq!(reader.bytes_wanted(&too_large), 9, "nothing is reserved for a frame over the bound");
}

#[test]
fn incomplete_or_out_of_range_is_no_unit() {
    let mut reader = UnitReader::new(LIMITS);
    let chunk = Bytes::from(frame::ping(false, [0; 8])).slice(..16);
    for mut at in [0, 15, 16, 17, usize::MAX] {
        let before = at;
        assert_eq!(reader.next(&chunk, &mut at), Ok(None));
        assert_eq!(at, before);
    }
}

/// Frames as a stream would have them, some of them broken or of unknown types, and header blocks in pieces.
fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = || proptest::collection::vec(any::<u8>(), 0..40);
    let plain = (prop_oneof![0_u8..1, 2_u8..5, 6_u8..9, Just(0xfa)], any::<u8>(), 0_u32..4, payload());
    let plain = plain.prop_map(|(kind, flags, stream, payload)| raw(kind, flags, stream, &payload));
    let value = "[ -~]{0,60}";
    let block =
        (1_u32..4, any::<bool>(), proptest::collection::vec(("[a-z]{1,8}", value), 0..4), 40_usize..200);
    let block = block.prop_map(|(stream, end, fields, max)| {
        let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        frame::headers_literal(stream, end, &fields, max)
    });
    proptest::collection::vec(prop_oneof![plain, block], 1..12).prop_map(|frames| frames.concat())
}

/// Feeds `bytes` in reads of the given lengths, as the relay does, and gives the units and what ended the reading.
fn read_in_pieces(bytes: &[u8], cuts: &[usize]) -> (Vec<Unit>, Option<UnitError>, usize) {
    let mut reader = UnitReader::new(LIMITS);
    let (mut buf, mut units, mut taken, mut left) = (Vec::new(), Vec::new(), 0, bytes);
    let mut cuts = cuts.iter().copied().chain(std::iter::repeat(bytes.len().max(1)));
    loop {
        let (piece, rest) = left.split_at(cuts.next().unwrap_or(1).min(left.len()));
        buf.extend_from_slice(piece);
        left = rest;
        assert!(reader.bytes_wanted(&buf) >= HEADER_LEN);
        let complete = match reader.complete_len(&buf) {
            Ok(complete) => complete,
            Err(error) => return (units, Some(error), taken),
        };
        let chunk = Bytes::copy_from_slice(&buf[..complete]);
        buf.drain(..complete);
        let mut at = 0;
        loop {
            match reader.next(&chunk, &mut at) {
                Ok(Some(unit)) => units.push(unit),
                Ok(None) => break,
                Err(error) => return (units, Some(error), taken + at),
            }
        }
        assert_eq!(at, complete, "a chunk of complete units is used up");
        taken += complete;
        if left.is_empty() && complete == 0 {
            return (units, None, taken);
        }
    }
}

proptest! {
    #[test]
    fn units_do_not_depend_on_how_the_stream_was_cut(bytes in any_frames(), cuts in proptest::collection::vec(1_usize..60, 0..30)) {
        let whole = read_in_pieces(&bytes, &[]);
        prop_assert!(whole.1.is_none(), "{:?}", whole.1);
        prop_assert_eq!(whole.2, bytes.len());
        prop_assert_eq!(read_in_pieces(&bytes, &cuts), whole);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, cuts in proptest::collection::vec(1_usize..60, 0..30), at: usize) {
        let whole = read_in_pieces(&bytes, &[]);
        prop_assert_eq!(read_in_pieces(&bytes, &cuts), whole);
        let _ = UnitReader::new(LIMITS).next(&Bytes::from(bytes), &mut { at });
    }

    #[test]
    fn damage_anywhere_is_survived(mut bytes in any_frames(), place: prop::sample::Index, value: u8, cut: prop::sample::Index) {
        let place = place.index(bytes.len());
        bytes[place] = value;
        bytes.truncate(cut.index(bytes.len()) + 1);
        let whole = read_in_pieces(&bytes, &[]);
        prop_assert_eq!(read_in_pieces(&bytes, &[1; 64]), whole);
    }
}
