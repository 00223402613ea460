//! One call while it runs: what has been seen of it in both directions, and the event that the next unit of its stream makes.
//!
//! ```text
//!   client half:   open ──END_STREAM──▶ ended          either half: ──RST_STREAM──▶ reset: the other
//!   server half:   idle ──headers──▶ open ──END_STREAM──▶ ended         side's frames on the way still count
//! ```
//! A call is over when both halves have ended, or after a reset once late frames have been waited for (`connection` bounds how many).

use super::draft::{CallDraft, DraftPlace, Drafts};
use super::evidence::Evidence;
use super::ids::CallId;
use super::{Direction, Side, sender};
use crate::entry::Segment;
use crate::generated::v1::{self, EventType, Protocol};
use crate::grpc::{self, MessageParser};
use crate::http2::{Field, Malformed, code};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// One tracked call.
pub(super) struct Stream {
    id: u32,
    call: CallId,
    protocol: Protocol,
    /// Events so far, both directions.
    sequence: u64,
    client: Half,
    server: Half,
    /// A response header block that is no 1xx has been seen.
    responded: bool,
    pub(super) is_reset: bool,
}

/// One direction of a call.
#[derive(Default)]
struct Half {
    ended: bool,
    /// `None` for HTTP, whose body is message 0.
    parser: Option<MessageParser>,
    /// Bytes of an HTTP body so far.
    body_bytes: u64,
    /// Over the open message, up to now.
    digest: Sha256,
    place: DraftPlace,
    /// The newest event of the draft, where it is a segment that may still grow: its digest is known when it ends.
    segment: Option<Segment>,
}

/// What a request over HTTP/2 asks for, by its content type.
pub(super) fn protocol_over_http2(fields: &[Field]) -> Protocol {
    let content_type = value(fields, b"content-type");
    if content_type.is_some_and(grpc::is_grpc_content_type) {
        return Protocol::Grpc;
    }
    protocol_over_http1(fields)
}

/// What a request over HTTP/1 asks for: gRPC itself needs HTTP/2, whatever the content type says.
pub(super) fn protocol_over_http1(fields: &[Field]) -> Protocol {
    let content_type = value(fields, b"content-type");
    if content_type.is_some_and(grpc::is_grpc_web_content_type) { Protocol::GrpcWeb } else { Protocol::Http }
}

/// The value of the first field of that name, in any case: HTTP/1 sends names in all of them.
fn value<'a>(fields: &'a [Field], name: &[u8]) -> Option<&'a [u8]> {
    fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value.as_ref())
}

impl Stream {
    /// A call of `protocol`, before its request.
    pub(super) fn new(id: u32, call: CallId, protocol: Protocol) -> Self {
        let has_messages = matches!(protocol, Protocol::Grpc | Protocol::GrpcWeb);
        let half = || Half { parser: has_messages.then(MessageParser::new), ..Half::default() };
        Self {
            id,
            call,
            protocol,
            sequence: 0,
            client: half(),
            server: half(),
            responded: false,
            is_reset: false,
        }
    }

    /// The call that a PUSH_PROMISE begins: its request is the promise, which the server has sent.
    pub(super) fn promised(
        &mut self,
        fields: &[Field],
        malformed: Option<Malformed>,
        evidence: &mut Evidence,
    ) {
        self.client.ended = true;
        let (direction, kind) = (Direction::ServerToClient, EventType::ClientHeader);
        self.record_headers(direction, kind, fields, malformed, evidence);
    }

    /// Whether its content type is gRPC's.
    pub(super) fn is_grpc(&self) -> bool {
        self.protocol == Protocol::Grpc
    }

    /// Both halves have ended.
    pub(super) fn is_over(&self) -> bool {
        self.client.ended && self.server.ended
    }

    /// A header block of this stream.
    pub(super) fn headers(
        &mut self,
        direction: Direction,
        fields: &[Field],
        end_stream: bool,
        malformed: Option<Malformed>,
        evidence: &mut Evidence,
    ) {
        let kind = self.header_type(direction, fields, end_stream);
        // A gRPC server that ends its side by headers has sent its trailers, whether or not anything came before.
        let says_its_end = matches!(kind, EventType::ServerTrailer | EventType::ClientTrailer);
        if says_its_end {
            self.end_body(direction, evidence);
        }
        self.record_headers(direction, kind, fields, malformed, evidence);
        if end_stream {
            let says_its_end = says_its_end && direction == Direction::ServerToClient;
            self.end(direction, !says_its_end, evidence);
        }
    }

    fn header_type(&mut self, direction: Direction, fields: &[Field], end_stream: bool) -> EventType {
        if direction == Direction::ClientToServer {
            return if self.sequence == 0 { EventType::ClientHeader } else { EventType::ClientTrailer };
        }
        // 101 is the last response that HTTP has on its connection (RFC 9110 section 15.2.2); it exists in HTTP/1 alone.
        let informational = value(fields, b":status")
            .is_some_and(|status| status.len() == 3 && status[0] == b'1' && status != b"101");
        let was_responded = self.responded;
        self.responded |= !informational;
        match (was_responded, informational) {
            (false, true) => EventType::ServerInformational,
            (false, false) if end_stream && self.protocol == Protocol::Grpc => EventType::ServerTrailer,
            (true, _) if end_stream => EventType::ServerTrailer,
            _ => EventType::ServerHeader,
        }
    }

    /// Records a header block as the level says: at the lowest, of a call's first no more than its method.
    fn record_headers(
        &mut self,
        direction: Direction,
        kind: EventType,
        fields: &[Field],
        malformed: Option<Malformed>,
        evidence: &mut Evidence,
    ) {
        let (is_kept, malformed) = (evidence.policy.keeps_events(), malformed.map_or("", Malformed::as_str));
        if is_kept {
            self.push_headers(direction, kind, 0, fields.iter(), malformed, evidence);
        } else if kind == EventType::ClientHeader {
            let path = fields.iter().filter(|field| field.name.as_ref() == b":path");
            self.push_headers(direction, kind, 0, path, "", evidence);
        }
    }

    fn push_headers<'f>(
        &mut self,
        direction: Direction,
        kind: EventType,
        promised_stream: u32,
        fields: impl Iterator<Item = &'f Field>,
        malformed: &str,
        evidence: &mut Evidence,
    ) {
        let redactor = &evidence.policy.redactor;
        if let Some(draft) = self.next_event(direction, &mut evidence.drafts) {
            let fields = fields.map(|field| redactor.field(field));
            let beside = draft.body.push_header(kind, promised_stream, fields, malformed);
            draft.add_payload(beside.unwrap_or_default());
        }
    }

    /// DATA of this stream, without its padding.
    pub(super) fn data(
        &mut self,
        direction: Direction,
        data: &Bytes,
        end_stream: bool,
        evidence: &mut Evidence,
    ) {
        evidence.counters.message_bytes.add(data.len() as u64);
        let half = self.half(direction);
        if let Some(mut parser) = half.parser.take() {
            parser.feed(data, &mut |piece| self.segment(direction, data, &piece, evidence));
            self.half(direction).parser = Some(parser);
        } else if !data.is_empty() {
            self.body(direction, data, end_stream, evidence);
        } else if end_stream {
            self.end_body(direction, evidence);
        }
        if end_stream {
            self.end(direction, true, evidence);
        }
    }

    /// Bytes of an HTTP body, which is message 0 and has no prefix.
    fn body(&mut self, direction: Direction, data: &Bytes, end: bool, evidence: &mut Evidence) {
        let half = self.half(direction);
        let offset = half.body_bytes;
        half.body_bytes += data.len() as u64;
        let piece = grpc::Piece { message: 0, prefix: 0..0, offset, data: 0..data.len(), end };
        self.segment(direction, data, &piece, evidence);
    }

    /// The end of an HTTP body that shows only behind its last byte.
    fn end_body(&mut self, direction: Direction, evidence: &mut Evidence) {
        let half = self.half(direction);
        if half.parser.is_none() && half.body_bytes > 0 {
            self.body(direction, &Bytes::new(), true, evidence);
        }
    }

    /// Records a piece of a message, whose bytes stand in `frame`: as more of the open segment where it continues it in this read, else as a segment of its own.
    fn segment(&mut self, direction: Direction, frame: &Bytes, piece: &grpc::Piece, evidence: &mut Evidence) {
        evidence.counters.messages.add(u64::from(piece.end));
        if !evidence.policy.keeps_events() {
            return;
        }
        let stored = evidence.policy.keeps_bytes(direction);
        let drafts = &mut evidence.drafts;
        let growing = self.half(direction).segment.as_mut();
        match growing.filter(|segment| segment.message == piece.message) {
            Some(segment) => grow(segment, frame, piece),
            None => self.begin_segment(direction, frame, piece, stored, drafts),
        }
        let half = self.half(direction);
        if stored && !piece.data.is_empty() {
            half.digest.update(&frame[piece.data.clone()]);
            if let Some(draft) = drafts.at(half.place) {
                draft.add_payload(frame.slice(piece.data.clone()));
            }
        }
        if piece.end {
            self.close_segment(direction, drafts);
            self.half(direction).digest = Sha256::new();
        }
    }

    fn begin_segment(
        &mut self,
        direction: Direction,
        frame: &[u8],
        piece: &grpc::Piece,
        stored: bool,
        drafts: &mut Drafts,
    ) {
        let _ = self.next_event(direction, drafts);
        let (message, offset) = (piece.message, piece.offset);
        let mut segment = Segment { message, offset, stored, ..Segment::default() };
        grow(&mut segment, frame, piece);
        self.half(direction).segment = Some(segment);
    }

    /// Whether the newest event of this read is a segment that may still grow.
    pub(super) fn has_open_segment(&mut self, direction: Direction) -> bool {
        self.half(direction).segment.is_some()
    }

    /// Ends the growth of the newest segment, if there is one: from here on its digest is known.
    pub(super) fn close_segment(&mut self, direction: Direction, drafts: &mut Drafts) {
        let kind = match direction {
            Direction::ServerToClient => EventType::ServerMessage,
            _ => EventType::ClientMessage,
        };
        let half = self.half(direction);
        let Some(segment) = half.segment.take() else { return };
        let digest = segment.stored.then(|| half.digest.clone().finalize().into());
        if let Some(draft) = drafts.at(half.place) {
            draft.body.push_segment(kind, &segment, digest);
        }
    }

    /// A reset by the sender of `direction`.
    pub(super) fn reset(&mut self, direction: Direction, code: u32, evidence: &mut Evidence) {
        self.is_reset = true;
        self.half(direction).ended = true;
        let is_cancel = direction == Direction::ClientToServer && code == code::CANCEL;
        let kind = if is_cancel { EventType::Cancel } else { EventType::Reset };
        let side = sender(direction).into();
        if evidence.policy.keeps_events() {
            let event = v1::Event { r#type: kind.into(), code, side, ..Default::default() };
            self.push(direction, &event, &mut evidence.drafts);
        }
    }

    /// A PUSH_PROMISE on this stream.
    pub(super) fn push_promise(
        &mut self,
        promised: u32,
        fields: &[Field],
        malformed: Option<Malformed>,
        evidence: &mut Evidence,
    ) {
        if !evidence.policy.keeps_events() {
            return;
        }
        let (direction, kind) = (Direction::ServerToClient, EventType::PushPromise);
        let malformed = malformed.map_or("", Malformed::as_str);
        self.push_headers(direction, kind, promised, fields.iter(), malformed, evidence);
    }

    /// An event that attestry adds: a local answer, or the connection's end.
    pub(super) fn note(
        &mut self,
        direction: Direction,
        kind: EventType,
        note: &str,
        evidence: &mut Evidence,
    ) {
        if evidence.policy.keeps_events() {
            let (side, note) = (Side::Attestry.into(), note.to_owned());
            let event = v1::Event { r#type: kind.into(), side, note, ..Default::default() };
            self.push(direction, &event, &mut evidence.drafts);
        }
    }

    fn end(&mut self, direction: Direction, says_so: bool, evidence: &mut Evidence) {
        self.half(direction).ended = true;
        let kind = match direction {
            Direction::ServerToClient => EventType::ServerHalfClose,
            _ => EventType::ClientHalfClose,
        };
        if says_so && evidence.policy.keeps_events() {
            let event = v1::Event { r#type: kind.into(), ..Default::default() };
            self.push(direction, &event, &mut evidence.drafts);
        }
    }

    fn push(&mut self, direction: Direction, event: &v1::Event, drafts: &mut Drafts) {
        if let Some(draft) = self.next_event(direction, drafts) {
            draft.body.push(event);
        }
    }

    /// This call's draft of this read, for its next event; begins one where there is none.
    fn next_event<'a>(&mut self, direction: Direction, drafts: &'a mut Drafts) -> Option<&'a mut CallDraft> {
        self.close_segment(direction, drafts);
        self.sequence += 1;
        let (call, id, protocol, sequence) = (self.call, self.id, self.protocol, self.sequence);
        let half = self.half(direction);
        if drafts.open(half.place).is_none() {
            half.place = drafts.begin(&call, id, direction, protocol, sequence);
        }
        drafts.at(half.place)
    }

    fn half(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::ServerToClient => &mut self.server,
            _ => &mut self.client,
        }
    }
}

fn grow(segment: &mut Segment, frame: &[u8], piece: &grpc::Piece) {
    for octet in &frame[piece.prefix.clone()] {
        segment.prefix[usize::from(segment.prefix_len)] = *octet;
        segment.prefix_len += 1;
    }
    segment.length += piece.data.len() as u64;
    segment.end = piece.end;
    segment.frames += 1;
}
