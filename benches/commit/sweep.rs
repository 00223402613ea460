//! All batch sizes with all payload sizes, each in all ways in turn, so that a disturbance hits all of them.

use super::appends::{Done, Way, Ways};
use super::figures::{quantile, size};
use super::ledgers::Place;
use std::fmt;
use std::time::Duration;

/// Entries in a batch and bytes of payload in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) batch: usize,
    pub(super) payload_bytes: usize,
}

impl Shape {
    /// Bytes of a frame, more or less: an entry takes 160 beside its payload, and a frame 500 of its own.
    pub(super) fn frame_bytes(self) -> u64 {
        (self.batch * (self.payload_bytes + 160) + 500) as u64
    }
}

/// How long each cell is measured.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    pub(super) rounds: usize,
    pub(super) block: Duration,
}

/// The figures of one shape.
pub(super) struct Cell {
    pub(super) shape: Shape,
    pub(super) frame_bytes: usize,
    /// In the order of [`Way::ALL`].
    done: Vec<Figures>,
}

/// The figures of one way in one cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) max_us: f64,
    pub(super) commits_per_s: f64,
    pub(super) committing_us: f64,
    pub(super) all_us: f64,
}

impl Cell {
    pub(super) fn of(&self, way: Way) -> Figures {
        self.done[way as usize]
    }
}

/// Measures one shape in a folder of its own in `place`.
pub(super) fn measure(place: &Place, shape: Shape, effort: Effort) -> anyhow::Result<Cell> {
    let mut ways = Ways::prepare(place.within("appends"), shape.batch, shape.payload_bytes)?;
    let mut done: Vec<Done> = Way::ALL.iter().map(|_| Done::default()).collect();
    for round in 0..effort.rounds {
        for turn in 0..Way::ALL.len() {
            // Nobody is always first, or always behind the same neighbour's write-back.
            let way = Way::ALL[(turn + round) % Way::ALL.len()];
            ways.block(way, effort.block, &mut done[way as usize])?;
        }
    }
    let frame_bytes = ways.frame_bytes();
    ways.end()?;
    Ok(Cell { shape, frame_bytes, done: done.into_iter().map(Figures::of).collect() })
}

impl Figures {
    fn of(mut done: Done) -> Self {
        done.latencies_ns.sort_unstable();
        let at = |share| quantile(&done.latencies_ns, share) / 1e3;
        let commits = done.latencies_ns.len() as f64;
        Self {
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: at(1.0),
            commits_per_s: commits / done.busy.as_secs_f64(),
            committing_us: done.committing_us / commits,
            // The process is accounted to 10 ms, its threads to the nanosecond.
            all_us: done.all_us.max(done.committing_us) / commits,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.batch, size(self.payload_bytes as f64))
    }
}
