//! Capture of what is not read: the first bytes of each direction by their digest, and how it ended.
//!
//! Invariants: no payload is ever stored, and every byte may go on; only the first chunk of a direction has evidence to wait for. How many bytes went each way
//! stands in the connection's last entry.

use super::evidence::Evidence;
use super::{Direction, Ending, Observed, Policy, Subject};
use crate::counters::Counters;
use crate::entry::Submission;
use bytes::Bytes;
use std::sync::Arc;

/// The capture of one opaque connection.
pub struct Opaque {
    evidence: Evidence,
    begun: Begun,
}

/// The directions whose first bytes have been seen.
#[derive(Default)]
pub(super) struct Begun {
    client: bool,
    server: bool,
}

impl Begun {
    /// Records the first chunk of a direction.
    pub(super) fn observe(&mut self, direction: Direction, chunk: &Bytes, evidence: &mut Evidence) {
        let begun = match direction {
            Direction::ServerToClient => &mut self.server,
            _ => &mut self.client,
        };
        if !chunk.is_empty() && !std::mem::replace(begun, true) {
            evidence.first_bytes(chunk);
        }
    }
}

impl Opaque {
    /// A connection before its first byte.
    pub fn new(subject: Subject, policy: Policy, counters: Arc<Counters>) -> Self {
        Self { evidence: Evidence::new(subject, policy, counters), begun: Begun::default() }
    }

    /// The connection's id in the ledger.
    pub fn connection(&self) -> u64 {
        self.evidence.connection()
    }

    /// Bytes at the beginning of `buffered` that can be observed now: all of them.
    pub fn prefix(&mut self, _: Direction, buffered: &[u8]) -> usize {
        buffered.len()
    }

    /// Observes a chunk that the sender of `direction` has sent.
    pub fn observe(&mut self, direction: Direction, chunk: &Bytes, now_unix_nanos: u64) -> Observed {
        self.begun.observe(direction, chunk, &mut self.evidence);
        let forward = chunk.len();
        let submission = self.evidence.finish(direction, forward as u64, now_unix_nanos);
        Observed { submission, forward, milestones: Vec::new(), failure: None }
    }

    /// The sender of `direction` has ended; `rest` is what it sent last, if that was not observed yet.
    pub fn sender_ended(&mut self, direction: Direction, rest: &Bytes, now_unix_nanos: u64) -> Observed {
        self.observe(direction, rest, now_unix_nanos)
    }

    /// There are no calls to answer.
    pub fn answered(&mut self, _: &[u32], _: &str, _: u64) -> Submission {
        Submission::default()
    }

    /// The connection's last evidence.
    pub fn close(&mut self, ending: Ending, now_unix_nanos: u64) -> Submission {
        self.evidence.close(ending, now_unix_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Level, Redactor, Side};
    use crate::entry::{Body, decode};
    use crate::generated::v1::{self, connection_event::Type};
    use sha2::{Digest as _, Sha256};

    fn events(submission: Submission) -> Vec<(Direction, v1::ConnectionEvent)> {
        let mut events = Vec::new();
        for pending in submission.entries {
            assert!(pending.payload.is_empty(), "nothing opaque is stored");
            if let Some(Body::ConnectionEvents(body)) = decode(pending.body.into()).unwrap().body {
                let direction = body.direction();
                events.extend(body.events.into_iter().map(|event| (direction, event)));
            }
        }
        events
    }

    #[test]
    fn the_first_chunk_of_each_direction_has_its_digest_and_the_rest_no_evidence() {
        let subject = Subject { connection: 9, verified_peer: String::new() };
        let policy = Policy { level: Level::RequestResponse, redactor: Redactor::new(&[0; 32]) };
        let mut opaque = Opaque::new(subject, policy, Arc::new(Counters::default()));
        for direction in [Direction::ServerToClient, Direction::ClientToServer] {
            let chunk = Bytes::from_static(b"220 ready");
            assert_eq!(opaque.prefix(direction, &chunk), chunk.len());
            let observed = opaque.observe(direction, &chunk, 5);
            assert_eq!((observed.forward, observed.submission.wire_bytes), (9, 9));
            let found = events(observed.submission);
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].0, found[0].1.r#type()), (direction, Type::FirstBytes));
            assert_eq!((found[0].1.payload_length, found[0].1.payload_stored), (9, false));
            assert_eq!(found[0].1.payload_sha256[..], Sha256::digest(&chunk)[..]);
            assert!(opaque.observe(direction, &chunk, 6).submission.entries.is_empty());
            assert!(opaque.sender_ended(direction, &Bytes::new(), 7).submission.entries.is_empty());
        }
        let ending = Ending {
            reason: "closed by the client".into(),
            side: Side::Client,
            bytes_to_server: 18,
            bytes_to_client: 18,
            duration_nanos: 3,
        };
        let entries = opaque.close(ending, 8).entries;
        let Some(Body::ConnectionClosed(closed)) = decode(entries[0].body.clone().into()).unwrap().body
        else {
            panic!("an end");
        };
        assert_eq!((entries.len(), closed.connection, closed.bytes_to_client, closed.calls), (1, 9, 18, 0));
    }
}
