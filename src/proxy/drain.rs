//! Where one connection stands in a drain: asked to end, ending, or told so for the last time.

use super::stack::DrainSignals;
use crate::limits::{DRAIN_PATIENCE_MS, DRAIN_QUIET_MS};
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// The state, which the relay advances when it is due.
pub(super) enum Drain {
    /// Nobody has asked.
    No(Pin<Box<WaitForCancellationFutureOwned>>),
    /// The client has a GOAWAY; its calls go on until they end or the time is over.
    Asked {
        since: Instant,
        expired: Pin<Box<WaitForCancellationFutureOwned>>,
        quiet: Option<Pin<Box<Sleep>>>,
    },
    /// The last GOAWAY is on its way.
    Done,
}

impl Drain {
    pub(super) fn new(signals: &DrainSignals) -> Self {
        Self::No(Box::pin(signals.started.clone().cancelled_owned()))
    }

    /// Asked to end from now on.
    pub(super) fn asked(signals: &DrainSignals) -> Self {
        let expired = Box::pin(signals.expired.clone().cancelled_owned());
        Self::Asked { since: Instant::now(), expired, quiet: None }
    }

    /// Ready when the next state is due. `is_idle`: no call is open, and nothing is on its way.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, is_idle: bool) -> Poll<()> {
        match self {
            Self::No(started) => started.as_mut().poll(cx),
            Self::Asked { since, expired, quiet } => {
                if expired.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if !is_idle {
                    *quiet = None;
                    return Poll::Pending;
                }
                // A client that never pauses is left between two calls, before the time is over in the middle of one.
                if since.elapsed() >= Duration::from_millis(DRAIN_PATIENCE_MS) {
                    return Poll::Ready(());
                }
                let pause = Duration::from_millis(DRAIN_QUIET_MS);
                quiet.get_or_insert_with(|| Box::pin(sleep(pause))).as_mut().poll(cx)
            }
            Self::Done => Poll::Pending,
        }
    }
}
