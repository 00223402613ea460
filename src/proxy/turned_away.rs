//! Connections that are turned away: what their clients are told, and what the ledger is.
//!
//! A client is told in its own protocol, so that its calls end with UNAVAILABLE and a reason; the number of those who are being told is bounded, and the others get a reset,
//! which costs next to nothing and which clients of gRPC take for UNAVAILABLE as well. Nothing of such a connection is captured: a flood of them makes one
//! entry for each reason and interval, which sums them up, not one each.

use super::answers::{Answers, Dialect, unavailable_http1};
use super::detect::{Bounds, Early, Found, ServerFirst, detect};
use super::link::Link;
use super::local::linger;
use super::stack::DrainSignals;
use crate::capture::Milestone;
use crate::entry::{Body, PendingEntry, Submission};
use crate::generated::v1::{self, notice};
use crate::grpc::is_grpc_content_type;
use crate::http2::{PREFACE, Unit, UnitBody, UnitError, UnitLimits, UnitReader, code, frame};
use crate::limits::{TURN_AWAY_MS, TURNED_AWAY_PLACES};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Room for each read of what a client asks that is turned away.
const READ_BYTES: usize = 4 * 1024;

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// All places for connections are taken.
    Connections,
    /// All places for handshakes are.
    Handshakes,
    /// It goes nowhere.
    Way,
}

/// What has not been said in the ledger yet.
#[derive(Debug)]
pub struct TurnedAway {
    sums: Mutex<BTreeMap<Why, v1::Notice>>,
    places: Arc<Semaphore>,
}

impl Default for TurnedAway {
    fn default() -> Self {
        Self { sums: Mutex::default(), places: Arc::new(Semaphore::new(TURNED_AWAY_PLACES)) }
    }
}

impl TurnedAway {
    /// One more. Of each sum the first reason stands, as an example.
    pub(super) fn add(&self, why: Why, reason: impl FnOnce() -> String, now_unix_nanos: u64) {
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let notice = sums.entry(why).or_insert_with(|| v1::Notice {
            r#type: notice::Type::TurnedAway.into(),
            reason: reason(),
            count: 0,
            from_unix_nanos: now_unix_nanos,
            to_unix_nanos: now_unix_nanos,
        });
        notice.count += 1;
        notice.to_unix_nanos = now_unix_nanos;
    }

    /// A place for telling a client in words; where there is none, it gets a reset.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Whether there is such a place now.
    pub(super) fn has_place(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// What is to be said now, if anything.
    pub(super) fn take(&self) -> Option<Submission> {
        let sums = std::mem::take(&mut *self.sums.lock().unwrap_or_else(PoisonError::into_inner));
        let entries: Vec<_> =
            sums.into_values().map(|notice| PendingEntry::new(&Body::Notice(notice))).collect();
        (!entries.is_empty()).then_some(Submission { entries, wire_bytes: 0 })
    }
}

/// What a client that is turned away has to keep to.
pub(super) struct Terms<'a> {
    pub(super) detect: Bounds,
    pub(super) units: UnitLimits,
    pub(super) drain: &'a DrainSignals,
}

/// Tells a client why there is no room, if it shows soon what it speaks: calls that it has made by then, or makes once it is greeted, end with UNAVAILABLE.
pub(super) async fn tell(client: Link, terms: &Terms<'_>, reason: &str) {
    let mut early = Early::default();
    let bounds = Bounds { timeout: TURN_AWAY, ..terms.detect };
    let found = detect(&client, None, ServerFirst::Decides, &mut early, bounds, terms.drain).await;
    match found {
        Found::Http2 { .. } => refuse_http2(&client, early.client, terms, reason).await,
        Found::Http1 => write(&client, &unavailable_http1(reason)),
        Found::Tls(_) | Found::Opaque(_) | Found::Drained | Found::Broken { .. } => return client.reset(),
    }
    linger(client.tcp()).await;
}

const TURN_AWAY: Duration = Duration::from_millis(TURN_AWAY_MS);

/// Most clients of gRPC make their call when they have the server's SETTINGS, so these come first, and the answer is to what comes then. A client that asks nothing learns
/// from GOAWAY that none of its streams will be processed (RFC 9113 section 6.8): REFUSED_STREAM is what all implementations make UNAVAILABLE of.
async fn refuse_http2(client: &Link, early: BytesMut, terms: &Terms<'_>, reason: &str) {
    let mut calls = Calls::new(early, terms);
    write(client, &calls.answers.preamble());
    let _ = timeout(TURN_AWAY, calls.come(client)).await;
    let mut words = calls.replies;
    let code = if calls.answers.is_idle() { code::REFUSED_STREAM } else { code::NO_ERROR };
    words.extend(calls.answers.answer_all(reason));
    words.extend(calls.answers.goaway_finally(code, reason));
    write(client, &words);
}

/// A fresh socket takes these few bytes whole; a client that is gone misses nothing.
fn write(client: &Link, bytes: &[u8]) {
    let _ = client.try_write_vectored(&[IoSlice::new(bytes)]);
}

/// What a client asks that is turned away.
struct Calls {
    buffer: BytesMut,
    bytes_max: usize,
    reader: UnitReader,
    answers: Answers,
    /// What SETTINGS and PING are answered with.
    replies: Vec<u8>,
}

impl Calls {
    fn new(mut early: BytesMut, terms: &Terms<'_>) -> Self {
        let buffer = early.split_off(PREFACE.len().min(early.len()));
        let (reader, answers) = (UnitReader::new(terms.units), Answers::of(Dialect::Http2));
        Self { buffer, bytes_max: terms.detect.bytes_max, reader, answers, replies: Vec::new() }
    }

    /// Reads until a call has come. Ends as well where none can come any more.
    async fn come(&mut self, client: &Link) {
        while self.take().is_ok() && self.answers.is_idle() && self.buffer.len() < self.bytes_max {
            poll_fn(|cx| client.poll_read_ready(cx)).await;
            self.buffer.reserve(READ_BYTES);
            match client.try_read(&mut self.buffer) {
                Ok(0) => return,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    }

    /// Takes what is there in whole units.
    fn take(&mut self) -> Result<(), UnitError> {
        let whole = self.reader.complete_len(&self.buffer)?;
        let (chunk, mut at): (Bytes, _) = (self.buffer.split_to(whole).freeze(), 0);
        while let Some(Unit { stream, body }) = self.reader.next(&chunk, &mut at)? {
            match body {
                UnitBody::Headers { fields, .. } => {
                    let is_grpc = fields
                        .iter()
                        .any(|field| field.name == "content-type" && is_grpc_content_type(&field.value));
                    self.answers.apply(Milestone::Opened { stream, is_grpc });
                }
                UnitBody::Settings { .. } => self.replies.extend(frame::settings_ack()),
                UnitBody::Ping { ack: false, opaque } => self.replies.extend(frame::ping(true, opaque)),
                _ => {}
            }
        }
        Ok(())
    }
}
