//! The calls of a ledger: entries folded into one summary for each call.
//!
//! ```text
//!   first entry ──▶ open ──both sides ended, reset, answered──▶ closed ──late frames waited for──▶ finished
//!                     └──────────── its connection or its writer ended ──────────────────────────────┘
//! ```
//! Invariants: the entries come in the order of the log; what is remembered is bounded by the calls and
//! connections that are open at a time. Of several events that could end a call, the one captured first
//! decides its status. Order and choice of what is listed are `order`'s and `filter`'s.

use super::connections::{self, Connection};
use super::filter::CallPrefix;
use super::outcome::{Outcome, Response, Status, WebTrailers};
use super::payload::{self, Beside};
use super::reader::Record;
use crate::entry::Body;
use crate::generated::v1::{self, Direction, EventType, Level, Protocol, Side};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

/// Closed calls that are kept for frames that were still on the way, such as those that cross a reset.
/// Capture itself waits for those of 256 streams on a connection.
const LATE_CALLS_MAX: usize = 1_024;

/// A call's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub [u8; 16]);

impl fmt::Display for CallId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// How far a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Still running.
    Open,
    /// One of the two sides ended it.
    Ended,
    /// Its connection, or attestry, ended first.
    Abandoned,
    /// attestry answered it itself.
    AnsweredLocally,
    /// At capture level None only its beginning is recorded.
    NotRecorded,
}

impl State {
    /// The word that stands for it in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Ended => "ended",
            Self::Abandoned => "abandoned",
            Self::AnsweredLocally => "answered_locally",
            Self::NotRecorded => "not_recorded",
        }
    }
}

/// The first RST_STREAM of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// RFC 9113 section 7.
    pub code: u32,
    /// Who sent it.
    pub side: Side,
}

/// One call, as far as the ledger tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct CallSummary {
    /// attestry's own id of it.
    pub call: CallId,
    /// Id of its connection.
    pub connection_id: u64,
    /// Who talked, as far as it was known when the call began.
    pub connection: Arc<Connection>,
    /// The client as TLS has verified it; empty where it has proved nothing.
    pub verified_peer: String,
    /// Its stream on the connection; in HTTP/1 the number of the request.
    pub stream: u32,
    /// When its first event was captured.
    pub started_unix_nanos: u64,
    /// From the first event to the one that ended it, in nanoseconds.
    pub duration_nanos: Option<u64>,
    /// gRPC, gRPC-Web, or other HTTP.
    pub protocol: Protocol,
    /// The `:path`; empty where the beginning of the call is missing.
    pub method: String,
    /// The `:method`; empty where it is not recorded.
    pub http_method: String,
    /// The `:authority`, else `host`.
    pub authority: String,
    /// How it ended; `None` while it is open, and where nobody ended it.
    pub status: Option<Status>,
    /// What came with the status.
    pub status_message: String,
    /// Messages begun, from the client and from the server; the trailers of gRPC-Web are none.
    pub messages: [u64; 2],
    /// Bytes of them, without prefixes.
    pub bytes: [u64; 2],
    /// How far it came.
    pub state: State,
    /// The first reset of its stream.
    pub reset: Option<Reset>,
    /// What was kept of it.
    pub level: Level,
    /// Its first entry.
    pub first_index: u64,
    /// Its last entry, so far.
    pub last_index: u64,
}

impl CallSummary {
    /// What was called: the path, with HTTP's method before it where it says something.
    pub fn method_in_words(&self) -> String {
        if self.protocol == Protocol::Http && !self.http_method.is_empty() {
            format!("{} {}", self.http_method, self.method)
        } else {
            self.method.clone()
        }
    }
}

/// Folds entries into calls.
#[derive(Debug, Default)]
pub struct CallFold {
    only: Option<CallPrefix>,
    connections: HashMap<u64, Arc<Connection>>,
    /// By connection, so that a connection's end finds its calls.
    calls: BTreeMap<Key, Tracked>,
    /// Of the calls in `calls`.
    first_indexes: BTreeSet<u64>,
    /// Closed calls, the oldest first.
    late: VecDeque<Key>,
    closed: Vec<CallSummary>,
    finished: Vec<CallSummary>,
}

type Key = (u64, CallId);

#[derive(Debug)]
struct Tracked {
    summary: CallSummary,
    response: Response,
    web_trailers: WebTrailers,
    client_ended: bool,
    server_ended: bool,
    /// The sequence number of the event that decided the status.
    decided_at: Option<u64>,
    closed: bool,
}

impl CallFold {
    /// For all calls.
    pub fn new() -> Self {
        Self::default()
    }

    /// For the calls whose id begins with `prefix`.
    pub fn only(prefix: CallPrefix) -> Self {
        Self { only: Some(prefix), ..Self::default() }
    }

    /// Takes the next entry of the ledger.
    pub fn push(&mut self, record: &Record) {
        match &record.body {
            Body::ConnectionOpened(opened) => {
                self.connections.insert(opened.connection, Arc::new(Connection::opened(opened)));
            }
            Body::ConnectionEvents(events) => self.connection_events(events),
            Body::ConnectionClosed(closed) => {
                self.connections.remove(&closed.connection);
                let first = (closed.connection, CallId([0; 16]));
                let last = (closed.connection, CallId([0xff; 16]));
                self.finish_calls(self.calls.range(first..=last).map(|(key, _)| *key).collect());
            }
            // A writer that died left its connections and calls without an end, and none of them lives on.
            Body::Started(_) => {
                self.connections.clear();
                self.finish_calls(self.calls.keys().copied().collect());
            }
            Body::CallEvents(events) => self.call_events(record, events),
            _ => {}
        }
    }

    /// Calls that came to their end since this was last asked, each once. Frames that crossed the end may
    /// still follow: what those change is in [`CallFold::take_finished`].
    pub fn take_closed(&mut self) -> Vec<CallSummary> {
        std::mem::take(&mut self.closed)
    }

    /// Calls of which nothing more is expected since this was last asked, each once.
    pub fn take_finished(&mut self) -> Vec<CallSummary> {
        std::mem::take(&mut self.finished)
    }

    /// The first entry of the oldest call that may still change.
    pub fn oldest_unfinished(&self) -> Option<u64> {
        self.first_indexes.first().copied()
    }

    /// All that is left at the end of the ledger, open calls among it.
    pub fn finish(mut self) -> Vec<CallSummary> {
        self.finished.extend(self.calls.into_values().map(|tracked| tracked.summary));
        self.finished
    }

    /// Calls that began before keep what was known then.
    fn connection_events(&mut self, events: &v1::ConnectionEvents) {
        for event in events.events.iter().filter(|event| connections::is_news(event)) {
            Arc::make_mut(self.connections.entry(events.connection).or_default()).learn(event);
        }
    }

    fn call_events(&mut self, record: &Record, events: &v1::CallEvents) {
        let Some(call) = events.call.first_chunk::<16>().copied().map(CallId) else { return };
        if self.only.as_ref().is_some_and(|prefix| !prefix.fits(call)) {
            return;
        }
        let key = (events.connection, call);
        let connections = &self.connections;
        let first_indexes = &mut self.first_indexes;
        let tracked = self.calls.entry(key).or_insert_with(|| {
            first_indexes.insert(record.index);
            let connection = connections.get(&events.connection).cloned().unwrap_or_default();
            Tracked::new(call, connection, record.index, events)
        });
        tracked.push(record, events);
        if !tracked.closed && tracked.is_closed() {
            tracked.closed = true;
            self.closed.push(tracked.summary.clone());
            self.late.push_back(key);
        }
        while self.late.len() > LATE_CALLS_MAX {
            if let Some(oldest) = self.late.pop_front() {
                self.finish_call(oldest);
            }
        }
    }

    fn finish_calls(&mut self, keys: Vec<Key>) {
        for key in keys {
            self.finish_call(key);
        }
    }

    fn finish_call(&mut self, key: Key) {
        let Some(mut tracked) = self.calls.remove(&key) else { return };
        self.first_indexes.remove(&tracked.summary.first_index);
        if tracked.summary.state == State::Open {
            tracked.summary.state = State::Abandoned;
        }
        if !tracked.closed {
            self.closed.push(tracked.summary.clone());
        }
        self.finished.push(tracked.summary);
    }
}

impl Tracked {
    fn new(call: CallId, connection: Arc<Connection>, first_index: u64, events: &v1::CallEvents) -> Self {
        let level = events.level();
        let summary = CallSummary {
            call,
            connection_id: events.connection,
            connection,
            verified_peer: events.verified_peer.clone(),
            stream: events.stream,
            started_unix_nanos: events.captured_unix_nanos,
            duration_nanos: None,
            protocol: events.protocol(),
            method: String::new(),
            http_method: String::new(),
            authority: String::new(),
            status: None,
            status_message: String::new(),
            messages: [0; 2],
            bytes: [0; 2],
            state: if level == Level::None { State::NotRecorded } else { State::Open },
            reset: None,
            level,
            first_index,
            last_index: first_index,
        };
        Self {
            summary,
            response: Response::default(),
            web_trailers: WebTrailers::default(),
            // A pushed response of HTTP/2 has an even stream, and the server's promise for its request.
            client_ended: events.stream.is_multiple_of(2) && events.direction() == Direction::ServerToClient,
            server_ended: false,
            decided_at: None,
            closed: false,
        }
    }

    fn is_closed(&self) -> bool {
        (self.client_ended && self.server_ended) || self.summary.state == State::NotRecorded
    }

    fn push(&mut self, record: &Record, events: &v1::CallEvents) {
        self.summary.last_index = record.index;
        self.summary.started_unix_nanos = self.summary.started_unix_nanos.min(events.captured_unix_nanos);
        let beside = payload::cut(&record.body, &record.payload);
        for ((event, beside), sequence) in events.events.iter().zip(beside).zip(events.sequence..) {
            self.header(event, &beside);
            if let Some(segment) = &event.message {
                self.segment(events.direction(), segment, beside.data.as_deref());
            }
            self.end(event, sequence, events.captured_unix_nanos);
        }
    }

    fn segment(&mut self, direction: Direction, segment: &v1::MessageSegment, data: Option<&[u8]>) {
        let is_answer = direction == Direction::ServerToClient;
        if is_answer && self.summary.protocol == Protocol::GrpcWeb && self.web_trailers.take(segment, data) {
            if segment.end {
                self.response.read_web_trailers(&self.web_trailers);
            }
            return;
        }
        let way = usize::from(is_answer);
        let messages = &mut self.summary.messages[way];
        *messages = (*messages).max(segment.message.saturating_add(1));
        let bytes = &mut self.summary.bytes[way];
        *bytes = bytes.saturating_add(segment.length);
    }

    fn header(&mut self, event: &v1::Event, beside: &Beside) {
        let Some(header) = &event.header else { return };
        let Some(fields) = payload::fields(header, beside.fields.as_ref()) else { return };
        match event.r#type() {
            EventType::ClientHeader => {
                let text = |name| {
                    payload::value(&fields, name).map(|value| String::from_utf8_lossy(value).into_owned())
                };
                self.summary.method = text(":path").unwrap_or_default();
                self.summary.http_method = text(":method").unwrap_or_default();
                self.summary.authority = text(":authority").or_else(|| text("host")).unwrap_or_default();
            }
            EventType::ServerHeader | EventType::ServerTrailer => self.response.read(&fields),
            _ => {}
        }
    }

    fn end(&mut self, event: &v1::Event, sequence: u64, captured_unix_nanos: u64) {
        match event.r#type() {
            EventType::ClientHalfClose => self.client_ended = true,
            EventType::ServerTrailer | EventType::ServerHalfClose => self.server_ended = true,
            EventType::Cancel | EventType::Reset => {
                (self.client_ended, self.server_ended) = (true, true);
                let side = event.side();
                self.summary.reset.get_or_insert(Reset { code: event.code, side });
            }
            EventType::LocalAnswer | EventType::Abandoned => {
                (self.client_ended, self.server_ended) = (true, true);
            }
            _ => return,
        }
        if let Some(outcome) = self.response.outcome(self.summary.protocol, event) {
            self.decide(outcome, event.r#type(), sequence, captured_unix_nanos);
        } else if event.r#type() == EventType::Abandoned && self.summary.state == State::Open {
            self.summary.state = State::Abandoned;
            event.note.clone_into(&mut self.summary.status_message);
            self.ended_at(captured_unix_nanos);
        }
    }

    /// The two directions are recorded by separate reads, so an event may come after one that it preceded.
    fn decide(&mut self, outcome: Outcome, event: EventType, sequence: u64, captured_unix_nanos: u64) {
        if self.decided_at.is_some_and(|decided_at| decided_at <= sequence) {
            return;
        }
        self.decided_at = Some(sequence);
        (self.summary.status, self.summary.status_message) = (outcome.status, outcome.message);
        self.summary.state =
            if event == EventType::LocalAnswer { State::AnsweredLocally } else { State::Ended };
        self.ended_at(captured_unix_nanos);
    }

    fn ended_at(&mut self, captured_unix_nanos: u64) {
        self.summary.duration_nanos =
            Some(captured_unix_nanos.saturating_sub(self.summary.started_unix_nanos));
    }
}
