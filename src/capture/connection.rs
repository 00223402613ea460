//! One connection's capture: both directions' header tables, the calls in progress, and what a read of either side says about them.

use super::evidence::{Evidence, sender_name};
use super::stream::{Stream, protocol_over_http2};
use super::{Direction, Ending, Failure, Ids, Limits, Milestone, Observed, Policy, Subject};
use crate::counters::Counters;
use crate::entry::{Submission, encode_fields};
use crate::generated::v1::{self, EventType, connection_event::Type as ConnectionEventType};
use crate::http2::hpack::{FIELD_OVERHEAD_BYTES, TABLE_BYTES_MAX};
use crate::http2::{Field, Malformed, Unit, UnitBody, UnitError, UnitLimits, UnitReader, code, frame};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Streams that were reset and whose other side may still have frames on the way. Beyond it the oldest are forgotten, and
/// their late frames recorded as the connection's.
const RESET_STREAMS_MAX: usize = 256;

/// SETTINGS of one side that the other has not acknowledged. h2 and nghttp2 give up far earlier.
const UNACKNOWLEDGED_SETTINGS_MAX: usize = 1_000;

/// SETTINGS_HEADER_TABLE_SIZE (RFC 9113 section 6.5.2), and its value before any SETTINGS.
const HEADER_TABLE_SIZE: u16 = 0x1;

/// SETTINGS_MAX_FRAME_SIZE (RFC 9113 section 6.5.2).
const MAX_FRAME_SIZE: u16 = 0x5;

/// Payload of a frame whose receiver has not announced that it takes so much. RFC 9113 allows 16,384 octets; of a frame that is a little longer its receiver
/// decides, as of any other fault, and one that is far longer would only be held here.
const FRAME_BYTES_UNANNOUNCED_MAX: u32 = 64 * 1024;
const HEADER_TABLE_BYTES: u32 = 4_096;

/// Octets of a decoded header list for each octet of its frames, beside what stands in the dynamic table: no field of the static table has more (RFC 7541 Appendix A),
/// and no literal does.
const LIST_BYTES_PER_BYTE_MAX: usize = 64;

/// The state of one connection.
pub struct Connection {
    limits: Limits,
    ids: Ids,
    evidence: Evidence,
    streams: BTreeMap<u32, Box<Stream>>,
    reset_streams: VecDeque<u32>,
    highest_opened: u32,
    client: Sender,
    server: Sender,
    /// Streams of which this read may have left a segment open.
    unfinished: Vec<u32>,
    milestones: Vec<Milestone>,
}

/// What one side sends, and what it has asked of the other.
struct Sender {
    reader: UnitReader,
    /// The header table size of each SETTINGS that this side has sent and that is not acknowledged yet.
    unacknowledged: VecDeque<Option<u32>>,
    /// The largest header table that this side's encoder may have made use of.
    table_bytes_max: u32,
}

impl Connection {
    /// A connection before its first frame.
    pub fn new(subject: Subject, policy: Policy, limits: Limits, ids: Ids, counters: Arc<Counters>) -> Self {
        let frame_bytes_max = limits.units.frame_bytes_max.min(FRAME_BYTES_UNANNOUNCED_MAX);
        let units = UnitLimits { frame_bytes_max, ..limits.units };
        let side = || Sender {
            reader: UnitReader::new(units),
            unacknowledged: VecDeque::new(),
            table_bytes_max: HEADER_TABLE_BYTES,
        };
        Self {
            limits,
            ids,
            evidence: Evidence::new(subject, policy, counters),
            streams: BTreeMap::new(),
            reset_streams: VecDeque::new(),
            highest_opened: 0,
            client: side(),
            server: side(),
            unfinished: Vec::new(),
            milestones: Vec::new(),
        }
    }

    /// The connection's id in the ledger.
    pub fn id(&self) -> u64 {
        self.evidence.connection()
    }

    /// Streams on which either side may still send.
    pub fn open_streams(&self) -> usize {
        self.streams.len() - self.reset_streams.len()
    }

    /// The frame boundaries in `buffered` bytes of one direction.
    pub fn reader(&self, direction: Direction) -> &UnitReader {
        match direction {
            Direction::ServerToClient => &self.server.reader,
            _ => &self.client.reader,
        }
    }

    /// Observes a chunk of complete units that one read of the sender of `direction` completed, at `now`.
    pub fn observe(&mut self, direction: Direction, chunk: &Bytes, now_unix_nanos: u64) -> Observed {
        let mut at = 0;
        let mut failure = None;
        while failure.is_none() {
            let begin = at;
            match self.side(direction).reader.next(chunk, &mut at) {
                Ok(Some(unit)) => {
                    let is_plausible = self.check_expansion(direction, &unit, at - begin);
                    failure = is_plausible.and_then(|()| self.unit(direction, unit)).err();
                }
                Ok(None) => break,
                Err(error) => failure = Some(self.unreadable(direction, &error)),
            }
            if failure.is_some() {
                at = begin;
            }
        }
        Observed {
            submission: self.submission(direction, at as u64, now_unix_nanos),
            forward: at,
            milestones: std::mem::take(&mut self.milestones),
            failure,
        }
    }

    /// Records that what the sender of `direction` sent cannot be read, where that shows before the bytes are all there.
    pub fn refuse(&mut self, direction: Direction, error: &UnitError, now_unix_nanos: u64) -> Observed {
        let failure = Some(self.unreadable(direction, error));
        let submission = self.submission(direction, 0, now_unix_nanos);
        Observed { submission, forward: 0, milestones: Vec::new(), failure }
    }

    /// Records the bytes of a unit that its sender did not finish before it ended.
    pub fn truncated(&mut self, direction: Direction, rest: &Bytes, now_unix_nanos: u64) -> Observed {
        let kind = rest.get(3).copied().unwrap_or_default();
        let reason = "the connection ended within this frame";
        let event = self.stray_event(0, kind, 0, reason, rest);
        // A header block that is cut cannot be decoded, so secrets cannot be taken out of it: its digest is all that is kept.
        let is_block =
            matches!(kind, frame::kind::HEADERS | frame::kind::PUSH_PROMISE | frame::kind::CONTINUATION);
        let payload_stored = event.payload_stored && !is_block;
        self.evidence.push(v1::ConnectionEvent { payload_stored, ..event }, rest.clone());
        let submission = self.submission(direction, rest.len() as u64, now_unix_nanos);
        Observed { submission, forward: rest.len(), milestones: Vec::new(), failure: None }
    }

    /// Records that attestry answers the open calls, or one of them, itself.
    pub fn answered(&mut self, streams: &[u32], reason: &str, now_unix_nanos: u64) -> Submission {
        let direction = Direction::ServerToClient;
        for id in streams {
            if let Some(mut stream) = self.streams.remove(id) {
                stream.note(direction, EventType::LocalAnswer, reason, &mut self.evidence);
                self.evidence.counters.calls_ended.add(1);
            }
        }
        self.reset_streams.retain(|id| self.streams.contains_key(id));
        self.submission(direction, 0, now_unix_nanos)
    }

    /// The connection's last evidence: calls that it leaves open, and its own end.
    pub fn close(&mut self, ending: Ending, now_unix_nanos: u64) -> Submission {
        let direction = ending.direction();
        for (_, mut stream) in std::mem::take(&mut self.streams) {
            if !stream.is_reset {
                stream.note(direction, EventType::Abandoned, &ending.reason, &mut self.evidence);
                self.evidence.counters.calls_ended.add(1);
            }
        }
        self.reset_streams.clear();
        self.close_segments(direction);
        self.evidence.close(ending, now_unix_nanos)
    }

    fn submission(&mut self, direction: Direction, wire_bytes: u64, now: u64) -> Submission {
        self.close_segments(direction);
        self.evidence.finish(direction, wire_bytes, now)
    }

    fn close_segments(&mut self, direction: Direction) {
        for id in self.unfinished.drain(..) {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.close_segment(direction, &mut self.evidence.drafts);
            }
        }
    }

    fn side(&mut self, direction: Direction) -> &mut Sender {
        match direction {
            Direction::ServerToClient => &mut self.server,
            _ => &mut self.client,
        }
    }

    fn other_side(&mut self, direction: Direction) -> &mut Sender {
        if direction == Direction::ClientToServer { &mut self.server } else { &mut self.client }
    }

    fn unit(&mut self, direction: Direction, unit: Unit) -> Result<(), Failure> {
        let id = unit.stream;
        match unit.body {
            UnitBody::Data { data, end_stream, .. } => self.data(direction, id, &data, end_stream),
            UnitBody::Headers { fields, end_stream, malformed } => {
                let result = self.headers(direction, id, &fields, end_stream, malformed);
                self.side(direction).reader.take_back(fields);
                return result;
            }
            UnitBody::PushPromise { promised, fields, malformed } => {
                self.push_promise(direction, id, promised, &fields, malformed);
            }
            UnitBody::Reset { code } => self.reset(direction, id, code),
            UnitBody::Settings { params } => return self.settings(direction, &params),
            UnitBody::SettingsAck => self.settings_ack(direction),
            UnitBody::GoAway { last_stream, code, debug } => self.goaway(direction, last_stream, code, debug),
            UnitBody::Unknown { kind, flags, payload } => {
                self.stray(direction, id, kind, flags, "a frame of an unknown type", payload);
            }
            UnitBody::Broken { kind, flags, payload, why } => {
                self.stray(direction, id, kind, flags, why, payload);
            }
            UnitBody::Ping { ack: false, opaque } if direction == Direction::ClientToServer => {
                self.milestones.push(Milestone::Ping(opaque));
            }
            UnitBody::Ping { .. } | UnitBody::WindowUpdate { .. } | UnitBody::Priority => {}
        }
        Ok(())
    }

    fn headers(
        &mut self,
        direction: Direction,
        id: u32,
        fields: &[Field],
        end_stream: bool,
        malformed: Option<Malformed>,
    ) -> Result<(), Failure> {
        // A lower number than any before is a stream that was skipped, and closed by that (RFC 9113 section 5.1.1).
        let is_new = direction == Direction::ClientToServer && id % 2 == 1 && id > self.highest_opened;
        if is_new {
            self.begin_call(id, fields)?;
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            let why = "a header block on a stream that is not open";
            self.stray_block(direction, id, frame::kind::HEADERS, why, fields);
            return Ok(());
        };
        stream.headers(direction, fields, end_stream, malformed, &mut self.evidence);
        let is_over = stream.is_over();
        if direction == Direction::ServerToClient {
            self.milestones.push(if end_stream { Milestone::Ended(id) } else { Milestone::Responded(id) });
        }
        if is_over {
            self.forget(id);
        }
        Ok(())
    }

    fn begin_call(&mut self, id: u32, fields: &[Field]) -> Result<(), Failure> {
        if self.open_streams() >= self.limits.streams_max {
            self.evidence.counters.streams_over_bound.add(1);
            let reason = format!(
                "more than {} streams open on one connection (limits.streams_max)",
                self.limits.streams_max
            );
            return Err(self.evidence.broken_bound(code::ENHANCE_YOUR_CALM, reason));
        }
        let stream = Stream::new(id, self.ids.call(), protocol_over_http2(fields));
        self.milestones.push(Milestone::Opened { stream: id, is_grpc: stream.is_grpc() });
        self.streams.insert(id, Box::new(stream));
        self.highest_opened = id;
        self.evidence.call_begins();
        Ok(())
    }

    fn data(&mut self, direction: Direction, id: u32, data: &Bytes, end_stream: bool) {
        let Some(stream) = self.streams.get_mut(&id) else {
            let why = "DATA on a stream that is not open";
            return self.stray(direction, id, frame::kind::DATA, u8::from(end_stream), why, data.clone());
        };
        stream.data(direction, data, end_stream, &mut self.evidence);
        if stream.is_over() {
            self.forget(id);
        } else if stream.has_open_segment(direction) && self.unfinished.last() != Some(&id) {
            self.unfinished.push(id);
        }
        if end_stream && direction == Direction::ServerToClient {
            self.milestones.push(Milestone::Ended(id));
        }
    }

    fn push_promise(
        &mut self,
        direction: Direction,
        id: u32,
        promised: u32,
        fields: &[Field],
        malformed: Option<Malformed>,
    ) {
        // Only servers promise (RFC 9113 section 8.4), and what a client invents is no call of the server's.
        let is_servers = direction == Direction::ServerToClient;
        let is_free = promised != 0 && promised.is_multiple_of(2) && !self.streams.contains_key(&promised);
        let begins = is_servers && is_free && self.streams.len() < self.limits.streams_max;
        if begins {
            // The promised response is a call of its own, whose request is the promise.
            let mut pushed = Stream::new(promised, self.ids.call(), protocol_over_http2(fields));
            pushed.promised(fields, malformed, &mut self.evidence);
            self.streams.insert(promised, Box::new(pushed));
            self.evidence.call_begins();
        }
        match self.streams.get_mut(&id) {
            Some(stream) if is_servers => {
                stream.push_promise(promised, fields, malformed, &mut self.evidence);
            }
            _ if begins => {}
            _ => {
                let why = "a promise that no open stream carries";
                self.stray_block(direction, id, frame::kind::PUSH_PROMISE, why, fields);
            }
        }
    }

    fn reset(&mut self, direction: Direction, id: u32, code: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            let why = "a reset of a stream that is not open";
            let reason = format!("{why}, code {code}");
            let event = self.stray_event(id, frame::kind::RST_STREAM, 0, &reason, &Bytes::new());
            let event = v1::ConnectionEvent { code, ..event };
            return self.evidence.push_repeatable(why, direction, event, Bytes::new());
        };
        let was_reset = stream.is_reset;
        stream.reset(direction, code, &mut self.evidence);
        let is_over = stream.is_over();
        self.milestones.push(Milestone::Ended(id));
        if !was_reset {
            self.evidence.counters.calls_ended.add(1);
            self.reset_streams.push_back(id);
        }
        if is_over {
            self.forget(id);
        }
        while self.reset_streams.len() > RESET_STREAMS_MAX {
            if let Some(oldest) = self.reset_streams.pop_front() {
                self.streams.remove(&oldest);
            }
        }
    }

    /// Forgets a stream on which nothing more can come. A half that has ended has closed its last segment.
    fn forget(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(&id) else { return };
        if stream.is_reset {
            self.reset_streams.retain(|&reset| reset != id);
        } else {
            self.evidence.counters.calls_ended.add(1);
        }
    }

    fn settings(&mut self, direction: Direction, params: &[(u16, u32)]) -> Result<(), Failure> {
        if direction == Direction::ClientToServer {
            self.milestones.push(Milestone::Settings);
        }
        let frames = params.iter().filter(|(id, _)| *id == MAX_FRAME_SIZE).map(|(_, octets)| *octets).max();
        let bound = self.limits.units.frame_bytes_max;
        if let Some(octets) = frames {
            self.other_side(direction).reader.raise_frame_bytes_max(octets.min(bound));
        }
        // The last value of a repeated parameter counts (RFC 9113 section 6.5.3).
        let size = params.iter().rev().find(|(id, _)| *id == HEADER_TABLE_SIZE).map(|(_, value)| *value);
        let unacknowledged = &mut self.side(direction).unacknowledged;
        unacknowledged.push_back(size);
        if unacknowledged.len() > UNACKNOWLEDGED_SETTINGS_MAX {
            let reason =
                format!("more than {UNACKNOWLEDGED_SETTINGS_MAX} SETTINGS without an acknowledgement");
            return Err(self.evidence.broken_bound(code::ENHANCE_YOUR_CALM, reason));
        }
        Ok(())
    }

    /// The sender of `direction` acknowledges the other side's oldest SETTINGS: from here on its encoder obeys them, and not before.
    fn settings_ack(&mut self, direction: Direction) {
        if let Some(Some(size)) = self.other_side(direction).unacknowledged.pop_front() {
            let side = self.side(direction);
            side.reader.hpack_mut().set_limit(size);
            side.table_bytes_max = side.table_bytes_max.max(size);
        }
    }

    fn goaway(&mut self, direction: Direction, last_stream: u32, code: u32, debug: Bytes) {
        let reason = format!("GOAWAY {}", code::name(code).unwrap_or("of an unknown code"));
        let r#type = ConnectionEventType::Goaway.into();
        let event =
            v1::ConnectionEvent { r#type, last_stream, code, reason, ..self.evidence.payload_event(&debug) };
        self.evidence.push_repeatable("GOAWAY", direction, event, debug);
        if direction == Direction::ServerToClient {
            self.milestones.push(Milestone::GoAway(last_stream));
        }
    }

    /// A header list that is longer than its frames and the dynamic table explain names large entries over and over: an HPACK bomb (RFC 7541 section 7.3), which
    /// its receiver may be able to bear, and a ledger that keeps what was said is not. Each entry may stand for a whole field and for a name once.
    fn check_expansion(
        &mut self,
        direction: Direction,
        unit: &Unit,
        wire_bytes: usize,
    ) -> Result<(), Failure> {
        let (UnitBody::Headers { fields, .. } | UnitBody::PushPromise { fields, .. }) = &unit.body else {
            return Ok(());
        };
        let bytes = |field: &Field| field.name.len() + field.value.len() + FIELD_OVERHEAD_BYTES;
        let list_bytes = fields.iter().map(bytes).sum::<usize>();
        let table_bytes = self.side(direction).table_bytes_max.min(TABLE_BYTES_MAX) as usize;
        if list_bytes <= 2 * table_bytes + LIST_BYTES_PER_BYTE_MAX * wire_bytes {
            return Ok(());
        }
        let (side, stream) = (sender_name(direction), unit.stream);
        let reason = format!(
            "from the {side}: the header block on stream {stream} has {wire_bytes} octets and decodes to {list_bytes}, as only repeated references to large entries of the header table do"
        );
        Err(self.evidence.broken_bound(code::ENHANCE_YOUR_CALM, reason))
    }

    fn stray(
        &mut self,
        direction: Direction,
        stream: u32,
        kind: u8,
        flags: u8,
        why: &'static str,
        payload: Bytes,
    ) {
        let event = self.stray_event(stream, kind, flags, why, &payload);
        self.evidence.push_repeatable(why, direction, event, payload);
    }

    /// A header block that belongs to no call, as an encoded `FieldList` without its secrets.
    fn stray_block(
        &mut self,
        direction: Direction,
        stream: u32,
        kind: u8,
        why: &'static str,
        fields: &[Field],
    ) {
        let redactor = &self.evidence.policy.redactor;
        let payload = encode_fields(fields.iter().map(|field| redactor.field(field)));
        self.stray(direction, stream, kind, 0, why, payload.into());
    }

    fn stray_event(
        &self,
        stream: u32,
        kind: u8,
        flags: u8,
        reason: &str,
        payload: &Bytes,
    ) -> v1::ConnectionEvent {
        v1::ConnectionEvent {
            r#type: ConnectionEventType::StrayFrame.into(),
            stream,
            frame_type: kind.into(),
            frame_flags: flags.into(),
            reason: reason.to_owned(),
            ..self.evidence.payload_event(payload)
        }
    }

    fn unreadable(&mut self, direction: Direction, error: &UnitError) -> Failure {
        let code = error.h2_code();
        let reason = format!("from the {}: {error}", sender_name(direction));
        if code == code::ENHANCE_YOUR_CALM || code == code::FRAME_SIZE_ERROR {
            return self.evidence.broken_bound(code, reason);
        }
        self.evidence.not_readable(code, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Level, Redactor};
    use crate::http2::{FrameHeader, UnitLimits};

    /// What honest encoders make of the whole table: each entry once as a field, and once as the name of another.
    #[test]
    fn a_list_may_name_each_entry_of_the_table_and_a_bomb_one_over_and_over() {
        let units =
            UnitLimits { frame_bytes_max: 16_384, header_list_bytes_max: 1 << 20, continuations_max: 8 };
        let policy = Policy { level: Level::RequestResponse, redactor: Redactor::new(&[0; 32]) };
        let subject = Subject { connection: 1, verified_peer: String::new() };
        let limits = Limits { units, streams_max: 10 };
        let mut connection = Connection::new(subject, policy, limits, Ids::random(), Arc::default());
        // Two entries of 1,982 octets, 32 of overhead among them, whose names take most of them.
        let mut fill = Vec::new();
        for letter in *b"ab" {
            fill.extend([&[0x40, 0x7f, 0x91, 0x0e][..], &[letter; 1_936], &[0x0e], &[b'v'; 14]].concat());
        }
        let honest = [&[0xbe, 0xbf][..], &[0x0f, 0x2f, 0, 0x0f, 0x30, 0]].concat();
        let up = Direction::ClientToServer;
        for (stream, block) in [(1, fill), (3, honest)] {
            let observed = connection.observe(up, &headers(stream, &block), 1);
            assert_eq!(observed.failure, None, "stream {stream}");
        }
        let bomb = headers(5, &[0xbe; 40]);
        let observed = connection.observe(up, &bomb, 1);
        let failure = observed.failure.expect("a bomb");
        assert_eq!((failure.code, observed.forward), (code::ENHANCE_YOUR_CALM, 0));
        assert!(failure.reason.contains("49 octets and decodes to 79280"), "{}", failure.reason);
        let bytes = observed.submission.entries.iter().map(|entry| entry.body.len() + entry.payload_len());
        assert!(bytes.sum::<usize>() < 1_000, "nothing of it is kept");
    }

    #[test]
    fn a_promise_of_a_client_is_no_call_of_the_server() {
        let units =
            UnitLimits { frame_bytes_max: 16_384, header_list_bytes_max: 65_536, continuations_max: 8 };
        let policy = Policy { level: Level::RequestResponse, redactor: Redactor::new(&[0; 32]) };
        let subject = Subject { connection: 1, verified_peer: String::new() };
        let limits = Limits { units, streams_max: 10 };
        let mut connection = Connection::new(subject, policy, limits, Ids::random(), Arc::default());
        connection.observe(Direction::ClientToServer, &headers(1, &[0x82]), 1);
        let promise = frame_of(frame::kind::PUSH_PROMISE, 1, &[0, 0, 0, 2, 0x82]);
        let observed = connection.observe(Direction::ClientToServer, &promise, 2);
        assert_eq!((connection.open_streams(), observed.forward), (1, promise.len()));
        let [entry] = &observed.submission.entries[..] else { panic!("one entry") };
        let body = crate::entry::decode(entry.body.clone().into()).unwrap().body;
        let Some(crate::entry::Body::ConnectionEvents(told)) = body else { panic!("{body:?}") };
        assert_eq!(told.events[0].r#type(), ConnectionEventType::StrayFrame);
    }

    fn headers(stream: u32, block: &[u8]) -> Bytes {
        frame_of(frame::kind::HEADERS, stream, block)
    }

    fn frame_of(kind: u8, stream: u32, payload: &[u8]) -> Bytes {
        let (length, flags) = (u32::try_from(payload.len()).unwrap(), frame::flag::END_HEADERS);
        let header = FrameHeader { length, kind, flags, stream };
        [&header.encode()[..], payload].concat().into()
    }
}
