//! What every capture makes evidence with, whichever protocol it reads: the policy, the totals, the entries of this read, and the events of the connection itself.
//!
//! Invariants: nothing of a read that has bytes is left behind by [`Evidence::finish`]; what a peer can repeat at will fills neither memory nor ledger, since from the
//! [`TOLD_MAX`]th of a kind on, only sums are kept ([`Evidence::push_repeatable`]). What the bytes mean is not here: `connection` reads HTTP/2, `http1` HTTP/1.1, `opaque` nothing.

use super::draft::Drafts;
use super::{Direction, Level, Policy, Side, Subject, sender};
use crate::counters::Counters;
use crate::entry::{Body, PendingEntry, Submission};
use crate::generated::v1::{self, connection_event::Type as ConnectionEventType};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// Events of one kind and direction of a connection that are told one by one, with their bytes. Honest peers make a few, when both sides end a stream at once.
pub(super) const TOLD_MAX: u64 = 16;

/// Of further ones that have no bytes, so many are told at a time.
pub(super) const SUMMED_MAX: u64 = 1_000;

/// Why a connection must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// For the GOAWAY.
    pub code: u32,
    /// In words.
    pub reason: String,
}

/// How a connection ended.
pub struct Ending {
    /// In words.
    pub reason: String,
    /// Who ended it.
    pub side: Side,
    /// Bytes released to the server.
    pub bytes_to_server: u64,
    /// Bytes released to the client.
    pub bytes_to_client: u64,
    /// From its acceptance on.
    pub duration_nanos: u64,
}

impl Ending {
    /// The direction in whose entries the last events stand.
    pub(super) fn direction(&self) -> Direction {
        if self.side == Side::Server { Direction::ServerToClient } else { Direction::ClientToServer }
    }
}

/// The evidence of one connection in the making.
pub(super) struct Evidence {
    pub(super) policy: Policy,
    pub(super) counters: Arc<Counters>,
    pub(super) drafts: Drafts,
    /// One for each kind and direction seen; the kinds are the constants of `connection` and `http2`, some twenty.
    repeats: Vec<Repeats>,
    /// Calls so far.
    calls: u64,
}

/// Events of one kind that the sender of one direction has caused.
struct Repeats {
    kind: &'static str,
    direction: Direction,
    seen: u64,
    /// Those that no entry tells yet.
    sum: Option<Sum>,
}

/// Several events as one.
struct Sum {
    /// The first of them, with their number and the length of all.
    event: v1::ConnectionEvent,
    /// Over the bytes of all, one behind the other; `None` where there are none, or the level keeps no digest of them.
    digest: Option<Sha256>,
}

impl Evidence {
    pub(super) fn new(subject: Subject, policy: Policy, counters: Arc<Counters>) -> Self {
        Self { policy, counters, drafts: Drafts::new(subject), repeats: Vec::new(), calls: 0 }
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

    /// An event that the sender of `direction` can repeat at will; events of one `kind` are alike but for numbers that it chooses.
    ///
    /// The first [`TOLD_MAX`] are told one by one. Further ones become one event for each read, with the fields of the first of them: their `count`, and the length and
    /// digest of their bytes, which are not stored. Where they have no bytes there is nothing that a peer could learn only from them, so they wait for each other, up to
    /// [`SUMMED_MAX`] or the connection's end.
    pub(super) fn push_repeatable(
        &mut self,
        kind: &'static str,
        direction: Direction,
        event: v1::ConnectionEvent,
        payload: Bytes,
    ) {
        let keeps_digest = self.policy.level == Level::RequestResponse;
        let repeats = self.repeats_of(kind, direction);
        repeats.seen += 1;
        if repeats.seen > TOLD_MAX {
            repeats.sum.get_or_insert_with(|| Sum::of(event)).add(&payload, keeps_digest);
        } else {
            self.push(event, payload);
        }
    }

    fn repeats_of(&mut self, kind: &'static str, direction: Direction) -> &mut Repeats {
        let known = self.repeats.iter().position(|known| known.kind == kind && known.direction == direction);
        let place = known.unwrap_or_else(|| {
            self.repeats.push(Repeats { kind, direction, seen: 0, sum: None });
            self.repeats.len() - 1
        });
        &mut self.repeats[place]
    }

    /// Tells the sums of one direction that are due, or all.
    fn push_sums(&mut self, direction: Direction, is_last: bool) {
        for repeats in self.repeats.iter_mut().filter(|repeats| repeats.direction == direction) {
            if let Some(sum) = repeats.sum.take_if(|sum| is_last || sum.is_due()) {
                self.drafts.push_connection(sum.told(), Bytes::new());
            }
        }
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
        self.push_sums(direction, false);
        Submission { entries: self.drafts.finish(direction, &self.policy, now_unix_nanos), wire_bytes }
    }

    /// The connection's last evidence, its own end behind everything else.
    pub(super) fn close(&mut self, ending: Ending, now_unix_nanos: u64) -> Submission {
        let mut submission = self.finish(ending.direction(), 0, now_unix_nanos);
        for direction in [Direction::ClientToServer, Direction::ServerToClient] {
            self.push_sums(direction, true);
            submission.entries.extend(self.drafts.finish(direction, &self.policy, now_unix_nanos));
        }
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

impl Sum {
    fn of(first: v1::ConnectionEvent) -> Self {
        let event = v1::ConnectionEvent {
            payload_length: 0,
            payload_sha256: Bytes::new(),
            payload_stored: false,
            ..first
        };
        Self { event, digest: None }
    }

    fn add(&mut self, payload: &[u8], keeps_digest: bool) {
        self.event.count += 1;
        self.event.payload_length += payload.len() as u64;
        if keeps_digest && !payload.is_empty() {
            self.digest.get_or_insert_default().update(payload);
        }
    }

    fn is_due(&self) -> bool {
        self.event.payload_length > 0 || self.event.count >= SUMMED_MAX
    }

    fn told(self) -> v1::ConnectionEvent {
        let digest = self.digest.map(|digest| Bytes::copy_from_slice(&digest.finalize()));
        v1::ConnectionEvent { payload_sha256: digest.unwrap_or_default(), ..self.event }
    }
}

/// The name of the side that sends in `direction`, for reasons.
pub(super) fn sender_name(direction: Direction) -> &'static str {
    if sender(direction) == Side::Client { "client" } else { "server" }
}

fn digest(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(bytes))
}
