//! Reading the first message of TLS, the ClientHello (RFC 8446 section 4.1.2), without taking part in the session.
//!
//! Invariants: what goes in decides alone what comes out; `NotTls` is said as soon as the bytes exclude a ClientHello, and
//! once `NotTls` or `Hello` was said, more bytes do not change it. A message may span several records, as those with
//! post-quantum key shares do. How many bytes are worth waiting for is the caller's to bound. The fingerprint is
//! `ja4`'s; sessions are `proxy`'s, certificates `credentials`'.

mod ja4;

/// What some bytes from the start of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// No ClientHello, whatever follows.
    NotTls,
    /// A ClientHello so far.
    Incomplete,
    /// A whole ClientHello.
    Hello(ClientHello),
}

/// What a client asks for in its first message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The host name asked for (SNI, RFC 6066 section 3), where it can be one: printable ASCII of at most 255 bytes.
    pub server_name: Option<String>,
    /// The protocols offered, in the client's order (ALPN, RFC 7301).
    pub alpn: Vec<Vec<u8>>,
    /// The versions offered, in the client's order: of `supported_versions`, else the message's own version. No GREASE.
    pub versions: Vec<u16>,
    /// The JA4 fingerprint.
    pub ja4: String,
}

const RECORD_HEADER_LEN: usize = 5;
/// Octets of plaintext in one record (RFC 8446 section 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
const HANDSHAKE_HEADER_LEN: usize = 4;
/// The longest name in the DNS, as text, and one to spare for a final dot.
const SERVER_NAME_BYTES_MAX: usize = 255;

const CONTENT_HANDSHAKE: u8 = 0x16;
const TYPE_CLIENT_HELLO: u8 = 0x01;

/// Extension types (IANA registry "TLS ExtensionType Values").
mod extension {
    pub(super) const SERVER_NAME: u16 = 0;
    pub(super) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(super) const ALPN: u16 = 16;
    pub(super) const SUPPORTED_VERSIONS: u16 = 43;
}

/// Reads `bytes`, the first of a connection. Call it again with all of them when there are more.
pub fn client_hello(bytes: &[u8]) -> Read {
    match message(bytes) {
        Message::Excluded => Read::NotTls,
        Message::Incomplete => Read::Incomplete,
        Message::Whole(body) => parse(&body).map_or(Read::NotTls, Read::Hello),
    }
}

/// The handshake message that the records carry.
enum Message {
    Excluded,
    Incomplete,
    Whole(Vec<u8>),
}

fn message(bytes: &[u8]) -> Message {
    let (mut rest, mut body) = (bytes, Vec::new());
    while !rest.is_empty() {
        if !can_begin_record(rest) {
            return Message::Excluded;
        }
        let Some((&[_, _, _, high, low], content)) = rest.split_first_chunk::<RECORD_HEADER_LEN>() else {
            return Message::Incomplete;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if !(1..=RECORD_BYTES_MAX).contains(&length) {
            return Message::Excluded;
        }
        let (announced, is_whole) = (body.len() + length, content.len() >= length);
        body.extend_from_slice(&content[..content.len().min(length)]);
        if body.first().is_some_and(|&kind| kind != TYPE_CLIENT_HELLO) {
            return Message::Excluded;
        }
        match message_length(&body) {
            // What stands behind it in the same record is not a part of it, and nothing that a client may send here.
            Some(wanted) if announced > wanted => return Message::Excluded,
            Some(wanted) if announced == wanted && is_whole => {
                return Message::Whole(body.split_off(HANDSHAKE_HEADER_LEN));
            }
            _ if !is_whole => return Message::Incomplete,
            _ => rest = &content[length..],
        }
    }
    Message::Incomplete
}

/// As far as the bytes go: a handshake of SSL 3.0 to TLS 1.3, of at most 16,384 bytes.
fn can_begin_record(bytes: &[u8]) -> bool {
    let longest = u8::try_from(RECORD_BYTES_MAX >> 8).unwrap_or(u8::MAX);
    let ranges = [CONTENT_HANDSHAKE..=CONTENT_HANDSHAKE, 3..=3, 0..=4, 0..=longest];
    ranges.iter().zip(bytes).all(|(range, byte)| range.contains(byte))
}

/// Octets of the whole message with its header, once the header is there.
fn message_length(body: &[u8]) -> Option<usize> {
    let [_, a, b, c] = *body.first_chunk::<HANDSHAKE_HEADER_LEN>()?;
    Some(HANDSHAKE_HEADER_LEN + u32::from_be_bytes([0, a, b, c]) as usize)
}

fn parse(body: &[u8]) -> Option<ClientHello> {
    let mut input = Input(body);
    let version = input.u16()?;
    let _random = input.take(32)?;
    let _session = input.list8()?;
    let ciphers = input.list16()?.u16s()?;
    let _compression = input.list8()?;
    let mut read = Extensions::default();
    if !input.is_empty() {
        let mut extensions = input.list16()?;
        while !extensions.is_empty() {
            read.take(extensions.u16()?, extensions.list16()?)?;
        }
    }
    if !input.is_empty() {
        return None;
    }
    let versions = if read.versions.is_empty() { vec![version] } else { read.versions };
    let ja4 = ja4::fingerprint(&ja4::Facts {
        versions: &versions,
        ciphers: &ciphers,
        extensions: &read.types,
        signature_algorithms: &read.signature_algorithms,
        first_alpn: read.alpn.first().map(Vec::as_slice),
    });
    Some(ClientHello { server_name: read.server_name, alpn: read.alpn, versions, ja4 })
}

/// What of the extensions is of interest.
#[derive(Default)]
struct Extensions {
    types: Vec<u16>,
    server_name: Option<String>,
    alpn: Vec<Vec<u8>>,
    versions: Vec<u16>,
    signature_algorithms: Vec<u16>,
}

impl Extensions {
    /// `None` where one that is read breaks its own form.
    fn take(&mut self, kind: u16, mut data: Input<'_>) -> Option<()> {
        self.types.push(kind);
        match kind {
            extension::SERVER_NAME => self.take_server_name(data.list16()?)?,
            extension::ALPN => {
                let mut names = data.list16()?;
                while !names.is_empty() {
                    self.alpn.push(names.list8()?.0.to_vec());
                }
            }
            extension::SUPPORTED_VERSIONS => {
                self.versions = data.list8()?.u16s()?;
                self.versions.retain(|&version| !ja4::is_grease(version));
            }
            extension::SIGNATURE_ALGORITHMS => self.signature_algorithms = data.list16()?.u16s()?,
            _ => {}
        }
        Some(())
    }

    /// The first name of type host_name; the others have no meaning yet (RFC 6066 section 3).
    fn take_server_name(&mut self, mut names: Input<'_>) -> Option<()> {
        while !names.is_empty() && self.server_name.is_none() {
            let (kind, name) = (names.take(1)?[0], names.list16()?.0);
            let can_be_one = kind == 0 && (1..=SERVER_NAME_BYTES_MAX).contains(&name.len());
            if can_be_one && name.iter().all(u8::is_ascii_graphic) {
                self.server_name = Some(name.iter().copied().map(char::from).collect());
            }
        }
        Some(())
    }
}

/// Bytes that are left to read (the presentation language of RFC 8446 section 3).
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        let &[high, low] = self.take(2)? else { return None };
        Some(u16::from_be_bytes([high, low]))
    }

    /// A vector with one byte of length.
    fn list8(&mut self) -> Option<Self> {
        let length = usize::from(self.take(1)?[0]);
        self.take(length).map(Self)
    }

    /// A vector with two bytes of length.
    fn list16(&mut self) -> Option<Self> {
        let length = usize::from(self.u16()?);
        self.take(length).map(Self)
    }

    fn u16s(mut self) -> Option<Vec<u16>> {
        let mut numbers = Vec::with_capacity(self.0.len() / 2);
        while !self.is_empty() {
            numbers.push(self.u16()?);
        }
        Some(numbers)
    }
}

#[cfg(test)]
mod tests;
