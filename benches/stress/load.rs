//! Load at a rate that does not depend on the answers, and what was seen of it.
//!
//! Calls are begun when they are due, however many are open: a slow answer delays no other call, and its whole wait is counted.

use super::client::{Client, Ended};
use super::figures::quantile;
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Between two looks at the clock: calls that are due by then are begun.
const TICK: Duration = Duration::from_millis(2);

/// Failures that are told; the others are counted.
const TOLD_MAX: usize = 5;

/// What was seen, of all clients together.
#[derive(Debug, Default)]
pub(super) struct Tally {
    seen: Mutex<Seen>,
    /// Calls that were begun.
    pub(super) begun: AtomicU64,
}

/// What was seen of the calls that have ended.
#[derive(Debug, Default)]
pub(super) struct Seen {
    latencies_us: Vec<u64>,
    /// Calls that were not answered as they must be.
    pub(super) failures: u64,
    /// The first of them.
    pub(super) told: Vec<String>,
}

impl Tally {
    /// One that was begun at `begun` has ended.
    pub(super) fn ended(&self, begun: Instant, ended: &Ended) {
        let latency_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(ended, Ended::Answered) {
            return seen.latencies_us.push(latency_us);
        }
        seen.failures += 1;
        if seen.told.len() < TOLD_MAX {
            seen.told.push(format!("{ended:?}"));
        }
    }

    pub(super) fn begin(&self) -> Instant {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Instant::now()
    }

    /// What was seen since the last time; the latencies are sorted.
    pub(super) fn take(&self) -> Seen {
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        seen.latencies_us.sort_unstable();
        seen
    }
}

impl Seen {
    pub(super) fn answered(&self) -> usize {
        self.latencies_us.len()
    }

    /// What was seen of others too, for its numbers.
    pub(super) fn add(&mut self, other: Self) {
        self.latencies_us.extend(other.latencies_us);
        self.latencies_us.sort_unstable();
        self.failures += other.failures;
        self.told.extend(other.told);
    }

    /// In milliseconds.
    pub(super) fn latency_ms(&self, share: f64) -> f64 {
        quantile(&self.latencies_us, share) / 1e3
    }
}

/// `p50 · p99`, in milliseconds.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} · {:.2}", self.latency_ms(0.5), self.latency_ms(0.99))
    }
}

/// Unary calls at a rate, over so many connections.
pub(super) struct Rate {
    pub(super) connections: u32,
    pub(super) calls_per_s: u32,
    pub(super) message: Bytes,
}

impl Rate {
    /// Connects, and calls for as long as both take; what is seen is what ends in `window`, which begins after `settling`. Returns when the last call has ended: the failures are those of
    /// the whole time.
    pub(super) async fn run(&self, address: SocketAddr, settling: Duration, window: Duration) -> Seen {
        let tally = Arc::new(Tally::default());
        let mut clients = JoinSet::new();
        let per_client = f64::from(self.calls_per_s) / f64::from(self.connections);
        for number in 0..self.connections {
            let (tally, message) = (Arc::clone(&tally), self.message.clone());
            // Not all at the same moment.
            let delay = TICK * number / self.connections;
            clients.spawn(async move {
                tokio::time::sleep(delay).await;
                match Client::connect(address).await {
                    Ok(client) => at_a_rate(&client, &message, per_client, settling + window, &tally).await,
                    Err(ended) => tally.ended(Instant::now(), &ended),
                }
            });
        }
        tokio::time::sleep(settling).await;
        let before = tally.take();
        tokio::time::sleep(window).await;
        let mut seen = tally.take();
        clients.join_all().await;
        for outside in [before, tally.take()] {
            seen.failures += outside.failures;
            seen.told.extend(outside.told);
        }
        seen
    }
}

async fn at_a_rate(client: &Client, message: &Bytes, calls_per_s: f64, length: Duration, tally: &Arc<Tally>) {
    let (mut ticks, mut calls, start) = (interval(TICK), JoinSet::new(), Instant::now());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut so_far = 0;
    while start.elapsed() < length {
        ticks.tick().await;
        let due = (start.elapsed().as_secs_f64() * calls_per_s) as u64;
        for _ in so_far..due {
            let (client, message, tally) = (client.clone(), message.clone(), Arc::clone(tally));
            let begun = tally.begin();
            calls.spawn(async move { tally.ended(begun, &client.unary(&message).await) });
        }
        so_far = due;
        while calls.try_join_next().is_some() {}
    }
    calls.join_all().await;
}

/// Unary calls without a pause, so many at a time on each connection.
pub(super) async fn saturate(
    address: SocketAddr,
    connections: u32,
    streams: u32,
    message: &Bytes,
    length: Duration,
) -> Seen {
    let (tally, mut callers, start) = (Arc::new(Tally::default()), JoinSet::new(), Instant::now());
    for _ in 0..connections {
        let client = match Client::connect(address).await {
            Ok(client) => client,
            Err(ended) => {
                tally.ended(start, &ended);
                continue;
            }
        };
        for _ in 0..streams {
            let (client, message, tally) = (client.clone(), message.clone(), Arc::clone(&tally));
            callers.spawn(async move {
                while start.elapsed() < length {
                    let begun = tally.begin();
                    tally.ended(begun, &client.unary(&message).await);
                }
            });
        }
    }
    callers.join_all().await;
    tally.take()
}
