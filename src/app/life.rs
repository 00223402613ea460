//! Where the process stands in its life, as probes ask for it: starting, ready, not ready and why, draining.
//!
//! Invariants: ready means started, not asked to drain, and a ledger that lets traffic pass; once draining it is never
//! ready again. Being ready is an answer to others and stops nothing here: that is the data path's drain. The ledger is
//! not tried out for an answer, since a probe would leave entries behind; a disk that fails is noticed by the next
//! commit. Over which protocol it is asked is in `admin`.

use crate::ledger::Health;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// The life of one process. Share it as an `Arc`.
#[derive(Default)]
pub struct Life {
    parts: OnceLock<Parts>,
    draining: AtomicBool,
}

/// What a started process is made of, as far as its readiness goes.
pub struct Parts {
    /// The ledger's state, without a hand on the ledger, whose end waits for every hand.
    pub health: Arc<Health>,
    /// How many connections to this pod's service are open, for each listener that takes some.
    pub inbound: Vec<watch::Receiver<usize>>,
}

/// Whether calls should be sent here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// They should.
    Ready,
    /// They should, as the operator wants it, although they leave no record now.
    Unrecorded(String),
    /// The ledger is not open yet, or nothing listens.
    Starting,
    /// The end is near; who comes all the same is still served.
    Draining,
    /// The ledger cannot commit, so nothing passes.
    Refusing(String),
}

impl Life {
    /// The process has started. A second start of the same life would be another process, and is passed over.
    pub fn started(&self, parts: Parts) {
        let _ = self.parts.set(parts);
    }

    /// Not ready from now on.
    pub fn drain(&self) {
        if !self.draining.swap(true, Ordering::AcqRel) {
            tracing::info!("not ready from now on: draining");
        }
    }

    /// Whether the start is over.
    pub fn has_started(&self) -> bool {
        self.parts.get().is_some()
    }

    /// Whether calls should be sent here.
    pub fn readiness(&self) -> Readiness {
        let Some(parts) = self.parts.get() else { return Readiness::Starting };
        if self.draining.load(Ordering::Acquire) {
            return Readiness::Draining;
        }
        match (parts.health.refusing(), parts.health.failing()) {
            (Some(reason), _) => Readiness::Refusing(reason),
            (None, Some(reason)) => Readiness::Unrecorded(reason),
            (None, None) => Readiness::Ready,
        }
    }

    /// Connections to this pod's service that are open now.
    pub fn inbound_open(&self) -> usize {
        self.parts.get().map_or(0, |parts| parts.inbound.iter().map(|open| *open.borrow()).sum())
    }

    /// Waits until no connection to this pod's service has been open for `pause`.
    pub async fn inbound_is_quiet(&self, pause: Duration) {
        quiet(self.parts.get().map(|parts| parts.inbound.clone()).unwrap_or_default(), pause).await;
    }
}

/// Waits until none of these listeners has had a connection for `pause`. One that came and went meanwhile counts:
/// others may follow it.
pub async fn quiet(mut listeners: Vec<watch::Receiver<usize>>, pause: Duration) {
    loop {
        for open in &mut listeners {
            // A listener that is gone has no connection.
            let _ = open.wait_for(|open| *open == 0).await;
        }
        sleep(pause).await;
        let is_still =
            |open: &watch::Receiver<usize>| !open.has_changed().unwrap_or(false) && *open.borrow() == 0;
        if listeners.iter().all(is_still) {
            return;
        }
    }
}

impl Readiness {
    /// The answer in one bit.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready | Self::Unrecorded(_))
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Unrecorded(reason) => {
                write!(f, "ready, but nothing is recorded (ledger.on_failure = \"forward\"): {reason}")
            }
            Self::Starting => f.write_str("not ready: starting"),
            Self::Draining => f.write_str("not ready: draining"),
            Self::Refusing(reason) => write!(f, "not ready: the ledger cannot commit: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Counters;
    use crate::ledger::OnFailure;

    fn life(on_failure: OnFailure) -> (Life, Arc<Health>, watch::Sender<usize>) {
        let health = Arc::new(Health::new(on_failure, Arc::new(Counters::default())));
        let (life, open) = (Life::default(), watch::Sender::new(0));
        assert_eq!((life.readiness(), life.has_started()), (Readiness::Starting, false));
        life.started(Parts { health: Arc::clone(&health), inbound: vec![open.subscribe()] });
        assert_eq!((life.readiness(), life.has_started()), (Readiness::Ready, true));
        (life, health, open)
    }

    #[test]
    fn readiness_follows_a_refusing_ledger_both_ways() {
        let (life, health, _open) = life(OnFailure::Refuse);
        health.fail("disk full".into(), 1);
        assert_eq!(life.readiness(), Readiness::Refusing("disk full".into()));
        assert!(!life.readiness().is_ready());
        health.recovered(2);
        assert_eq!(life.readiness(), Readiness::Ready);
    }

    #[test]
    fn a_ledger_that_forwards_stays_ready_and_says_so() {
        let (life, health, _open) = life(OnFailure::Forward);
        health.fail("disk full".into(), 1);
        assert!(life.readiness().is_ready());
        assert!(life.readiness().to_string().contains("disk full"), "{}", life.readiness());
    }

    #[test]
    fn a_drain_is_for_ever() {
        let (life, health, _open) = life(OnFailure::Refuse);
        life.drain();
        health.fail("disk full".into(), 1);
        health.recovered(2);
        life.drain();
        assert_eq!(life.readiness(), Readiness::Draining);
        assert!(life.has_started());
    }

    /// The clock stands still but for the waits themselves, so the times are exact.
    #[tokio::test(start_paused = true)]
    async fn quiet_begins_anew_with_each_connection_however_short() {
        let (life, _health, open) = life(OnFailure::Refuse);
        let (begun, at) = (tokio::time::Instant::now(), |seconds| sleep(Duration::from_secs(seconds)));
        open.send_replace(1);
        assert_eq!(life.inbound_open(), 1);
        tokio::join!(life.inbound_is_quiet(Duration::from_secs(4)), async {
            at(2).await;
            open.send_replace(0);
            at(1).await;
            open.send_replace(1);
            open.send_replace(0);
        });
        // Idle at 2, disturbed at 3, so the wait that ends at 6 is in vain and the next one is not.
        assert_eq!(begun.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_stays_is_not_quiet() {
        let (life, _health, open) = life(OnFailure::Refuse);
        open.send_replace(1);
        let quiet = tokio::time::timeout(Duration::from_mins(1), life.inbound_is_quiet(Duration::ZERO));
        assert!(quiet.await.is_err());
    }
}
