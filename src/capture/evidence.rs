//! What every capture makes evidence with, whichever protocol it reads: the policy, the totals, the entries of this read, and the events of the connection itself.
//!
//! Invariant: nothing of a read is left behind by [`Evidence::finish`]. What the bytes mean is not here: `connection` reads HTTP/2, `http1` HTTP/1.1, `opaque` nothing.

use super::draft::Drafts;
use super::{Direction, Ending, Failure, Level, Policy, Side, Subject, sender};
use crate::counters::Counters;
use crate::entry::{Body, PendingEntry, Submission};
use crate::generated::v1::{self, connection_event::Type as ConnectionEventType};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// The evidence of one connection in the making.
pub(super) struct Evidence {
    pub(super) policy: Policy,
    pub(super) counters: Arc<Counters>,
    pub(super) drafts: Drafts,
    /// Calls so far.
    calls: u64,
}

impl Evidence {
    pub(super) fn new(subject: Subject, policy: Policy, counters: Arc<Counters>) -> Self {
        Self { policy, counters, drafts: Drafts::new(subject), calls: 0 }
    }

    /// The connection's id in the ledger.
    pub(super) fn connection(&self) -> u64 {
        self.drafts.connection()
    }

    /// Counts a call that begins.
    pub(super) fn call_begins(&mut self) {
        self.calls += 1;
        self.counters.calls_started.add(1);
    }

    /// An event of the connection, with its payload where the level stores it.
    pub(super) fn push(&mut self, event: v1::ConnectionEvent, payload: Bytes) {
        let payload = if event.payload_stored { payload } else { Bytes::new() };
        self.drafts.push_connection(event, payload);
    }

    /// The payload's part of a connection event.
    pub(super) fn payload_event(&self, payload: &Bytes) -> v1::ConnectionEvent {
        let payload_stored = !payload.is_empty() && self.policy.level == Level::RequestResponse;
        let payload_sha256 = if payload_stored { digest(payload) } else { Bytes::new() };
        v1::ConnectionEvent {
            payload_length: payload.len() as u64,
            payload_sha256,
            payload_stored,
            ..Default::default()
        }
    }

    /// The first bytes of an opaque direction: never stored, since nobody knows where in them a secret stands.
    pub(super) fn first_bytes(&mut self, bytes: &Bytes) {
        let event = v1::ConnectionEvent {
            r#type: ConnectionEventType::FirstBytes.into(),
            payload_length: bytes.len() as u64,
            payload_sha256: digest(bytes),
            ..Default::default()
        };
        self.drafts.push_connection(event, Bytes::new());
    }

    /// From here on the connection is opaque.
    pub(super) fn becomes_opaque(&mut self, reason: String) {
        let r#type = ConnectionEventType::Protocol.into();
        let protocol = v1::WireProtocol::Opaque.into();
        self.drafts.push_connection(
            v1::ConnectionEvent { r#type, protocol, reason, ..Default::default() },
            Bytes::new(),
        );
    }

    /// The bytes cannot be read as the protocol found.
    pub(super) fn not_readable(&mut self, code: u32, reason: String) -> Failure {
        self.counters.protocol_errors.add(1);
        self.failure(ConnectionEventType::NotReadable, code, reason)
    }

    /// A bound of attestry's is broken.
    pub(super) fn broken_bound(&mut self, code: u32, reason: String) -> Failure {
        self.counters.bounds_broken.add(1);
        self.failure(ConnectionEventType::BoundBroken, code, reason)
    }

    fn failure(&mut self, kind: ConnectionEventType, code: u32, reason: String) -> Failure {
        let r#type = kind.into();
        let event = v1::ConnectionEvent { r#type, code, reason: reason.clone(), ..Default::default() };
        self.drafts.push_connection(event, Bytes::new());
        Failure { code, reason }
    }

    /// Everything that this read has brought.
    pub(super) fn finish(
        &mut self,
        direction: Direction,
        wire_bytes: u64,
        now_unix_nanos: u64,
    ) -> Submission {
        Submission { entries: self.drafts.finish(direction, &self.policy, now_unix_nanos), wire_bytes }
    }

    /// The connection's last evidence, its own end behind everything else.
    pub(super) fn close(&mut self, ending: Ending, now_unix_nanos: u64) -> Submission {
        let mut submission = self.finish(ending.direction(), 0, now_unix_nanos);
        submission.entries.push(PendingEntry::new(&Body::ConnectionClosed(v1::ConnectionClosed {
            connection: self.connection(),
            captured_unix_nanos: now_unix_nanos,
            reason: ending.reason,
            side: ending.side.into(),
            bytes_to_server: ending.bytes_to_server,
            bytes_to_client: ending.bytes_to_client,
            calls: self.calls,
            duration_nanos: ending.duration_nanos,
        })));
        submission
    }
}

/// The name of the side that sends in `direction`, for reasons.
pub(super) fn sender_name(direction: Direction) -> &'static str {
    if sender(direction) == Side::Client { "client" } else { "server" }
}

fn digest(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(bytes))
}
