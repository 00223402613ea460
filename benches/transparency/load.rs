//! The load of one run: a blocking thread for each connection, and what they saw in the window between warm-up and end.
//!
//! A run in which anything but the right answers came is an error, never a number.

use super::cases::{Case, Doing};
use super::figures::quantile;
use super::talks::{self, Dial};
use anyhow::{Context as _, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at whether all clients have begun.
const PAUSE: Duration = Duration::from_millis(1);

/// One run.
pub(super) struct Load<'a> {
    pub(super) case: &'a Case,
    pub(super) dial: Dial,
    pub(super) warm_up: Duration,
    pub(super) window: Duration,
}

/// What was seen in the window.
pub(super) struct Seen {
    pub(super) exchanges_per_s: f64,
    /// `None` for bulk transfers, which nobody waits for.
    pub(super) latency: Option<Latency>,
}

/// From the first byte sent to the last one received.
#[derive(Clone, Copy)]
pub(super) struct Latency {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// What all clients of a run share.
#[derive(Default)]
struct Progress {
    done: AtomicU64,
    is_window: AtomicBool,
    is_over: AtomicBool,
}

/// What one client has done.
pub(super) struct Tally {
    progress: Arc<Progress>,
    latencies_ns: Vec<u64>,
}

impl Tally {
    /// Counts `exchanges` that have ended, the last of which had begun at `begun`.
    pub(super) fn done(&mut self, begun: Instant, exchanges: u64) {
        self.progress.done.fetch_add(exchanges, Ordering::Relaxed);
        if self.progress.is_window.load(Ordering::Relaxed) {
            self.latencies_ns.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

impl Load<'_> {
    /// Runs it; `sample` is called at the beginning and at the end of the window, with the number of exchanges so far.
    pub(super) fn run<T>(&self, sample: impl Fn(u64) -> anyhow::Result<T>) -> anyhow::Result<(Seen, [T; 2])> {
        let progress = Arc::new(Progress::default());
        let (edges, latencies) = thread::scope(|scope| {
            let clients: Vec<_> = (0..self.case.connections)
                .map(|_| scope.spawn(|| self.client(Arc::clone(&progress))))
                .collect();
            // One that has ended has failed, and the others need not begin any more.
            let goes_on = || !clients.iter().any(thread::ScopedJoinHandle::is_finished);
            let edges = self.watch(&progress, goes_on, sample);
            progress.is_over.store(true, Ordering::Relaxed);
            let ended = clients.into_iter().map(|client| client.join().expect("clients do not panic"));
            (edges, ended.collect::<anyhow::Result<Vec<_>>>())
        });
        // What a client has met says more than what it did not do.
        let mut latencies_ns = latencies?.concat();
        let [(begin, done_before, first), (end, done, last)] = edges?;
        ensure!(done > done_before && !latencies_ns.is_empty(), "no exchange in the window");
        latencies_ns.sort_unstable();
        let us = |share| quantile(&latencies_ns, share) / 1e3;
        let is_waited_for = self.case.doing != Doing::Bulk;
        let seen = Seen {
            exchanges_per_s: (done - done_before) as f64 / (end - begin).as_secs_f64(),
            latency: is_waited_for.then(|| Latency { p50_us: us(0.5), p99_us: us(0.99) }),
        };
        Ok((seen, [first, last]))
    }

    /// The edges of the window: when, after how many exchanges, and what `sample` says there. It begins after the warm-up, and not before there was an exchange for each client.
    fn watch<T>(
        &self,
        progress: &Progress,
        goes_on: impl Fn() -> bool,
        sample: impl Fn(u64) -> anyhow::Result<T>,
    ) -> anyhow::Result<[(Instant, u64, T); 2]> {
        let edge = || {
            let done = progress.done.load(Ordering::Relaxed);
            anyhow::Ok((Instant::now(), done, sample(done)?))
        };
        thread::sleep(self.warm_up);
        while goes_on() && progress.done.load(Ordering::Relaxed) < self.case.connections as u64 {
            thread::sleep(PAUSE);
        }
        let begin = edge()?;
        progress.is_window.store(true, Ordering::Relaxed);
        thread::sleep(self.window);
        progress.is_window.store(false, Ordering::Relaxed);
        Ok([begin, edge()?])
    }

    /// One connection's client, until the run is over.
    fn client(&self, progress: Arc<Progress>) -> anyhow::Result<Vec<u64>> {
        let mut tally = Tally { progress, latencies_ns: Vec::new() };
        let mut talk = talks::begin(self.case, &self.dial).context("a client cannot begin")?;
        while !tally.progress.is_over.load(Ordering::Relaxed) {
            talk.turn(&mut tally)?;
        }
        Ok(tally.latencies_ns)
    }
}
