//! Entries while one read is observed: one draft per call and direction that it touched.
//!
//! A draft that grows towards an entry's bound is closed and another begun, so that no entry is ever too long.

use super::ids::CallId;
use super::{Direction, Level, Policy, Subject};
use crate::entry::{Body, ENTRY_BYTES_MAX, PendingEntry, SEAL_BYTES_MAX};
use crate::generated::v1;
use bytes::Bytes;
use prost::Message as _;

/// A draft's events are kept below this estimate; the rest of the bound is room for the entry's own fields and for the estimate's error.
const DRAFT_BYTES_MAX: usize = ENTRY_BYTES_MAX - SEAL_BYTES_MAX - 16 * 1024;

/// What an event takes besides its metadata: digest, offsets, tags.
const EVENT_BYTES: usize = 96;

/// The entries of one read.
pub(super) struct Drafts {
    subject: Subject,
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
    pub events: Vec<v1::Event>,
    payload: Vec<Bytes>,
    bytes: usize,
    call: CallId,
    stream: u32,
    protocol: v1::Protocol,
    sequence: u64,
}

impl CallDraft {
    /// Adds bytes to the payload of the newest event.
    pub(super) fn add_payload(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.payload.push(bytes);
        }
    }

    fn is_full(&self) -> bool {
        self.bytes > DRAFT_BYTES_MAX
    }
}

impl Drafts {
    pub(super) fn new(subject: Subject) -> Self {
        Self { subject, epoch: 1, calls: Vec::new(), connection: Vec::new(), connection_payload: Vec::new() }
    }

    /// The connection's id in the ledger.
    pub(super) fn connection(&self) -> u64 {
        self.subject.connection
    }

    /// The draft at `place`, if it is of this read and not full.
    pub(super) fn open(&mut self, place: DraftPlace) -> Option<&mut CallDraft> {
        if place.epoch != self.epoch {
            return None;
        }
        self.calls.get_mut(place.number).filter(|draft| !draft.is_full())
    }

    /// Begins a draft whose first event has number `sequence` in its call.
    pub(super) fn begin(
        &mut self,
        call: CallId,
        stream: u32,
        protocol: v1::Protocol,
        sequence: u64,
    ) -> DraftPlace {
        let draft =
            CallDraft { events: Vec::new(), payload: Vec::new(), bytes: 0, call, stream, protocol, sequence };
        self.calls.push(draft);
        DraftPlace { epoch: self.epoch, number: self.calls.len() - 1 }
    }

    /// Appends an event to the draft at `place`.
    pub(super) fn push(&mut self, place: DraftPlace, event: v1::Event) -> Option<&mut CallDraft> {
        let draft = self.calls.get_mut(place.number)?;
        draft.bytes +=
            EVENT_BYTES + event.note.len() + event.header.as_ref().map_or(0, v1::HeaderBlock::encoded_len);
        draft.events.push(event);
        Some(draft)
    }

    /// The newest event of the draft at `place`, full or not.
    pub(super) fn newest(&mut self, place: DraftPlace) -> Option<&mut v1::Event> {
        if place.epoch != self.epoch {
            return None;
        }
        self.calls.get_mut(place.number)?.events.last_mut()
    }

    /// Appends an event of the connection.
    pub(super) fn push_connection(&mut self, event: v1::ConnectionEvent, payload: Bytes) {
        self.connection.push(event);
        if !payload.is_empty() {
            self.connection_payload.push(payload);
        }
    }

    /// All entries of this read, in the order in which their calls were first touched, the connection's own last.
    pub(super) fn finish(&mut self, direction: Direction, policy: &Policy, now: u64) -> Vec<PendingEntry> {
        self.epoch += 1;
        let mut entries = Vec::with_capacity(self.calls.len() + 1);
        for draft in self.calls.drain(..) {
            entries.push(call_entry(draft, &self.subject, direction, policy.level, now));
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

fn call_entry(
    draft: CallDraft,
    subject: &Subject,
    direction: Direction,
    level: Level,
    now: u64,
) -> PendingEntry {
    let body = v1::CallEvents {
        call: Bytes::copy_from_slice(&draft.call),
        connection: subject.connection,
        stream: draft.stream,
        direction: direction.into(),
        protocol: draft.protocol.into(),
        level: level.into(),
        sequence: draft.sequence,
        captured_unix_nanos: now,
        events: draft.events,
        verified_peer: subject.verified_peer.clone(),
    };
    PendingEntry::with_payload(&Body::CallEvents(body), draft.payload)
}
