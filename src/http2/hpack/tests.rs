//! Tests of the decoder against RFC 7541: all of Appendix C, integers, table sizes, eviction, and bounds.

#[cfg(feature = "proxy")]
mod differential;

use proptest::prelude::*;

use super::*;

const LIST_BYTES_MAX: usize = 1 << 16;

/// Octets from hexadecimal digits with blanks anywhere.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, HpackError> {
    let mut fields = Vec::new();
    decoder.decode(block, LIST_BYTES_MAX, &mut fields)?;
    let text = |octets: &Bytes| String::from_utf8_lossy(octets).into_owned();
    Ok(fields.iter().map(|field| (text(&field.name), text(&field.value))).collect())
}

/// A block in hexadecimal, its fields, and the table's octets behind it.
type Example<'a> = (&'a str, &'a [(&'a str, &'a str)], usize);

fn assert_blocks(decoder: &mut Decoder, blocks: &[Example]) {
    for (block, expected, table_octets) in blocks {
        let fields = decode(decoder, &hex(block)).unwrap();
        let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(&fields, expected, "{block}");
        assert_eq!(decoder.table_octets(), *table_octets, "{block}");
    }
}

/// A prefix integer as an encoder writes it.
fn integer(first: u8, prefix_bits: u8, value: u32) -> Vec<u8> {
    let mask = (1_u32 << prefix_bits) - 1;
    if value < mask {
        return vec![first | u8::try_from(value).unwrap()];
    }
    let (mut out, mut rest) = (vec![first | u8::try_from(mask).unwrap()], value - mask);
    while rest >= 0x80 {
        out.push(0x80 | u8::try_from(rest & 0x7f).unwrap());
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap());
    out
}

fn size_update(octets: u32) -> Vec<u8> {
    integer(0x20, 5, octets)
}

#[test]
fn appendix_c1_integers() {
    for (octets, prefix_bits, value) in
        [("0a", 5, 10), ("1f9a0a", 5, 1337), ("2a", 8 - 1, 42), ("ffffffff0f", 4, 15 + 0x01ff_ffff)]
    {
        let octets = hex(octets);
        let mut input = Input { rest: &octets };
        assert_eq!(input.integer(prefix_bits), Ok(value));
        assert!(input.rest.is_empty());
        assert_eq!(integer(octets[0] & !((1 << prefix_bits) - 1), prefix_bits, value), octets);
    }
}

#[test]
fn integers_have_at_most_32_bits() {
    let read = |octets: &[u8]| Input { rest: octets }.integer(5);
    assert_eq!(read(&integer(0, 5, u32::MAX)), Ok(u32::MAX));
    assert_eq!(read(&integer(0, 5, 31)), Ok(31));
    // Zeros at the end are allowed by the RFC, as far as they do not make the integer longer than any needs to be.
    assert_eq!(read(&[0x1f, 0x80, 0x80, 0x80, 0x80, 0]), Ok(31));
    assert_eq!(read(&[0x1f, 0x80, 0x80, 0x80, 0x80, 0x80, 0]), Err(HpackError::IntegerOverflow));
    assert_eq!(read(&[0x1f, 0xe1, 0xff, 0xff, 0xff, 0x0f]), Err(HpackError::IntegerOverflow));
    assert_eq!(read(&[0x1f, 0xff, 0xff, 0xff, 0xff, 0x7f]), Err(HpackError::IntegerOverflow));
    assert_eq!(read(&[]), Err(HpackError::Truncated));
    assert_eq!(read(&[0x1f]), Err(HpackError::Truncated));
    assert_eq!(read(&[0x1f, 0x80]), Err(HpackError::Truncated));
}

#[test]
fn appendix_c2_single_fields() {
    let custom = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    assert_blocks(&mut Decoder::new(), &[(custom, &[("custom-key", "custom-header")], 55)]);
    let path = "040c 2f73 616d 706c 652f 7061 7468";
    assert_blocks(&mut Decoder::new(), &[(path, &[(":path", "/sample/path")], 0)]);
    assert_blocks(&mut Decoder::new(), &[("82", &[(":method", "GET")], 0)]);

    let mut fields = Vec::new();
    let secret = hex("1008 7061 7373 776f 7264 0673 6563 7265 74");
    Decoder::new().decode(&secret, LIST_BYTES_MAX, &mut fields).unwrap();
    let expected = Field {
        name: Bytes::from_static(b"password"),
        value: Bytes::from_static(b"secret"),
        never_indexed: true,
    };
    assert_eq!(fields, [expected]);
}

const REQUEST_1: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
const REQUEST_2: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
];
const REQUEST_3: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];

#[test]
fn appendix_c3_requests_without_huffman() {
    assert_blocks(
        &mut Decoder::new(),
        &[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUEST_1, 57),
            ("8286 84be 5808 6e6f 2d63 6163 6865", REQUEST_2, 110),
            ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", REQUEST_3, 164),
        ],
    );
}

#[test]
fn appendix_c4_requests_with_huffman() {
    assert_blocks(
        &mut Decoder::new(),
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUEST_1, 57),
            ("8286 84be 5886 a8eb 1064 9cbf", REQUEST_2, 110),
            ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", REQUEST_3, 164),
        ],
    );
}

const DATE_1: &str = "Mon, 21 Oct 2013 20:13:21 GMT";
const DATE_2: &str = "Mon, 21 Oct 2013 20:13:22 GMT";
const PLACE: &str = "https://www.example.com";
const COOKIE: &str = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
const RESPONSE_1: &[(&str, &str)] =
    &[(":status", "302"), ("cache-control", "private"), ("date", DATE_1), ("location", PLACE)];
const RESPONSE_2: &[(&str, &str)] =
    &[(":status", "307"), ("cache-control", "private"), ("date", DATE_1), ("location", PLACE)];
const RESPONSE_3: &[(&str, &str)] = &[
    (":status", "200"),
    ("cache-control", "private"),
    ("date", DATE_2),
    ("location", PLACE),
    ("content-encoding", "gzip"),
    ("set-cookie", COOKIE),
];

/// The appendix has the table at 256 octets from the start; a size update brings it there.
fn decoder_of_256() -> Decoder {
    let mut decoder = Decoder::new();
    assert_eq!(decode(&mut decoder, &size_update(256)), Ok(vec![]));
    decoder
}

#[test]
fn appendix_c5_responses_without_huffman_and_with_eviction() {
    assert_blocks(
        &mut decoder_of_256(),
        &[
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
                 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                RESPONSE_1,
                222,
            ),
            ("4803 3330 37c1 c0bf", RESPONSE_2, 222),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 \
                 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 \
                 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
                RESPONSE_3,
                215,
            ),
        ],
    );
}

#[test]
fn appendix_c6_responses_with_huffman_and_with_eviction() {
    assert_blocks(
        &mut decoder_of_256(),
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                RESPONSE_1,
                222,
            ),
            ("4883 640e ffc1 c0bf", RESPONSE_2, 222),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
                 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                RESPONSE_3,
                215,
            ),
        ],
    );
}

#[test]
fn an_index_outside_both_tables_is_an_error() {
    // Indexed, and as the name of a literal with and without indexing.
    for (block, index) in [("80", 0), ("be", 62), ("7f00 0161", 63), ("0f30 0161", 63), ("0f2f 0161", 62)] {
        let error = decode(&mut Decoder::new(), &hex(block));
        assert_eq!(error, Err(HpackError::InvalidIndex { index }), "{block}");
    }
    assert_eq!(
        decode(&mut Decoder::new(), &hex("bd")).unwrap(),
        [("www-authenticate".to_owned(), String::new())]
    );
}

#[test]
fn fields_before_an_error_are_kept() {
    let mut fields = Vec::new();
    let error = Decoder::new().decode(&hex("8286 80"), LIST_BYTES_MAX, &mut fields).unwrap_err();
    assert_eq!(error, HpackError::InvalidIndex { index: 0 });
    assert_eq!(fields.len(), 2);
}

#[test]
fn a_block_that_ends_too_early_is_an_error() {
    let whole = hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
    for end in 4..whole.len() {
        assert_eq!(decode(&mut Decoder::new(), &whole[..end]), Err(HpackError::Truncated), "{end}");
    }
    assert_eq!(decode(&mut Decoder::new(), &hex("00 ff ff ff ff 0e 61")), Err(HpackError::Truncated));
}

#[test]
fn a_bad_huffman_string_is_an_error() {
    for block in ["00 81ff 0161", "00 0161 81ff", "40 0161 84ffffffff", "00 0161 8118"] {
        assert_eq!(decode(&mut Decoder::new(), &hex(block)), Err(HpackError::Huffman), "{block}");
    }
}

#[test]
fn size_updates_come_first_and_within_the_limit() {
    let mut decoder = Decoder::new();
    assert_eq!(decode(&mut decoder, &[size_update(0), size_update(4096)].concat()), Ok(vec![]));
    assert_eq!(decode(&mut decoder, &[size_update(0), size_update(9), size_update(1)].concat()), Ok(vec![]));
    let late = [vec![0x82], size_update(100)].concat();
    assert_eq!(decode(&mut decoder, &late), Err(HpackError::SizeUpdateNotFirst));

    let too_large = HpackError::SizeUpdateTooLarge { octets: 4097, limit: 4096 };
    assert_eq!(decode(&mut decoder, &size_update(4097)), Err(too_large));
    decoder.set_limit(65_536);
    assert_eq!(decode(&mut decoder, &size_update(65_536)), Ok(vec![]));
    decoder.set_limit(u32::MAX);
    assert_eq!(decode(&mut decoder, &size_update(TABLE_BYTES_MAX)), Ok(vec![]));
    let too_large = HpackError::SizeUpdateTooLarge { octets: TABLE_BYTES_MAX + 1, limit: TABLE_BYTES_MAX };
    assert_eq!(decode(&mut decoder, &size_update(TABLE_BYTES_MAX + 1)), Err(too_large));
}

/// `x-N: y` with indexing.
fn indexed(n: u8) -> Vec<u8> {
    vec![0x40, 3, b'x', b'-', b'0' + n, 1, b'y']
}

#[test]
fn a_lowered_table_evicts_the_oldest_and_growing_brings_nothing_back() {
    let mut decoder = Decoder::new();
    for n in 0..4 {
        decode(&mut decoder, &indexed(n)).unwrap();
    }
    assert_eq!(decoder.table_octets(), 4 * 36);
    assert_eq!(decode(&mut decoder, &[size_update(2 * 36 + 35), hex("be bf")].concat()).unwrap().len(), 2);
    assert_eq!(decoder.table_octets(), 2 * 36);
    let gone = [size_update(4096), hex("c0")].concat();
    assert_eq!(decode(&mut decoder, &gone), Err(HpackError::InvalidIndex { index: 64 }));
    decode(&mut decoder, &size_update(0)).unwrap();
    assert_eq!(decoder.table_octets(), 0);
    decode(&mut decoder, &indexed(1)).unwrap();
    assert_eq!(decoder.table_octets(), 0, "nothing fits into a table of no octets");
}

#[test]
fn a_table_may_be_full_to_the_octet() {
    let mut decoder = Decoder::new();
    decode(&mut decoder, &[size_update(2 * 36), indexed(1), indexed(2)].concat()).unwrap();
    assert_eq!(decoder.table_octets(), 2 * 36);
    decode(&mut decoder, &size_update(2 * 36)).unwrap();
    assert_eq!(decoder.table_octets(), 2 * 36);
    decode(&mut decoder, &[size_update(36), indexed(3)].concat()).unwrap();
    assert_eq!(decode(&mut decoder, &hex("be")).unwrap(), [("x-3".to_owned(), "y".to_owned())]);
}

#[test]
fn a_lowered_limit_without_an_update_follows_the_encoder() {
    let mut decoder = Decoder::new();
    decode(&mut decoder, &indexed(1)).unwrap();
    decoder.set_limit(0);
    assert_eq!(decode(&mut decoder, &hex("be")).unwrap(), [("x-1".to_owned(), "y".to_owned())]);
    assert!(decode(&mut decoder, &size_update(1)).is_err());
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new();
    decode(&mut decoder, &indexed(1)).unwrap();
    let value = vec![b'v'; 4096];
    // Its name comes from the entry that it evicts.
    let block = [vec![0x7e], integer(0, 7, 4096), value].concat();
    let fields = decode(&mut decoder, &block).unwrap();
    assert_eq!((fields[0].0.as_str(), fields[0].1.len()), ("x-1", 4096));
    assert_eq!(decoder.table_octets(), 0);
}

#[test]
fn an_entry_may_be_named_after_the_one_that_it_evicts() {
    let mut decoder = Decoder::new();
    decode(&mut decoder, &[size_update(40), indexed(1)].concat()).unwrap();
    let fields = decode(&mut decoder, &hex("7e 017a be")).unwrap();
    let expected = ("x-1".to_owned(), "z".to_owned());
    assert_eq!(fields, [expected.clone(), expected]);
}

#[test]
fn an_entry_keeps_no_more_memory_than_its_octets() {
    let mut decoder = Decoder::new();
    decode(&mut decoder, &indexed(1)).unwrap();
    decode(&mut decoder, &hex("7e 017a")).unwrap();
    let (older_name, _) = decoder.table.get(63).unwrap();
    let (newer_name, newer_value) = decoder.table.get(62).unwrap();
    assert_ne!(older_name.as_ptr(), newer_name.as_ptr(), "a name must not keep an evicted entry alive");
    assert_eq!(newer_name.as_ptr().wrapping_add(newer_name.len()), newer_value.as_ptr());
}

#[test]
fn a_list_is_bounded_with_its_overhead() {
    let decode = |list_bytes_max| Decoder::new().decode(&[0x82; 3], list_bytes_max, &mut Vec::new());
    assert_eq!(decode(3 * 42), Ok(()));
    assert_eq!(decode(3 * 42 - 1), Err(HpackError::ListTooLarge { list_bytes_max: 125 }));
    assert_eq!(decode(0), Err(HpackError::ListTooLarge { list_bytes_max: 0 }));

    // One octet each for 4 KiB of decoded list: it stops at the bound.
    let mut decoder = Decoder::new();
    let bomb = [vec![0x40, 1, b'x'], integer(0, 7, 4000), vec![b'v'; 4000], vec![0xbe; 60_000]].concat();
    let mut fields = Vec::new();
    assert!(decoder.decode(&bomb, 1 << 20, &mut fields).is_err());
    assert!(fields.len() <= (1 << 20) / 4033);
}

/// One step of a made-up encoder.
#[derive(Clone, Debug)]
enum Step {
    Literal { first: u8, prefix_bits: u8, name: String, value: Vec<u8>, huffman: (bool, bool) },
    Static(u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    let form = prop_oneof![Just((0x40, 6)), Just((0x00, 4)), Just((0x10, 4))];
    let value = proptest::collection::vec(any::<u8>(), 0..200);
    let literal = (form, "[a-z-]{0,150}", value, any::<(bool, bool)>()).prop_map(
        |((first, prefix_bits), name, value, huffman)| Step::Literal {
            first,
            prefix_bits,
            name,
            value,
            huffman,
        },
    );
    prop_oneof![3 => literal, 1 => (1_u32..=61).prop_map(Step::Static)]
}

/// A string literal, with or without Huffman coding.
fn string(text: &[u8], coded: bool) -> Vec<u8> {
    let octets = if coded { huffman::encode(text) } else { text.to_vec() };
    let length = integer(if coded { 0x80 } else { 0 }, 7, u32::try_from(octets.len()).unwrap());
    [length, octets].concat()
}

proptest! {
    #[test]
    fn written_fields_are_read_in_order(steps in proptest::collection::vec(any_step(), 0..20)) {
        let (mut block, mut expected) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Literal { first, prefix_bits, name, value, huffman } => {
                    block.extend(integer(first, prefix_bits, 0));
                    block.extend(string(name.as_bytes(), huffman.0));
                    block.extend(string(&value, huffman.1));
                    expected.push(Field { name: name.into(), value: value.into(), never_indexed: first == 0x10 });
                }
                Step::Static(index) => {
                    block.extend(integer(0x80, 7, index));
                    let (name, value) = Table::new(0).get(index).unwrap();
                    expected.push(Field { name, value, never_indexed: false });
                }
            }
        }
        let mut fields = Vec::new();
        let mut decoder = Decoder::new();
        prop_assert_eq!(decoder.decode(&block, LIST_BYTES_MAX, &mut fields), Ok(()));
        prop_assert_eq!(fields, expected);
        prop_assert!(decoder.table_octets() <= 4096);
    }

    #[test]
    fn no_bytes_make_it_panic_or_break_its_bounds(blocks: Vec<Vec<u8>>, limits: Vec<u32>) {
        let mut decoder = Decoder::new();
        let mut limits = limits.into_iter();
        for block in blocks {
            if let Some(limit) = limits.next() {
                decoder.set_limit(limit);
            }
            let mut fields = Vec::new();
            let _ = decoder.decode(&block, 2000, &mut fields);
            let list: usize = fields.iter().map(|f| f.name.len() + f.value.len() + FIELD_OVERHEAD_BYTES).sum();
            prop_assert!(list <= 2000);
            prop_assert!(decoder.table_octets() <= TABLE_BYTES_MAX as usize);
        }
    }
}
