//! Entries while one read is observed: one draft per call and direction that it touched.
//!
//! A draft that grows towards an entry's bound is closed and another begun, so that no entry is ever too long.

use super::ids::CallId;
use super::{Direction, Level, Subject};
use crate::entry::{Body, CallBody, CallHead, ENTRY_BYTES_MAX, PendingEntry, SEAL_BYTES_MAX};
use crate::generated::v1;
use bytes::Bytes;

/// A draft to which nothing more is added. The rest of the bound is room for its last event, whose header block may have 8 KiB, and for the entry's own fields.
const DRAFT_BYTES_MAX: usize = ENTRY_BYTES_MAX - SEAL_BYTES_MAX - 16 * 1024;

/// The entries of one read.
pub(super) struct Drafts {
    subject: Subject,
    level: Level,
    /// Grows with each read, so that a stream can tell its draft of this read from one of an earlier.
    epoch: u64,
    calls: Vec<CallDraft>,
    connection: Vec<v1::ConnectionEvent>,
    connection_payload: Vec<Bytes>,
}

/// Where a stream's draft is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DraftPlace {
    epoch: u64,
    number: usize,
}

/// One call's entry in the making.
pub(super) struct CallDraft {
    pub(super) body: CallBody,
    payload: Vec<Bytes>,
}

impl CallDraft {
    /// Adds bytes to the payload of the newest event.
    pub(super) fn add_payload(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.payload.push(bytes);
        }
    }

    fn is_full(&self) -> bool {
        self.body.encoded_len() > DRAFT_BYTES_MAX
    }
}

impl Drafts {
    pub(super) fn new(subject: Subject, level: Level) -> Self {
        Self {
            subject,
            level,
            epoch: 1,
            calls: Vec::new(),
            connection: Vec::new(),
            connection_payload: Vec::new(),
        }
    }

    /// The connection's id in the ledger.
    pub(super) fn connection(&self) -> u64 {
        self.subject.connection
    }

    /// The draft at `place`, if it is of this read and not full.
    pub(super) fn open(&mut self, place: DraftPlace) -> Option<&mut CallDraft> {
        self.at(place).filter(|draft| !draft.is_full())
    }

    /// The draft at `place`, if it is of this read.
    pub(super) fn at(&mut self, place: DraftPlace) -> Option<&mut CallDraft> {
        if place.epoch == self.epoch { self.calls.get_mut(place.number) } else { None }
    }

    /// Begins a draft whose first event has number `sequence` in its call.
    pub(super) fn begin(
        &mut self,
        call: &CallId,
        stream: u32,
        direction: Direction,
        protocol: v1::Protocol,
        sequence: u64,
    ) -> DraftPlace {
        let (connection, level) = (self.subject.connection, self.level);
        let head = CallHead { call, connection, stream, direction, protocol, level, sequence };
        self.calls.push(CallDraft { body: CallBody::new(&head), payload: Vec::new() });
        DraftPlace { epoch: self.epoch, number: self.calls.len() - 1 }
    }

    /// Appends an event of the connection.
    pub(super) fn push_connection(&mut self, event: v1::ConnectionEvent, payload: Bytes) {
        self.connection.push(event);
        if !payload.is_empty() {
            self.connection_payload.push(payload);
        }
    }

    /// All entries of this read, in the order in which their calls were first touched, the connection's own last.
    pub(super) fn finish(&mut self, direction: Direction, now: u64) -> Vec<PendingEntry> {
        self.epoch += 1;
        let mut entries = Vec::with_capacity(self.calls.len() + 1);
        for CallDraft { body, payload } in self.calls.drain(..) {
            entries.push(PendingEntry { body: body.finish(now, &self.subject.verified_peer), payload });
        }
        // As many events as fit into an entry each: a frame's reason and fields take far below 256 bytes.
        let mut payload = std::mem::take(&mut self.connection_payload).into_iter();
        let events = std::mem::take(&mut self.connection);
        for events in events.chunks(ENTRY_BYTES_MAX / 512) {
            let stored =
                events.iter().filter(|event| event.payload_stored && event.payload_length > 0).count();
            let body = v1::ConnectionEvents {
                connection: self.subject.connection,
                direction: direction.into(),
                captured_unix_nanos: now,
                events: events.to_vec(),
            };
            entries.push(PendingEntry::with_payload(
                &Body::ConnectionEvents(body),
                payload.by_ref().take(stored).collect(),
            ));
        }
        entries
    }
}
