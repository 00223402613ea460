//! The cases of gRPC's own interop suite (grpc/grpc, doc/interop-test-descriptions.md) that `cases.rs` does not have
//! anyway, with the suite's sizes, texts and metadata. `document.rs` says where ours are not quite the suite's.

use serde_json::json;

use super::cases::{Case, End, call, digest_of_sizes, many};

const REQUEST_SIZES: [usize; 4] = [27_182, 8, 1_828, 45_904];
const RESPONSE_SIZES: [usize; 4] = [31_415, 9, 2_653, 58_979];
const LARGE_REQUEST: usize = 271_828;
const LARGE_RESPONSE: usize = 314_159;
const STATUS_MESSAGE: &str = "test status message";
const SPECIAL_STATUS_MESSAGE: &str = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
const RPC_SOAK_CALLS: usize = 100;
const CHANNEL_SOAK_CALLS: usize = 20;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![large_unary("large_unary"), client_streaming(), server_streaming(), ping_pong()];
    cases.extend(compressed());
    cases.extend(custom_metadata());
    cases.extend(statuses());
    cases.extend(given_up());
    cases.extend(soaks());
    cases
}

fn large_unary(name: &'static str) -> Case {
    let request = json!({"payload_size": LARGE_REQUEST, "response_size": LARGE_RESPONSE, "report": true});
    call(name, "unary", json!({}), request)
        .must(json!({"code": 0, "bytes": LARGE_RESPONSE, "sha256": digest_of_sizes(&[LARGE_RESPONSE]),
            "last": {"bytes": LARGE_REQUEST, "sha256": digest_of_sizes(&[LARGE_REQUEST])}}))
        .of_suite(name)
}

fn client_streaming() -> Case {
    let spec = json!({"count": 4, "payload_sizes": REQUEST_SIZES});
    call("client_streaming", "client_stream", spec, json!({"report": true}))
        .must(json!({"code": 0, "messages": 1,
            "last": {"messages": 4, "bytes": 74_922, "sha256": digest_of_sizes(&REQUEST_SIZES)}}))
        .of_suite("client_streaming")
}

fn server_streaming() -> Case {
    call("server_streaming", "server_stream", json!({}), json!({"response_sizes": RESPONSE_SIZES}))
        .must(json!({"code": 0, "messages": 4, "sha256": digest_of_sizes(&RESPONSE_SIZES)}))
        .of_suite("server_streaming")
}

fn ping_pong() -> Case {
    let sizes = json!({"count": 4, "ping_pong": true, "payload_sizes": REQUEST_SIZES, "answer_sizes": RESPONSE_SIZES});
    call("ping_pong", "bidi", sizes, json!({"response_count": 1}))
        .must(json!({"code": 0, "messages": 4, "sha256": digest_of_sizes(&RESPONSE_SIZES)}))
        .of_suite("ping_pong")
}

/// One side compresses, the other does not.
fn compressed() -> Vec<Case> {
    let requests = [27_182, 45_904];
    let answers = [31_415, 92_653];
    let client = |mut case: Case| {
        case.spec["gzip"] = json!(true);
        case
    };
    vec![
        client(large_unary("client_compressed_unary")),
        large_unary("server_compressed_unary").with_gzip_answers(),
        client(call(
            "client_compressed_streaming",
            "client_stream",
            json!({"count": 2, "payload_sizes": requests}),
            json!({"report": true}),
        ))
        .must(json!({"code": 0, "messages": 1,
            "last": {"messages": 2, "bytes": 73_086, "sha256": digest_of_sizes(&requests)}}))
        .of_suite("client_compressed_streaming"),
        call("server_compressed_streaming", "server_stream", json!({}), json!({"response_sizes": answers}))
            .with_gzip_answers()
            .must(json!({"code": 0, "messages": 2, "sha256": digest_of_sizes(&answers)}))
            .of_suite("server_compressed_streaming"),
    ]
}

fn custom_metadata() -> Vec<Case> {
    let metadata = json!([
        ["x-grpc-test-echo-initial", "test_initial_metadata_value"],
        ["x-grpc-test-echo-trailing-bin", "ababab"],
    ]);
    let over = |name, shape| {
        let request = json!({"echo_metadata": true, "payload_size": LARGE_REQUEST, "response_size": LARGE_RESPONSE,
            "response_count": 1});
        let case = call(name, shape, json!({"metadata": metadata}), request).of_suite("custom_metadata");
        let echo = vec![
            ("x-grpc-test-echo-initial", "test_initial_metadata_value".to_owned()),
            ("x-grpc-test-echo-trailing-bin", "ababab".to_owned()),
        ];
        Case { echo, ..case }.must(json!({"code": 0, "messages": 1, "bytes": LARGE_RESPONSE}))
    };
    vec![over("custom_metadata", "unary"), over("custom_metadata_full_duplex", "bidi")]
}

fn statuses() -> Vec<Case> {
    let failing = |name, shape, message: &str| {
        call(name, shape, json!({}), json!({"status_code": 2, "status_message": message}))
            .must(json!({"code": 2, "message": message, "messages": 0}))
    };
    vec![
        failing("status_code_and_message", "unary", STATUS_MESSAGE).of_suite("status_code_and_message"),
        failing("status_code_and_message_full_duplex", "bidi", STATUS_MESSAGE)
            .of_suite("status_code_and_message"),
        failing("special_status_message", "unary", SPECIAL_STATUS_MESSAGE).of_suite("special_status_message"),
    ]
}

fn given_up() -> Vec<Case> {
    let sizes = json!({"payload_size": 27_182, "response_size": 31_415, "response_count": 1, "hang": true});
    let cancelled =
        json!({"cancel": true, "cancel_after": 1, "count": 1, "hold_open": true, "await_cancelled": true});
    let timed_out = json!({"deadline_ms": 300, "count": 1, "hold_open": true, "await_cancelled": true});
    let sleeping = json!({"payload_size": 27_182, "hang": true});
    vec![
        Case {
            end: End::Client,
            ..call("cancel_after_first_response", "bidi", cancelled, sizes)
                .must(json!({"code": 1, "messages": 1, "server_heard": true}))
                .of_suite("cancel_after_first_response")
        },
        Case {
            end: End::Deadline,
            ..call("timeout_on_sleeping_server", "bidi", timed_out, sleeping)
                .must(json!({"code": 4, "messages": 0, "server_heard": true}))
                .of_suite("timeout_on_sleeping_server")
        },
    ]
}

fn soaks() -> [Case; 2] {
    let request = || json!({"payload_size": LARGE_REQUEST, "response_size": LARGE_RESPONSE});
    let mut channel_soak = many("channel_soak", "soak", CHANNEL_SOAK_CALLS, request(), LARGE_RESPONSE);
    channel_soak.spec["new_channel"] = json!(true);
    let rpc_soak = many("rpc_soak", "soak", RPC_SOAK_CALLS, request(), LARGE_RESPONSE);
    [rpc_soak.of_suite("rpc_soak"), channel_soak.of_suite("channel_soak")]
}
