//! What stands in the entries of HTTP/1 connections, wherever their bytes were cut.

use super::*;
use crate::capture::stream::protocol_over_http2;
use crate::capture::{Level, Redactor, Side};
use crate::entry::{self, Body, PieceKind};
use crate::generated::v1::{self, Protocol, connection_event::Type};
use crate::http2::UnitLimits;
use sha2::{Digest as _, Sha256};

const C: Direction = Direction::ClientToServer;
const S: Direction = Direction::ServerToClient;

/// What one side does next: it says something, or ends.
type Turn<'a> = (Direction, Option<&'a str>);

fn says(direction: Direction, text: &str) -> Turn<'_> {
    (direction, Some(text))
}

/// A capture, the bytes that wait, and what its entries say.
struct Wire {
    capture: Http1,
    waiting: [Vec<u8>; 2],
    forwarded: [Vec<u8>; 2],
    seen: Vec<String>,
    milestones: Vec<Milestone>,
    failure: Option<Failure>,
    entries: usize,
    /// Over each open message, to check the digests of its segments.
    bodies: BTreeMap<(u32, bool, u64), Vec<u8>>,
}

impl Wire {
    fn new(level: Level, on_unreadable: OnUnreadable) -> Self {
        let units =
            UnitLimits { frame_bytes_max: 16_384, header_list_bytes_max: 65_536, continuations_max: 8 };
        let mut next = 0_u8;
        let ids = Ids::from_source(move |bytes| {
            next = next.wrapping_add(1);
            bytes.fill(next);
        });
        let subject = Subject { connection: 7, verified_peer: "spiffe://a/b".into() };
        let policy = Policy { level, redactor: Redactor::new(&[0; 32]) };
        let limits = Limits { units, streams_max: 3 };
        let counters = Arc::new(Counters::default());
        Self {
            capture: Http1::new(subject, policy, limits, ids, counters, on_unreadable),
            waiting: Default::default(),
            forwarded: Default::default(),
            seen: Vec::new(),
            milestones: Vec::new(),
            failure: None,
            entries: 0,
            bodies: BTreeMap::new(),
        }
    }

    fn run(mut self, script: &[Turn], piece: usize) -> Self {
        for &(direction, text) in script {
            for piece in text.unwrap_or_default().as_bytes().chunks(piece) {
                self.waiting[side(direction)].extend_from_slice(piece);
                self.read(direction);
                self.read(if direction == C { S } else { C });
            }
            if text.is_none() {
                let rest = Bytes::from(std::mem::take(&mut self.waiting[side(direction)]));
                let observed = self.capture.sender_ended(direction, &rest, 1);
                self.observed(direction, &rest, observed);
            }
        }
        self
    }

    fn read(&mut self, direction: Direction) {
        while self.failure.is_none() {
            let length = self.capture.prefix(direction, &self.waiting[side(direction)]);
            assert_eq!(self.capture.prefix(direction, &self.waiting[side(direction)]), length, "asked twice");
            if length == 0 {
                break;
            }
            let chunk = self.waiting[side(direction)].drain(..length).collect::<Bytes>();
            let observed = self.capture.observe(direction, &chunk, 1);
            self.observed(direction, &chunk, observed);
        }
    }

    fn observed(&mut self, direction: Direction, chunk: &Bytes, observed: Observed) {
        assert_eq!(observed.submission.wire_bytes, observed.forward as u64);
        self.forwarded[side(direction)].extend_from_slice(&chunk[..observed.forward]);
        self.milestones.extend(observed.milestones);
        self.failure = self.failure.take().or(observed.failure);
        self.record(observed.submission);
    }

    fn record(&mut self, submission: Submission) {
        for pending in submission.entries {
            self.entries += 1;
            let payload = pending.payload.concat();
            let body = entry::decode(pending.body.into()).unwrap().body.unwrap();
            let mut beside = Vec::new();
            let mut at = 0;
            for piece in entry::pieces(&body) {
                let end = at + usize::try_from(piece.length).unwrap();
                let number = match piece.kind {
                    PieceKind::Fields(number, _)
                    | PieceKind::Segment(number, _)
                    | PieceKind::Connection(number, _) => number,
                };
                beside.push((number, payload[at..end].to_vec()));
                at = end;
            }
            assert_eq!(at, payload.len(), "all payload is named");
            match body {
                Body::CallEvents(call) => self.call(&call, &beside),
                Body::ConnectionEvents(events) => self.connection(&events),
                Body::ConnectionClosed(closed) => {
                    self.seen.push(format!("closed after {} calls: {}", closed.calls, closed.reason));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn call(&mut self, call: &v1::CallEvents, beside: &[(usize, Vec<u8>)]) {
        assert_eq!((call.connection, call.verified_peer.as_str()), (7, "spiffe://a/b"));
        let way = if call.direction() == C { '>' } else { '<' };
        let who = format!("{}{way} {}", call.stream, call.protocol().as_str_name());
        for (number, event) in call.events.iter().enumerate() {
            let bytes = beside.iter().find(|(of, _)| *of == number).map(|(_, bytes)| bytes.as_slice());
            let name = event.r#type().as_str_name();
            if let Some(segment) = &event.message {
                let body =
                    self.bodies.entry((call.stream, call.direction() == C, segment.message)).or_default();
                assert_eq!(segment.offset, body.len() as u64);
                let filler = vec![b'?'; usize::try_from(segment.length).unwrap()];
                body.extend_from_slice(bytes.unwrap_or(&filler));
                if segment.stored {
                    assert_eq!(segment.sha256[..], Sha256::digest(&body)[..], "the digest up to here");
                }
                let text =
                    format!("{}{}", segment.prefix.escape_ascii(), bytes.unwrap_or(&filler).escape_ascii());
                let line = format!("{who} {name} {}: ", segment.message);
                match self.seen.iter_mut().rev().find(|seen| seen.starts_with(&who)) {
                    Some(last) if last.starts_with(&line) && !last.ends_with(" end") => last.push_str(&text),
                    _ => self.seen.push(format!("{line}{text}")),
                }
                if segment.end {
                    self.seen.iter_mut().rev().find(|seen| seen.starts_with(&line)).unwrap().push_str(" end");
                }
                continue;
            }
            let header = event.header.as_ref().map(|header| {
                let list = match bytes {
                    Some(bytes) => entry::decode_fields(Bytes::copy_from_slice(bytes)).unwrap(),
                    None => header.fields.clone(),
                };
                let field = |field: &v1::Field| {
                    let value = if field.keyed_digest.is_empty() {
                        field.value.escape_ascii().to_string()
                    } else {
                        "SECRET".into()
                    };
                    format!("{}={value}", field.name.escape_ascii())
                };
                format!("[{}]", list.iter().map(field).collect::<Vec<_>>().join("|"))
            });
            self.seen.push(
                format!("{who} {name} {}{}", header.unwrap_or_default(), event.note).trim_end().to_owned(),
            );
        }
    }

    fn connection(&mut self, events: &v1::ConnectionEvents) {
        let way = if events.direction() == C { '>' } else { '<' };
        for event in &events.events {
            let name = event.r#type().as_str_name();
            // How long the first chunk was depends on the cuts.
            let has_digest = matches!(event.r#type(), Type::FirstBytes | Type::StrayFrame);
            assert_eq!(event.payload_sha256.len() == 32, has_digest);
            assert_eq!(event.payload_stored, event.r#type() == Type::StrayFrame, "nothing unread is stored");
            self.seen.push(format!("{way} {name} {}", event.reason).trim_end().to_owned());
        }
    }
}

fn side(direction: Direction) -> usize {
    usize::from(direction == S)
}

/// What is seen of a script at the highest level, which must not depend on where the bytes are cut.
fn seen(script: &[Turn]) -> Wire {
    let run = |piece: usize| Wire::new(Level::RequestResponse, OnUnreadable::Forward).run(script, piece);
    let whole = run(usize::MAX);
    let longest = script.iter().map(|(_, text)| text.unwrap_or_default().len()).max().unwrap_or_default();
    for piece in 1..longest.min(400) {
        let cut = run(piece);
        assert_eq!(by_side(&cut.seen), by_side(&whole.seen), "in pieces of {piece} bytes");
        assert_eq!(cut.forwarded, whole.forwarded);
    }
    for direction in [C, S] {
        let said = script.iter().filter(|turn| turn.0 == direction).filter_map(|turn| turn.1);
        let left = &whole.waiting[side(direction)];
        let forwarded = [&whole.forwarded[side(direction)][..], left].concat();
        assert_eq!(forwarded, said.collect::<String>().as_bytes(), "forwarded as it came");
    }
    whole
}

/// Which of two sides is read first depends on the cuts.
fn by_side(seen: &[String]) -> Vec<&String> {
    let (client, server) = seen.iter().partition::<Vec<_>, _>(|line| line.contains("> "));
    client.into_iter().chain(server).collect()
}

fn ending() -> Ending {
    let (reason, side) = ("closed by the client".to_owned(), Side::Client);
    Ending { reason, side, bytes_to_server: 1, bytes_to_client: 2, duration_nanos: 3 }
}

const GET: &str = "GET / HTTP/1.1\r\n\r\n";

#[test]
fn a_call_is_recorded_as_over_http2_with_one_entry_for_each_side() {
    let request = "POST /a?b HTTP/1.1\r\nHost: x\r\nX-Odd:  v \r\nContent-Length: 5\r\n\r\nhello";
    let response = "HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwo\r\n3\r\nrld\r\n0\r\n\r\n";
    let mut wire = seen(&[says(C, request), says(S, response)]);
    assert_eq!(
        wire.seen,
        [
            "1> HTTP CLIENT_HEADER [:method=POST|:path=/a?b|:version=HTTP/1.1|Host=x|X-Odd=v|Content-Length=5]",
            "1> HTTP CLIENT_MESSAGE 0: hello end",
            "1> HTTP CLIENT_HALF_CLOSE",
            "1< HTTP SERVER_HEADER [:status=200|:reason=Fine|:version=HTTP/1.1|Transfer-Encoding=chunked]",
            "1< HTTP SERVER_MESSAGE 0: world end",
            "1< HTTP SERVER_HALF_CLOSE",
        ]
    );
    assert_eq!(wire.entries, 2);
    let opened = Milestone::Opened { stream: 1, is_grpc: false };
    assert_eq!(wire.milestones, [opened, Milestone::Responded(1), Milestone::Ended(1)]);
    let counters = wire.capture.evidence.counters.clone();
    assert_eq!((counters.calls_started.get(), counters.calls_ended.get()), (1, 1));
    assert_eq!((counters.messages.get(), counters.message_bytes.get()), (2, 10));
    let closed = wire.capture.close(ending(), 2);
    wire.record(closed);
    assert_eq!(wire.seen[6..], ["closed after 1 calls: closed by the client"]);
}

#[test]
fn trailers_and_informational_responses_are_recorded() {
    let request = "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    let wire = seen(&[
        says(C, request),
        says(S, "HTTP/1.1 100 Continue\r\n\r\n"),
        says(C, "1\r\na\r\n0\r\nX-Sum: 1\r\nX-Access-Token: t\r\n\r\n"),
        says(S, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nX-Sum: 2\r\n\r\n"),
    ]);
    assert_eq!(
        wire.seen[1..],
        [
            "1< HTTP SERVER_INFORMATIONAL [:status=100|:reason=Continue|:version=HTTP/1.1]",
            "1> HTTP CLIENT_MESSAGE 0: a end",
            "1> HTTP CLIENT_TRAILER [X-Sum=1|X-Access-Token=SECRET]",
            "1> HTTP CLIENT_HALF_CLOSE",
            "1< HTTP SERVER_HEADER [:status=200|:reason=OK|:version=HTTP/1.1|Transfer-Encoding=chunked]",
            "1< HTTP SERVER_MESSAGE 0: b end",
            "1< HTTP SERVER_TRAILER [X-Sum=2]",
        ]
    );
    assert!(wire.capture.calls.is_empty());
}

#[test]
fn what_a_chunk_carries_beside_its_data_is_recorded_too() {
    let request = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;hidden\r\na\r\n0\r\n\r\n";
    for piece in [1, 5, usize::MAX] {
        let wire = Wire::new(Level::RequestResponse, OnUnreadable::Forward).run(&[says(C, request)], piece);
        let (stray, call) = wire.seen.iter().partition::<Vec<_>, _>(|line| line.contains("STRAY_FRAME"));
        assert_eq!(stray, ["> STRAY_FRAME extensions of a chunk"]);
        assert_eq!(call[1..], ["1> HTTP CLIENT_MESSAGE 0: a end", "1> HTTP CLIENT_HALF_CLOSE"]);
    }
}

#[test]
fn levels_and_secrets_are_kept_as_for_http2() {
    let request =
        "POST /m HTTP/1.1\r\nAUTHORIZATION: Bearer s3cret\r\ncookie: c\r\nContent-Length: 2\r\n\r\nab";
    let response = "HTTP/1.1 200 OK\r\nSet-Cookie: s3cret\r\nContent-Length: 1\r\n\r\nc";
    let run = |level: Level| {
        Wire::new(level, OnUnreadable::Forward).run(&[says(C, request), says(S, response)], usize::MAX).seen
    };
    let all = run(Level::RequestResponse);
    assert!(all[0].contains("|AUTHORIZATION=SECRET|cookie=SECRET|"), "{all:?}");
    assert!(all[3].contains("|Set-Cookie=SECRET|") && all[4].ends_with(": c end"), "{all:?}");
    let request_only = run(Level::Request);
    assert!(
        request_only[1].ends_with(": ab end") && request_only[4].ends_with(": ? end"),
        "{request_only:?}"
    );
    let metadata = run(Level::Metadata);
    assert!(metadata[1].ends_with(": ?? end") && metadata.len() == 6, "{metadata:?}");
    assert_eq!(run(Level::None), ["1> HTTP CLIENT_HEADER [:path=/m]"]);
}

#[test]
fn grpc_web_has_messages_and_grpc_over_http1_is_no_grpc() {
    let message = "\0\0\0\0\x02hi";
    let web = |kind: &str| {
        format!("POST /a.B/C HTTP/1.1\r\nContent-Type: {kind}\r\nContent-Length: 7\r\n\r\n{message}")
    };
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web+proto\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n\0\0\0\0\x01y\x01\0\r\n6\r\n\0\0\x03a:0\r\n0\r\n\r\n";
    let wire = seen(&[says(C, &web("Application/gRPC-Web+proto")), says(S, answer)]);
    assert_eq!(wire.seen[1], "1> GRPC_WEB CLIENT_MESSAGE 0: \\x00\\x00\\x00\\x00\\x02hi end");
    assert_eq!(wire.seen[4], "1< GRPC_WEB SERVER_MESSAGE 0: \\x00\\x00\\x00\\x00\\x01y end");
    assert_eq!(wire.seen[5], "1< GRPC_WEB SERVER_MESSAGE 1: \\x01\\x00\\x00\\x00\\x03a:0 end");
    assert_eq!(wire.seen[6..], ["1< GRPC_WEB SERVER_HALF_CLOSE"]);
    for other in ["application/grpc", "application/grpc-web-text", "application/json"] {
        let wire = Wire::new(Level::RequestResponse, OnUnreadable::Forward).run(&[says(C, &web(other))], 99);
        assert_eq!(wire.seen[1], "1> HTTP CLIENT_MESSAGE 0: \\x00\\x00\\x00\\x00\\x02hi end", "{other}");
    }
    let fields = |value: &'static [u8]| {
        vec![Field {
            name: Bytes::from_static(b"content-type"),
            value: Bytes::from_static(value),
            never_indexed: false,
        }]
    };
    assert_eq!(protocol_over_http2(&fields(b"application/grpc+proto")), Protocol::Grpc);
    assert_eq!(protocol_over_http2(&fields(b"application/grpc-web")), Protocol::GrpcWeb);
    assert_eq!(protocol_over_http2(&fields(b"text/html")), Protocol::Http);
}

#[test]
fn a_long_head_stands_beside_its_entry() {
    let value = "v".repeat(20_000);
    let request = format!("GET / HTTP/1.1\r\nX-Big: {value}\r\n\r\n");
    let wire = Wire::new(Level::RequestResponse, OnUnreadable::Forward).run(&[says(C, &request)], 1_000);
    assert!(wire.seen[0].ends_with(&format!("|X-Big={value}]")));
}

#[test]
fn behind_an_upgrade_the_first_bytes_of_each_side_are_known_by_their_digest() {
    let upgrade = "GET /c HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut wire = seen(&[
        says(C, upgrade),
        says(S, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
        says(S, "frame"),
        says(C, "masked"),
    ]);
    assert_eq!(
        wire.seen[2..],
        [
            "1< HTTP SERVER_HEADER [:status=101|:reason=Switching Protocols|:version=HTTP/1.1|Upgrade=websocket]",
            "1< HTTP SERVER_HALF_CLOSE",
            "< PROTOCOL upgraded to websocket by request 1",
            "< FIRST_BYTES",
            "> FIRST_BYTES",
        ]
    );
    assert!(wire.capture.calls.is_empty());
    let entries = wire.entries;
    wire = wire.run(&[says(C, GET), says(S, "more")], 3);
    assert_eq!(wire.entries, entries, "what is opaque waits for nothing behind its first bytes");
}

#[test]
fn what_the_client_says_before_its_upgrade_is_answered_waits_for_the_answer() {
    let upgrade = "GET /c HTTP/1.1\r\nUpgrade: x\r\n\r\n";
    let mut wire = Wire::new(Level::RequestResponse, OnUnreadable::Refuse);
    wire = wire.run(&[says(C, upgrade), says(C, GET)], usize::MAX);
    assert_eq!((wire.forwarded[0].len(), wire.waiting[0].len()), (upgrade.len(), GET.len()));
    let mut granted = wire.run(&[says(S, "HTTP/1.1 101 \r\n\r\n")], usize::MAX);
    assert_eq!(granted.waiting[0].len(), 0);
    assert_eq!(granted.seen.pop().unwrap(), "> FIRST_BYTES");
    let declined = [says(C, upgrade), says(C, GET), says(S, "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n")];
    assert!(seen(&declined).seen.last().unwrap().starts_with("2> HTTP CLIENT_HALF_CLOSE"));
}

#[test]
fn what_cannot_be_read_goes_on_under_an_entry_that_says_so() {
    let script = [
        says(C, GET),
        says(C, "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        says(S, "HTTP/1.1 204 \r\n\r\nHTTP/1.1 400 Bad\r\n\r\n"),
    ];
    let reason =
        "from the client: the content-lengths differ; readers would disagree on where the message ends";
    assert_eq!(
        seen(&script).seen[2..],
        [
            format!("> NOT_READABLE {reason}"),
            format!("> PROTOCOL {reason}"),
            "> FIRST_BYTES".into(),
            "1< HTTP SERVER_HEADER [:status=204|:reason=|:version=HTTP/1.1]".into(),
            "1< HTTP SERVER_HALF_CLOSE".into(),
            "< FIRST_BYTES".into(),
        ]
    );
}

#[test]
fn what_cannot_be_read_of_a_response_leaves_its_calls_abandoned() {
    let wire = seen(&[
        says(C, GET),
        says(C, GET),
        says(S, "HTTP/1.1 200 \r\nContent-Length: x\r\n\r\n"),
        says(C, "x"),
    ]);
    let reason = "from the server: the content-length is no number; its sender is broken";
    assert_eq!(
        wire.seen[4..],
        [
            format!("1< HTTP ABANDONED {reason}"),
            format!("2< HTTP ABANDONED {reason}"),
            format!("< NOT_READABLE {reason}"),
            format!("< PROTOCOL {reason}"),
            "< FIRST_BYTES".into(),
            "> FIRST_BYTES".into(),
        ]
    );
    assert!(wire.capture.calls.is_empty());
}

#[test]
fn what_cannot_be_read_ends_the_connection_where_that_is_configured() {
    for piece in [1, 7, usize::MAX] {
        let script =
            [says(C, GET), says(C, "GET /2 HTTP/1.1\r\n\r\nnonsense\r\n\r\nGET /3 HTTP/1.1\r\n\r\n")];
        let wire = Wire::new(Level::RequestResponse, OnUnreadable::Refuse).run(&script, piece);
        let failure = wire.failure.expect("a failure");
        assert!(failure.reason.starts_with("from the client: the head is not HTTP/1"), "{failure}");
        assert!(
            wire.forwarded[0].ends_with(b"GET /2 HTTP/1.1\r\n\r\n"),
            "the bytes before go on, and no more"
        );
        assert_eq!(wire.seen[4..], [format!("> NOT_READABLE {}", failure.reason)]);
    }
}

#[test]
fn open_requests_are_bounded() {
    let script = [says(C, GET), says(C, GET), says(C, GET), says(C, GET)];
    let wire = Wire::new(Level::RequestResponse, OnUnreadable::Forward).run(&script, usize::MAX);
    assert!(wire.failure.unwrap().reason.contains("more than 3 requests open"));
    assert_eq!(wire.forwarded[0].len(), 3 * GET.len());
    assert!(wire.seen.last().unwrap().starts_with("> BOUND_BROKEN more than 3"), "{:?}", wire.seen);
    assert_eq!(wire.capture.evidence.counters.streams_over_bound.get(), 1);
}

#[test]
fn a_request_that_is_cut_can_still_be_answered() {
    let post = "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab";
    let answer = "HTTP/1.1 400 \r\nContent-Length: 0\r\n\r\n";
    let wire = seen(&[says(C, post), (C, None), says(S, answer)]);
    assert_eq!(
        wire.seen[1..],
        [
            "1> HTTP CLIENT_MESSAGE 0: ab",
            "1< HTTP SERVER_HEADER [:status=400|:reason=|:version=HTTP/1.1|Content-Length=0]",
            "1< HTTP SERVER_HALF_CLOSE",
            "1< HTTP ABANDONED from the client: the sender ended within a message",
        ]
    );
    let mut unanswered = seen(&[says(C, post), (C, None), (S, None)]);
    let closed = unanswered.capture.close(ending(), 1);
    unanswered.record(closed);
    assert_eq!(unanswered.seen[2], "1> HTTP ABANDONED from the client: the sender ended within a message");
}

#[test]
fn a_response_ends_with_its_sender_or_is_cut_by_it() {
    let wire = seen(&[says(C, GET), says(S, "HTTP/1.0 200 OK\r\n\r\nall of it"), (S, None)]);
    assert_eq!(wire.seen[3..], ["1< HTTP SERVER_MESSAGE 0: all of it end", "1< HTTP SERVER_HALF_CLOSE"]);
    let wire = seen(&[says(C, GET), says(S, "HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nsome"), (S, None)]);
    let cut = "1< HTTP ABANDONED from the server: the sender ended within a message";
    assert_eq!(wire.seen[3..], ["1< HTTP SERVER_MESSAGE 0: some", cut]);
    let wire = seen(&[says(C, GET), says(S, "HTTP/1.0 200"), (S, None)]);
    assert_eq!(wire.seen[5..], ["< FIRST_BYTES"], "{:?}", wire.seen);
}

#[test]
fn calls_that_are_answered_here_or_left_open_say_so() {
    let mut wire =
        Wire::new(Level::RequestResponse, OnUnreadable::Forward).run(&[says(C, GET), says(C, GET)], 99);
    let answered = wire.capture.answered(&[1, 9], "the ledger cannot commit", 1);
    wire.record(answered);
    let closed = wire.capture.close(ending(), 1);
    wire.record(closed);
    assert_eq!(
        wire.seen[4..],
        [
            "1< HTTP LOCAL_ANSWER the ledger cannot commit",
            "2> HTTP ABANDONED closed by the client",
            "closed after 2 calls: closed by the client",
        ]
    );
    assert_eq!(wire.capture.evidence.counters.calls_ended.get(), 2);
}

/// A body of many tiny chunks makes no more entries than reads of the bounded number of parts, each within its bound.
#[test]
fn tiny_chunks_stay_within_the_bounds_of_an_entry() {
    let body = "1\r\na\r\n".repeat(20_000);
    let request = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n");
    let wire = Wire::new(Level::RequestResponse, OnUnreadable::Forward).run(&[says(C, &request)], 65_536);
    assert_eq!(wire.bodies[&(1, true, 0)].len(), 20_000);
    assert!(wire.entries <= 20_000 / (crate::http1::PARTS_MAX - 2) + 3, "{}", wire.entries);
}
