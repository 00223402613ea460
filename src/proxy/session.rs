//! What one connection has in common, whatever it speaks and whoever answers it: its identity, its capture, its open calls, its evidence.

use super::answers::{Answers, Dialect};
use super::pipe::Pipe;
use super::route::Role;
use super::talk::Talk;
use super::{CommitPort, Options};
use crate::capture::{
    Connection, Direction, Ending, Failure, Http1, Ids, Milestone, Observed, OnUnreadable, Opaque, Side,
    Subject,
};
use crate::entry::{Body, CommitError, PendingEntry, Receipt, Submission};
use crate::generated::v1::{self, WireProtocol, connection_event};
use crate::http2::{Scheme, code};
use bytes::Bytes;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// One connection's state.
pub(super) struct Session<C: CommitPort> {
    pub(super) options: Rc<Options<C>>,
    pub(super) role: Arc<Role>,
    pub(super) answers: Answers,
    ids: Option<Ids>,
    subject: Subject,
    accepted: Instant,
    /// What was found out about the connection and no entry says yet.
    facts: Vec<v1::ConnectionEvent>,
    /// `None` until the protocol is known.
    talk: Option<Talk>,
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
    pub(super) fn nothing(observed: Observed) -> Self {
        Self { bytes: Bytes::new(), small_data: 0, observed }
    }
}

/// How a connection came, and where it went.
pub(super) struct Opening {
    pub(super) client: SocketAddr,
    pub(super) listener: SocketAddr,
    pub(super) original: Option<SocketAddr>,
    pub(super) upstream: String,
    pub(super) connected: Option<SocketAddr>,
    /// Why it is answered here, where it is.
    pub(super) local_reason: String,
}

impl<C: CommitPort> Session<C> {
    pub(super) fn new(options: Rc<Options<C>>, role: Arc<Role>) -> Self {
        let mut ids = Ids::random();
        let subject = Subject { connection: ids.connection(), verified_peer: String::new() };
        Self {
            options,
            role,
            answers: Answers::default(),
            ids: Some(ids),
            subject,
            accepted: Instant::now(),
            facts: Vec::new(),
            talk: None,
        }
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

    /// Submits that the connection is there. The first byte of it goes on when that has its receipt, and not before; what is submitted meanwhile stands behind it in
    /// the queue.
    pub(super) async fn opened(&mut self, opening: Opening) -> Result<C::Future, CommitError> {
        let text = |address: Option<SocketAddr>| address.map(|a| a.to_string()).unwrap_or_default();
        let body = v1::ConnectionOpened {
            connection: self.subject.connection,
            interception: self.role.route.interception().into(),
            traffic: self.role.traffic.into(),
            client_address: opening.client.to_string(),
            listener_address: opening.listener.to_string(),
            original_destination: text(opening.original),
            upstream: opening.upstream,
            upstream_address: text(opening.connected),
            captured_unix_nanos: self.now(),
            local_reason: opening.local_reason,
        };
        let entries = vec![PendingEntry::new(&Body::ConnectionOpened(body))];
        let mut port = self.options.port.clone();
        poll_fn(|cx| port.poll_ready(cx)).await?;
        Ok(port.call(Submission { entries, wire_bytes: 0 }))
    }

    /// Notes something about the connection; it is committed with, and before, the first evidence of what is said on it.
    pub(super) fn note(&mut self, fact: v1::ConnectionEvent) {
        self.facts.push(fact);
    }

    /// Notes one side's TLS; a client that it has verified stands in each entry from here on.
    pub(super) fn note_tls(&mut self, tls: v1::Tls) {
        if let Some(peer) = tls.verified_peer.as_ref().filter(|_| tls.side() == Side::Client) {
            self.subject.verified_peer = name_of(peer);
        }
        let kind = connection_event::Type::Tls.into();
        self.note(v1::ConnectionEvent { r#type: kind, tls: Some(tls), ..Default::default() });
    }

    /// Says what is spoken from here on, and how that was found; and, of HTTP/2, what requests are to say if not what the client says.
    pub(super) fn begin(&mut self, protocol: WireProtocol, reason: String, scheme: Option<Scheme>) {
        let kind = connection_event::Type::Protocol.into();
        self.note(v1::ConnectionEvent {
            r#type: kind,
            protocol: protocol.into(),
            reason,
            ..Default::default()
        });
        let ids = self.ids.take().unwrap_or_else(Ids::random);
        let options = &self.options;
        let (subject, policy, limits, counters) =
            (self.subject.clone(), options.policy.clone(), options.limits, Arc::clone(&options.counters));
        self.talk = Some(match protocol {
            WireProtocol::Http2 => {
                Talk::http2(Connection::new(subject, policy, limits, ids, counters), scheme)
            }
            WireProtocol::Http1 => {
                let capture = Http1::new(subject, policy, limits, ids, counters, options.on_unreadable);
                Talk::Http1(Box::new(capture))
            }
            _ => Talk::Opaque(Box::new(Opaque::new(subject, policy, counters))),
        });
        self.answers = Answers::of(match protocol {
            WireProtocol::Http2 => Dialect::Http2,
            WireProtocol::Http1 => Dialect::Http1,
            _ => Dialect::Opaque,
        });
    }

    /// Notes that what was said cannot be read.
    pub(super) fn note_unreadable(&mut self, reason: String) {
        let kind = connection_event::Type::NotReadable.into();
        self.note(v1::ConnectionEvent { r#type: kind, reason, ..Default::default() });
    }

    /// What could not be read goes no further.
    fn refused(&mut self, direction: Direction, reason: &str, now: u64) -> Observed {
        let mut submission = Submission::default();
        self.say_facts(&mut submission, direction, now);
        let failure = Some(Failure { code: code::PROTOCOL_ERROR, reason: reason.to_owned() });
        Observed { submission, forward: 0, milestones: Vec::new(), failure }
    }

    /// Commits the connection's end. A ledger that refuses has no place for it, and says so in its gap entry.
    pub(super) async fn closed(&mut self, reason: String, side: Side, to_server: u64, to_client: u64) {
        let duration_nanos = u64::try_from(self.accepted.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let ending =
            Ending { reason, side, bytes_to_server: to_server, bytes_to_client: to_client, duration_nanos };
        let now = self.now();
        let mut submission = self.talk().close(ending, now);
        self.say_facts(&mut submission, Direction::ClientToServer, now);
        if let Err(error) = self.commit(submission).await {
            tracing::debug!(%error, "the end of a connection is not in the ledger");
        }
    }

    /// Bytes that the buffer must have room for.
    pub(super) fn bytes_wanted(&mut self, direction: Direction, buffered: &[u8]) -> usize {
        self.talk().bytes_wanted(direction, buffered)
    }

    /// Takes what the pipe has read as far as it can be observed, and observes it; `None` where more must be read first.
    pub(super) fn observe(&mut self, pipe: &mut Pipe<C>, direction: Direction) -> Option<Taken> {
        let now = self.now();
        if self.talk().contradicts(direction, pipe.buffered()) {
            let reason = "the server speaks HTTP/2, and the client's first bytes are not its preface";
            self.note_unreadable(reason.into());
            if self.options.on_unreadable == OnUnreadable::Refuse {
                return Some(Taken::nothing(self.refused(direction, reason, now)));
            }
            self.begin(WireProtocol::Opaque, reason.into(), None);
        }
        let mut taken = self.talk().take(pipe, direction, now)?;
        // Until there is evidence, all that is said is what the protocol itself demands.
        if !taken.observed.submission.entries.is_empty() {
            self.say_facts(&mut taken.observed.submission, direction, now);
        }
        Some(taken)
    }

    /// The sender of `direction` has ended, and left `rest` unfinished.
    pub(super) fn sender_ended(
        &mut self,
        direction: Direction,
        rest: &Bytes,
    ) -> (Submission, Vec<Milestone>) {
        let now = self.now();
        let Observed { mut submission, milestones, .. } = self.talk().sender_ended(direction, rest, now);
        if !submission.entries.is_empty() {
            self.say_facts(&mut submission, direction, now);
        }
        (submission, milestones)
    }

    /// Records that attestry answers these calls itself.
    pub(super) fn answered(&mut self, streams: &[u32], reason: &str) -> Submission {
        let now = self.now();
        self.talk().answered(streams, reason, now)
    }

    /// Whether the client has shown that it speaks HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        matches!(self.talk, Some(Talk::Http2 { preface_passed: true, .. }))
    }

    /// Whether nothing is known of what is said, so that nothing can be answered.
    pub(super) fn speaks_opaque(&self) -> bool {
        self.answers.dialect() == Dialect::Opaque
    }

    /// A connection that ends before its protocol is known ends as an opaque one without bytes.
    fn talk(&mut self) -> &mut Talk {
        let (subject, options) = (&self.subject, &self.options);
        let opaque = || Opaque::new(subject.clone(), options.policy.clone(), Arc::clone(&options.counters));
        self.talk.get_or_insert_with(|| Talk::Opaque(Box::new(opaque())))
    }

    fn say_facts(&mut self, submission: &mut Submission, direction: Direction, now: u64) {
        if self.facts.is_empty() {
            return;
        }
        let body = v1::ConnectionEvents {
            connection: self.subject.connection,
            direction: direction.into(),
            captured_unix_nanos: now,
            events: std::mem::take(&mut self.facts),
        };
        submission.entries.insert(0, PendingEntry::new(&Body::ConnectionEvents(body)));
    }
}

/// How an entry names a verified peer in a few words.
fn name_of(peer: &v1::VerifiedPeer) -> String {
    if !peer.spiffe_id.is_empty() {
        return peer.spiffe_id.clone();
    }
    let digest = peer.certificate_sha256.iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", digest.collect::<String>())
}
