//! Fuzzes the HTTP/1 reader: whatever the bytes, what is found does not depend on how they were cut, nothing is read
//! twice or left out, and the bounds hold. Input: one octet of piece length, one of the requests that the client says
//! first (a bit each), then what the server says; without a request, what the client says.
#![no_main]

use attestry::generated::v1::Direction;
use attestry::http1::{Conversation, FIELDS_MAX, PARTS_MAX, Part};
use libfuzzer_sys::fuzz_target;

const HEAD_BYTES_MAX: usize = 1_000;

/// Requests whose responses are read in different ways.
const REQUESTS: [&[u8]; 4] = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"HEAD / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
];

fuzz_target!(|input: &[u8]| {
    let [piece, asked, said @ ..] = input else { return };
    // A longer head is not judged with each read, so that a fault of it may show later than in one piece.
    let said = &said[..said.len().min(900)];
    let whole = read(*asked, said, usize::MAX);
    assert_eq!(read(*asked, said, usize::from(*piece) + 1), whole);
});

/// All parts of one side, ranges as bytes, pieces of one message joined up to the line feed at its end.
fn read(asked: u8, said: &[u8], piece: usize) -> Vec<String> {
    let mut conversation = Conversation::new(HEAD_BYTES_MAX);
    let mut parts = Vec::new();
    let asks = (0..REQUESTS.len()).filter(|bit| asked >> bit & 1 == 1).map(|bit| REQUESTS[bit]);
    let direction = if asked & 15 == 0 { Direction::ClientToServer } else { Direction::ServerToClient };
    for request in asks {
        conversation.read(Direction::ClientToServer, request, &mut parts);
    }
    let (mut seen, mut taken, mut there) = (Vec::new(), 0, 0);
    while there < said.len() {
        there = said.len().min(there.saturating_add(piece));
        loop {
            let mut parts = Vec::new();
            let length = conversation.read(direction, &said[taken..there], &mut parts);
            assert!(length <= there - taken && parts.len() <= PARTS_MAX + 3);
            if length == 0 {
                assert!(parts.is_empty());
                break;
            }
            tell(parts, taken, said, &mut seen);
            taken += length;
        }
    }
    let mut parts = Vec::new();
    conversation.end(direction, &said[taken..], &mut parts);
    tell(parts, taken, said, &mut seen);
    seen
}

fn tell(parts: Vec<Part>, taken: usize, said: &[u8], seen: &mut Vec<String>) {
    for part in parts {
        let (name, text) = match part {
            Part::Data { range, ends, .. } => {
                let end = if ends { "\n" } else { "" };
                (
                    "data: ".to_owned(),
                    format!("{}{end}", said[taken + range.start..taken + range.end].escape_ascii()),
                )
            }
            Part::Opaque(range) => (
                "opaque: ".to_owned(),
                said[taken + range.start..taken + range.end].escape_ascii().to_string(),
            ),
            Part::Extension { range, .. } => (
                format!("extension {}", said[taken + range.start..taken + range.end].escape_ascii()),
                String::new(),
            ),
            Part::Unreadable { at, number, fault } => {
                (format!("{:?}", (at + taken, number, fault)), String::new())
            }
            Part::Request { number, head, ends, .. } => {
                assert!(head.fields.len() <= FIELDS_MAX);
                (format!("{number} {head:?} {ends}"), String::new())
            }
            part => (format!("{part:?}"), String::new()),
        };
        match seen.last_mut() {
            Some(last) if !text.is_empty() && last.starts_with(&name) && !last.ends_with('\n') => {
                last.push_str(&text)
            }
            _ => seen.push(name + &text),
        }
    }
}
