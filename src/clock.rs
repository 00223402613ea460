//! Where the time comes from: one trait, the system's clock, and a clock that tests set by hand.
//!
//! Invariants: a reading is nanoseconds since 1970-01-01T00:00:00Z (UTC, as the system counts it) and never fails.
//! A reading may be lower than the one before it, since the system's clock can be set back; that committed time never
//! decreases is the ledger's doing, not this module's. Waiting and timeouts are not here: those are the runtime's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A source of time that is handed to whoever stamps something.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds since 1970-01-01T00:00:00Z. 64 bits last until the year 2554.
    fn unix_nanos(&self) -> u64;
}

/// The system's clock. A time before 1970 reads as 0 and one past 2554 as `u64::MAX`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_nanos(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, saturating_nanos)
    }
}

/// A clock that stands still until it is told otherwise, for tests. Share it as an `Arc`.
#[derive(Debug, Default)]
pub struct ManualClock {
    unix_nanos: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `unix_nanos`.
    pub fn at(unix_nanos: u64) -> Self {
        Self { unix_nanos: AtomicU64::new(unix_nanos) }
    }

    /// Shows `unix_nanos` from now on, also where that is a step back.
    pub fn set(&self, unix_nanos: u64) {
        self.unix_nanos.store(unix_nanos, Ordering::SeqCst);
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.unix_nanos.fetch_add(saturating_nanos(by), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_nanos(&self) -> u64 {
        self.unix_nanos.load(Ordering::SeqCst)
    }
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_system_clock_shows_nanoseconds_of_this_century() {
        let year_2020 = 1_577_836_800_000_000_000;
        let year_2100 = 4_102_444_800_000_000_000;
        assert!((year_2020..year_2100).contains(&SystemClock.unix_nanos()));
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Arc::new(ManualClock::at(5));
        let seen: Arc<dyn Clock> = clock.clone();
        assert_eq!(seen.unix_nanos(), 5);
        clock.advance(Duration::from_micros(1));
        assert_eq!(seen.unix_nanos(), 1_005);
        clock.set(3);
        assert_eq!(seen.unix_nanos(), 3);
    }

    #[test]
    fn a_duration_past_the_range_saturates() {
        assert_eq!(saturating_nanos(Duration::MAX), u64::MAX);
    }
}
