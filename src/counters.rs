//! The running totals of the process: what was accepted, relayed, committed and refused.
//!
//! Invariants: every counter only grows, a gauge says how many there are now, and each is one relaxed atomic: a
//! snapshot is exact once the process is at rest, and never slows the data path. Names are the ones that metrics show.
//! Export is not here: whoever serves metrics calls `Counters::snapshot`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A total that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The total so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number of things that exist now. Each `enter` is paired with one `leave`.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more exists.
    pub fn enter(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One of those that entered is gone.
    pub fn leave(&self) {
        let before = self.0.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "a gauge was left more often than entered");
    }

    /// How many exist now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $kind:ident,)*) => {
        /// All totals of one process. Share it as an `Arc`.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: $kind,)*
        }

        impl Counters {
            /// Every name with its value, in the order in which they are declared.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Connections taken from the listener and relayed.
    connections_accepted: Counter,
    /// Connections closed at once because `connections_max` were open.
    connections_refused: Counter,
    /// Connections relayed now.
    connections_open: Gauge,
    /// Connections for which no upstream connection came about: refused, timed out, or its name unknown.
    upstream_connect_failures: Counter,
    /// Half-closed connections that were given up, because the other half was silent for too long or gone.
    half_closed_reaped: Counter,
    /// Sets of certificates, authorities and revocation lists that were taken into use after the first.
    credentials_loaded: Counter,
    /// Sets that were refused; the ones before stay in use.
    credentials_refused: Counter,
    /// TLS handshakes that failed, with clients and with upstreams.
    tls_handshake_failures: Counter,
    /// Calls whose request headers were captured.
    calls_started: Counter,
    /// Calls that came to any end: completed, reset, or cut with their connection.
    calls_ended: Counter,
    /// Calls answered here with UNAVAILABLE because the ledger refuses or the upstream is out of reach.
    refused_calls: Counter,
    /// Messages captured to their end, both directions.
    messages: Counter,
    /// Bytes of messages captured, both directions, as sent (compressed where they are).
    message_bytes: Counter,
    /// Group commits made durable.
    commits: Counter,
    /// Group commits that failed or took longer than `commit_wait_ms_max`.
    commit_failures: Counter,
    /// Submissions (one read of one peer each) refused because the ledger could not commit.
    refused_submissions: Counter,
    /// Submissions that went on without a record, with `on_failure = "forward"`.
    unrecorded_submissions: Counter,
    /// Connections ended because a bound of `[limits]` was broken, whichever it was.
    bounds_broken: Counter,
    /// Of those, the ones that tried to open more than `streams_max` streams.
    streams_over_bound: Counter,
    /// Connections ended because a peer broke HTTP/2 or HPACK beyond what can be relayed.
    protocol_errors: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_names_each_counter_once_with_its_own_value() {
        let counters = Counters::default();
        counters.commits.add(3);
        counters.connections_open.enter();
        counters.connections_open.enter();
        counters.connections_open.leave();
        let snapshot = counters.snapshot();
        let nonzero: Vec<_> = snapshot.iter().filter(|(_, value)| *value != 0).copied().collect();
        assert_eq!(nonzero, [("connections_open", 1), ("commits", 3)]);
        let mut names: Vec<_> = snapshot.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), snapshot.len());
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| counters.messages.add(1)));
            }
        });
        assert_eq!(counters.messages.get(), 4_000);
    }
}
