//! A connection of which one side has ended in good order, and the other goes on.
//!
//! The side that has ended may be gone since without a word: NAT forgets half-closed connections after a while, and then their last FIN or reset goes nowhere. So the
//! half that goes on may be silent for so long and no longer, and a reset is noticed although nothing is read or written on that side any more.

use super::link::Link;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// What is watched.
pub(super) struct HalfClosed<'a> {
    timeout: Duration,
    silent: Pin<Box<Sleep>>,
    broken: Pin<Box<dyn Future<Output = ()> + 'a>>,
}

impl<'a> HalfClosed<'a> {
    /// `ended` has ended now.
    pub(super) fn new(ended: &'a Link, timeout: Duration) -> Self {
        Self { timeout, silent: Box::pin(sleep(timeout)), broken: Box::pin(ended.broken()) }
    }

    /// Something has moved.
    pub(super) fn moved(&mut self) {
        self.silent.as_mut().reset(Instant::now() + self.timeout);
    }

    /// Why the connection is over, once it is. What was said before the end is said first: until `all_said`, a reset changes nothing.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, all_said: bool) -> Poll<&'static str> {
        if all_said && self.broken.as_mut().poll(cx).is_ready() {
            return Poll::Ready("reset behind its end");
        }
        self.silent.as_mut().poll(cx).map(|()| "half-closed and silent (tcp.half_close_timeout_ms)")
    }
}
