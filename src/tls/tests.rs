//! Tests of reading ClientHellos: of one that the fingerprint's specification gives in parts, cut anywhere, and of broken ones.

use super::{Read, client_hello};

/// The example of FoxIO's specification: t13d1516h2_8daaf6152771_e5627efa2ab1.
const CIPHERS: [u16; 15] = [
    0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d,
    0x002f, 0x0035,
];
const EXTENSIONS: [u16; 16] = [
    0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01,
    0x000b, 0x000a, 0x0015,
];
const ALGORITHMS: [u16; 8] = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];
const GREASE: u16 = 0x3a3a;

/// A ClientHello in parts.
struct Parts {
    ciphers: Vec<u16>,
    extensions: Vec<u16>,
    algorithms: Vec<u16>,
    alpn: Vec<&'static [u8]>,
    name: &'static [u8],
    versions: Vec<u16>,
    /// Bytes of plaintext in each record.
    record: usize,
}

impl Parts {
    fn example() -> Self {
        let with_grease = |values: &[u16]| [&[GREASE], values, &[0xfafa]].concat();
        Self {
            ciphers: with_grease(&CIPHERS),
            extensions: with_grease(&EXTENSIONS),
            algorithms: ALGORITHMS.to_vec(),
            alpn: vec![b"h2", b"http/1.1"],
            name: b"service.example",
            versions: vec![GREASE, 0x0304, 0x0303],
            record: 16_384,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend(list8(&[9; 32]));
        body.extend(list16(&numbers(&self.ciphers)));
        body.extend(list8(&[0]));
        let extensions: Vec<u8> = self.extensions.iter().flat_map(|&kind| self.extension(kind)).collect();
        if !self.extensions.is_empty() {
            body.extend(list16(&extensions));
        }
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let message = [&[1], &length[1..], &body].concat();
        message.chunks(self.record).flat_map(|piece| [&[0x16, 3, 1][..], &list16(piece)].concat()).collect()
    }

    fn extension(&self, kind: u16) -> Vec<u8> {
        let data = match kind {
            0 => list16(&[&[0], list16(self.name).as_slice()].concat()),
            13 => list16(&numbers(&self.algorithms)),
            16 => list16(&self.alpn.iter().flat_map(|name| list8(name)).collect::<Vec<u8>>()),
            43 => list8(&numbers(&self.versions)),
            _ => Vec::new(),
        };
        [kind.to_be_bytes().to_vec(), list16(&data)].concat()
    }

    fn ja4(&self) -> String {
        read(&self.encode()).ja4
    }
}

fn numbers(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn list8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn list16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn read(bytes: &[u8]) -> super::ClientHello {
    match client_hello(bytes) {
        Read::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_client_asks_for_is_read() {
    let hello = read(&Parts::example().encode());
    assert_eq!(hello.server_name.as_deref(), Some("service.example"));
    assert_eq!(hello.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert_eq!(hello.versions, [0x0304, 0x0303]);
    assert_eq!(hello.ja4, "t13d1516h2_8daaf6152771_e5627efa2ab1");
}

/// The other values that the specification names.
#[test]
fn fingerprints_are_those_of_the_specification() {
    let change = |change: fn(&mut Parts)| {
        let mut parts = Parts::example();
        change(&mut parts);
        parts.ja4()
    };
    #[allow(clippy::type_complexity, reason = "a table of cases is read by its rows")]
    let cases: [(fn(&mut Parts), &str); 9] = [
        (|parts| parts.extensions.retain(|&kind| kind != 13), "t13d1515h2_8daaf6152771_"),
        (|parts| parts.extensions.retain(|&kind| kind != 0), "t13i1515h2_8daaf6152771_e5627efa2ab1"),
        (|parts| parts.extensions.retain(|&kind| kind != 16), "t13d151500_8daaf6152771_e5627efa2ab1"),
        (|parts| parts.extensions.clear(), "t12i150000_8daaf6152771_000000000000"),
        (|parts| parts.ciphers = vec![GREASE], "t13d0016h2_000000000000_e5627efa2ab1"),
        (|parts| parts.alpn = vec![b"http/1.1"], "t13d1516h1_8daaf6152771_e5627efa2ab1"),
        (|parts| parts.alpn = vec![b"\x30\xab\xcd\x31"], "t13d151601_8daaf6152771_e5627efa2ab1"),
        (|parts| parts.alpn = vec![b"\xab"], "t13d1516ab_8daaf6152771_e5627efa2ab1"),
        (|parts| parts.alpn = vec![b"\x30\x31\xab\xcd"], "t13d15163d_8daaf6152771_e5627efa2ab1"),
    ];
    for (number, (altered, expected)) in cases.into_iter().enumerate() {
        let found = change(altered);
        assert!(found.starts_with(expected), "case {number}: {found}, not {expected}");
    }
    // "If there are no signature algorithms, the string ends without an underscore": 6d807ffa2a79, the type of the extension included.
    assert!(change(|parts| parts.algorithms.clear()).ends_with("_6d807ffa2a79"));
    let shuffled = change(|parts| {
        parts.extensions.reverse();
        parts.ciphers.reverse();
    });
    assert_eq!(shuffled, Parts::example().ja4());
}

/// Post-quantum key shares do not fit one segment, and may not fit one record.
#[test]
fn a_hello_is_incomplete_until_its_last_byte_however_it_is_cut() {
    for record in [16_384, 100, 7, 1] {
        let whole = Parts { record, ..Parts::example() }.encode();
        for end in 0..whole.len() {
            assert_eq!(client_hello(&whole[..end]), Read::Incomplete, "{end} of {}", whole.len());
        }
        let hello = client_hello(&whole);
        assert!(matches!(hello, Read::Hello(_)));
        let early_data = [&whole[..], &[0x17, 3, 3, 0, 1, 0]].concat();
        assert_eq!(client_hello(&early_data), hello, "what follows in a record of its own changes nothing");
    }
}

#[test]
fn other_bytes_are_excluded_by_the_first_that_cannot_be_right() {
    let excluded: [&[u8]; 10] = [
        b"P",
        b"\x15",
        b"\x16\x02",
        b"\x16\x03\x05",
        b"\x16\x03\x01\x41",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x05\x02",
        // A record that holds more than the message.
        b"\x16\x03\x01\x00\x06\x01\x00\x00\x01",
        // SSL 2.0's form.
        b"\x80",
    ];
    for bytes in excluded {
        assert_eq!(client_hello(bytes), Read::NotTls, "{bytes:02x?}");
        assert_ne!(
            client_hello(&bytes[..bytes.len() - 1]),
            Read::NotTls,
            "{bytes:02x?} without its last byte"
        );
    }
    assert_eq!(client_hello(b""), Read::Incomplete);
}

#[test]
fn a_hello_that_breaks_its_own_form_is_none() {
    let whole = Parts::example().encode();
    // Within the message each length says where the next part begins; an altered one must not be read past.
    let mut read = 0;
    for at in 5..whole.len() {
        for value in [0, 0xff] {
            let mut broken = whole.clone();
            broken[at] = value;
            read += usize::from(matches!(client_hello(&broken), Read::Hello(_)));
        }
    }
    assert!(read > 0 && read < 2 * (whole.len() - 5), "{read} alterations were readable");
    let mut short = Parts::example();
    short.name = b"";
    assert!(matches!(client_hello(&short.encode()), Read::Hello(hello) if hello.server_name.is_none()));
}

#[test]
fn a_name_that_no_host_can_have_is_not_passed_on() {
    for name in [&b"caf\xc3\xa9"[..], b"a b", b"a\n", &[b'a'; 256]] {
        let parts = Parts { name: Box::leak(name.to_vec().into_boxed_slice()), ..Parts::example() };
        let hello = read(&parts.encode());
        assert_eq!(hello.server_name, None, "{name:?}");
        assert!(hello.ja4.starts_with("t13d"));
    }
}
