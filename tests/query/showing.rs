//! `attestry show`: one call's timeline, and its messages to the byte.

use attestry::generated::v1::{self, EventType, Level, Side};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::ledger_maker::{Content, LogParts, gap};
use crate::scenes::*;
use crate::{attestry, ledger, ledger_of, printed, refusal, text};

/// Bytes that are neither text nor regular.
fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[test]
fn a_timeline_reads_from_top_to_bottom() {
    let mut call = Call::grpc(0xab);
    let secret = v1::Field {
        name: "authorization".into(),
        keyed_digest: vec![0xd1; 32].into(),
        never_indexed: true,
        ..Default::default()
    };
    let mut asking = request("/pkg.Service/Method");
    let binary = v1::Field { name: "x-raw".into(), value: vec![0xff, 0x00].into(), ..Default::default() };
    asking.0.header.as_mut().unwrap().fields.extend([secret, binary]);
    let (_folder, maker) = ledger_of(vec![
        call.up(0, vec![asking, asked(0, b"hello"), plain(EventType::ClientHalfClose)]),
        call.down(2, vec![response("200"), answered(0, b"\x0a\x03\xff\xfe\xfd")]),
        call.down(5, vec![trailers("9", "not %C5%BC now")]),
    ]);
    let expected = "\
call      ab777777777777777777777777777777
method    /pkg.Service/Method
time      2023-11-14T22:13:20.000Z, took 5.00ms
from      10.1.2.3:5555
to        upstream.test:50051, authority api.test
status    FAILED_PRECONDITION not ż now
state     ended
messages  1 (5 bytes) from the client, 1 (5 bytes) from the server
stream    1 of connection 00c0ffee00000005
entries   3 to 5, level RequestResponse
came      inbound, fixed

      +0µs  →  CLIENT_HEADER /pkg.Service/Method
               :method: POST
               :path: /pkg.Service/Method
               :authority: api.test
               content-type: application/grpc
               authorization: (secret, digest d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1)  (never indexed)
               x-raw: (base64) /wA=
      +0µs  →  CLIENT_MESSAGE 0: 5 bytes
               \"hello\"
               sha256 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
      +0µs  →  CLIENT_HALF_CLOSE
   +2.00ms  ←  SERVER_HEADER 200
               :status: 200
   +2.00ms  ←  SERVER_MESSAGE 0: 5 bytes
               0a 03 ff fe fd  |.....|
               sha256 81d25501a18b593118958ab09a64a64abbe3f109b00281a76db054e9833c62a6
   +5.00ms  ←  SERVER_TRAILER FAILED_PRECONDITION not ż now
               grpc-status: 9
               grpc-message: not %C5%BC now
";
    assert_eq!(printed(&maker.folder, &["show", "ab"]), expected);
}

/// One message of 200,000 bytes, cut at odd places, spread over three segment files, with the other direction between.
fn spread_over_segments(message: &[u8]) -> (tempfile::TempDir, crate::LedgerMaker) {
    let (folder, mut maker) = ledger();
    let mut call = Call::grpc(1);
    let client = |from, to| part(EventType::ClientMessage, 0, message, from, to);
    maker.commit(vec![call.up(0, vec![request("/a/Upload"), client(0, 0), client(0, 1)])]);
    maker.commit(vec![
        call.up(1, vec![client(1, 60_000)]),
        call.down(1, vec![response("200"), answered(0, b"so far")]),
    ]);
    maker.begin_segment();
    maker.commit(vec![call.up(2, vec![client(60_000, 60_001), client(60_001, 140_000)])]);
    maker.begin_segment();
    maker.commit(vec![call.up(3, vec![client(140_000, message.len()), asked(1, b"second")])]);
    maker.commit(vec![
        call.up(4, vec![plain(EventType::ClientHalfClose)]),
        call.down(5, vec![trailers("0", "")]),
    ]);
    (folder, maker)
}

#[test]
fn raw_messages_come_out_to_the_byte() {
    let message = noise(200_000);
    let (_folder, maker) = spread_over_segments(&message);
    let raw = |name: &str| {
        let output = attestry(&maker.folder, &["show", "01", "--raw", name]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        output.stdout
    };
    assert!(raw("request:0") == message, "the message of 200,000 bytes");
    assert_eq!(raw("request:1"), b"second");
    assert_eq!(raw("response:0"), b"so far");
    let refused = refusal(&maker.folder, &["show", "01", "--raw", "response:1"]);
    assert!(refused.contains("no such message"), "{refused}");
}

#[test]
fn a_message_in_segments_is_one_line() {
    let message = noise(200_000);
    let (_folder, maker) = spread_over_segments(&message);
    let shown = printed(&maker.folder, &["show", "01"]);
    assert!(shown.contains("CLIENT_MESSAGE 0: 200000 bytes, in 6 segments over 3.00ms\n"), "{shown}");
    assert_eq!(shown.matches("sha256").count(), 3, "{shown}");
}

#[test]
fn hexadecimal_shows_every_byte_once() {
    let message = noise(200_000);
    let (_folder, maker) = spread_over_segments(&message);
    let shown = printed(&maker.folder, &["show", "01", "--hex"]);
    let mut dumped = Vec::new();
    for line in shown.lines().filter_map(|line| line.strip_prefix("               ")) {
        let Some((offset, bytes)) = line.split_once("  ") else { continue };
        let Ok(offset) = usize::from_str_radix(offset, 16) else { continue };
        let bytes = bytes.split_once("  |").unwrap().0.split(' ').filter(|digits| !digits.is_empty());
        let bytes: Vec<u8> = bytes.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
        dumped.push((offset, bytes));
    }
    let all: usize = dumped.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(all, message.len() + b"so far".len() + b"second".len());
    let missing = dumped.iter().filter(|(at, bytes)| message.get(*at..at + bytes.len()) != Some(bytes));
    assert_eq!(missing.count(), 2, "the lines of the two short messages");
}

#[test]
fn json_holds_every_event_and_byte() {
    let message = noise(200_000);
    let (_folder, maker) = spread_over_segments(&message);
    let shown: Value = serde_json::from_str(&printed(&maker.folder, &["show", "01", "-o", "json"])).unwrap();
    assert_eq!(shown["call"]["request_bytes"], 200_006);
    let events = shown["events"].as_array().unwrap();
    let sequences: Vec<u64> = events.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=12).collect::<Vec<_>>());
    let is_of_it = |event: &&Value| event["type"] == "CLIENT_MESSAGE" && event["message"] == 0;
    let data =
        events.iter().filter(is_of_it).map(|event| STANDARD.decode(event["data"].as_str().unwrap()).unwrap());
    assert!(data.collect::<Vec<_>>().concat() == message);
    assert_eq!(events[0]["metadata"][1], serde_json::json!({"name": ":path", "value": "/a/Upload"}));
    assert_eq!(events[11]["offset_ms"], 5.0);
}

#[test]
fn a_message_without_its_bytes_is_said_to_be_so() {
    let mut call = Call::grpc(1).at_level(Level::Metadata);
    let (_folder, maker) =
        ledger_of(vec![call.up(0, vec![request("/a/B"), not_stored(asked(0, b"0123456789"))])]);
    let shown = printed(&maker.folder, &["show", "01"]);
    assert!(
        shown.contains("CLIENT_MESSAGE 0: 10 bytes\n               (bytes not stored at this capture level)"),
        "{shown}"
    );
    let refused = refusal(&maker.folder, &["show", "01", "--raw", "request:0"]);
    assert!(refused.contains("capture level left them out"), "{refused}");
}

#[test]
fn a_message_that_was_cut_off_is_said_to_be_so() {
    let mut call = Call::grpc(1);
    let events = vec![request("/a/B"), part(EventType::ClientMessage, 0, b"0123456789", 0, 4)];
    let (_folder, maker) =
        ledger_of(vec![call.up(0, events), call.up(1, vec![reset(EventType::Cancel, 8, Side::Client)])]);
    let shown = printed(&maker.folder, &["show", "01"]);
    assert!(shown.contains("CLIENT_MESSAGE 0: 4 bytes, incomplete: 10 were announced"), "{shown}");
    assert!(shown.contains("→  CANCEL CANCEL by client"), "{shown}");
    let output = attestry(&maker.folder, &["show", "01", "--raw", "request:0"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b"0123"[..]));
}

/// The bytes were changed and all checksums made right again: the digest in the entry tells.
#[test]
fn bytes_that_are_not_those_of_the_digest_are_named() {
    let (_folder, maker) = ledger_of(unary(1, "/a/B"));
    let mut log = LogParts::read(&maker.folder);
    let (_, payload) = &mut log.frame(1).entries[0];
    assert_eq!(payload, b"ping");
    payload[0] ^= 0x20;
    log.write(&maker.folder);
    let shown = printed(&maker.folder, &["show", "01"]);
    assert_eq!(shown.matches("DOES NOT MATCH").count(), 1, "{shown}");
    let refused = refusal(&maker.folder, &["show", "01", "--raw", "request:0"]);
    assert!(refused.contains("do not have the digest"), "{refused}");
}

/// The two directions are committed one after the other, not always in the order of capture.
#[test]
fn events_come_in_the_order_of_their_numbers() {
    let mut call = Call::grpc(1);
    let first = call.up(0, vec![request("/a/B")]);
    let second = call.down(1, vec![response("200")]);
    let third = call.up(2, vec![asked(0, b"late")]);
    let fourth = call.down(3, vec![trailers("0", "")]);
    let (_folder, maker) = ledger_of(vec![first, third, fourth, second]);
    let shown = printed(&maker.folder, &["show", "01"]);
    let places: Vec<_> = ["CLIENT_HEADER", "SERVER_HEADER", "CLIENT_MESSAGE", "SERVER_TRAILER"]
        .map(|name| shown.find(name))
        .into();
    assert!(places.is_sorted() && places[0].is_some(), "{shown}");
    assert!(!shown.contains("missing"), "{shown}");
}

#[test]
fn what_is_missing_is_marked_where_it_is_missing() {
    let mut call = Call::grpc(1);
    let begin = call.up(0, vec![request("/a/B"), part(EventType::ClientMessage, 0, b"0123456789", 0, 4)]);
    call.skip(2);
    let end = call.up(9, vec![part(EventType::ClientMessage, 0, b"0123456789", 8, 10)]);
    let (_folder, maker) = ledger_of(vec![begin, gap(), end]);
    let shown = printed(&maker.folder, &["show", "01"]);
    assert!(shown.contains("(missing: events 3 to 4 of this call are not in the ledger)"), "{shown}");
    assert!(shown.contains("0 submissions (0 bytes) were forwarded unrecorded: full"), "{shown}");
    assert!(
        shown.contains("incomplete: 10 were announced") && shown.contains("not all of its bytes can be read"),
        "{shown}"
    );
    let output = attestry(&maker.folder, &["show", "01", "--raw", "request:0"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b"0123"[..]));
    assert!(text(&output.stderr).contains("bytes 4 to 8 of this message are missing"));
}

#[test]
fn a_prefix_must_mean_one_call() {
    let contents: Vec<Content> =
        [0xa1, 0xa2, 0xb1].into_iter().flat_map(|number| unary(number, "/a/B")).collect();
    let (_folder, maker) = ledger_of(contents);
    assert!(printed(&maker.folder, &["show", "B"]).starts_with("call      b177"));
    assert!(
        printed(&maker.folder, &["show", &format!("a1{}", "7".repeat(30))]).starts_with("call      a177")
    );
    let ambiguous = refusal(&maker.folder, &["show", "a"]);
    assert!(ambiguous.contains("a is the beginning of several calls"), "{ambiguous}");
    assert!(
        ambiguous.contains("\n  a177") && ambiguous.contains("\n  a277") && !ambiguous.contains("b177"),
        "{ambiguous}"
    );
    let unknown = refusal(&maker.folder, &["show", "c"]);
    assert!(unknown.contains("no call c in this ledger"), "{unknown}");
    assert_eq!(attestry(&maker.folder, &["show", "xyz"]).status.code(), Some(2));
}
