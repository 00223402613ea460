//! The connections of a ledger: what is known of each, and entries folded into one summary for each of them.
//!
//! This is where one finds what was not read: `ConnectionSummary::unread` says of a connection why its content is not in
//! the ledger. Invariants: the entries come in the order of the log; what is remembered is bounded by the connections
//! that are open at a time, and of one of them by [`PROTOCOLS_MAX`]. In words and JSON it is put by `words` and `json`.

use super::reader::Record;
use crate::entry::Body;
use crate::generated::v1::connection_event::Type;
use crate::generated::v1::connection_opened::Interception;
use crate::generated::v1::{self, Direction, Side, Traffic, WireProtocol};
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap};

/// Changes of protocol that are kept of one connection. Three are usual at most: TLS, then HTTP/1, then an upgrade.
const PROTOCOLS_MAX: usize = 8;

/// How a connection came, where it goes, and what was found in it so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connection {
    /// The client, as "ip:port"; empty where the connection's first entry was not read.
    pub client_address: String,
    /// Where it was accepted.
    pub listener_address: String,
    /// The upstream as configured, or the original destination.
    pub upstream: String,
    /// The upstream as connected.
    pub upstream_address: String,
    /// To the workload or from it; unspecified where the ledger does not say.
    pub traffic: Traffic,
    /// How it came to attestry.
    pub interception: Interception,
    /// What the client dialled, where the kernel has told it.
    pub original_destination: String,
    /// Why attestry answers it itself.
    pub local_reason: String,
    /// The protocols that were found in it, one after the other.
    pub found: Vec<Found>,
    /// TLS with the client (or passed on), and with the server.
    pub tls: [Option<v1::Tls>; 2],
}

/// A protocol, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub protocol: WireProtocol,
    /// In words.
    pub reason: String,
}

impl Connection {
    /// What the first entry of a connection says.
    pub(super) fn opened(opened: &v1::ConnectionOpened) -> Self {
        Self {
            client_address: opened.client_address.clone(),
            listener_address: opened.listener_address.clone(),
            upstream: opened.upstream.clone(),
            upstream_address: opened.upstream_address.clone(),
            traffic: opened.traffic(),
            interception: opened.interception(),
            original_destination: opened.original_destination.clone(),
            local_reason: opened.local_reason.clone(),
            found: Vec::new(),
            tls: [None, None],
        }
    }

    /// Takes notice of an event.
    pub(super) fn learn(&mut self, event: &v1::ConnectionEvent) {
        match (event.r#type(), &event.tls) {
            (Type::Protocol, _) => {
                self.found.truncate(PROTOCOLS_MAX - 1);
                self.found.push(Found { protocol: event.protocol(), reason: event.reason.clone() });
            }
            (Type::Tls, Some(tls)) => self.tls[usize::from(tls.side() == Side::Server)] = Some(tls.clone()),
            _ => {}
        }
    }
}

/// Whether an event changes what is known of its connection.
pub(super) fn is_news(event: &v1::ConnectionEvent) -> bool {
    matches!(event.r#type(), Type::Protocol | Type::Tls)
}

/// How far a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Still there.
    Open,
    /// One side ended it.
    Closed,
    /// Its writer ended without a word of it.
    Abandoned,
}

/// The beginning of an opaque direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstBytes {
    /// How many bytes were read at first.
    pub length: u64,
    /// Their SHA-256.
    pub sha256: Bytes,
}

/// One connection, as far as the ledger tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionSummary {
    /// Its id.
    pub connection: u64,
    /// When it was accepted, or the first that is known of it.
    pub started_unix_nanos: u64,
    /// How it came, where to, and what was found in it.
    pub facts: Connection,
    /// How far it came.
    pub state: ConnectionState,
    /// Why it ended, and who ended it.
    pub end: Option<(String, Side)>,
    /// Bytes released to the server and to the client; known at its end.
    pub bytes: Option<[u64; 2]>,
    /// From its acceptance to its end.
    pub duration_nanos: Option<u64>,
    /// Calls begun.
    pub calls: u64,
    /// The first bytes to the server and to the client, where it is opaque.
    pub first_bytes: [Option<FirstBytes>; 2],
    /// Why bytes could not be read; empty where none could not.
    pub not_readable: String,
    /// Its first entry.
    pub first_index: u64,
    /// Its last entry, so far.
    pub last_index: u64,
}

impl ConnectionSummary {
    fn new(connection: u64, facts: Connection, index: u64, started_unix_nanos: u64) -> Self {
        Self {
            connection,
            started_unix_nanos,
            facts,
            state: ConnectionState::Open,
            end: None,
            bytes: None,
            duration_nanos: None,
            calls: 0,
            first_bytes: [None, None],
            not_readable: String::new(),
            first_index: index,
            last_index: index,
        }
    }

    /// Why not all that passed on it was read; `None` where it was, or nothing passed.
    pub fn unread(&self) -> Option<&str> {
        let is_opaque =
            |found: &&Found| matches!(found.protocol, WireProtocol::Opaque | WireProtocol::TlsPassthrough);
        let opaque = self.facts.found.iter().find(is_opaque).map(|found| found.reason.as_str());
        let passed = self.bytes.is_some_and(|bytes| bytes != [0, 0]) && self.facts.local_reason.is_empty();
        match opaque {
            _ if !self.not_readable.is_empty() => Some(&self.not_readable),
            Some(reason) => Some(reason),
            None if passed && self.calls == 0 && self.facts.found.is_empty() => {
                Some("the ledger does not say what was spoken")
            }
            None => None,
        }
    }

    fn event(&mut self, direction: Direction, event: &v1::ConnectionEvent) {
        self.facts.learn(event);
        match event.r#type() {
            Type::NotReadable if self.not_readable.is_empty() => {
                event.reason.clone_into(&mut self.not_readable);
            }
            Type::FirstBytes => {
                let way = usize::from(direction == Direction::ServerToClient);
                let (length, sha256) = (event.payload_length, event.payload_sha256.clone());
                self.first_bytes[way].get_or_insert(FirstBytes { length, sha256 });
            }
            _ => {}
        }
    }

    fn close(&mut self, closed: &v1::ConnectionClosed) {
        self.state = ConnectionState::Closed;
        self.end = Some((closed.reason.clone(), closed.side()));
        self.bytes = Some([closed.bytes_to_server, closed.bytes_to_client]);
        self.calls = closed.calls;
        // A writer of the format's first text did not measure it.
        let between = closed.captured_unix_nanos.saturating_sub(self.started_unix_nanos);
        self.duration_nanos = Some(if closed.duration_nanos == 0 { between } else { closed.duration_nanos });
    }
}

/// Folds entries into connections.
#[derive(Debug, Default)]
pub struct ConnectionFold {
    open: HashMap<u64, ConnectionSummary>,
    /// Of the connections in `open`.
    first_indexes: BTreeSet<u64>,
    finished: Vec<ConnectionSummary>,
}

impl ConnectionFold {
    /// Takes the next entry of the ledger.
    pub fn push(&mut self, record: &Record) {
        match &record.body {
            Body::ConnectionOpened(opened) => {
                // An id that comes twice was never closed.
                self.finish_one(opened.connection, ConnectionState::Abandoned);
                let (facts, time) = (Connection::opened(opened), opened.captured_unix_nanos);
                self.begin(opened.connection, facts, record.index, time);
            }
            Body::ConnectionEvents(events) => {
                let summary = self.of(events.connection, record.index, events.captured_unix_nanos);
                events.events.iter().for_each(|event| summary.event(events.direction(), event));
            }
            Body::CallEvents(events) => {
                let summary = self.of(events.connection, record.index, events.captured_unix_nanos);
                summary.calls += u64::from(events.sequence == 1);
            }
            Body::ConnectionClosed(closed) => {
                self.of(closed.connection, record.index, closed.captured_unix_nanos).close(closed);
                self.finish_one(closed.connection, ConnectionState::Closed);
            }
            // A writer that died left its connections without an end.
            Body::Started(_) => {
                let open: Vec<u64> = self.open.keys().copied().collect();
                for connection in open {
                    self.finish_one(connection, ConnectionState::Abandoned);
                }
            }
            _ => {}
        }
    }

    /// Connections that came to their end since this was last asked, each once.
    pub fn take_finished(&mut self) -> Vec<ConnectionSummary> {
        std::mem::take(&mut self.finished)
    }

    /// The first entry of the oldest connection that is open.
    pub fn oldest_unfinished(&self) -> Option<u64> {
        self.first_indexes.first().copied()
    }

    /// All that is left at the end of the ledger, open connections among it.
    pub fn finish(mut self) -> Vec<ConnectionSummary> {
        self.finished.extend(self.open.into_values());
        self.finished
    }

    /// The connection; a new one where its beginning is not in the ledger.
    fn of(&mut self, connection: u64, index: u64, captured_unix_nanos: u64) -> &mut ConnectionSummary {
        if !self.open.contains_key(&connection) {
            self.begin(connection, Connection::default(), index, captured_unix_nanos);
        }
        let summary = self.open.get_mut(&connection).expect("it has just been put there if it was not");
        summary.last_index = index;
        summary
    }

    fn begin(&mut self, connection: u64, facts: Connection, index: u64, started_unix_nanos: u64) {
        self.first_indexes.insert(index);
        self.open.insert(connection, ConnectionSummary::new(connection, facts, index, started_unix_nanos));
    }

    fn finish_one(&mut self, connection: u64, state: ConnectionState) {
        let Some(mut summary) = self.open.remove(&connection) else { return };
        summary.state = state;
        self.first_indexes.remove(&summary.first_index);
        self.finished.push(summary);
    }
}
