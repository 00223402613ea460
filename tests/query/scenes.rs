//! Entries of made-up calls, as capture would write them: header blocks, messages in segments, ends of all kinds.

use attestry::entry::Body;
use attestry::generated::v1::connection_event::Type as ConnectionEventType;
use attestry::generated::v1::connection_opened::Interception;
use attestry::generated::v1::{self, Direction, EventType, Level, Protocol, Side, Traffic, WireProtocol};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::ledger_maker::Content;

/// The connection of all calls made here.
pub const CONNECTION: u64 = 0x00c0_ffee_0000_0005;
/// When the calls made here begin, in nanoseconds since 1970: 2023-11-14T22:13:20Z.
pub const START: u64 = 1_700_000_000_000_000_000;

/// An event, and what stands beside it.
pub type Event = (v1::Event, Vec<u8>);

/// The id of call `number`: its first digits are the number's.
pub fn call_id(number: u8) -> [u8; 16] {
    let mut id = [0x77; 16];
    id[0] = number;
    id
}

/// One call, of which entries are made one after the other.
pub struct Call {
    id: [u8; 16],
    connection: u64,
    stream: u32,
    protocol: Protocol,
    level: Level,
    sequence: u64,
    verified_peer: &'static str,
}

impl Call {
    /// A gRPC call.
    pub fn grpc(number: u8) -> Self {
        let protocol = Protocol::Grpc;
        Self {
            id: call_id(number),
            connection: CONNECTION,
            stream: 1,
            protocol,
            level: Level::RequestResponse,
            sequence: 1,
            verified_peer: "",
        }
    }

    /// A call that is not gRPC.
    pub fn http(number: u8) -> Self {
        Self { protocol: Protocol::Http, ..Self::grpc(number) }
    }

    /// A call of gRPC-Web.
    pub fn grpc_web(number: u8) -> Self {
        Self { protocol: Protocol::GrpcWeb, ..Self::grpc(number) }
    }

    /// The same as request number `stream` of an HTTP/1 connection.
    pub fn numbered(self, stream: u32) -> Self {
        Self { stream, ..self }
    }

    /// The same of a client that is verified to be `peer`.
    pub fn by(self, peer: &'static str) -> Self {
        Self { verified_peer: peer, ..self }
    }

    /// The same at another level.
    pub fn at_level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    /// The same on another connection.
    pub fn on(self, connection: u64) -> Self {
        Self { connection, ..self }
    }

    /// Events from the client, captured `millis` after the start.
    pub fn up(&mut self, millis: u64, events: Vec<Event>) -> Content {
        self.entry(Direction::ClientToServer, millis, events)
    }

    /// Events from the server.
    pub fn down(&mut self, millis: u64, events: Vec<Event>) -> Content {
        self.entry(Direction::ServerToClient, millis, events)
    }

    /// Leaves out sequence numbers, as if their entries were lost.
    pub fn skip(&mut self, events: u64) {
        self.sequence += events;
    }

    fn entry(&mut self, direction: Direction, millis: u64, events: Vec<Event>) -> Content {
        let (events, payloads): (Vec<_>, Vec<_>) = events.into_iter().unzip();
        let sequence = self.sequence;
        self.sequence += events.len() as u64;
        let body = v1::CallEvents {
            call: Bytes::copy_from_slice(&self.id),
            connection: self.connection,
            stream: self.stream,
            direction: direction.into(),
            protocol: self.protocol.into(),
            level: self.level.into(),
            sequence,
            captured_unix_nanos: START + millis * 1_000_000,
            events,
            verified_peer: self.verified_peer.into(),
        };
        (Body::CallEvents(body), payloads.concat())
    }
}

/// The first entry of a connection.
pub fn connection_opened(connection: u64, client_address: &str) -> Content {
    let opened = v1::ConnectionOpened {
        connection,
        interception: Interception::Fixed.into(),
        client_address: client_address.into(),
        listener_address: "10.0.0.1:4143".into(),
        upstream: "upstream.test:50051".into(),
        captured_unix_nanos: START,
        traffic: Traffic::Inbound.into(),
        ..Default::default()
    };
    (Body::ConnectionOpened(opened), vec![])
}

/// The first entry of a connection that was redirected, out of the pod, `millis` after the start.
pub fn redirected(connection: u64, client_address: &str, dialled: &str, millis: u64) -> Content {
    let opened = v1::ConnectionOpened {
        connection,
        interception: Interception::Redirect.into(),
        client_address: client_address.into(),
        listener_address: "127.0.0.1:4140".into(),
        upstream: dialled.into(),
        upstream_address: dialled.into(),
        captured_unix_nanos: START + millis * 1_000_000,
        traffic: Traffic::Outbound.into(),
        original_destination: dialled.into(),
        ..Default::default()
    };
    (Body::ConnectionOpened(opened), vec![])
}

/// What happened on a connection.
pub fn happened(connection: u64, direction: Direction, events: Vec<v1::ConnectionEvent>) -> Content {
    let captured_unix_nanos = START;
    let body = v1::ConnectionEvents { connection, direction: direction.into(), captured_unix_nanos, events };
    (Body::ConnectionEvents(body), vec![])
}

/// What was found to be spoken.
pub fn found(protocol: WireProtocol, reason: &str) -> v1::ConnectionEvent {
    v1::ConnectionEvent {
        protocol: protocol.into(),
        ..connection_event(ConnectionEventType::Protocol, reason)
    }
}

/// The beginning of an opaque direction.
pub fn first_bytes(bytes: &[u8]) -> v1::ConnectionEvent {
    v1::ConnectionEvent {
        payload_length: bytes.len() as u64,
        payload_sha256: digest(bytes),
        ..connection_event(ConnectionEventType::FirstBytes, "")
    }
}

/// A TLS session.
pub fn tls(tls: v1::Tls) -> v1::ConnectionEvent {
    v1::ConnectionEvent { tls: Some(tls), ..connection_event(ConnectionEventType::Tls, "") }
}

/// An event of that type.
pub fn connection_event(kind: ConnectionEventType, reason: &str) -> v1::ConnectionEvent {
    v1::ConnectionEvent { r#type: kind.into(), reason: reason.into(), ..Default::default() }
}

/// TLS that attestry has ended, with a client that has shown who it is.
pub fn mutual_tls(peer: &str) -> v1::Tls {
    v1::Tls {
        side: Side::Client.into(),
        terminated: true,
        version: "TLSv1.3".into(),
        cipher_suite: "TLS13_AES_128_GCM_SHA256".into(),
        server_name: "shop.test".into(),
        alpn: "h2".into(),
        alpn_offered: vec!["h2".into(), "http/1.1".into()],
        verified_peer: Some(v1::VerifiedPeer {
            spiffe_id: peer.into(),
            subject_alternative_names: vec![format!("URI:{peer}")],
            certificate_sha256: vec![0xab; 32].into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The last entry of a connection, with what passed.
pub fn ended(connection: u64, reason: &str, side: Side, bytes: [u64; 2], millis: u64) -> Content {
    let closed = v1::ConnectionClosed {
        connection,
        captured_unix_nanos: START + 86_400_000_000_000,
        reason: reason.into(),
        side: side.into(),
        bytes_to_server: bytes[0],
        bytes_to_client: bytes[1],
        calls: 0,
        duration_nanos: millis * 1_000_000,
    };
    (Body::ConnectionClosed(closed), vec![])
}

/// Its last.
pub fn connection_closed(connection: u64) -> Content {
    let closed = v1::ConnectionClosed { connection, reason: "client closed".into(), ..Default::default() };
    (Body::ConnectionClosed(closed), vec![])
}

/// A header block.
pub fn header(kind: EventType, fields: &[(&str, &str)]) -> Event {
    let header = v1::HeaderBlock { fields: list(fields), ..Default::default() };
    (v1::Event { r#type: kind.into(), header: Some(header), ..Default::default() }, vec![])
}

/// A header block whose fields stand beside the entry.
pub fn header_beside(kind: EventType, fields: &[(&str, &str)]) -> Event {
    let payload = prost::Message::encode_to_vec(&v1::FieldList { fields: list(fields) });
    let (beside_length, beside_sha256) = (payload.len() as u64, digest(&payload));
    let header = v1::HeaderBlock { beside_length, beside_sha256, ..Default::default() };
    (v1::Event { r#type: kind.into(), header: Some(header), ..Default::default() }, payload)
}

/// Request headers of a gRPC call.
pub fn request(method: &str) -> Event {
    header(
        EventType::ClientHeader,
        &[
            (":method", "POST"),
            (":path", method),
            (":authority", "api.test"),
            ("content-type", "application/grpc"),
        ],
    )
}

/// Response headers.
pub fn response(status: &str) -> Event {
    header(EventType::ServerHeader, &[(":status", status)])
}

/// Trailers with a gRPC status.
pub fn trailers(status: &str, message: &str) -> Event {
    header(EventType::ServerTrailer, &[("grpc-status", status), ("grpc-message", message)])
}

/// An event without content.
pub fn plain(kind: EventType) -> Event {
    (v1::Event { r#type: kind.into(), ..Default::default() }, vec![])
}

/// A reset or a cancellation.
pub fn reset(kind: EventType, code: u32, side: Side) -> Event {
    (v1::Event { r#type: kind.into(), code, side: side.into(), ..Default::default() }, vec![])
}

/// An event that attestry adds.
pub fn note(kind: EventType, note: &str) -> Event {
    let (r#type, side, note) = (kind.into(), Side::Attestry.into(), note.to_owned());
    (v1::Event { r#type, side, note, ..Default::default() }, vec![])
}

/// Bytes `[from, to)` of gRPC message number `number`, the prefix with the first of them.
pub fn part(kind: EventType, number: u64, message: &[u8], from: usize, to: usize) -> Event {
    let prefix = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes()].concat();
    let segment = v1::MessageSegment {
        message: number,
        prefix: if from == 0 { prefix.into() } else { Bytes::new() },
        offset: from as u64,
        length: (to - from) as u64,
        sha256: digest(&message[..to]),
        end: to == message.len(),
        stored: true,
        frames: 1,
        whole: 0,
    };
    let event = v1::Event { r#type: kind.into(), message: Some(segment), ..Default::default() };
    (event, message[from..to].to_vec())
}

/// A message of gRPC-Web that holds trailers, in two segments cut at `cut`; the first byte of its prefix came alone.
pub fn web_trailers(number: u64, text: &str, flag: u8, cut: usize) -> Vec<Event> {
    let prefix = [&[flag][..], &u32::try_from(text.len()).unwrap().to_be_bytes()].concat();
    let mut parts = vec![
        part(EventType::ServerMessage, number, text.as_bytes(), 0, 0),
        part(EventType::ServerMessage, number, text.as_bytes(), 0, cut),
        part(EventType::ServerMessage, number, text.as_bytes(), cut, text.len()),
    ];
    for ((event, _), prefix) in parts.iter_mut().zip([&prefix[..1], &prefix[1..], &[]]) {
        let segment = event.message.as_mut().unwrap();
        (segment.prefix, segment.end) = (Bytes::copy_from_slice(prefix), false);
    }
    parts[2].0.message.as_mut().unwrap().end = true;
    parts
}

/// A part of an HTTP body: message 0, without prefixes.
pub fn body_part(kind: EventType, body: &[u8], from: usize, to: usize) -> Event {
    let (mut event, payload) = part(kind, 0, body, from, to);
    event.message.as_mut().unwrap().prefix = Bytes::new();
    (event, payload)
}

/// A whole message from the client.
pub fn asked(number: u64, message: &[u8]) -> Event {
    part(EventType::ClientMessage, number, message, 0, message.len())
}

/// A whole message from the server.
pub fn answered(number: u64, message: &[u8]) -> Event {
    part(EventType::ServerMessage, number, message, 0, message.len())
}

/// The same message where the level does not store its bytes.
pub fn not_stored((mut event, _): Event) -> Event {
    let segment = event.message.as_mut().unwrap();
    (segment.stored, segment.sha256) = (false, Bytes::new());
    (event, vec![])
}

/// The entries of a unary call that is answered with OK.
pub fn unary(number: u8, method: &str) -> Vec<Content> {
    let mut call = Call::grpc(number);
    let half_close = plain(EventType::ClientHalfClose);
    vec![
        call.up(0, vec![request(method), asked(0, b"ping"), half_close]),
        call.down(5, vec![response("200"), answered(0, b"pong!"), trailers("0", "")]),
    ]
}

fn list(fields: &[(&str, &str)]) -> Vec<v1::Field> {
    let field = |&(name, value): &(&str, &str)| v1::Field {
        name: Bytes::copy_from_slice(name.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    };
    fields.iter().map(field).collect()
}

fn digest(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(bytes))
}
