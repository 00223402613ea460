//! The cases as data: what a client is told to do, and what must come of it whatever stacks are talking.
//!
//! A case says how a call is made (`spec`, read by every client) and what its result must contain (`must`). That the
//! result is the same direct and relayed is checked in full by `compare`; `must` keeps two equal failures from passing.
//! The cases of gRPC's own suite that were not among ours anyway are in `suite.rs`.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::stacks::Stack;
use super::suite;
use super::tonic_server::GZIP_ANSWERS;

const MIB: usize = 1024 * 1024;
/// Two-, three- and four-byte characters, a percent sign, and controls that must be escaped.
const UTF8_MESSAGE: &str = "zażółć gęślą jaźń — ünïcödé 🚀 100% %41 \t\u{7f} end";
const DETAILS: &str = "080912036e6f7400ff80";
pub(super) const CONCURRENT_CALLS: usize = 500;

/// One case.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The case of gRPC's own interop suite that this is, or is a part of.
    pub(super) suite: Option<&'static str>,
    /// What the client is told, as `Client.run` of the peers reads it.
    pub(super) spec: Value,
    /// Members that the result must have, with these values.
    pub(super) must: Value,
    /// Metadata that must be seen by the server and come back, values of one name joined.
    pub(super) echo: Vec<(&'static str, String)>,
    /// How far a result may be compared.
    pub(super) end: End,
    /// How many calls it makes.
    pub(super) calls: i64,
}

/// Who ends the call, and so how much of its result is the same each time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The server: everything is compared.
    Server,
    /// The client, while the server still works on it: status text and metadata depend on what was under way.
    Client,
    /// The deadline, at both sides at once: also the code depends on who noticed first (tonic says CANCELLED).
    Deadline,
    /// Nobody: there is no server. The message names an address.
    Unreachable,
}

/// All cases that leave the server running, in their order.
pub(super) fn all() -> Vec<Case> {
    let mut cases = suite::cases();
    cases.extend(shapes());
    cases.extend(sizes());
    cases.extend(metadata());
    cases.extend(statuses());
    cases.extend(given_up());
    cases.push(slow_reader());
    cases.push(concurrent());
    cases
}

/// A stream is open while the server shuts down gracefully, and is served to its end.
pub(super) fn goaway_with_running_stream() -> Case {
    let spec = json!({"count": 6, "ping_pong": true, "drain_at": 2});
    let request = json!({"response_count": 2, "response_size": 100, "seed": 9, "payload_size": 50});
    call("goaway_with_running_stream", "bidi", spec, request).must(json!({
        "code": 0, "messages": 12, "bytes": 1200, "sha256": digest(9, 0..12, 100)
    }))
}

/// A call after the server is gone.
pub(super) fn unreachable() -> Case {
    let case = call("server_gone", "unary", json!({}), json!({})).must(json!({"code": 14}));
    Case { end: End::Unreachable, ..case }
}

fn shapes() -> Vec<Case> {
    vec![
        call("unary", "unary", json!({}), json!({"payload_size": 314, "response_size": 159, "seed": 3, "report": true}))
            .must(json!({"code": 0, "message_is_empty": true, "messages": 1, "sha256": digest(3, 0..1, 159),
                "last": {"messages": 1, "bytes": 314, "sha256": digest(3, 0..1, 314)}})),
        call("client_stream", "client_stream", json!({"count": 5}), json!({"payload_size": 1000, "report": true})).must(
            json!({"code": 0, "messages": 1, "last": {"messages": 5, "bytes": 5000, "sha256": digest(0, 0..5, 1000)}}),
        ),
        call("server_stream", "server_stream", json!({}), json!({"response_count": 7, "response_size": 20_000}))
            .must(json!({"code": 0, "messages": 7, "bytes": 140_000, "sha256": digest(0, 0..7, 20_000)})),
        call(
            "ping_pong_of_200",
            "bidi",
            json!({"count": 200, "ping_pong": true}),
            json!({"payload_size": 17, "response_count": 2, "response_size": 33}),
        )
        .must(json!({"code": 0, "messages": 400, "sha256": digest(0, 0..400, 33)})),
        call("empty_unary", "unary", json!({}), json!({"call": ""}))
            .must(json!({"code": 0, "messages": 1, "bytes": 0}))
            .of_suite("empty_unary"),
        call("empty_messages", "bidi", json!({"count": 50}), json!({"call": "", "response_count": 3}))
            .must(json!({"code": 0, "messages": 150, "bytes": 0})),
        call("empty_client_stream", "client_stream", json!({"count": 0}), json!({}))
            .must(json!({"code": 0, "messages": 1})),
        call("empty_stream", "bidi", json!({"count": 0}), json!({}))
            .must(json!({"code": 0, "messages": 0}))
            .of_suite("empty_stream"),
    ]
}

fn sizes() -> Vec<Case> {
    let large = |name, bytes: usize| {
        let request = json!({"payload_size": bytes, "response_size": bytes, "seed": 5, "report": true});
        let sha256 = digest(5, 0..1, bytes);
        call(name, "unary", json!({}), request).must(json!({"code": 0, "bytes": bytes, "sha256": sha256,
            "last": {"messages": 1, "bytes": bytes, "sha256": sha256}}))
    };
    vec![
        large("message_of_4_mib", 4 * MIB),
        large("message_of_64_mib", 64 * MIB).of_suite("very_large_request"),
        call("client_stream_of_10_000", "client_stream", json!({"count": 10_000}), json!({"payload_size": 11, "report": true}))
            .must(json!({"code": 0, "last": {"messages": 10_000, "bytes": 110_000, "sha256": digest(0, 0..10_000, 11)}})),
        call("server_stream_of_10_000", "server_stream", json!({}), json!({"response_count": 10_000, "response_size": 13}))
            .must(json!({"code": 0, "messages": 10_000, "sha256": digest(0, 0..10_000, 13)})),
        gzip("gzip_unary", "unary", json!({}), json!({"payload_size": MIB, "response_size": MIB, "report": true})).must(
            json!({"code": 0, "bytes": MIB, "sha256": digest(0, 0..1, MIB),
                "last": {"bytes": MIB, "sha256": digest(0, 0..1, MIB)}}),
        ),
        gzip(
            "gzip_bidi",
            "bidi",
            json!({"count": 20, "ping_pong": true}),
            json!({"payload_size": 5000, "response_count": 1, "response_size": 5000}),
        )
        .must(json!({"code": 0, "messages": 20, "sha256": digest(0, 0..20, 5000)})),
    ]
}

fn metadata() -> Vec<Case> {
    let several = json!([
        ["x-plain", "value"],
        ["x-twice", "first"],
        ["x-other", "between, with a comma"],
        ["x-twice", "second"],
        ["x-twice", "first"],
        ["x-empty", ""],
        ["x-raw-bin", "00ff8081"],
        ["x-raw-bin", "01"],
        ["x-raw-bin", "0203"],
    ]);
    let several_back = vec![
        ("x-plain", "value".to_owned()),
        ("x-twice", "first, second, first".to_owned()),
        ("x-other", "between, with a comma".to_owned()),
        ("x-empty", String::new()),
        ("x-raw-bin", "00ff8081, 01, 0203".to_owned()),
    ];
    let long = "m".repeat(60 * 1024);
    let request = || json!({"echo_metadata": true, "report": true, "response_size": 10, "response_count": 2});
    let over = |name, shape, metadata: &Value, back: &[(&'static str, String)]| {
        let case = call(name, shape, json!({"metadata": metadata, "count": 2}), request());
        Case { echo: back.to_vec(), ..case.must(json!({"code": 0})) }
    };
    let big = json!([["x-long", long]]);
    let big_back = [("x-long", long)];
    vec![
        over("metadata_unary", "unary", &several, &several_back),
        over("metadata_client_stream", "client_stream", &several, &several_back),
        over("metadata_server_stream", "server_stream", &several, &several_back),
        over("metadata_bidi", "bidi", &several, &several_back),
        over("metadata_of_60_kib", "unary", &big, &big_back),
        over("metadata_of_60_kib_bidi", "bidi", &big, &big_back),
        call("deadline_kept", "unary", json!({"deadline_ms": 50_000}), json!({"report": true}))
            .must(json!({"code": 0})),
    ]
}

fn statuses() -> Vec<Case> {
    let failed = json!({"code": 9, "message": UTF8_MESSAGE, "details": DETAILS});
    let failing = |mut request: Value| {
        request["status_code"] = json!(9);
        request["status_message"] = json!(UTF8_MESSAGE);
        request["status_details"] = json!(DETAILS);
        request
    };
    let with = |mut must: Value, messages: usize| {
        must["messages"] = json!(messages);
        must
    };
    let elsewhere = |name, path: &str, shape| {
        let case = call(name, shape, json!({"count": 1}), json!({}));
        let suite = if path.contains("Absent") { "unimplemented_service" } else { "unimplemented_method" };
        let spec = with_path(case.spec.clone(), path);
        Case { spec, ..case.of_suite(suite) }.must(json!({"code": 12, "messages": 0}))
    };
    let early = |name, shape, request| call(name, shape, json!({"count": null}), request);
    vec![
        call("error_trailers_only", "unary", json!({}), failing(json!({}))).must(with(failed.clone(), 0)),
        call(
            "error_after_messages",
            "server_stream",
            json!({}),
            failing(json!({"response_count": 3, "response_size": 7})),
        )
        .must(with(failed.clone(), 3)),
        call("error_without_message", "unary", json!({}), json!({"status_code": 5}))
            .must(json!({"code": 5, "messages": 0})),
        elsewhere("unimplemented_method", "/attestry.interop.v1.Interop/Missing", "unary"),
        elsewhere("unimplemented_method_bidi", "/attestry.interop.v1.Interop/Missing", "bidi"),
        elsewhere("unimplemented_service", "/attestry.interop.v1.Absent/Unary", "unary"),
        early("early_error", "client_stream", failing(json!({"payload_size": 1000, "end_after": 3})))
            .must(with(failed, 0)),
        early(
            "early_answer",
            "client_stream",
            json!({"payload_size": 1000, "end_after": 3, "response_size": 8}),
        )
        .must(json!({"code": 0, "messages": 1, "bytes": 8})),
        // The server's end and its reset cross a message that is still coming in.
        early(
            "early_end_within_message",
            "bidi",
            json!({"payload_size": MIB, "end_after": 1, "response_count": 1}),
        )
        .must(json!({"code": 0, "messages": 1})),
        early("early_end_bidi", "bidi", json!({"payload_size": 1000, "end_after": 3, "response_count": 1}))
            .must(json!({"code": 0, "messages": 3})),
    ]
}

/// Calls that the client gives up, or whose time is up. The server must hear of each.
fn given_up() -> Vec<Case> {
    let hanging = |name, shape, mut spec: Value, mut request: Value, messages: usize| {
        spec["await_cancelled"] = json!(true);
        request["hang"] = json!(true);
        let case = call(name, shape, spec, request);
        Case { end: End::Client, ..case.must(json!({"code": 1, "messages": messages, "server_heard": true})) }
    };
    let stream = json!({"response_count": 3, "response_size": 10});
    let deadline = hanging("deadline", "unary", json!({"deadline_ms": 300}), json!({}), 0);
    vec![
        hanging("cancel_unary", "unary", json!({"cancel": true}), json!({}), 0),
        hanging(
            "cancel_client_stream",
            "client_stream",
            json!({"cancel": true, "count": 2, "hold_open": true}),
            json!({}),
            0,
        )
        .of_suite("cancel_after_begin"),
        hanging(
            "cancel_server_stream",
            "server_stream",
            json!({"cancel": true, "cancel_after": 3}),
            stream.clone(),
            3,
        ),
        hanging(
            "cancel_bidi",
            "bidi",
            json!({"cancel": true, "cancel_after": 6, "count": 2, "hold_open": true}),
            stream,
            6,
        ),
        Case { end: End::Deadline, ..deadline.must(json!({"code": 4, "messages": 0, "server_heard": true})) },
    ]
}

/// The client reads nothing until the server has been stuck for a while: flow control reaches from end to end.
fn slow_reader() -> Case {
    let request = json!({"response_count": 512, "response_size": 64 * 1024});
    call("slow_reader", "server_stream", json!({"pause": true}), request).must(json!({
        "code": 0, "messages": 512, "bytes": 32 * MIB, "sha256": digest(0, 0..512, 64 * 1024), "stalled": true
    }))
}

/// All calls are open at once: the server answers none before the last one is there.
fn concurrent() -> Case {
    let request = json!({"barrier": CONCURRENT_CALLS, "payload_size": 100, "response_size": 100});
    many("concurrent_calls", "concurrent", CONCURRENT_CALLS, request, 100)
}

/// Many unary calls, at once or one after another, with one sum of their results.
pub(super) fn many(name: &'static str, how: &str, calls: usize, request: Value, answer_bytes: usize) -> Case {
    let mut all = Sha256::new();
    (0..calls).for_each(|seed| all.update(digest(seed, 0..1, answer_bytes)));
    let mut spec = json!({});
    spec[how] = json!(calls);
    let case = call(name, "unary", spec, request);
    Case { calls: i64::try_from(calls).unwrap(), ..case }
        .must(json!({"codes": {"0": calls}, "sha256": hex(&all.finalize())}))
}

/// A case in which both sides compress.
fn gzip(name: &'static str, shape: &str, mut spec: Value, request: Value) -> Case {
    spec["gzip"] = json!(true);
    call(name, shape, spec, request).with_gzip_answers()
}

/// A case of the service's own method for `shape`, named for the side channel by the case's name.
pub(super) fn call(name: &'static str, shape: &str, mut spec: Value, mut request: Value) -> Case {
    let method = match shape {
        "unary" => "Unary",
        "client_stream" => "ClientStream",
        "server_stream" => "ServerStream",
        _ => "Bidi",
    };
    if request.get("call").is_none() {
        request["call"] = json!(name);
    }
    if spec.get("count") == Some(&Value::Null) {
        // Without a count the client sends until the call ends.
        spec.as_object_mut().unwrap().remove("count");
    } else if spec.get("count").is_none() {
        spec["count"] = json!(1);
    }
    spec["shape"] = json!(shape);
    spec["request"] = request;
    let spec = with_path(spec, &format!("/attestry.interop.v1.Interop/{method}"));
    Case { name, suite: None, spec, must: json!({}), echo: Vec::new(), end: End::Server, calls: 1 }
}

fn with_path(mut spec: Value, path: &str) -> Value {
    spec["path"] = json!(path);
    spec
}

impl Case {
    pub(super) fn must(self, must: Value) -> Self {
        Self { must, ..self }
    }

    pub(super) fn of_suite(self, name: &'static str) -> Self {
        Self { suite: Some(name), ..self }
    }

    /// The server compresses its answers, where it can.
    pub(super) fn with_gzip_answers(mut self) -> Self {
        self.spec["request"]["gzip"] = json!(true);
        self.spec["metadata"] = json!([[GZIP_ANSWERS, "yes"]]);
        self
    }

    /// False where two stacks cannot play it with each other: tonic's deadlines, the client's as the server's, last until
    /// the response's headers, and a stream that hangs behind them hangs for ever.
    pub(super) fn is_playable(&self, (client, server): (Stack, Stack)) -> bool {
        let needs_deadline = self.name == "timeout_on_sleeping_server";
        !(needs_deadline && client == Stack::Tonic && server == Stack::Tonic)
    }

    /// The call's path, as the ledger calls its method.
    pub(super) fn path(&self) -> &str {
        self.spec["path"].as_str().unwrap()
    }
}

/// Byte i of message `index` is (seed + index + i) mod 256; the same in every peer.
pub(super) fn payload(seed: usize, index: usize, bytes: usize) -> Vec<u8> {
    let pattern: Vec<u8> = (0..256).map(|i| u8::try_from((seed + index + i) % 256).unwrap()).collect();
    pattern.into_iter().cycle().take(bytes).collect()
}

pub(super) fn digest(seed: usize, indexes: std::ops::Range<usize>, bytes: usize) -> String {
    let mut sha256 = Sha256::new();
    indexes.for_each(|index| sha256.update(payload(seed, index, bytes)));
    hex(&sha256.finalize())
}

/// The digest of messages of these sizes, one after another.
pub(super) fn digest_of_sizes(sizes: &[usize]) -> String {
    let mut sha256 = Sha256::new();
    sizes.iter().enumerate().for_each(|(index, &size)| sha256.update(payload(0, index, size)));
    hex(&sha256.finalize())
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
