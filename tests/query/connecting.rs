//! `attestry connections`, and what calls say of theirs.

use attestry::generated::v1::{self, Direction, Side, WireProtocol, connection_event};
use serde_json::{Value, json};

use crate::ledger_maker::{LedgerMaker, started};
use crate::scenes::*;
use crate::{CLIENT, attestry, calls, each, ledger, ledger_of, printed, text};
use tempfile::TempDir;

const UP: Direction = Direction::ClientToServer;
const DOWN: Direction = Direction::ServerToClient;
const PEER: &str = "spiffe://shop.test/cart";
/// What a server-first protocol sends.
const GREETING: &[u8] = b"220 mail.test ESMTP\r\n";

/// Connections: of mutual TLS, opaque, TLS that is passed on, HTTP/1 that turns into a WebSocket, unreadable, answered
/// here, still open; and [`CONNECTION`].
const MUTUAL: u64 = 0xa1;
const OPAQUE: u64 = 0xa2;
const PASSED: u64 = 0xa3;
const UPGRADED: u64 = 0xa4;
const UNREADABLE: u64 = 0xa5;
const ANSWERED: u64 = 0xa6;
const OPEN: u64 = 0xa7;

fn all_sorts() -> (TempDir, LedgerMaker) {
    let server = v1::Tls { side: Side::Server.into(), verified_peer: None, ..mutual_tls("") };
    let hello = v1::Tls {
        side: Side::Client.into(),
        server_name: "db.test".into(),
        alpn_offered: vec!["h2".into()],
        ja4: "t13d1516h2_8daaf6152771_e5627efa2ab1".into(),
        ..v1::Tls::default()
    };
    let unreadable = connection_event(connection_event::Type::NotReadable, "two lengths of one body");
    let (mut answered, _) = connection_opened(ANSWERED, CLIENT);
    if let attestry::entry::Body::ConnectionOpened(opened) = &mut answered {
        opened.local_reason = "the upstream refused".into();
    }
    ledger_of(vec![
        redirected(MUTUAL, "10.1.1.1:1", "10.9.9.9:443", 0),
        happened(
            MUTUAL,
            UP,
            vec![tls(server), tls(mutual_tls(PEER)), found(WireProtocol::Http2, "its preface")],
        ),
        redirected(OPAQUE, "10.1.1.1:2", "10.9.9.9:25", 1_000),
        happened(
            OPAQUE,
            DOWN,
            vec![found(WireProtocol::Opaque, "the server spoke first"), first_bytes(GREETING)],
        ),
        Call::grpc(1).on(MUTUAL).by(PEER).up(3, vec![request("/shop.Cart/Get")]),
        happened(OPAQUE, UP, vec![first_bytes(b"EHLO\r\n")]),
        redirected(PASSED, "10.1.1.1:3", "[2001:db8::9]:443", 2_000),
        happened(
            PASSED,
            UP,
            vec![tls(hello), found(WireProtocol::TlsPassthrough, "client_tls is passthrough")],
        ),
        // Ended in another order than begun.
        ended(PASSED, "client reset", Side::Client, [517, 100_000], 60_000),
        ended(OPAQUE, "drain timeout", Side::Attestry, [6, 21], 1_500),
        connection_opened(UPGRADED, "10.2.2.2:4"),
        happened(UPGRADED, UP, vec![found(WireProtocol::Http1, "its first line")]),
        Call::http(2).on(UPGRADED).up(4, vec![request("/chat")]),
        happened(UPGRADED, UP, vec![found(WireProtocol::Opaque, "upgraded to websocket")]),
        ended(UPGRADED, "server closed", Side::Server, [50, 60], 5),
        ended(MUTUAL, "server closed", Side::Server, [900, 9_000], 20),
        connection_opened(UNREADABLE, "10.2.2.2:5"),
        happened(UNREADABLE, UP, vec![found(WireProtocol::Http1, "its first line"), unreadable]),
        ended(UNREADABLE, "unreadable", Side::Attestry, [0, 0], 5),
        (answered, vec![]),
        ended(ANSWERED, "answered", Side::Attestry, [0, 40], 2),
        redirected(OPEN, "10.1.1.1:6", "10.9.9.9:80", 9_000),
    ])
}

fn connections(ledger: &std::path::Path, filters: &[&str]) -> Vec<Value> {
    let listed = printed(ledger, &[&["connections", "-o", "jsonl"], filters].concat());
    listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(connections: &[Value]) -> String {
    let id = |connection: &Value| connection["connection"].as_str().unwrap()[14..].to_owned();
    connections.iter().map(id).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_connection_is_told_in_full() {
    let (_folder, maker) = all_sorts();
    let listed = connections(&maker.folder, &[]);
    assert_eq!(ids(&listed), "05 a1 a2 a3 a4 a5 a6 a7", "in the order in which they began");
    let opaque = json!({
        "connection": "00000000000000a2", "time": "2023-11-14T22:13:21.000000000Z", "direction": "outbound",
        "interception": "redirect", "peer": "10.1.1.1:2", "verified_peer": null, "listener": "127.0.0.1:4140",
        "original_destination": "10.9.9.9:25", "upstream": "10.9.9.9:25", "upstream_address": "10.9.9.9:25",
        "local_reason": null, "protocols": [{ "protocol": "opaque", "reason": "the server spoke first" }],
        "tls_client": null, "tls_server": null, "unread": "the server spoke first",
        "first_bytes_to_server":
            { "length": 6, "sha256": "" },
        "first_bytes_to_client": { "length": 21, "sha256": "" },
        "bytes_to_server": 6, "bytes_to_client": 21, "calls": 0, "duration_ms": 1_500.0, "state": "closed",
        "end_reason": "drain timeout", "end_side": "attestry", "first_index": 5, "last_index": 12
    });
    let mut found = listed[2].clone();
    // Of the digests the length is enough here: `tail`'s test has one to the digit.
    for (way, length) in [("first_bytes_to_server", 6), ("first_bytes_to_client", 21)] {
        assert_eq!(found[way]["length"], length);
        assert_eq!(found[way]["sha256"].as_str().unwrap().len(), 64);
        found[way] = opaque[way].clone();
    }
    assert_eq!(found, opaque);
    let passed = &listed[3];
    assert_eq!(passed["tls_client"]["server_name"], "db.test");
    assert_eq!(passed["tls_client"]["ja4"], "t13d1516h2_8daaf6152771_e5627efa2ab1");
    assert_eq!(
        (&passed["tls_client"]["terminated"], &passed["tls_client"]["version"]),
        (&json!(false), &Value::Null)
    );
    let mutual = &listed[1];
    assert_eq!((&mutual["verified_peer"], &mutual["calls"]), (&json!(PEER), &json!(0)), "as its end says");
    assert_eq!(
        mutual["tls_client"]["verified_peer"]["subject_alternative_names"],
        json!([format!("URI:{PEER}")])
    );
    assert_eq!(mutual["tls_server"]["verified_peer"], Value::Null);
    let upgraded = json!([
        { "protocol": "http1", "reason": "its first line" },
        { "protocol": "opaque", "reason": "upgraded to websocket" }
    ]);
    assert_eq!(listed[4]["protocols"], upgraded);
    assert_eq!(
        (&listed[6]["local_reason"], &listed[6]["unread"]),
        (&json!("the upstream refused"), &Value::Null)
    );
    assert_eq!((&listed[7]["state"], &listed[7]["duration_ms"]), (&json!("open"), &Value::Null));
}

#[test]
fn what_was_not_read_is_found() {
    let (_folder, maker) = all_sorts();
    let unread = connections(&maker.folder, &["--unread"]);
    assert_eq!(ids(&unread), "a2 a3 a4 a5");
    let reasons = [
        "the server spoke first",
        "client_tls is passthrough",
        "upgraded to websocket",
        "two lengths of one body",
    ];
    assert_eq!(each(&unread, "unread"), reasons);
}

/// A ledger from before protocols were recorded: what has calls was read, what has bytes and none was not.
#[test]
fn bytes_of_which_nothing_is_known_are_unread() {
    let (_folder, maker) = ledger_of(vec![
        connection_opened(OPAQUE, CLIENT),
        ended(OPAQUE, "", Side::Client, [9, 0], 1),
        connection_opened(PASSED, CLIENT),
        ended(PASSED, "", Side::Client, [0, 0], 1),
    ]);
    let unread = connections(&maker.folder, &["--unread"]);
    assert_eq!(
        (ids(&unread).as_str(), &unread[0]["unread"]),
        ("a2", &json!("the ledger does not say what was spoken"))
    );
}

#[test]
fn filters_choose_connections() {
    let (_folder, maker) = all_sorts();
    let cases: &[(&[&str], &str)] = &[
        (&["--protocol", "http2"], "a1"),
        (&["--protocol", "opaque,TLS_PASSTHROUGH"], "a2 a3 a4"),
        (&["--protocol", "none"], "05 a6 a7"),
        (&["--direction", "inbound"], "05 a4 a5 a6"),
        (&["--direction", "outbound", "--unread"], "a2 a3"),
        (&["--peer", "spiffe://shop.test/"], "a1"),
        (&["--peer", "10.2."], "a4 a5"),
        (&["--since", "2023-11-14T22:13:21Z", "--until", "2023-11-14T22:13:22.001Z"], "a2 a3"),
        (&["--since", "2h"], ""),
    ];
    for (filters, expected) in cases {
        assert_eq!(ids(&connections(&maker.folder, filters)), *expected, "{filters:?}");
    }
    for filter in [["--protocol", "smtp"], ["--direction", "sideways"], ["--since", "soon"]] {
        let output = attestry(&maker.folder, &["connections", filter[0], filter[1]]);
        assert_eq!(output.status.code(), Some(2), "{filter:?}");
        assert!(text(&output.stderr).contains(filter[1]), "{filter:?} is named");
    }
}

#[test]
fn connections_are_a_table() {
    let (_folder, maker) = all_sorts();
    let table = printed(&maker.folder, &["connections"]);
    let lines: Vec<&str> = table.lines().collect();
    let expected = [
        "TIME                      DIR       PROTOCOL         PEER           TO                   SNI        CALLS  \
         BYTES(UP/DOWN)  DURATION  CONNECTION        END",
        "2023-11-14T22:13:22.000Z  outbound  tls_passthrough  10.1.1.1:3     [2001:db8::9]:443    db.test    0      \
         517/97.6KiB     1m00s     00000000000000a3  client reset by client",
        "2023-11-14T22:13:20.000Z  inbound   http1>opaque     10.2.2.2:4     upstream.test:50051  -          0      \
         50/60           5.00ms    00000000000000a4  server closed by server",
        "2023-11-14T22:13:29.000Z  outbound  -                10.1.1.1:6     10.9.9.9:80          -          0      \
         -               -         00000000000000a7  (open)",
    ];
    assert_eq!([lines[0], lines[4], lines[5], lines[8]], expected, "{table}");
    let wide = printed(&maker.folder, &["connections", "-o", "wide"]);
    assert!(
        wide.contains(PEER) && wide.contains("redirect") && wide.contains("two lengths of one body"),
        "{wide}"
    );
    let json: Value = serde_json::from_str(&printed(&maker.folder, &["connections", "-o", "json"])).unwrap();
    assert_eq!(json.as_array().unwrap(), &connections(&maker.folder, &[]));
}

#[test]
fn an_empty_list_of_connections_says_so() {
    let (_folder, maker) = ledger();
    let output = attestry(&maker.folder, &["connections", "--unread"]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(text(&output.stderr), "no connections\n");
}

#[test]
fn connections_without_an_end_or_a_beginning_are_told() {
    let (_folder, maker) = ledger_of(vec![
        connection_opened(OPEN, CLIENT),
        Call::grpc(1).on(OPEN).up(0, vec![request("/a/B")]),
        // Its beginning is not in the ledger.
        happened(OPAQUE, DOWN, vec![first_bytes(GREETING)]),
        started(),
        connection_opened(OPEN, CLIENT),
        ended(PASSED, "server closed", Side::Server, [1, 2], 3),
    ]);
    let listed = connections(&maker.folder, &[]);
    assert_eq!(ids(&listed), "05 a7 a2 a7 a3");
    assert_eq!(each(&listed, "state"), ["abandoned", "abandoned", "abandoned", "open", "closed"]);
    assert_eq!(each(&listed, "calls"), [0, 1, 0, 0, 0]);
    assert_eq!(each(&listed, "direction")[2..], [&Value::Null, &json!("inbound"), &Value::Null]);
}

#[test]
fn a_call_tells_of_its_connection() {
    let (_folder, maker) = all_sorts();
    let call = &calls(&maker.folder, &["--peer", "spiffe://shop.test/cart"])[0];
    assert_eq!((&call["direction"], &call["interception"]), (&json!("outbound"), &json!("redirect")));
    assert_eq!(
        (&call["verified_peer"], &call["original_destination"]),
        (&json!(PEER), &json!("10.9.9.9:443"))
    );
    assert_eq!(call["tls"], json!({ "version": "TLSv1.3", "server_name": "shop.test", "alpn": "h2" }));
    let shown = printed(&maker.folder, &["show", "01"]);
    let fingerprint = "ab".repeat(32);
    for line in [
        format!("from      10.1.1.1:1, verified {PEER}\n"),
        "came      outbound, redirect, dialled 10.9.9.9:443\n".into(),
        "protocol  http2: its preface\n".into(),
        format!(
            "tls       with the client: TLSv1.3, TLS13_AES_128_GCM_SHA256, server name shop.test, ALPN h2, \
             verified {PEER} (certificate {fingerprint})\n"
        ),
        "tls       with the server: TLSv1.3, TLS13_AES_128_GCM_SHA256, server name shop.test, ALPN h2\n"
            .into(),
    ] {
        assert!(shown.contains(&line), "{line}: {shown}");
    }
    let shown: Value = serde_json::from_str(&printed(&maker.folder, &["show", "01", "-o", "json"])).unwrap();
    assert_eq!(shown["connection"]["tls_client"]["verified_peer"]["name"], PEER);
    assert_eq!(shown["connection"]["protocols"][0]["protocol"], "http2");
}

/// What is found later in a connection is none of an earlier call's.
#[test]
fn a_call_keeps_what_was_known_when_it_began() {
    let (_folder, maker) = all_sorts();
    let shown = printed(&maker.folder, &["show", "02"]);
    assert!(shown.contains("protocol  http1: its first line\n"), "{shown}");
}

#[test]
fn nothing_from_a_connection_steers_the_terminal() {
    let evil = "\u{1b}[2J\u{202e}\r\n";
    let nasty = v1::Tls {
        server_name: evil.into(),
        alpn: evil.into(),
        ja4: evil.into(),
        failure: evil.into(),
        ..mutual_tls(evil)
    };
    let unreadable = connection_event(connection_event::Type::NotReadable, evil);
    let (_folder, maker) = ledger_of(vec![
        redirected(OPAQUE, evil, evil, 0),
        happened(OPAQUE, UP, vec![tls(nasty), found(WireProtocol::Opaque, evil), unreadable]),
        Call::grpc(1).on(OPAQUE).up(0, vec![request("/a/B")]),
        ended(OPAQUE, evil, Side::Server, [1, 2], 3),
    ]);
    let commands: [&[&str]; 7] = [
        &["connections"],
        &["connections", "-o", "wide"],
        &["connections", "-o", "json"],
        &["connections", "-o", "jsonl"],
        &["calls", "-o", "wide"],
        &["show", "01"],
        &["show", "01", "-o", "json"],
    ];
    for arguments in commands {
        let shown = printed(&maker.folder, arguments);
        let steering = shown.chars().find(|&c| (c.is_control() && c != '\n') || c == '\u{202e}');
        assert_eq!(steering, None, "{arguments:?}: {shown:?}");
    }
    assert_eq!(connections(&maker.folder, &["--unread"])[0]["unread"], evil, "JSON keeps the value");
}
