//! What one connection has in common, whether it is relayed or answered here: its capture, its open calls, its evidence.

use super::answers::Answers;
use super::pipe::Pipe;
use super::{CommitPort, Options};
use crate::capture::{Connection, Direction, Ending, Failure, Ids, Observed, Side, Subject};
use crate::entry::{Body, CommitError, PendingEntry, Receipt, Submission};
use crate::generated::v1;
use crate::http2::{PREFACE, Prefix, code};
use bytes::Bytes;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;

/// One connection's state.
pub(super) struct Session<C: CommitPort> {
    pub(super) options: Rc<Options<C>>,
    pub(super) capture: Connection,
    pub(super) answers: Answers,
    /// The client's preface has passed.
    preface_passed: bool,
}

/// What was taken from a pipe's buffer.
pub(super) struct Taken {
    /// What may go on once the evidence is committed.
    pub(super) bytes: Bytes,
    /// Small DATA frames in it.
    pub(super) small_data: usize,
    pub(super) observed: Observed,
}

impl Taken {
    fn nothing(observed: Observed) -> Self {
        Self { bytes: Bytes::new(), small_data: 0, observed }
    }
}

/// How a connection came, and where it went.
pub(super) struct Opening {
    pub(super) client: SocketAddr,
    pub(super) listener: SocketAddr,
    pub(super) upstream: Option<SocketAddr>,
    /// Why it is answered here, where it is.
    pub(super) local_reason: String,
}

impl<C: CommitPort> Session<C> {
    pub(super) fn new(options: Rc<Options<C>>) -> Self {
        let mut ids = Ids::random();
        let subject = Subject { connection: ids.connection(), verified_peer: String::new() };
        let capture =
            Connection::new(subject, options.policy.clone(), options.limits, ids, options.counters.clone());
        Self { options, capture, answers: Answers::default(), preface_passed: false }
    }

    pub(super) fn now(&self) -> u64 {
        self.options.clock.unix_nanos()
    }

    /// Commits entries that no bytes wait for.
    pub(super) async fn commit(&mut self, submission: Submission) -> Result<Receipt, CommitError> {
        let mut port = self.options.port.clone();
        poll_fn(|cx| port.poll_ready(cx)).await?;
        port.call(submission).await
    }

    /// Commits that the connection is there: before the first byte of it goes on.
    pub(super) async fn opened(&mut self, opening: Opening) -> Result<Receipt, CommitError> {
        let body = v1::ConnectionOpened {
            connection: self.capture.id(),
            interception: v1::connection_opened::Interception::Fixed.into(),
            client_address: opening.client.to_string(),
            listener_address: opening.listener.to_string(),
            upstream: self.options.upstream.to_string(),
            upstream_address: opening.upstream.map(|address| address.to_string()).unwrap_or_default(),
            captured_unix_nanos: self.now(),
            local_reason: opening.local_reason,
            ..Default::default()
        };
        let entries = vec![PendingEntry::new(&Body::ConnectionOpened(body))];
        self.commit(Submission { entries, wire_bytes: 0 }).await
    }

    /// Commits the connection's end. A ledger that refuses has no place for it, and says so in its gap entry.
    pub(super) async fn closed(&mut self, reason: String, side: Side, to_server: u64, to_client: u64) {
        let ending = Ending {
            reason,
            side,
            bytes_to_server: to_server,
            bytes_to_client: to_client,
            duration_nanos: 0,
        };
        let now = self.now();
        let submission = self.capture.close(ending, now);
        if let Err(error) = self.commit(submission).await {
            tracing::debug!(%error, "the end of a connection is not in the ledger");
        }
    }

    /// Takes what the pipe has read as far as it consists of complete units, and observes it; `None` where more must be read first.
    pub(super) fn observe(&mut self, pipe: &mut Pipe<C>, direction: Direction) -> Option<Taken> {
        let room = pipe.small_data_room();
        pipe.set_waiting(room == 0 && !pipe.buffered().is_empty());
        if room == 0 {
            return None;
        }
        let now = self.now();
        if direction == Direction::ClientToServer && !self.preface_passed {
            return self.preface(pipe, now);
        }
        match self.capture.reader(direction).prefix(pipe.buffered(), room) {
            Ok(Prefix { len: 0, .. }) => None,
            Ok(Prefix { len, small_data }) => {
                let chunk = pipe.take(len);
                let observed = self.capture.observe(direction, &chunk, now);
                Some(Taken { bytes: chunk.slice(..observed.forward), small_data, observed })
            }
            Err(error) => Some(Taken::nothing(self.capture.refuse(direction, &error, now))),
        }
    }

    /// The client's first 24 bytes (RFC 9113 section 3.4). Another protocol shows at its first byte that differs.
    fn preface(&mut self, pipe: &mut Pipe<C>, now: u64) -> Option<Taken> {
        let length = pipe.buffered().len().min(PREFACE.len());
        if pipe.buffered()[..length] != PREFACE[..length] {
            let reason = "the client does not speak HTTP/2 (its first bytes are not the preface of RFC 9113 section 3.4)";
            let failure = Failure { code: code::PROTOCOL_ERROR, reason: reason.into() };
            return Some(Taken::nothing(self.capture.not_readable(Direction::ClientToServer, failure, now)));
        }
        if length < PREFACE.len() {
            return None;
        }
        self.preface_passed = true;
        let forward = PREFACE.len();
        let observed =
            Observed { submission: Submission::default(), forward, milestones: Vec::new(), failure: None };
        Some(Taken { bytes: pipe.take(forward), small_data: 0, observed })
    }

    /// Whether the client has shown that it speaks HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        self.preface_passed
    }
}
