//! One timer for all that a handle waits for.
//!
//! A timer for each submission would be set and cleared within a fraction of a millisecond, and setting the earliest one wakes the runtime by two system calls. This
//! one stays set when what it was set for has come, and is set again only where it fires too early for what is waited for by then.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};

/// The timer; clones are the same one. All that wait by it are of one task, since it wakes only who asked last.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<Mutex<Option<Pin<Box<Sleep>>>>>);

impl Patience {
    /// Ready when `deadline` has passed.
    pub fn poll_over(&self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        if timer.deadline() < deadline {
            timer.as_mut().reset(deadline);
            ready!(timer.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn each_deadline_is_met_whatever_the_timer_was_set_to_before() {
        let patience = Patience::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (first, then) in [(5, 2), (6, 9), (11, 12)] {
            // What is asked first comes early, so nobody waits for it to the end.
            assert_eq!(poll_fn(|cx| Poll::Ready(patience.poll_over(at(first), cx))).await, Poll::Pending);
            poll_fn(|cx| patience.poll_over(at(then), cx)).await;
            assert!(Instant::now() >= at(then) && Instant::now() < at(then) + Duration::from_millis(10));
        }
    }
}
