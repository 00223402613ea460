//! One call while it runs: what has been seen of it in both directions, and the event that the next unit of its stream makes.
//!
//! ```text
//!   client half:   open ──END_STREAM──▶ ended          either half: ──RST_STREAM──▶ reset: the other
//!   server half:   idle ──headers──▶ open ──END_STREAM──▶ ended         side's frames on the way still count
//! ```
//! A call is over when both halves have ended, or after a reset once late frames have been waited for (`connection` bounds how many).

use super::draft::{CallDraft, DraftPlace, Drafts};
use super::ids::CallId;
use super::{Direction, Policy, Side, sender};
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
    /// The newest event of the draft is a segment that may still grow.
    segment_open: bool,
}

/// Counts for the process's totals.
#[derive(Default)]
pub(super) struct Seen {
    pub messages: u64,
    pub message_bytes: u64,
}

impl Stream {
    /// A call that its request's header block begins.
    pub(super) fn new(id: u32, call: CallId, fields: &[Field]) -> Self {
        let content_type = fields.iter().find(|field| field.name.as_ref() == b"content-type");
        let is_grpc = content_type.is_some_and(|field| grpc::is_grpc_content_type(&field.value));
        let protocol = if is_grpc { Protocol::Grpc } else { Protocol::Http };
        let half = || Half { parser: is_grpc.then(MessageParser::new), ..Half::default() };
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
        fields: Vec<Field>,
        malformed: Option<Malformed>,
        policy: &Policy,
        drafts: &mut Drafts,
    ) {
        self.client.ended = true;
        let (direction, kind) = (Direction::ServerToClient, EventType::ClientHeader);
        self.record_headers(direction, kind, fields, malformed, policy, drafts);
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
        fields: Vec<Field>,
        end_stream: bool,
        malformed: Option<Malformed>,
        policy: &Policy,
        drafts: &mut Drafts,
    ) {
        let kind = self.header_type(direction, &fields, end_stream);
        // A gRPC server that ends its side by headers has sent its trailers, whether or not anything came before.
        let says_its_end = matches!(kind, EventType::ServerTrailer | EventType::ClientTrailer);
        self.record_headers(direction, kind, fields, malformed, policy, drafts);
        if end_stream {
            let says_its_end = says_its_end && direction == Direction::ServerToClient;
            self.end(direction, !says_its_end, policy, drafts);
        }
    }

    fn header_type(&mut self, direction: Direction, fields: &[Field], end_stream: bool) -> EventType {
        if direction == Direction::ClientToServer {
            return if self.sequence == 0 { EventType::ClientHeader } else { EventType::ClientTrailer };
        }
        let status = fields.iter().find(|field| field.name.as_ref() == b":status");
        let informational = status.is_some_and(|status| status.value.len() == 3 && status.value[0] == b'1');
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
        fields: Vec<Field>,
        malformed: Option<Malformed>,
        policy: &Policy,
        drafts: &mut Drafts,
    ) {
        if policy.keeps_events() {
            self.push_headers(direction, kind, fields, malformed, policy, drafts);
        } else if kind == EventType::ClientHeader {
            let path = fields.into_iter().filter(|field| field.name.as_ref() == b":path").collect();
            self.push_headers(direction, kind, path, None, policy, drafts);
        }
    }

    fn push_headers(
        &mut self,
        direction: Direction,
        kind: EventType,
        fields: Vec<Field>,
        malformed: Option<Malformed>,
        policy: &Policy,
        drafts: &mut Drafts,
    ) {
        let (header, beside) = policy.redactor.block(fields, malformed.map_or("", Malformed::as_str));
        let event = v1::Event { r#type: kind.into(), header: Some(header), ..Default::default() };
        if let Some(draft) = self.push(direction, event, drafts) {
            draft.add_payload(beside.unwrap_or_default());
        }
    }

    /// DATA of this stream, without its padding.
    pub(super) fn data(
        &mut self,
        direction: Direction,
        data: &Bytes,
        end_stream: bool,
        policy: &Policy,
        drafts: &mut Drafts,
    ) -> Seen {
        let mut seen = Seen::default();
        let half = self.half(direction);
        if let Some(mut parser) = half.parser.take() {
            parser.feed(data, &mut |piece| {
                seen.messages += u64::from(piece.end);
                self.segment(direction, &piece, policy, drafts);
            });
            self.half(direction).parser = Some(parser);
        } else if !data.is_empty() || (end_stream && half.body_bytes > 0) {
            let offset = half.body_bytes;
            half.body_bytes += data.len() as u64;
            seen.messages += u64::from(end_stream);
            let piece =
                grpc::Piece { message: 0, prefix: Bytes::new(), offset, data: data.clone(), end: end_stream };
            self.segment(direction, &piece, policy, drafts);
        }
        seen.message_bytes = data.len() as u64;
        if end_stream {
            self.end(direction, true, policy, drafts);
        }
        seen
    }

    /// Records a piece of a message: as more of the open segment where it continues it in this read, else as a segment of its own.
    fn segment(&mut self, direction: Direction, piece: &grpc::Piece, policy: &Policy, drafts: &mut Drafts) {
        if !policy.keeps_events() {
            return;
        }
        let stored = policy.keeps_bytes(direction);
        let half = self.half(direction);
        let open = if half.segment_open { drafts.open(half.place) } else { None };
        let continued = open.and_then(|draft| {
            let segment = draft.events.last_mut()?.message.as_mut()?;
            if segment.message != piece.message || segment.end {
                return None;
            }
            grow(segment, piece);
            draft.add_payload(if stored { piece.data.clone() } else { Bytes::new() });
            Some(())
        });
        if continued.is_none() {
            // The digest of the segment that was open ends before this piece.
            self.close_segment(direction, drafts);
        }
        if stored {
            self.half(direction).digest.update(&piece.data);
        }
        if continued.is_none() {
            self.begin_segment(direction, piece, stored, drafts);
        }
        if piece.end {
            self.close_segment(direction, drafts);
            self.half(direction).digest = Sha256::new();
        }
    }

    fn begin_segment(
        &mut self,
        direction: Direction,
        piece: &grpc::Piece,
        stored: bool,
        drafts: &mut Drafts,
    ) {
        let segment = v1::MessageSegment {
            message: piece.message,
            prefix: piece.prefix.clone(),
            offset: piece.offset,
            length: piece.data.len() as u64,
            sha256: Bytes::new(),
            end: piece.end,
            stored,
            frames: 1,
        };
        let kind = match direction {
            Direction::ServerToClient => EventType::ServerMessage,
            _ => EventType::ClientMessage,
        };
        let event = v1::Event { r#type: kind.into(), message: Some(segment), ..Default::default() };
        if let Some(draft) = self.push(direction, event, drafts) {
            draft.add_payload(if stored { piece.data.clone() } else { Bytes::new() });
        }
        self.half(direction).segment_open = true;
    }

    /// Ends the growth of the newest segment, if there is one: from here on its digest is known.
    pub(super) fn close_segment(&mut self, direction: Direction, drafts: &mut Drafts) {
        let half = self.half(direction);
        if !std::mem::take(&mut half.segment_open) {
            return;
        }
        let digest = &half.digest;
        let segment = drafts
            .newest(half.place)
            .and_then(|event| event.message.as_mut())
            .filter(|segment| segment.stored);
        if let Some(segment) = segment {
            segment.sha256 = Bytes::copy_from_slice(&digest.clone().finalize());
        }
    }

    /// A reset by the sender of `direction`.
    pub(super) fn reset(&mut self, direction: Direction, code: u32, policy: &Policy, drafts: &mut Drafts) {
        self.is_reset = true;
        self.half(direction).ended = true;
        let is_cancel = direction == Direction::ClientToServer && code == code::CANCEL;
        let kind = if is_cancel { EventType::Cancel } else { EventType::Reset };
        let side = sender(direction).into();
        if policy.keeps_events() {
            self.push(direction, v1::Event { r#type: kind.into(), code, side, ..Default::default() }, drafts);
        }
    }

    /// A PUSH_PROMISE on this stream.
    pub(super) fn push_promise(
        &mut self,
        promised: u32,
        fields: Vec<Field>,
        malformed: Option<Malformed>,
        policy: &Policy,
        drafts: &mut Drafts,
    ) {
        if !policy.keeps_events() {
            return;
        }
        let (header, beside) = policy.redactor.block(fields, malformed.map_or("", Malformed::as_str));
        let kind = EventType::PushPromise.into();
        let event =
            v1::Event { r#type: kind, header: Some(header), promised_stream: promised, ..Default::default() };
        if let Some(draft) = self.push(Direction::ServerToClient, event, drafts) {
            draft.add_payload(beside.unwrap_or_default());
        }
    }

    /// An event that attestry adds: a local answer, or the connection's end.
    pub(super) fn note(
        &mut self,
        direction: Direction,
        kind: EventType,
        note: &str,
        policy: &Policy,
        drafts: &mut Drafts,
    ) {
        if policy.keeps_events() {
            let (side, note) = (Side::Attestry.into(), note.to_owned());
            self.push(direction, v1::Event { r#type: kind.into(), side, note, ..Default::default() }, drafts);
        }
    }

    fn end(&mut self, direction: Direction, says_so: bool, policy: &Policy, drafts: &mut Drafts) {
        self.half(direction).ended = true;
        let kind = match direction {
            Direction::ServerToClient => EventType::ServerHalfClose,
            _ => EventType::ClientHalfClose,
        };
        if says_so && policy.keeps_events() {
            self.push(direction, v1::Event { r#type: kind.into(), ..Default::default() }, drafts);
        }
    }

    /// Appends an event to this call's draft of this read; begins one where there is none.
    fn push<'a>(
        &mut self,
        direction: Direction,
        event: v1::Event,
        drafts: &'a mut Drafts,
    ) -> Option<&'a mut CallDraft> {
        self.close_segment(direction, drafts);
        self.sequence += 1;
        let (call, id, protocol, sequence) = (self.call, self.id, self.protocol, self.sequence);
        let half = self.half(direction);
        if drafts.open(half.place).is_none() {
            half.place = drafts.begin(call, id, protocol, sequence);
        }
        drafts.push(half.place, event)
    }

    fn half(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::ServerToClient => &mut self.server,
            _ => &mut self.client,
        }
    }
}

fn grow(segment: &mut v1::MessageSegment, piece: &grpc::Piece) {
    if !piece.prefix.is_empty() {
        segment.prefix = [segment.prefix.as_ref(), piece.prefix.as_ref()].concat().into();
    }
    segment.length += piece.data.len() as u64;
    segment.end = piece.end;
    segment.frames += 1;
}
