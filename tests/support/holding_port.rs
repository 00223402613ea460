//! A commit port that holds its receipts: it keeps every submission, decoded, and answers each one only when the test says so.
//!
//! Nothing here knows HTTP/2; what a submission covers is asked of its entries.
#![allow(dead_code, reason = "each test takes what it needs")]

use attestry::entry::{self, Body, CommitError, Receipt, Submission};
use attestry::generated::v1::Direction;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tower::Service;

/// The answer to a submission.
pub type Answer = Result<Receipt, CommitError>;

/// One submission, answered or not.
pub struct Held {
    /// Its entries' bodies, each with its payload.
    pub entries: Vec<(Body, Vec<u8>)>,
    pub wire_bytes: u64,
    answer: Option<oneshot::Sender<Answer>>,
}

impl Held {
    pub fn is_answered(&self) -> bool {
        self.answer.is_none()
    }

    /// The direction that it speaks of; `None` for what is about the whole connection.
    pub fn direction(&self) -> Option<Direction> {
        self.entries.iter().find_map(|(body, _)| match body {
            Body::CallEvents(call) => Some(call.direction()),
            Body::ConnectionEvents(connection) => Some(connection.direction()),
            _ => None,
        })
    }
}

/// The port. Clones share what they hold.
#[derive(Clone, Default)]
pub struct HoldingPort(Arc<Shared>);

#[derive(Default)]
struct Shared {
    held: Mutex<Vec<Held>>,
    changed: Condvar,
}

impl HoldingPort {
    /// All submissions so far, in the order in which they came.
    pub fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `enough` says so; false if it has not within `bound`.
    pub fn wait(&self, bound: Duration, mut enough: impl FnMut(&[Held]) -> bool) -> bool {
        let held = self.0.changed.wait_timeout_while(self.held(), bound, |held| !enough(held));
        enough(&held.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Answers submission number `number`. `noted` runs before the answer can be seen by anybody, while no other can be given.
    pub fn answer(&self, number: usize, answer: Answer, noted: impl FnOnce(&[Held])) {
        let mut held = self.held();
        let sender = held[number].answer.take().expect("a submission is answered once");
        noted(&held);
        // Whoever does not wait any more does not hear of it.
        let _ = sender.send(answer);
        self.0.changed.notify_all();
    }

    /// Answers it as a ledger does that has committed it.
    pub fn commit(&self, number: usize) {
        self.answer(number, Ok(Receipt::Committed { size: number as u64 + 1 }), |_| {});
    }
}

impl Service<Submission> for HoldingPort {
    type Response = Receipt;
    type Error = CommitError;
    type Future = Pending;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CommitError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, submission: Submission) -> Pending {
        let (sender, answer) = oneshot::channel();
        let decode = |pending: entry::PendingEntry| {
            let body = entry::decode(pending.body.into()).unwrap().body.unwrap();
            (body, pending.payload.concat())
        };
        let entries = submission.entries.into_iter().map(decode).collect();
        self.held().push(Held { entries, wire_bytes: submission.wire_bytes, answer: Some(sender) });
        self.0.changed.notify_all();
        Pending(answer)
    }
}

/// The answer to come.
pub struct Pending(oneshot::Receiver<Answer>);

impl Future for Pending {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(CommitError::Closed)))
    }
}
