//! The frame header codec (RFC 9113 section 4.1) and the few frames that attestry itself may send.
//!
//! A written header block uses literals without indexing and no Huffman coding only, so it leaves the HPACK tables of
//! both sides as they were, and may be put between two blocks of the peer whose connection is relayed.
//! Not here: reading payloads (`unit`), and the decision to send anything (`proxy`).

/// Octets of a frame header.
pub const HEADER_LEN: usize = 9;

/// The largest payload that a frame header can announce, in octets.
pub const LENGTH_MAX: u32 = (1 << 24) - 1;

/// Stream identifiers and window increments have 31 bits; the highest one is reserved.
const MASK_31_BITS: u32 = (1 << 31) - 1;

/// One frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Octets of the payload, 24 bits.
    pub length: u32,
    /// The frame's type, see [`kind`].
    pub kind: u8,
    /// The frame's flags, see [`flag`]; their meaning depends on the type.
    pub flags: u8,
    /// The stream, 31 bits; 0 is the connection itself.
    pub stream: u32,
}

impl FrameHeader {
    /// Reads a header; the reserved bit is ignored, as RFC 9113 section 4.1 asks.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes;
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & MASK_31_BITS,
        }
    }

    /// Writes a header. Bits of `length` above 24 and of `stream` above 31 do not exist on the wire and are dropped.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let [_, l0, l1, l2] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = (self.stream & MASK_31_BITS).to_be_bytes();
        [l0, l1, l2, self.kind, self.flags, s0, s1, s2, s3]
    }

    /// Whether all bits of `flag` are set.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag == flag
    }
}

/// Frame types (RFC 9113 section 6).
pub mod kind {
    /// Content of a request or response.
    pub const DATA: u8 = 0x0;
    /// Opens a stream or ends it with trailers.
    pub const HEADERS: u8 = 0x1;
    /// Deprecated priority signal.
    pub const PRIORITY: u8 = 0x2;
    /// Ends a stream at once.
    pub const RST_STREAM: u8 = 0x3;
    /// Parameters of the connection, or their acknowledgement.
    pub const SETTINGS: u8 = 0x4;
    /// Announces a stream that the server will open.
    pub const PUSH_PROMISE: u8 = 0x5;
    /// Round-trip probe, or its answer.
    pub const PING: u8 = 0x6;
    /// Begins the end of a connection.
    pub const GOAWAY: u8 = 0x7;
    /// Grants flow-control window.
    pub const WINDOW_UPDATE: u8 = 0x8;
    /// Continues a header block.
    pub const CONTINUATION: u8 = 0x9;
}

/// Frame flags (RFC 9113 section 6).
pub mod flag {
    /// DATA, HEADERS: the sender's last frame of the stream's content.
    pub const END_STREAM: u8 = 0x1;
    /// SETTINGS, PING: an acknowledgement.
    pub const ACK: u8 = 0x1;
    /// HEADERS, PUSH_PROMISE, CONTINUATION: the header block ends here.
    pub const END_HEADERS: u8 = 0x4;
    /// DATA, HEADERS, PUSH_PROMISE: a pad length comes first, padding last.
    pub const PADDED: u8 = 0x8;
    /// HEADERS: five octets of priority come before the block.
    pub const PRIORITY: u8 = 0x20;
}

/// A SETTINGS frame with these parameters (identifier, value), in this order.
pub fn settings(params: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(params.len() * 6);
    for (id, value) in params {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// The acknowledgement of the peer's SETTINGS.
pub fn settings_ack() -> Vec<u8> {
    frame(kind::SETTINGS, flag::ACK, 0, &[])
}

/// A PING, or with `ack` the answer to one.
pub fn ping(ack: bool, opaque: [u8; 8]) -> Vec<u8> {
    frame(kind::PING, if ack { flag::ACK } else { 0 }, 0, &opaque)
}

/// A GOAWAY with an error code of [`super::code`] and debug data for a human.
pub fn goaway(last_stream: u32, code: u32, debug: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(8 + debug.len());
    payload.extend_from_slice(&(last_stream & MASK_31_BITS).to_be_bytes());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(debug);
    frame(kind::GOAWAY, 0, 0, &payload)
}

/// A RST_STREAM with an error code of [`super::code`].
pub fn rst_stream(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// A WINDOW_UPDATE of `increment` octets (1 to 2^31-1); stream 0 is the connection's window.
pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &(increment & MASK_31_BITS).to_be_bytes())
}

/// HEADERS, with CONTINUATIONs where the block is longer than `max_frame` octets, whose fields are all literals
/// without indexing and without Huffman coding (RFC 7541 section 6.2.2): every HPACK table stays untouched.
pub fn headers_literal(stream: u32, end_stream: bool, fields: &[(&str, &str)], max_frame: usize) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal_string(&mut block, name.as_bytes());
        literal_string(&mut block, value.as_bytes());
    }
    let (first, mut rest) = block.split_at(block.len().min(max_frame.clamp(1, LENGTH_MAX as usize)));
    let stream_flag = if end_stream { flag::END_STREAM } else { 0 };
    let mut out = frame(kind::HEADERS, stream_flag | end_headers(rest), stream, first);
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.len().min(max_frame.clamp(1, LENGTH_MAX as usize)));
        out.extend(frame(kind::CONTINUATION, end_headers(after), stream, part));
        rest = after;
    }
    out
}

/// The flag of a frame after which `rest` of the block is still to come.
fn end_headers(rest: &[u8]) -> u8 {
    if rest.is_empty() { flag::END_HEADERS } else { 0 }
}

/// A string literal without Huffman coding (RFC 7541 section 5.2), its length as a 7-bit prefix integer.
fn literal_string(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() < 0x7f {
        out.push(low_octet(text.len()));
    } else {
        out.push(0x7f);
        let mut rest = text.len() - 0x7f;
        while rest >= 0x80 {
            out.push(0x80 | low_octet(rest));
            rest >>= 7;
        }
        out.push(low_octet(rest));
    }
    out.extend_from_slice(text);
}

/// The lowest octet of a number.
fn low_octet(number: usize) -> u8 {
    let [.., low] = number.to_be_bytes();
    low
}

/// One whole frame. The payload is cut at what a frame can carry: only debug data of a GOAWAY could ever be longer.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(LENGTH_MAX).min(LENGTH_MAX);
    let mut out = Vec::with_capacity(HEADER_LEN + length as usize);
    out.extend_from_slice(&FrameHeader { length, kind, flags, stream }.encode());
    out.extend_from_slice(&payload[..length as usize]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_are_the_bytes_of_the_rfc() {
        assert_eq!(settings(&[(0x3, 100), (0x4, 65_535)]).len(), 9 + 12);
        assert_eq!(settings(&[(0x3, 100)]), [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100]);
        assert_eq!(settings_ack(), [0, 0, 0, 4, 1, 0, 0, 0, 0]);
        assert_eq!(ping(true, *b"12345678")[..9], [0, 0, 8, 6, 1, 0, 0, 0, 0]);
        assert_eq!(ping(false, *b"12345678")[4..], *b"\0\0\0\0\x0012345678");
        assert_eq!(goaway(7, 2, b"why"), *b"\0\0\x0b\x07\0\0\0\0\0\0\0\0\x07\0\0\0\x02why");
        assert_eq!(rst_stream(5, 8), [0, 0, 4, 3, 0, 0, 0, 0, 5, 0, 0, 0, 8]);
        assert_eq!(window_update(0, 1 << 20), [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0x10, 0, 0]);
    }

    #[test]
    fn a_literal_block_is_split_at_the_frame_bound_and_decodes_in_order() {
        let long = "v".repeat(300);
        let fields = [(":status", "200"), ("grpc-status", "14"), ("grpc-message", long.as_str())];
        for max_frame in [0, 1, 7, 100, 16_384] {
            let bytes = headers_literal(9, true, &fields, max_frame);
            let (mut at, mut block, mut frames) = (0, Vec::new(), Vec::new());
            while at < bytes.len() {
                let head = FrameHeader::parse(bytes[at..at + 9].try_into().unwrap());
                assert!(head.length as usize <= max_frame.max(1));
                assert_eq!(head.stream, 9);
                block.extend_from_slice(&bytes[at + 9..at + 9 + head.length as usize]);
                at += 9 + head.length as usize;
                frames.push(head);
            }
            assert_eq!(frames[0].kind, kind::HEADERS);
            assert!(frames[0].has(flag::END_STREAM));
            let (last, before) = frames.split_last().unwrap();
            assert!(last.has(flag::END_HEADERS));
            assert!(before.iter().all(|head| !head.has(flag::END_HEADERS)));
            assert!(frames[1..].iter().all(|head| head.kind == kind::CONTINUATION));

            let mut decoder = crate::http2::Decoder::new();
            let mut found = Vec::new();
            decoder.decode(&block, 1 << 20, &mut found).unwrap();
            let found: Vec<_> = found.iter().map(|f| (&f.name[..], &f.value[..])).collect();
            let expected: Vec<_> = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            assert_eq!(found, expected);
            assert_eq!(decoder.table_octets(), 0, "a literal block must not touch the table");
        }
    }

    #[test]
    fn literals_of_any_length_are_read_again() {
        for len in [0, 1, 126, 127, 128, 253, 254, 255, 256, 16_383, 20_000] {
            let value = "v".repeat(len);
            let bytes = headers_literal(1, false, &[("a", &value)], LENGTH_MAX as usize);
            let mut fields = Vec::new();
            crate::http2::Decoder::new().decode(&bytes[HEADER_LEN..], 1 << 20, &mut fields).unwrap();
            assert_eq!((fields.len(), &fields[0].value[..]), (1, value.as_bytes()));
        }
    }

    #[test]
    fn an_empty_block_is_one_whole_frame() {
        assert_eq!(headers_literal(1, false, &[], 16_384), [0, 0, 0, 1, 4, 0, 0, 0, 1]);
    }

    proptest! {
        #[test]
        fn a_header_survives_the_round_trip(length in 0..=LENGTH_MAX, kind: u8, flags: u8, stream in 0..=MASK_31_BITS) {
            let head = FrameHeader { length, kind, flags, stream };
            prop_assert_eq!(FrameHeader::parse(&head.encode()), head);
        }

        #[test]
        fn any_nine_octets_are_a_header_without_the_reserved_bit(bytes: [u8; 9]) {
            let mut expected = bytes;
            expected[5] &= 0x7f;
            prop_assert!(FrameHeader::parse(&bytes).stream <= MASK_31_BITS);
            prop_assert_eq!(FrameHeader::parse(&bytes).encode(), expected);
        }
    }
}
