//! Fuzzes the gRPC message parser and the readings of gRPC's header values. Input: one octet of piece length, then DATA.
#![no_main]

use attestry::grpc::{MessageParser, PREFIX_LEN, decode_grpc_message, is_grpc_content_type, parse_timeout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&piece, data)) = input.split_first() else { return };
    let whole = messages(data, data.len().max(1));
    let cut = messages(data, usize::from(piece) + 1);
    assert_eq!(cut, whole);
    let _ = (decode_grpc_message(data), is_grpc_content_type(data), parse_timeout(data));
});

/// Every message as prefix, body and whether it ended; together they are the input again.
fn messages(data: &[u8], piece: usize) -> Vec<(Vec<u8>, Vec<u8>, bool)> {
    let mut parser = MessageParser::new();
    let mut found: Vec<(Vec<u8>, Vec<u8>, bool)> = Vec::new();
    for part in data.chunks(piece) {
        parser.feed(part, &mut |piece| {
            if found.len() as u64 == piece.message {
                found.push(Default::default());
            }
            assert_eq!(found.len() as u64, piece.message + 1);
            let (prefix, body, ended) = found.last_mut().expect("one was pushed");
            assert!(!*ended && (piece.prefix.is_empty() || body.is_empty()));
            assert_eq!(piece.offset, body.len() as u64);
            prefix.extend_from_slice(&part[piece.prefix]);
            body.extend_from_slice(&part[piece.data]);
            *ended = piece.end;
        });
    }
    assert_eq!(parser.message_count(), found.len() as u64);
    assert_eq!(parser.at_boundary(), found.last().is_none_or(|(_, _, ended)| *ended));
    let joined: Vec<u8> =
        found.iter().flat_map(|(prefix, body, _)| [&prefix[..], &body[..]].concat()).collect();
    assert_eq!(joined, data);
    for (prefix, body, ended) in &found {
        let length = prefix
            .get(1..PREFIX_LEN)
            .map(|octets| u32::from_be_bytes(octets.try_into().expect("four octets")));
        assert_eq!(*ended, length == u32::try_from(body.len()).ok());
    }
    found
}
