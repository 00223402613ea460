//! Fuzzes the HPACK decoder alone and against h2's. Input: blocks of one connection, each an octet for the table limit,
//! an octet of length, and that many octets.
//!
//! h2 may refuse more: it builds typed names and values while it decodes, and takes integers of five octets at most.
//! What it accepts has to be accepted here, with the same fields.
#![no_main]

use std::io::Cursor;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use attestry::http2::frame::{FrameHeader, flag, kind};
use attestry::http2::{Decoder, Field};
use bytes::Bytes;
use futures_util::Stream;
use h2::Codec;
use h2::frame::{Frame, Headers};
use libfuzzer_sys::fuzz_target;

const LIST_BYTES_MAX: usize = 1 << 20;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fuzz_target!(|input: &[u8]| {
    let mut own = Decoder::new();
    let mut h2 = Codec::<_, Bytes>::new(Cursor::new(Vec::new()));
    let mut rest = input;
    while let [limit, length, after @ ..] = rest {
        let (block, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        let table_limit = u32::from(*limit) * 32;
        own.set_limit(table_limit);
        h2.set_recv_header_table_size(table_limit as usize);

        let mut fields = Vec::new();
        let decoded = own.decode(block, LIST_BYTES_MAX, &mut fields);
        let list: usize = fields.iter().map(|field| field.name.len() + field.value.len() + 32).sum();
        assert!(list <= LIST_BYTES_MAX);
        match h2_receives(&mut h2, block) {
            Poll::Ready(Some(Ok(Frame::Headers(headers)))) => {
                decoded.expect("h2 accepts the block");
                assert_eq!(pairs(&fields), h2_pairs(headers));
            }
            // Malformed, with the compression state intact.
            Poll::Ready(Some(Err(h2::proto::Error::Reset(..)))) => {
                decoded.expect("h2 decompresses the block")
            }
            _ => return,
        }
        if decoded.is_err() {
            return;
        }
    }
});

fn h2_receives(
    h2: &mut Codec<Cursor<Vec<u8>>, Bytes>,
    block: &[u8],
) -> Poll<Option<Result<Frame, h2::proto::Error>>> {
    let head =
        FrameHeader { length: block.len() as u32, kind: kind::HEADERS, flags: flag::END_HEADERS, stream: 1 };
    h2.get_mut().get_mut().extend_from_slice(&head.encode());
    h2.get_mut().get_mut().extend_from_slice(block);
    Pin::new(h2).poll_next(&mut Context::from_waker(Waker::noop()))
}

/// Fields as a sorted list: h2 keeps no order between names.
fn pairs(fields: &[Field]) -> Pairs {
    let mut pairs: Pairs = fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect();
    pairs.sort();
    pairs
}

fn h2_pairs(headers: Headers) -> Pairs {
    let (pseudo, map) = headers.into_parts();
    let pseudo = [
        (":method", pseudo.method.as_ref().map(|method| method.as_str())),
        (":scheme", pseudo.scheme.as_deref()),
        (":authority", pseudo.authority.as_deref()),
        (":path", pseudo.path.as_deref()),
        (":protocol", pseudo.protocol.as_ref().map(|protocol| protocol.as_str())),
        (":status", pseudo.status.as_ref().map(|status| status.as_str())),
    ];
    let pseudo = pseudo.iter().filter_map(|(name, value)| Some((name.as_bytes().to_vec(), (*value)?.into())));
    let regular = map.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec()));
    let mut pairs: Pairs = pseudo.chain(regular).collect();
    pairs.sort();
    pairs
}
