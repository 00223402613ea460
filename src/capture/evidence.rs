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
        let level = policy.level;
        Self { policy, counters, drafts: Drafts::new(subject, level), repeats: Vec::new(), calls: 0 }
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
        Submission { entries: self.drafts.finish(direction, now_unix_nanos), wire_bytes }
    }

    /// The connection's last evidence, its own end behind everything else.
    pub(super) fn close(&mut self, ending: Ending, now_unix_nanos: u64) -> Submission {
        let mut submission = self.finish(ending.direction(), 0, now_unix_nanos);
        for direction in [Direction::ClientToServer, Direction::ServerToClient] {
            self.push_sums(direction, true);
            submission.entries.extend(self.drafts.finish(direction, now_unix_nanos));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Redactor;
    use crate::entry::decode;

    const WHY: &str = "a stray";

    fn evidence(level: Level) -> Evidence {
        let subject = Subject { connection: 3, verified_peer: String::new() };
        Evidence::new(subject, Policy { level, redactor: Redactor::new(&[0; 32]) }, Arc::default())
    }

    fn stray(evidence: &mut Evidence, direction: Direction, stream: u32, payload: &'static [u8]) {
        let payload = Bytes::from_static(payload);
        let event = v1::ConnectionEvent { stream, ..evidence.payload_event(&payload) };
        evidence.push_repeatable(WHY, direction, event, payload);
    }

    fn events(submission: Submission) -> Vec<(Direction, v1::ConnectionEvent)> {
        let bodies = submission.entries.into_iter().map(|pending| decode(pending.body.into()).unwrap().body);
        let told = bodies.filter_map(|body| match body {
            Some(Body::ConnectionEvents(told)) => Some((told.direction(), told.events)),
            _ => None,
        });
        told.flat_map(|(direction, events)| events.into_iter().map(move |event| (direction, event))).collect()
    }

    fn ending() -> Ending {
        let (reason, side) = ("over".to_owned(), Side::Client);
        Ending { reason, side, bytes_to_server: 0, bytes_to_client: 0, duration_nanos: 0 }
    }

    #[test]
    fn further_events_with_bytes_are_one_event_of_their_read() {
        let (up, mut evidence) = (Direction::ClientToServer, evidence(Level::RequestResponse));
        for stream in 0..100 {
            stray(&mut evidence, up, stream, b"ab");
        }
        let told = events(evidence.finish(up, 0, 1));
        assert_eq!(told.len() as u64, TOLD_MAX + 1);
        assert!(told[..16].iter().all(|(_, event)| event.count == 0 && event.payload_stored));
        let sum = &told[16].1;
        assert_eq!((sum.stream, sum.count, sum.payload_length, sum.payload_stored), (16, 84, 168, false));
        assert_eq!(sum.payload_sha256[..], Sha256::digest(b"ab".repeat(84))[..]);
        // The next read has its own.
        stray(&mut evidence, up, 7, b"c");
        let told = events(evidence.finish(up, 0, 2));
        assert_eq!((told.len(), told[0].1.count, told[0].1.payload_length), (1, 1, 1));
        assert_eq!(told[0].1.payload_sha256[..], Sha256::digest(b"c")[..]);
        assert!(events(evidence.close(ending(), 3)).is_empty(), "all is told");
    }

    #[test]
    fn further_events_without_bytes_wait_for_a_thousand_or_the_end() {
        let (up, down) = (Direction::ClientToServer, Direction::ServerToClient);
        let mut evidence = evidence(Level::RequestResponse);
        let mut counts = Vec::new();
        for (stream, direction) in (0..2_500).flat_map(|stream| [(stream, up), (stream, down)]) {
            stray(&mut evidence, direction, stream, b"");
            let told = events(evidence.finish(direction, 0, 1));
            counts.extend(told.into_iter().filter(|(of, _)| *of == up).map(|(_, event)| event.count));
        }
        let ones = [0; 16];
        assert_eq!(counts, [&ones[..], &[SUMMED_MAX, SUMMED_MAX]].concat());
        let told = events(evidence.close(ending(), 2));
        let told: Vec<_> = told.into_iter().map(|(direction, event)| (direction, event.count)).collect();
        assert_eq!(told, [(up, 484), (down, 484)], "each in its own direction");
    }

    #[test]
    fn below_the_level_that_stores_a_sum_has_a_length_alone() {
        let (up, mut evidence) = (Direction::ClientToServer, evidence(Level::Metadata));
        for stream in 0..18 {
            stray(&mut evidence, up, stream, b"secret");
        }
        let told = events(evidence.finish(up, 0, 1));
        let (_, sum) = told.last().unwrap();
        assert_eq!((sum.count, sum.payload_length, sum.payload_sha256.len()), (2, 12, 0));
    }
}
