//! Calls of HTTP/1 and gRPC-Web, as `attestry calls` and `show` tell of them.

use attestry::generated::v1::{EventType, Level, Side};
use serde_json::{Value, json};

use crate::scenes::*;
use crate::{attestry, calls, each, ledger_of, printed};

/// A request as HTTP/1 has it: names in the case of the wire, and no `:authority`.
fn asked_for(method: &str, target: &str) -> Event {
    let fields = [
        (":method", method),
        (":path", target),
        (":version", "HTTP/1.1"),
        ("Host", "shop.test"),
        ("X-Odd", "1"),
    ];
    header(EventType::ClientHeader, &fields)
}

fn said(kind: EventType, status: &str, reason: &str) -> Event {
    header(kind, &[(":status", status), (":reason", reason), (":version", "HTTP/1.1"), ("Server", "s")])
}

#[test]
fn calls_of_http1_are_listed_by_method_and_target() {
    use EventType::{ClientHalfClose, ServerHalfClose, ServerHeader, ServerInformational, ServerTrailer};
    let body = b"0123456789";
    let mut first = Call::http(1);
    let mut second = Call::http(2).numbered(2);
    let mut third = Call::http(3).numbered(3);
    let mut fourth = Call::http(4).numbered(4);
    let (_folder, maker) = ledger_of(vec![
        first.up(0, vec![asked_for("GET", "/cart?id=1"), plain(ClientHalfClose)]),
        second.up(
            1,
            vec![asked_for("PUT", "http://shop.test/a"), body_part(EventType::ClientMessage, body, 0, 10)],
        ),
        first.down(2, vec![said(ServerHeader, "200", "OK"), body_part(EventType::ServerMessage, body, 0, 4)]),
        first.down(3, vec![body_part(EventType::ServerMessage, body, 4, 10), plain(ServerHalfClose)]),
        second.up(4, vec![plain(ClientHalfClose)]),
        second.down(5, vec![said(ServerInformational, "100", "Continue"), said(ServerHeader, "404", "")]),
        second.down(6, vec![header(ServerTrailer, &[("X-Sum", "9")]), plain(ServerHalfClose)]),
        third.up(7, vec![asked_for("GET", "/chat"), plain(ClientHalfClose)]),
        third.down(9, vec![said(ServerHeader, "101", "Switching Protocols"), plain(ServerHalfClose)]),
        fourth.up(10, vec![asked_for("HEAD", "/open"), plain(ClientHalfClose)]),
    ]);
    let listed = calls(&maker.folder, &[]);
    assert_eq!(each(&listed, "method"), ["/cart?id=1", "http://shop.test/a", "/chat", "/open"]);
    assert_eq!(each(&listed, "http_method"), ["GET", "PUT", "GET", "HEAD"]);
    assert_eq!(each(&listed, "stream"), [1, 2, 3, 4]);
    assert_eq!(each(&listed, "status"), [&json!("200"), &json!("404"), &json!("101"), &Value::Null]);
    assert_eq!(each(&listed, "state"), ["ended", "ended", "ended", "open"], "an even number is no push here");
    assert_eq!(each(&listed, "authority"), ["shop.test"; 4], "`Host` in any case");
    assert_eq!(each(&listed, "request_bytes"), [0, 10, 0, 0]);
    assert_eq!(each(&listed, "response_bytes"), [10, 0, 0, 0]);
    let table = printed(&maker.folder, &["calls"]);
    assert!(table.contains(" GET /cart?id=1 ") && table.contains(" PUT http://shop.test/a "), "{table}");
    let methods = |pattern: &str| each(&calls(&maker.folder, &["--method", pattern]), "stream").len();
    assert_eq!((methods("GET *"), methods("/cart*"), methods("cart"), methods("POST *")), (2, 1, 1, 0));
    let shown = printed(&maker.folder, &["show", "02"]);
    for line in [
        "method    PUT http://shop.test/a\n",
        "CLIENT_HEADER PUT http://shop.test/a\n",
        "               X-Odd: 1\n",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(
        shown.contains("SERVER_INFORMATIONAL 100 Continue\n") && shown.contains("SERVER_HEADER 404\n"),
        "{shown}"
    );
}

/// A call of gRPC-Web whose body ends with `last`.
fn web_call(last: Vec<Event>) -> Value {
    let mut call = Call::grpc_web(1);
    let head =
        [(":method", "POST"), (":path", "/shop.Cart/Get"), (":version", "HTTP/1.1"), ("host", "shop.test")];
    let answer = [vec![response("200"), answered(0, b"cart!")], last].concat();
    let (_folder, maker) = ledger_of(vec![
        call.up(
            0,
            vec![header(EventType::ClientHeader, &head), asked(0, b"ask"), plain(EventType::ClientHalfClose)],
        ),
        call.down(1, answer),
        call.down(4, vec![plain(EventType::ServerHalfClose)]),
    ]);
    calls(&maker.folder, &[]).remove(0)
}

#[test]
fn the_status_of_grpc_web_comes_from_the_trailers_in_its_body() {
    let text = "grpc-status: 5\r\nGrpc-Message: no%20cart\r\nx: y\r\n";
    for cut in 0..=text.len() {
        let call = web_call(web_trailers(1, text, 0x80, cut));
        assert_eq!(
            (&call["status"], &call["status_message"]),
            (&json!("NOT_FOUND"), &json!("no cart")),
            "cut at {cut}"
        );
        assert_eq!(
            (&call["response_messages"], &call["response_bytes"]),
            (&json!(1), &json!(5)),
            "trailers are none"
        );
        assert_eq!((&call["protocol"], &call["state"]), (&json!("grpc_web"), &json!("ended")));
        assert_eq!((&call["method"], &call["duration_ms"]), (&json!("/shop.Cart/Get"), &json!(4.0)));
    }
    assert_eq!(web_call(web_trailers(1, "grpc-status:0", 0x80, 3))["status"], "OK");
    assert_eq!(web_call(web_trailers(1, "grpc-status: x\r\n", 0x80, 3))["status"], "UNKNOWN");
    assert_eq!(
        web_call(web_trailers(1, "no colon", 0x80, 3))["status_message"],
        "no grpc-status; HTTP status 200"
    );
    assert_eq!(web_call(vec![])["status"], "UNKNOWN", "a body without trailers");
}

#[test]
fn trailers_that_cannot_be_read_are_no_status() {
    let text = "grpc-status: 0\r\n";
    let hidden = web_trailers(1, text, 0x80, 4).into_iter().map(not_stored).collect();
    for last in [web_trailers(1, text, 0x81, 4), hidden] {
        let call = web_call(last);
        assert_eq!((&call["status"], &call["state"]), (&Value::Null, &json!("ended")));
        assert_eq!(call["status_message"], "its trailers are compressed, or were not stored");
    }
    // The first part of the trailers is missing.
    let lost = web_trailers(1, text, 0x80, 4).into_iter().enumerate().filter(|(number, _)| *number != 1);
    assert_eq!(web_call(lost.map(|(_, event)| event).collect())["status"], Value::Null);
}

#[test]
fn the_same_bytes_in_grpc_are_a_message() {
    let mut call = Call::grpc(1);
    let answer = [vec![response("200")], web_trailers(0, "grpc-status: 5\r\n", 0x80, 4)].concat();
    let (_folder, maker) = ledger_of(vec![
        call.up(0, vec![request("/a/B"), plain(EventType::ClientHalfClose)]),
        call.down(1, answer),
        call.down(2, vec![trailers("0", "")]),
    ]);
    let call = &calls(&maker.folder, &[])[0];
    assert_eq!((&call["status"], &call["response_messages"]), (&json!("OK"), &json!(1)));
}

#[test]
fn a_reset_and_a_local_answer_of_grpc_web_have_grpc_statuses() {
    let ends = [
        (reset(EventType::Reset, 7, Side::Server), "UNAVAILABLE"),
        (reset(EventType::Cancel, 8, Side::Client), "CANCELLED"),
        (note(EventType::LocalAnswer, "full"), "UNAVAILABLE"),
    ];
    for (end, status) in ends {
        let mut call = Call::grpc_web(1).at_level(Level::Metadata);
        let (_folder, maker) = ledger_of(vec![call.up(0, vec![request("/a/B")]), call.down(1, vec![end])]);
        assert_eq!(calls(&maker.folder, &[])[0]["status"], status);
        assert!(attestry(&maker.folder, &["show", "01"]).status.success());
    }
}
