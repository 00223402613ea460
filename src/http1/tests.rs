//! Tests of the reader: every rule, with the bytes cut at every place; against hyper in `differential`.

#[cfg(feature = "proxy")]
mod differential;

use super::*;
use crate::generated::v1::Direction;
use proptest::prelude::*;

/// The bound of a head in these tests.
const HEAD_BYTES_MAX: usize = 4_096;

/// What one side does next.
#[derive(Clone, Copy)]
enum Does<'a> {
    Says(Direction, &'a [u8]),
    Ends(Direction),
}

const C: Direction = Direction::ClientToServer;
const S: Direction = Direction::ServerToClient;

fn client(says: &str) -> Does<'_> {
    Does::Says(C, says.as_bytes())
}

fn server(says: &str) -> Does<'_> {
    Does::Says(S, says.as_bytes())
}

/// A conversation with the bytes of each side that wait.
struct Reader {
    conversation: Conversation,
    waiting: [Vec<u8>; 2],
    /// Bytes of each side before those.
    taken: [usize; 2],
    seen: Vec<String>,
}

impl Reader {
    fn new() -> Self {
        let conversation = Conversation::new(HEAD_BYTES_MAX);
        Self { conversation, waiting: Default::default(), taken: [0; 2], seen: Vec::new() }
    }

    fn does(&mut self, does: Does, piece: usize) {
        match does {
            Does::Says(direction, says) => {
                for piece in says.chunks(piece.max(1)) {
                    self.waiting[side(direction)].extend_from_slice(piece);
                    self.read(direction);
                    self.read(if direction == C { S } else { C });
                }
            }
            Does::Ends(direction) => {
                let mut parts = Vec::new();
                let rest = std::mem::take(&mut self.waiting[side(direction)]);
                self.conversation.end(direction, &rest, &mut parts);
                self.tell(direction, parts, &rest);
            }
        }
    }

    fn read(&mut self, direction: Direction) {
        loop {
            let mut parts = Vec::new();
            let waiting = &mut self.waiting[side(direction)];
            let length = self.conversation.read(direction, waiting, &mut parts);
            assert!(length <= waiting.len() && parts.len() <= PARTS_MAX + 1);
            if length == 0 {
                assert!(parts.is_empty(), "parts of no bytes: {parts:?}");
                return;
            }
            let bytes = waiting.drain(..length).collect::<Vec<u8>>();
            self.tell(direction, parts, &bytes);
        }
    }

    /// Writes down the parts, those that only continue another joined to it.
    fn tell(&mut self, direction: Direction, parts: Vec<Part>, bytes: &[u8]) {
        let taken = self.taken[side(direction)];
        self.taken[side(direction)] += bytes.len();
        for part in parts {
            let line = line(direction, taken, part, bytes);
            match self.seen.last_mut() {
                Some(last) if continues(last, &line) => last.push_str(line.split_once(": ").unwrap().1),
                _ => self.seen.push(line),
            }
        }
    }
}

fn continues(last: &str, line: &str) -> bool {
    let head = |text: &str| text.split_once(": ").map(|(head, _)| head.to_owned()).unwrap_or_default();
    let is_open = head(line).ends_with("data") || head(line).ends_with("opaque");
    is_open && !last.ends_with(" end") && head(last) == head(line)
}

fn line(direction: Direction, taken: usize, part: Part, bytes: &[u8]) -> String {
    let way = if direction == C { '>' } else { '<' };
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let list = |fields: &[crate::http2::Field]| {
        let one = |field: &crate::http2::Field| format!("{}={}", text(&field.name), text(&field.value));
        format!("[{}]", fields.iter().map(one).collect::<Vec<_>>().join("|"))
    };
    let end = |ends: bool| if ends { " end" } else { "" };
    match part {
        Part::Request { number, head, ends, at } => {
            assert!(at <= bytes.len());
            let (method, target, version) = (text(&head.method), text(&head.target), head.version.as_str());
            format!("{number}> {method} {target} {version} {}{}", list(&head.fields), end(ends))
        }
        Part::Response { number, head, is_final, ends } => {
            let (status, reason, version) = (head.status, text(&head.reason), head.version.as_str());
            let kind = if is_final { "" } else { " more" };
            format!("{number}< {version} {status} {reason} {}{kind}{}", list(&head.fields), end(ends))
        }
        Part::Data { number, range, ends } => {
            format!("{number}{way} data: {}{}", text(&bytes[range]), end(ends))
        }
        Part::Extension { number, range } => format!("{number}{way} extension {}", text(&bytes[range])),
        Part::End { number, trailers } => format!("{number}{way} ends {}", list(&trailers)),
        Part::Cut { number } => format!("{number}{way} cut"),
        Part::Switch(reason) => format!("switch {reason}"),
        Part::Unreadable { at, number, fault } => {
            format!("{way} unreadable at {} in {number:?} {fault:?}", taken + at)
        }
        Part::Opaque(range) => format!("{way} opaque: {}", text(&bytes[range])),
    }
}

fn side(direction: Direction) -> usize {
    usize::from(direction == S)
}

/// What is seen of a script, which must not depend on where the bytes are cut.
fn seen(script: &[Does]) -> Vec<String> {
    let run = |piece: usize| {
        let mut reader = Reader::new();
        for &does in script {
            reader.does(does, piece);
        }
        reader.seen
    };
    let whole = run(usize::MAX);
    let longest = script.iter().map(|does| if let Does::Says(_, says) = does { says.len() } else { 0 });
    for piece in 1..longest.max().unwrap_or_default().min(300) {
        assert_eq!(by_side(run(piece)), by_side(whole.clone()), "in pieces of {piece} bytes");
    }
    whole
}

/// The client's parts, then the server's: which of two sides is read first depends on the cuts.
fn by_side(seen: Vec<String>) -> Vec<String> {
    let (client, server) = seen.into_iter().partition::<Vec<_>, _>(|line| line.contains("> "));
    let mut sorted = Vec::<String>::new();
    for line in client.into_iter().chain(server) {
        match sorted.last_mut() {
            Some(last) if continues(last, &line) => last.push_str(line.split_once(": ").unwrap().1),
            _ => sorted.push(line),
        }
    }
    sorted
}

/// The one fault of a script, and where it shows.
fn fault_of(script: &[Does]) -> String {
    let seen = seen(script);
    let mut faults = seen.iter().filter(|line| line.contains("unreadable"));
    let fault = faults.next().unwrap_or_else(|| panic!("no fault in {seen:?}")).clone();
    assert_eq!(faults.next(), None);
    fault
}

fn request_fault(request: &str) -> String {
    let fault = fault_of(&[client(request)]);
    fault.strip_prefix("> unreadable at ").unwrap_or_else(|| panic!("{fault}")).to_owned()
}

#[test]
fn a_request_and_its_response_with_bodies_of_known_length() {
    let script = [
        client("POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nX-Odd:  v \t\r\n\r\nhello"),
        server("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"),
    ];
    assert_eq!(
        seen(&script),
        [
            "1> POST /a?b=c HTTP/1.1 [Host=x|Content-Length=5|X-Odd=v]",
            "1> data: hello end",
            "1< HTTP/1.1 200 OK [content-length=3]",
            "1< data: yes end",
        ]
    );
}

#[test]
fn requests_without_a_body_end_with_their_head_in_every_form_of_target() {
    let script = [client(concat!(
        "GET / HTTP/1.0\r\n\r\n",
        "\r\n\r\nGET http://other/x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        "OPTIONS * HTTP/1.1\nhost: x\n\n",
        "\nGET  /\u{e4}  HTTP/1.1\r\n\r\n",
    ))];
    assert_eq!(
        seen(&script),
        [
            "1> GET / HTTP/1.0 [] end",
            "2> GET http://other/x HTTP/1.1 [Host=x|Content-Length=0] end",
            "3> OPTIONS * HTTP/1.1 [host=x] end",
            "4> GET /\\xc3\\xa4 HTTP/1.1 [] end",
        ]
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let script = [
        client("GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n"),
        server("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
        server("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nHTTP/1.1 200\r\nContent-Length: 1\r\n\r\nc"),
    ];
    assert_eq!(
        seen(&script)[3..],
        [
            "1< HTTP/1.1 200 OK [Content-Length=1]",
            "1< data: a end",
            "2< HTTP/1.1 200 OK [Content-Length=999] end",
            "3< HTTP/1.1 200  [Content-Length=1]",
            "3< data: c end",
        ]
    );
}

#[test]
fn chunks_are_taken_out_of_their_framing_and_trailers_are_kept() {
    let script = [
        client(
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n4\r\nwiki\r\n00a ;x=\"y\"\r\n0123456789\r\n0\r\n\r\n",
        ),
        server(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nz\r\n0\r\nX-Sum: 1\r\nx-b:2\r\n\r\n",
        ),
        client("GET / HTTP/1.1\r\n\r\n"),
    ];
    assert_eq!(
        seen(&script),
        [
            "1> POST / HTTP/1.1 [Transfer-Encoding=gzip, Chunked]",
            "1> data: wiki",
            "1> extension ;x=\\\"y\\\"",
            "1> data: 0123456789",
            "1> ends []",
            "1< HTTP/1.1 200 OK [transfer-encoding=chunked]",
            "1< data: z",
            "1< ends [X-Sum=1|x-b=2]",
            "2> GET / HTTP/1.1 [] end",
        ]
    );
}

#[test]
fn responses_that_have_no_body_end_with_their_head() {
    for (status, fields) in [(204, "Content-Length: 7"), (304, "Content-Length: 7"), (304, "x: y")] {
        let head = format!("HTTP/1.1 {status} Title\r\n{fields}\r\n\r\n");
        let script = [client("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n"), server(&head), server(&head)];
        let seen = seen(&script);
        assert!(seen[2].starts_with("1< ") && seen[2].ends_with(" end"), "{seen:?}");
        assert!(seen[3].starts_with("2< ") && seen[3].ends_with(" end"), "{seen:?}");
    }
}

#[test]
fn a_response_without_a_length_lasts_until_its_sender_ends() {
    for head in [
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        let script =
            [client("GET / HTTP/1.0\r\n\r\n"), server(head), server("all\r\n\r\nof it"), Does::Ends(S)];
        assert_eq!(seen(&script)[2..], ["1< data: all\\r\\n\\r\\nof it", "1< ends []"]);
    }
}

#[test]
fn informational_responses_come_before_the_final_one() {
    let script = [
        client("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
        server("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
        client("ok"),
        server("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"),
    ];
    assert_eq!(
        seen(&script),
        [
            "1> POST / HTTP/1.1 [Expect=100-continue|Content-Length=2]",
            "1< HTTP/1.1 100 Continue [] more",
            "1< HTTP/1.1 103 Early Hints [Link=x] more",
            "1> data: ok end",
            "1< HTTP/1.1 201 Created [Content-Length=0] end",
        ]
    );
}

#[test]
fn an_early_response_does_not_end_the_request() {
    let script = [
        client("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab"),
        server("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"),
        client("cdGET / HTTP/1.1\r\n\r\n"),
        server("HTTP/1.1 204 \r\n\r\n"),
    ];
    let seen = seen(&script);
    assert_eq!(seen[3..], ["1> data: cd end", "2> GET / HTTP/1.1 [] end", "2< HTTP/1.1 204  [] end"]);
}

#[test]
fn odd_responses_are_read_as_they_are() {
    let script = [
        client("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
        server("HTTP/1.1  200  Tr\u{e8}s bien \r\nX-Long: a\r\n b\r\nContent-Length: 1, 1\r\n\r\nx\r\n"),
        server("HTTP/1.1 999\nTransfer-Encoding: chunked\nContent-Length: 5\n\n0\r\n\r\n"),
    ];
    assert_eq!(
        seen(&script)[2..],
        [
            "1< HTTP/1.1 200 Tr\\xc3\\xa8s bien [X-Long=a\\r\\n b|Content-Length=1, 1]",
            "1< data: x end",
            "2< HTTP/1.1 999  [Transfer-Encoding=chunked|Content-Length=5]",
            "2< ends []",
        ]
    );
}

#[test]
fn an_upgrade_that_is_granted_makes_both_sides_opaque() {
    let script = [
        client("GET /chat HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly"),
        server("HTTP/1.1 100 \r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nframe"),
        client("GET / HTTP/1.1\r\n\r\n"),
    ];
    let seen = seen(&script);
    assert_eq!(seen[2], "1< HTTP/1.1 101 Switching Protocols [Upgrade=websocket] end");
    assert_eq!(seen[3], "switch upgraded to websocket by request 1");
    let joined = |way: &str| {
        let opaque = seen[4..].iter().filter_map(|line| line.strip_prefix(way));
        opaque.collect::<String>()
    };
    assert_eq!(joined("< opaque: "), "frame");
    assert_eq!(joined("> opaque: "), "earlyGET / HTTP/1.1\\r\\n\\r\\n");
}

#[test]
fn an_upgrade_that_is_declined_goes_on_as_http() {
    let script = [
        client("GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"),
        server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        server("HTTP/1.1 204 \r\n\r\n"),
    ];
    assert_eq!(
        seen(&script)[1..],
        ["1< HTTP/1.1 200 OK [Content-Length=0] end", "2> GET /2 HTTP/1.1 [] end", "2< HTTP/1.1 204  [] end",]
    );
}

#[test]
fn an_upgrade_waits_for_the_end_of_its_request() {
    let script = [
        client("POST / HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 4\r\n\r\nab"),
        server("HTTP/1.1 101 \r\n\r\nopaque"),
        client("cdfree"),
    ];
    assert_eq!(
        seen(&script)[2..],
        [
            "1< HTTP/1.1 101  [] end",
            "switch upgraded to another protocol by request 1",
            "< opaque: opaque",
            "1> data: cd end",
            "> opaque: free",
        ]
    );
}

#[test]
fn connect_makes_a_tunnel_where_it_succeeds() {
    let script = [
        client("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"),
        server("HTTP/1.1 200 Established\r\nContent-Length: 9\r\n\r\n\r\ntls"),
        client("\r\nhello"),
    ];
    assert_eq!(
        seen(&script),
        [
            "1> CONNECT a.example:443 HTTP/1.1 [Host=a.example:443] end",
            "1< HTTP/1.1 200 Established [Content-Length=9] end",
            "switch tunnel by CONNECT, request 1",
            "< opaque: \\r\\ntls",
            "> opaque: \\r\\nhello",
        ]
    );
    let script = [
        client("CONNECT a:1 HTTP/1.1\r\n\r\n"),
        server("HTTP/1.1 407 No\r\nContent-Length: 1\r\n\r\nn"),
        client("GET / HTTP/1.1\r\n\r\n"),
    ];
    assert_eq!(seen(&script)[2..], ["1< data: n end", "2> GET / HTTP/1.1 [] end"]);
}

#[test]
fn what_waits_for_an_answer_is_bounded() {
    let early = "x".repeat(HELD_BYTES_MAX);
    let mut reader = Reader::new();
    reader.does(client("CONNECT a:1 HTTP/1.1\r\n\r\n"), usize::MAX);
    reader.does(client(&early), usize::MAX);
    assert_eq!((reader.seen.len(), reader.waiting[0].len()), (1, HELD_BYTES_MAX));
    reader.does(client("y"), usize::MAX);
    assert_eq!(reader.seen[1], "> unreadable at 24 in None HeldTooLong");
    assert_eq!(reader.waiting[0].len(), 0);
    reader.does(server("HTTP/1.1 200 \r\n\r\ntunnel"), usize::MAX);
    assert_eq!(reader.seen.last().unwrap(), "< opaque: tunnel");
}

#[test]
fn heads_that_are_no_http1_are_unreadable_from_their_first_byte() {
    let good = "GET / HTTP/1.1\r\n\r\n";
    for bad in [
        "\x16\x03\x01\x02\x00\x01\x00",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET / HTTP/1.1\r\n folded: first\r\n\r\n",
        "GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nname : v\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nx: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nx: a\0b\r\n\r\n",
        "G@T / HTTP/1.1\r\n\r\n",
    ] {
        let fault = request_fault(bad);
        assert!(fault.starts_with("0 in None Head("), "{bad:?}: {fault}");
        let fault = request_fault(&format!("{good}\r\n{bad}"));
        assert!(fault.starts_with("20 in None Head("), "{bad:?}: {fault}");
    }
    let script = [client(good), server("SSH-2.0-x\r\n")];
    assert_eq!(fault_of(&script), "< unreadable at 0 in None Head(Version)");
    let script = [client(good), server("HTTP/1.1 099 x\r\n\r\n")];
    assert_eq!(fault_of(&script), "< unreadable at 0 in None Head(Status)");
}

#[test]
fn requests_that_two_readers_may_see_differently_are_unreadable() {
    for (fields, fault) in [
        ("Content-Length: 1\r\nContent-Length: 2", "ContentLengthsDiffer"),
        ("Content-Length: 1, 2", "ContentLengthsDiffer"),
        ("Content-Length: +1", "ContentLength"),
        ("Content-Length: 0x1", "ContentLength"),
        ("Content-Length: 1 1", "ContentLength"),
        ("Content-Length:", "ContentLength"),
        ("Content-Length: 1,", "ContentLength"),
        ("Content-Length: 9223372036854775808", "ContentLength"),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked", "CodingAndLength"),
        ("transfer-encoding: chunked\r\ncontent-length: 3", "CodingAndLength"),
        ("Transfer-Encoding: gzip", "Coding"),
        ("Transfer-Encoding: chunked, gzip", "Coding"),
        ("Transfer-Encoding: chunked, chunked", "Coding"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "Coding"),
        ("Transfer-Encoding: xchunked", "Coding"),
        ("Transfer-Encoding: chunked;a=b", "Coding"),
        ("Transfer-Encoding: chunked,", "Coding"),
        ("Transfer-Encoding:", "Coding"),
    ] {
        let fault_seen = request_fault(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n0\r\n\r\n"));
        assert_eq!(fault_seen, format!("0 in None {fault}"), "{fields}");
    }
    let old = request_fault("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(old, "0 in None CodingInOldVersion");
    for fields in ["Content-Length: 1", "Transfer-Encoding: chunked"] {
        let fault = request_fault(&format!("CONNECT a:1 HTTP/1.1\r\n{fields}\r\n\r\n"));
        assert_eq!(fault, "0 in None ConnectContent");
    }
}

#[test]
fn broken_chunks_are_unreadable_where_they_break() {
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (body, at, fault) in [
        ("x\r\n", 0, "Chunk"),
        ("\r\n", 0, "Chunk"),
        ("-1\r\n", 0, "Chunk"),
        (" 1\r\na\r\n", 0, "Chunk"),
        ("1\na\r\n", 0, "Chunk"),
        ("1;x\ny\r\na\r\n", 0, "Chunk"),
        ("1;x\ry\r\na\r\n", 0, "Chunk"),
        ("1 1\r\na\r\n", 0, "Chunk"),
        ("0123456789abcdef\r\n", 0, "Chunk"),
        ("1\r\nab\r\n", 4, "Chunk"),
        ("1\r\na\n0\r\n\r\n", 4, "Chunk"),
        ("1\r\na\r\nx", 6, "Chunk"),
        ("0\r\nbad trailer\r\n\r\n", 3, "Trailers(HeaderName)"),
        ("0\r\na: b\n\n", 3, "Trailers(NewLine)"),
        ("0\r\n\n", 3, "Trailers(NewLine)"),
    ] {
        let fault_seen = request_fault(&format!("{head}{body}"));
        assert_eq!(fault_seen, format!("{} in Some(1) {fault}", head.len() + at), "{body:?}");
    }
    let long = format!("{head}1;{}", "x".repeat(5_000));
    assert_eq!(request_fault(&long), format!("{} in Some(1) Chunk", head.len()));
}

#[test]
fn heads_and_trailers_are_bounded() {
    let head = |bytes: usize| {
        let frame = "GET / HTTP/1.1\r\nx: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "v".repeat(bytes - frame))
    };
    assert_eq!(seen(&[client(&head(HEAD_BYTES_MAX))]).len(), 1);
    let too_large = format!("0 in None HeadTooLarge {{ bytes_max: {HEAD_BYTES_MAX} }}");
    assert_eq!(request_fault(&head(HEAD_BYTES_MAX + 1)), too_large);
    assert_eq!(request_fault(&head(HEAD_BYTES_MAX * 3)), too_large);
    let endless = format!("GET / HTTP/1.1\r\nx: {}", "v".repeat(HEAD_BYTES_MAX));
    assert_eq!(request_fault(&endless), too_large);

    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    let trailers = format!("{head}x: {}", "v".repeat(HEAD_BYTES_MAX));
    let fault = format!("{} in Some(1) HeadTooLarge {{ bytes_max: {HEAD_BYTES_MAX} }}", head.len());
    assert_eq!(request_fault(&trailers), fault);
}

#[test]
fn fields_are_bounded_by_their_number() {
    let head = |fields: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a:\r\n".repeat(fields));
    let count = |fields: usize| {
        let (mut conversation, mut parts) = (Conversation::new(1 << 20), Vec::new());
        conversation.read(C, head(fields).as_bytes(), &mut parts);
        match parts.swap_remove(0) {
            Part::Request { head, .. } => Ok(head.fields.len()),
            Part::Unreadable { fault, .. } => Err(fault),
            part => panic!("{part:?}"),
        }
    };
    for fields in [0, 64, 65, FIELDS_MAX] {
        assert_eq!(count(fields), Ok(fields));
    }
    assert_eq!(count(FIELDS_MAX + 1), Err(Fault::TooManyFields));
}

#[test]
fn after_a_fault_of_the_client_what_was_asked_before_is_still_answered() {
    let script = [
        client("GET / HTTP/1.1\r\n\r\nGET nonsense\r\n\r\nmore"),
        server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 400 Bad\r\n\r\n"),
        client("opaque"),
    ];
    let seen = seen(&script);
    assert_eq!(
        seen[1..3],
        ["> unreadable at 18 in None Head(Token)", "> opaque: GET nonsense\\r\\n\\r\\nmore",]
    );
    assert_eq!(
        seen[3..],
        [
            "1< HTTP/1.1 200 OK [Content-Length=2]",
            "1< data: ok end",
            "< opaque: HTTP/1.1 400 Bad\\r\\n\\r\\n",
            "> opaque: opaque",
        ]
    );
}

#[test]
fn after_a_fault_of_the_server_nothing_is_read_any_more() {
    let script = [
        server("HTTP/1.1 408 Request Timeout\r\n\r\n"),
        client("GET / HTTP/1.1\r\n\r\n"),
        server("HTTP/1.1 200 OK\r\n\r\n"),
    ];
    let seen = seen(&script);
    assert_eq!(seen[0], "< unreadable at 0 in None NoRequest");
    assert!(seen[1..].iter().all(|line| line.contains("opaque")), "{seen:?}");
    let script = [client("GET / HTTP/1.1\r\n\r\n"), server("HTTP/1.1 101 \r\n\r\n")];
    assert_eq!(fault_of(&script), "< unreadable at 0 in None SwitchUnasked");
}

#[test]
fn a_sender_that_ends_within_a_message_cuts_it() {
    let script = [client("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab"), Does::Ends(C)];
    assert_eq!(seen(&script)[1..], ["1> data: ab", "1> cut"]);
    let get = client("GET / HTTP/1.1\r\n\r\n");
    let script =
        [get, server("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"), Does::Ends(S)];
    assert_eq!(seen(&script)[2..], ["1< data: a", "1< cut"]);
    let script = [get, client("GET /un"), Does::Ends(C)];
    assert_eq!(seen(&script)[1..], ["> unreadable at 18 in None Cut", "> opaque: GET /un"]);
    let script = [get, server("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n1"), Does::Ends(S)];
    assert_eq!(seen(&script)[2..], ["< unreadable at 45 in Some(1) Cut", "< opaque: 1"]);
    let script = [get, client("\r\n"), Does::Ends(C), Does::Ends(S)];
    assert_eq!(seen(&script).len(), 1, "ends between messages cut nothing");
}

proptest! {
    /// Whatever comes from either side: no panic, and the same for every cut.
    #[test]
    fn no_bytes_make_it_panic(
        turns in proptest::collection::vec((any::<bool>(), "(GET|POST|HTTP/1.1|CONNECT|200|101|/|[ :,0-9a-f]|\r\n|\n|Content-Length|Transfer-Encoding|Upgrade|chunked|\r\n\r\n){0,24}"), 0..6),
        piece in 1_usize..40,
    ) {
        let run = |piece: usize| {
            let mut reader = Reader::new();
            for (is_client, text) in &turns {
                reader.does(if *is_client { client(text) } else { server(text) }, piece);
            }
            reader.does(Does::Ends(C), 1);
            reader.does(Does::Ends(S), 1);
            reader.seen
        };
        prop_assert_eq!(by_side(run(piece)), by_side(run(usize::MAX)));
    }

    /// What an encoder makes is found again, for every cut.
    #[test]
    fn chunked_bodies_are_found_again(
        chunks in proptest::collection::vec(("[a-c ]{1,40}", "(;[a-z]{1,3}(=\"[a-z;]{0,3}\")?)?"), 0..8),
        trailers in proptest::collection::vec("[A-Za-z]{1,8}: [a-z]{0,8}\r\n", 0..4),
        piece in 1_usize..30,
    ) {
        let encoded = chunks.iter().map(|(data, extension)| format!("{:x}{extension}\r\n{data}\r\n", data.len()));
        let encoded = encoded.chain(["0\r\n".to_owned()]).chain(trailers.clone()).collect::<String>();
        let request = format!("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{encoded}\r\nGET / HTTP/1.1\r\n\r\n");
        let mut reader = Reader::new();
        reader.does(client(&request), piece);
        let body = chunks.iter().map(|(data, _)| data.as_str()).collect::<String>();
        let lines = trailers.iter().map(|line| line.trim().replacen(": ", "=", 1).replacen(':', "=", 1));
        let ends = format!("1> ends [{}]", lines.collect::<Vec<_>>().join("|"));
        let data = (!body.is_empty()).then(|| format!("1> data: {body}"));
        let extensions = chunks.iter().filter(|(_, extension)| !extension.is_empty());
        let told = extensions.map(|(_, extension)| format!("1> extension {}", extension.as_bytes().escape_ascii()));
        let (found, read) = reader.seen[1..].iter().cloned().partition::<Vec<_>, _>(|line| line.contains("extension"));
        prop_assert_eq!(found, told.collect::<Vec<_>>());
        let last = "2> GET / HTTP/1.1 [] end".to_owned();
        let expected = data.into_iter().chain([ends, last]).collect::<Vec<_>>();
        prop_assert_eq!(by_side(read), expected);
    }

    /// Sizes that are read are those of another reader.
    #[test]
    fn chunk_lines_are_read_as_httparse_reads_them(line in "[0-9a-fA-F]{0,17}[ \t]{0,2}(;[^\r\n]{0,9})?[\r\n]{1,2}") {
        if let Ok(Some(read)) = chunk::line(line.as_bytes()) {
            let read = httparse::Status::Complete((read.length, read.size));
            prop_assert_eq!(httparse::parse_chunk_size(line.as_bytes()), Ok(read));
        }
    }
}
