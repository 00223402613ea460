//! The decoder held against the h2 crate's, whose receivers are at the other end of many connections.
//!
//! Forwards: what h2 encodes is read here, fields, order within a name and the never-indexed mark. Backwards: the same
//! blocks, well made or damaged, go through both decoders, connection after connection, until one refuses; they must
//! agree on that and on the fields. h2 gives its fields as a map, so the order between names is not compared.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;
use h2::Codec;
use h2::frame::{Frame, Headers, Pseudo, StreamId};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::{integer, string};
use crate::http2::frame::{FrameHeader, flag, kind};
use crate::http2::hpack::{Decoder, Field, HpackError};
use crate::http2::malformed;
use crate::http2::unit::{UnitBody, UnitLimits, UnitReader};

const FRAME_BYTES_MAX: u32 = (1 << 24) - 1;
const LIST_BYTES_MAX: u32 = 1 << 20;

type Memory = std::io::Cursor<Vec<u8>>;
type Grouped = Vec<(String, Vec<Vec<u8>>)>;

/// Values by name, names sorted, values in order.
fn grouped<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Grouped {
    let mut groups = std::collections::BTreeMap::<String, Vec<Vec<u8>>>::new();
    for (name, value) in fields {
        groups.entry(String::from_utf8_lossy(name).into_owned()).or_default().push(value.to_vec());
    }
    groups.into_iter().collect()
}

fn grouped_own(fields: &[Field]) -> Grouped {
    grouped(fields.iter().map(|field| (&field.name[..], &field.value[..])))
}

fn grouped_h2(pseudo: &Pseudo, map: &HeaderMap) -> Grouped {
    let pseudo = [
        (":method", pseudo.method.as_ref().map(Method::as_str)),
        (":scheme", pseudo.scheme.as_deref()),
        (":authority", pseudo.authority.as_deref()),
        (":path", pseudo.path.as_deref()),
        (":protocol", pseudo.protocol.as_ref().map(h2::ext::Protocol::as_str)),
        (":status", pseudo.status.as_ref().map(StatusCode::as_str)),
    ];
    let pseudo =
        pseudo.iter().filter_map(|(name, value)| Some((name.as_bytes(), value.as_ref()?.as_bytes())));
    grouped(pseudo.chain(map.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))))
}

/// What h2 made of one block.
enum Verdict {
    Fields(Grouped),
    /// The message is malformed; the compression state is intact.
    Malformed,
    /// The connection is in error.
    Refused,
}

/// h2's receiving side over memory.
struct H2Receiver(Codec<Memory, Bytes>);

impl H2Receiver {
    fn new() -> Self {
        Self(Codec::with_max_recv_frame_size(Memory::default(), FRAME_BYTES_MAX as usize))
    }

    fn receive(&mut self, block: &[u8], table_limit: u32) -> Verdict {
        let length = u32::try_from(block.len()).unwrap();
        let head = FrameHeader { length, kind: kind::HEADERS, flags: flag::END_HEADERS, stream: 1 };
        let memory = self.0.get_mut().get_mut();
        memory.extend_from_slice(&head.encode());
        memory.extend_from_slice(block);
        self.0.set_recv_header_table_size(table_limit as usize);
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.0).poll_next(&mut context) {
            Poll::Ready(Some(Ok(Frame::Headers(headers)))) => {
                let (pseudo, map) = headers.into_parts();
                Verdict::Fields(grouped_h2(&pseudo, &map))
            }
            Poll::Ready(Some(Err(h2::proto::Error::Reset(..)))) => Verdict::Malformed,
            Poll::Ready(Some(Err(h2::proto::Error::GoAway(..)))) => Verdict::Refused,
            other => panic!("not an answer to HEADERS: {other:?}"),
        }
    }
}

/// Whether h2 takes offence at a field that decompressed: it builds typed names and values while it decodes.
fn h2_refuses_field(field: &Field) -> bool {
    let (name, value) = (&field.name[..], &field.value[..]);
    match name {
        b":method" => Method::from_bytes(value).is_err(),
        b":status" => StatusCode::from_bytes(value).is_err(),
        b":scheme" | b":authority" | b":path" | b":protocol" => std::str::from_utf8(value).is_err(),
        [] | [b':', ..] => true,
        _ => HeaderName::from_lowercase(name).is_err() || HeaderValue::from_bytes(value).is_err(),
    }
}

/// Whether `block` may hold an integer of six octets, which h2 refuses and nghttp2 and this decoder take.
fn has_long_integer(block: &[u8]) -> bool {
    block
        .windows(5)
        .any(|octets| octets[0] & 0x0f == 0x0f && octets[1..].iter().all(|octet| octet & 0x80 != 0))
}

/// Puts one connection's blocks through both decoders; gives how many were accepted by both.
fn compare(blocks: &[(Vec<u8>, u32)]) -> Result<usize, TestCaseError> {
    let (mut h2, mut own) = (H2Receiver::new(), Decoder::new());
    for (accepted, (block, table_limit)) in blocks.iter().enumerate() {
        own.set_limit(*table_limit);
        let mut fields = Vec::new();
        let decoded = own.decode(block, LIST_BYTES_MAX as usize, &mut fields);
        match (h2.receive(block, *table_limit), decoded) {
            (Verdict::Fields(theirs), Ok(())) => prop_assert_eq!(grouped_own(&fields), theirs),
            (Verdict::Malformed, Ok(())) => {
                // h2 takes `te: trailers` in lowercase only; the word has no case (RFC 9110 section 10.1.4).
                let te = |field: &Field| field.name == "te" && field.value != "trailers";
                let explained = malformed::check(&fields, false).is_some() || fields.iter().any(te);
                prop_assert!(explained, "h2 finds {fields:?} malformed");
            }
            (Verdict::Refused, Err(_)) => return Ok(accepted),
            (Verdict::Refused, Ok(())) => {
                let explained = fields.iter().any(h2_refuses_field) || has_long_integer(block);
                prop_assert!(explained, "h2 refuses {block:02x?}, which gives {fields:?}");
                return Ok(accepted);
            }
            (_, Err(error)) => prop_assert!(false, "h2 accepts {block:02x?}, refused here: {error}"),
        }
    }
    Ok(blocks.len())
}

/// One step of a made-up encoder, completed by what is in the table when its turn comes.
#[derive(Clone, Debug)]
enum Step {
    /// An entry that exists, counted over both tables.
    Indexed(prop::sample::Index),
    /// A literal in one of the three forms, named by an entry that exists, or by itself.
    Literal { form: (u8, u8), name: Result<String, prop::sample::Index>, value: Vec<u8>, coded: (bool, bool) },
    /// Octets as they come.
    Wild(Vec<u8>),
}

/// One block: size updates (cut to the limit), steps, and the table limit in force.
#[derive(Clone, Debug)]
struct Plan {
    updates: Vec<u32>,
    steps: Vec<Step>,
    table_limit: u32,
}

fn any_step() -> impl Strategy<Value = Step> {
    let form = prop_oneof![2 => Just((0x40, 6)), 1 => Just((0x00, 4)), 1 => Just((0x10, 4))];
    let own_name = prop_oneof![
        6 => prop::sample::select(vec!["x-a", "x-b", "content-type", "grpc-status", "te", "cookie"]).prop_map(String::from),
        3 => "[a-z][a-z0-9-]{0,20}",
    ];
    let name = prop_oneof![own_name.prop_map(Ok), any::<prop::sample::Index>().prop_map(Err)];
    let value = prop_oneof![
        4 => "[ -~]{0,40}".prop_map(String::into_bytes),
        2 => prop::sample::select(vec!["trailers", "200", "GET", "/a/b"]).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(0x80_u8.., 0..40),
        1 => (0_usize..5000).prop_map(|len| vec![b'v'; len]),
    ];
    let literal = (form, name, value, any::<(bool, bool)>())
        .prop_map(|(form, name, value, coded)| Step::Literal { form, name, value, coded });
    let wild = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..12),
        "[!-~]{0,6}"
            .prop_map(|name| [vec![0x40], string(name.as_bytes(), false), string(b"200", false)].concat()),
        (60_u32..80).prop_map(|index| integer(0x80, 7, index)),
        (0_u32..5000).prop_map(|octets| integer(0x20, 5, octets)),
    ];
    prop_oneof![
        60 => any::<prop::sample::Index>().prop_map(Step::Indexed),
        60 => literal,
        1 => wild.prop_map(Step::Wild),
    ]
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let table_limit = prop_oneof![6 => Just(4096_u32), 1 => Just(0_u32), 1 => 0_u32..20_000];
    let updates = proptest::collection::vec(prop_oneof![0_u32..300, 0_u32..5000], 0..3);
    let updates = prop_oneof![5 => Just(Vec::new()), 1 => updates];
    (updates, proptest::collection::vec(any_step(), 0..8), table_limit)
        .prop_map(|(updates, steps, table_limit)| Plan { updates, steps, table_limit })
}

/// The octets of one connection's plans, each with its table limit. A decoder goes along to tell which indexes exist.
fn encode(plans: &[Plan]) -> Vec<(Vec<u8>, u32)> {
    let mut model = Decoder::new();
    let mut blocks = Vec::new();
    for plan in plans {
        model.set_limit(plan.table_limit);
        let mut block = Vec::new();
        for octets in &plan.updates {
            let update = integer(0x20, 5, *octets.min(&plan.table_limit));
            model.decode(&update, 0, &mut Vec::new()).unwrap();
            block.extend(update);
        }
        for step in &plan.steps {
            let entries = (1..1000).take_while(|index| model.table.get(*index).is_ok()).count();
            let pick = |index: &prop::sample::Index| u32::try_from(index.index(entries) + 1).unwrap();
            let octets = match step {
                Step::Indexed(index) => integer(0x80, 7, pick(index)),
                Step::Literal { form: (first, bits), name, value, coded } => {
                    let name = match name {
                        Ok(name) => [integer(*first, *bits, 0), string(name.as_bytes(), coded.0)].concat(),
                        // Names of pseudo-header fields (up to 14) would have h2 judge the value.
                        Err(index) => integer(*first, *bits, pick(index).max(15)),
                    };
                    [name, string(value, coded.1)].concat()
                }
                Step::Wild(octets) => octets.clone(),
            };
            let _ = model.decode(&octets, 1 << 20, &mut Vec::new());
            block.extend(octets);
        }
        blocks.push((block, plan.table_limit));
    }
    blocks
}

fn any_connection() -> impl Strategy<Value = Vec<(Vec<u8>, u32)>> {
    proptest::collection::vec(any_plan(), 1..12).prop_map(|plans| encode(&plans))
}

/// Fields for h2's encoder. Those of names with `secret-` are marked sensitive, and no others: h2 sends an index where
/// the same field was once sent without the mark.
fn any_sent() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let name = prop_oneof![
        3 => prop::sample::select(vec!["x-a", "x-b", "content-type", "grpc-status", "te", "cookie"]).prop_map(String::from),
        1 => "[a-z][a-z0-9-]{0,20}",
        1 => "secret-[a-c]",
    ];
    let value = prop_oneof![
        6 => "[ -~]{0,40}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(0x80_u8.., 0..40),
        1 => (0_usize..5000).prop_map(|len| vec![b'v'; len]),
    ];
    proptest::collection::vec((name, value), 0..20)
}

/// The octets that h2 sends for one request.
fn h2_sends(codec: &mut Codec<Memory, Bytes>, sent: &[(String, Vec<u8>)], path: &str) -> Vec<u8> {
    let mut map = HeaderMap::new();
    for (name, value) in sent {
        let mut value = HeaderValue::from_bytes(value).unwrap();
        value.set_sensitive(name.starts_with("secret-"));
        map.append(HeaderName::from_lowercase(name.as_bytes()).unwrap(), value);
    }
    let uri = format!("http://example.com/{path}").parse().unwrap();
    let pseudo = Pseudo::request(Method::POST, uri, None);
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(codec.poll_ready(&mut context), Poll::Ready(Ok(()))));
    codec.buffer(Headers::new(StreamId::from(1), pseudo, map).into()).unwrap();
    assert!(matches!(codec.flush(&mut context), Poll::Ready(Ok(()))));
    let memory = std::mem::take(codec.get_mut());
    memory.into_inner()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_h2_sends_is_read(
        blocks in proptest::collection::vec((any_sent(), "[a-z]{0,9}", prop::option::weighted(0.3, 0_u32..6000)), 1..8),
    ) {
        let mut codec = Codec::<Memory, Bytes>::new(Memory::default());
        let limits = UnitLimits {
            frame_bytes_max: FRAME_BYTES_MAX,
            header_list_bytes_max: LIST_BYTES_MAX,
            continuations_max: 1024,
        };
        let mut reader = UnitReader::new(limits);
        for (sent, path, table_size) in blocks {
            if let Some(octets) = table_size {
                codec.set_send_header_table_size(octets as usize);
                reader.hpack_mut().set_limit(octets);
            }
            let bytes = Bytes::from(h2_sends(&mut codec, &sent, &path));
            prop_assert_eq!(reader.complete_len(&bytes), Ok(bytes.len()));
            let unit = reader.next(&bytes, &mut 0).unwrap().unwrap();
            let UnitBody::Headers { fields, .. } = unit.body else { panic!("not HEADERS") };
            let path = format!("/{path}");
            let pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "example.com"), (":path", &path)];
            let (first, rest) = fields.split_at(4);
            for (field, (name, value)) in first.iter().zip(pseudo) {
                prop_assert_eq!((&field.name[..], &field.value[..]), (name.as_bytes(), value.as_bytes()));
            }
            let expected = sent.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
            prop_assert_eq!(grouped_own(rest), grouped(expected));
            for field in rest {
                prop_assert_eq!(field.never_indexed, field.name.starts_with(b"secret-"), "{:?}", field);
            }
        }
    }

    #[test]
    fn blocks_are_judged_as_by_h2(blocks in any_connection()) {
        compare(&blocks)?;
    }

    #[test]
    fn damaged_blocks_are_judged_as_by_h2(
        mut blocks in any_connection(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for (block, place, value) in damage {
            let damaged = block.index(blocks.len());
            let (block, _) = &mut blocks[damaged];
            if !block.is_empty() {
                let place = place.index(block.len());
                if value % 4 == 0 { block.truncate(place) } else { block[place] = value }
            }
        }
        compare(&blocks)?;
    }

    #[test]
    fn noise_is_judged_as_by_h2(block in proptest::collection::vec(any::<u8>(), 0..30)) {
        compare(&[(block, 4096)])?;
    }
}

/// The comparison would prove little if most connections ended at their first block.
#[test]
fn the_compared_connections_live_for_many_blocks() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = any_connection();
    let (mut sent, mut accepted, mut refused) = (0, 0, 0);
    for _ in 0..200 {
        let blocks = strategy.new_tree(&mut runner).unwrap().current();
        let count = compare(&blocks).unwrap();
        sent += blocks.len();
        accepted += count;
        refused += usize::from(count < blocks.len());
    }
    assert!(accepted * 2 > sent && refused > 10, "{accepted} of {sent} blocks accepted, {refused} refused");
}

#[test]
fn refusals_of_the_compression_layer_are_the_same() {
    for (block, error) in [
        (vec![0x80], HpackError::InvalidIndex { index: 0 }),
        (vec![0xbe], HpackError::InvalidIndex { index: 62 }),
        (vec![0x82, 0x20], HpackError::SizeUpdateNotFirst),
        (integer(0x20, 5, 4097), HpackError::SizeUpdateTooLarge { octets: 4097, limit: 4096 }),
        (vec![0x40, 0x81, 0xff, 0], HpackError::Huffman),
        (vec![0x40, 0x05, b'a'], HpackError::Truncated),
    ] {
        assert!(matches!(H2Receiver::new().receive(&block, 4096), Verdict::Refused), "{block:02x?}");
        assert_eq!(Decoder::new().decode(&block, 1 << 16, &mut Vec::new()), Err(error));
    }
}
