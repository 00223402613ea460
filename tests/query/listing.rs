//! `attestry calls`: one summary for each call, whatever its shape, its filters and its forms.

use attestry::generated::v1::{EventType, Level, Side};
use serde_json::{Value, json};

use crate::ledger_maker::{Content, gap, started};
use crate::scenes::*;
use crate::{CLIENT, attestry, calls, each, ledger, ledger_of, printed, text};

const NAMES: [&str; 29] = [
    "call_id",
    "time",
    "direction",
    "peer",
    "upstream",
    "connection",
    "stream",
    "protocol",
    "method",
    "authority",
    "status",
    "status_code",
    "status_message",
    "request_messages",
    "response_messages",
    "request_bytes",
    "response_bytes",
    "duration_ms",
    "state",
    "reset_code",
    "reset_side",
    "level",
    "first_index",
    "last_index",
    "http_method",
    "verified_peer",
    "interception",
    "original_destination",
    "tls",
];

#[test]
fn a_call_is_summarised_in_full() {
    let (_folder, maker) = ledger_of(unary(0xab, "/pkg.Service/Method"));
    let listed = printed(&maker.folder, &["calls", "-o", "jsonl"]);
    let call: Value = serde_json::from_str(&listed).unwrap();
    let expected = json!({
        "call_id": "ab777777777777777777777777777777", "time": "2023-11-14T22:13:20.000000000Z",
        "direction": "inbound", "peer": CLIENT, "upstream": "upstream.test:50051",
        "connection": "00c0ffee00000005", "stream": 1, "protocol": "grpc",
        "method": "/pkg.Service/Method", "authority": "api.test",
        "status": "OK", "status_code": 0, "status_message": "",
        "request_messages": 1, "response_messages": 1, "request_bytes": 4, "response_bytes": 5,
        "duration_ms": 5.0, "state": "ended", "reset_code": null, "reset_side": null,
        "level": "RequestResponse", "first_index": 3, "last_index": 4,
        "http_method": "POST", "verified_peer": null, "interception": "fixed", "original_destination": null,
        "tls": null
    });
    assert_eq!(call, expected);
    let places: Vec<usize> = NAMES.iter().map(|name| listed.find(&format!("\"{name}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "the members stand in their documented order: {listed}");
}

/// Shape by shape: the end of a call, and the status, message and state that follow from it.
#[test]
fn every_end_of_a_call_has_its_status() {
    use EventType::{Abandoned, Cancel, ClientHalfClose, LocalAnswer, Reset, ServerHalfClose, ServerTrailer};
    let http = |fields: &[(&str, &str)]| header(ServerTrailer, fields);
    let shapes: Vec<(Vec<Event>, Value, &str, &str)> = vec![
        (vec![response("200"), trailers("0", "")], json!("OK"), "", "ended"),
        (
            vec![response("200"), trailers("9", "za%C5%BC%zz")],
            json!("FAILED_PRECONDITION"),
            "zaż%zz",
            "ended",
        ),
        (vec![response("200"), trailers("77", "")], json!("77"), "", "ended"),
        (vec![response("200"), trailers("no", "")], json!("UNKNOWN"), "", "ended"),
        (vec![http(&[(":status", "200"), ("grpc-status", "5")])], json!("NOT_FOUND"), "", "ended"),
        (vec![http(&[(":status", "503")])], json!("UNAVAILABLE"), "no grpc-status; HTTP status 503", "ended"),
        (
            vec![response("404"), plain(ServerHalfClose)],
            json!("UNIMPLEMENTED"),
            "no grpc-status; HTTP status 404",
            "ended",
        ),
        (
            vec![response("200"), plain(ServerHalfClose)],
            json!("UNKNOWN"),
            "no grpc-status; HTTP status 200",
            "ended",
        ),
        (
            vec![reset(Reset, 7, Side::Server)],
            json!("UNAVAILABLE"),
            "RST_STREAM REFUSED_STREAM by server",
            "ended",
        ),
        (vec![reset(Reset, 99, Side::Attestry)], json!("UNKNOWN"), "RST_STREAM 99 by attestry", "ended"),
        (vec![reset(Cancel, 8, Side::Client)], json!("CANCELLED"), "RST_STREAM CANCEL by client", "ended"),
        // The first end counts: what crosses it on the wire does not.
        (
            vec![reset(Cancel, 8, Side::Client), trailers("0", "")],
            json!("CANCELLED"),
            "RST_STREAM CANCEL by client",
            "ended",
        ),
        (vec![trailers("0", "early"), reset(Reset, 0, Side::Server)], json!("OK"), "early", "ended"),
        (vec![note(Abandoned, "client closed")], Value::Null, "client closed", "abandoned"),
        (vec![trailers("0", ""), note(Abandoned, "client closed")], json!("OK"), "", "ended"),
        (
            vec![note(LocalAnswer, "upstream refused")],
            json!("UNAVAILABLE"),
            "upstream refused",
            "answered_locally",
        ),
        (vec![response("200")], Value::Null, "", "open"),
        (vec![plain(ClientHalfClose)], Value::Null, "", "open"),
    ];
    for (events, status, message, state) in shapes {
        let described = format!("{events:?}");
        let mut call = Call::grpc(1);
        let (_folder, maker) = ledger_of(vec![call.up(0, vec![request("/a/B")]), call.down(7, events)]);
        let listed = calls(&maker.folder, &[]);
        let call = &listed[0];
        assert_eq!((&call["status"], &call["state"]), (&status, &json!(state)), "{described}");
        assert_eq!(call["status_message"], message, "{described}");
        let duration = if state == "open" { Value::Null } else { json!(7.0) };
        assert_eq!(call["duration_ms"], duration, "{described}");
    }
}

#[test]
fn calls_that_are_not_grpc_have_http_statuses() {
    let ends = [
        (vec![response("404"), plain(EventType::ServerHalfClose)], json!("404"), json!(404)),
        (vec![response("200"), header(EventType::ServerTrailer, &[("x", "y")])], json!("200"), json!(200)),
        (vec![response("200"), reset(EventType::Reset, 2, Side::Server)], json!("200"), json!(200)),
        (vec![reset(EventType::Cancel, 8, Side::Client)], Value::Null, Value::Null),
    ];
    for (events, status, code) in ends {
        let mut call = Call::http(1);
        let (_folder, maker) = ledger_of(vec![call.up(0, vec![request("/index")]), call.down(1, events)]);
        let call = &calls(&maker.folder, &[])[0];
        assert_eq!((&call["status"], &call["status_code"]), (&status, &code));
        assert_eq!((&call["protocol"], &call["state"]), (&json!("http"), &json!("ended")));
    }
}

#[test]
fn resets_are_told_by_code_and_side() {
    let mut call = Call::grpc(1);
    let (_folder, maker) = ledger_of(vec![
        call.up(0, vec![request("/a/B")]),
        call.down(1, vec![reset(EventType::Reset, 11, Side::Server)]),
        call.up(2, vec![reset(EventType::Cancel, 8, Side::Client)]),
    ]);
    let call = &calls(&maker.folder, &[])[0];
    assert_eq!((&call["reset_code"], &call["reset_side"]), (&json!("ENHANCE_YOUR_CALM"), &json!("server")));
    assert_eq!(call["status"], "RESOURCE_EXHAUSTED");
}

#[test]
fn a_call_without_an_end_ends_with_its_connection_or_its_writer() {
    let other = 6;
    let (_folder, maker) = ledger_of(vec![
        connection_opened(other, "10.9.9.9:1"),
        Call::grpc(1).up(0, vec![request("/a/Closed")]),
        Call::grpc(2).on(other).up(1, vec![request("/a/Died")]),
        connection_closed(CONNECTION),
        started(),
        // The connection died with its writer, so that of this call nothing is known.
        Call::grpc(3).on(other).up(2, vec![request("/a/Open")]),
    ]);
    let listed = calls(&maker.folder, &[]);
    assert_eq!(each(&listed, "method"), ["/a/Closed", "/a/Died", "/a/Open"]);
    assert_eq!(each(&listed, "state"), ["abandoned", "abandoned", "open"]);
    assert_eq!(each(&listed, "peer"), [&json!(CLIENT), &json!("10.9.9.9:1"), &Value::Null]);
}

#[test]
fn lower_levels_list_what_they_have() {
    let path = header(EventType::ClientHeader, &[(":path", "/a/None")]);
    let mut metadata = Call::grpc(2).at_level(Level::Metadata);
    let (_folder, maker) = ledger_of(vec![
        Call::grpc(1).at_level(Level::None).up(0, vec![path]),
        metadata.up(1, vec![request("/a/Meta"), not_stored(asked(0, b"0123456789"))]),
        metadata.down(2, vec![trailers("0", "")]),
    ]);
    let listed = calls(&maker.folder, &[]);
    assert_eq!(each(&listed, "state"), ["not_recorded", "ended"]);
    assert_eq!(each(&listed, "level"), ["None", "Metadata"]);
    assert_eq!(each(&listed, "method"), ["/a/None", "/a/Meta"]);
    assert_eq!(each(&listed, "request_bytes"), [0, 10]);
}

#[test]
fn metadata_beside_the_entry_is_read_there() {
    let long = "v".repeat(9_000);
    let fields = [(":path", "/a/Beside"), (":authority", "far.test"), ("x-long", &long)];
    let event = header_beside(EventType::ClientHeader, &fields);
    let (_folder, maker) = ledger_of(vec![Call::grpc(1).up(0, vec![event, asked(0, b"after it")])]);
    let call = &calls(&maker.folder, &[])[0];
    assert_eq!((&call["method"], &call["authority"]), (&json!("/a/Beside"), &json!("far.test")));
    assert_eq!(call["request_bytes"], 8);
}

/// The calls begin one second apart.
fn five_calls() -> Vec<Content> {
    let ends = [("0", ""), ("14", "gone"), ("5", ""), ("0", ""), ("13", "")];
    let mut contents = vec![connection_opened(6, "192.168.7.7:99")];
    for (number, (status, message)) in (0_u8..).zip(ends) {
        let connection = if number == 4 { 6 } else { CONNECTION };
        let method =
            ["/shop.Cart/Add", "/shop.Cart/Get", "/shop.Pay/Charge", "/etc.Health/Check", "/etc.X/Y"];
        let mut call = Call::grpc(0xa0 + number).on(connection);
        let at = 1_000 * u64::from(number);
        contents.push(call.up(at, vec![request(method[usize::from(number)])]));
        contents.push(call.down(at + 20, vec![trailers(status, message)]));
    }
    contents.push(Call::grpc(0xb0).up(9_000, vec![request("/etc.X/Open")]));
    contents
}

#[test]
fn filters_choose_calls() {
    let (_folder, maker) = ledger_of(five_calls());
    let chosen = |filters: &[&str]| -> String {
        let listed = calls(&maker.folder, filters);
        let ids: Vec<&str> = listed.iter().map(|call| &call["call_id"].as_str().unwrap()[..2]).collect();
        ids.join(" ")
    };
    let cases: &[(&[&str], &str)] = &[
        (&[], "a0 a1 a2 a3 a4 b0"),
        (&["--method", "/shop.Cart/*"], "a0 a1"),
        (&["--method", "/shop*t"], "a1"),
        (&["--method", "Cart"], "a0 a1"),
        (&["--method", "/shop.*", "--status", "ok"], "a0"),
        (&["--status", "UNAVAILABLE,13"], "a1 a4"),
        (&["--status", "0"], "a0 a3"),
        (&["--status", "open"], "b0"),
        (&["--peer", "192.168."], "a4"),
        (&["--peer", CLIENT, "--status", "NOT_FOUND"], "a2"),
        (&["--call", "A3"], "a3"),
        (&["--since", "2023-11-14T22:13:23Z"], "a3 a4 b0"),
        (&["--until", "2023-11-14T23:13:21+01:00"], "a0"),
        (&["--since", "2023-11-14T22:13:21Z", "--until", "2023-11-14T22:13:22.001Z"], "a1 a2"),
        (&["--since", "2h"], ""),
        (&["--until", "2h"], "a0 a1 a2 a3 a4 b0"),
        (&["--call", "ff"], ""),
    ];
    for (filters, expected) in cases {
        assert_eq!(chosen(filters), *expected, "{filters:?}");
    }
}

#[test]
fn filters_that_mean_nothing_are_wrong_usage() {
    let (_folder, maker) = ledger();
    for filter in [["--status", "FINE"], ["--since", "soon"], ["--call", "xyz"], ["--output", "xml"]] {
        let output = attestry(&maker.folder, &["calls", filter[0], filter[1]]);
        assert_eq!(output.status.code(), Some(2), "{filter:?}");
        assert!(text(&output.stderr).contains(filter[1]), "{filter:?} is named");
    }
}

#[test]
fn the_table_is_aligned() {
    let (_folder, maker) = ledger_of(five_calls());
    let table = printed(&maker.folder, &["calls"]);
    let lines: Vec<&str> = table.lines().collect();
    let header = "TIME                      DIR      PEER            METHOD             STATUS       MSGS(UP/DOWN)  \
                  BYTES(UP/DOWN)  DURATION  CALL";
    let second = "2023-11-14T22:13:21.000Z  inbound  10.1.2.3:5555   /shop.Cart/Get     UNAVAILABLE  0/0            \
                  0/0             20.0ms    a17777777777";
    let last = "2023-11-14T22:13:29.000Z  inbound  10.1.2.3:5555   /etc.X/Open        (open)       0/0            \
                0/0             -         b07777777777";
    assert_eq!((lines[0], lines[2], lines[6], lines.len()), (header, second, last, 7));
    let wide = printed(&maker.folder, &["calls", "-o", "wide"]);
    assert!(wide.contains(&format!("a1{}", "7".repeat(30))) && wide.contains("gone"), "{wide}");
}

#[test]
fn ids_in_the_table_are_long_enough_to_tell_calls_apart() {
    let twin = |last: u8| {
        let (mut body, payload) = Call::grpc(1).up(0, vec![request("/a/B")]);
        if let attestry::entry::Body::CallEvents(events) = &mut body {
            let mut id = call_id(1);
            id[9] = last;
            events.call = id.to_vec().into();
        }
        (body, payload)
    };
    let (_folder, maker) = ledger_of(vec![twin(0x12), twin(0x13)]);
    let table = printed(&maker.folder, &["calls"]);
    for id in ["01777777777777777712", "01777777777777777713"] {
        assert!(table.lines().any(|line| line.ends_with(id)), "{table}");
        printed(&maker.folder, &["show", id]);
    }
}

#[test]
fn json_is_one_array() {
    let (_folder, maker) = ledger_of(five_calls());
    let listed: Value = serde_json::from_str(&printed(&maker.folder, &["calls", "-o", "json"])).unwrap();
    assert_eq!(listed.as_array().unwrap(), &calls(&maker.folder, &[]));
    let none: Value =
        serde_json::from_str(&printed(&maker.folder, &["calls", "-o", "json", "--call", "ff"])).unwrap();
    assert_eq!(none, json!([]));
}

/// Each call ends before the one that began before it, and one never does.
#[test]
fn calls_are_listed_in_the_order_in_which_they_began() {
    let mut first = Call::grpc(1);
    let mut second = Call::grpc(2);
    let mut contents = vec![Call::grpc(0).up(0, vec![request("/a/Open")])];
    contents.push(first.up(1, vec![request("/a/First"), plain(EventType::ClientHalfClose)]));
    contents.push(second.up(2, vec![request("/a/Second"), plain(EventType::ClientHalfClose)]));
    contents.push(second.down(3, vec![trailers("0", "")]));
    contents.push(first.down(4, vec![trailers("0", "")]));
    let (_folder, maker) = ledger_of(contents);
    assert_eq!(each(&calls(&maker.folder, &[]), "method"), ["/a/Open", "/a/First", "/a/Second"]);
}

/// More calls than are kept for late frames, and more rows than a page of the table.
#[test]
fn many_calls_are_each_listed_once() {
    let (_folder, mut maker) = ledger();
    for number in 0_u32..3_000 {
        let mut contents = unary(1, "/a/Many");
        contents.push(gap());
        for (body, _) in &mut contents {
            if let attestry::entry::Body::CallEvents(events) = body {
                events.call = [&number.to_be_bytes()[..], &[0; 12]].concat().into();
            }
        }
        if number % 500 == 0 {
            maker.begin_segment();
        }
        maker.commit(contents);
    }
    let listed = calls(&maker.folder, &[]);
    let ids: Vec<String> =
        listed.iter().map(|call| call["call_id"].as_str().unwrap()[..8].to_owned()).collect();
    let expected: Vec<String> = (0..3_000).map(|number| format!("{number:08x}")).collect();
    assert_eq!(ids, expected);
    assert!(listed.iter().all(|call| call["status"] == "OK"));
    assert_eq!(printed(&maker.folder, &["calls"]).lines().count(), 3_001);
}

#[test]
fn nothing_from_the_wire_steers_the_terminal() {
    let evil = "/\u{1b}[2J\u{9b}31m/\u{202e}x\u{7f}\r";
    let mut call = Call::grpc(1);
    let (_folder, maker) = ledger_of(vec![
        call.up(0, vec![request(evil), asked(0, "\u{1b}]0;owned\u{7}".as_bytes())]),
        call.down(1, vec![trailers("2", "bad %1B[31m%C2%9B")]),
    ]);
    let commands: [&[&str]; 7] = [
        &["calls"],
        &["calls", "-o", "wide"],
        &["calls", "-o", "json"],
        &["calls", "-o", "jsonl"],
        &["show", "01"],
        &["show", "01", "--hex"],
        &["show", "01", "-o", "json"],
    ];
    for arguments in commands {
        let shown = printed(&maker.folder, arguments);
        let steering = shown.chars().find(|&c| (c.is_control() && c != '\n') || c == '\u{202e}');
        assert_eq!(steering, None, "{arguments:?}: {shown:?}");
    }
    assert_eq!(calls(&maker.folder, &[])[0]["method"], evil, "JSON keeps the value");
    assert!(printed(&maker.folder, &["calls"]).contains("/\\u{1b}[2J\\u{9b}31m/\\u{202e}x\\u{7f}\\r"));
}

#[test]
fn an_empty_list_and_a_missing_ledger_say_so() {
    let (folder, maker) = ledger();
    let output = attestry(&maker.folder, &["calls"]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(text(&output.stderr), "no calls\n");
    let missing = folder.path().join("elsewhere");
    let refusal = crate::refusal(&missing, &["calls"]);
    assert!(refusal.contains("elsewhere holds no ledger"), "{refusal}");
}
