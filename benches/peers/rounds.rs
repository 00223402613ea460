//! The rounds: every case through every peer in each of them, in an order that changes, with a look at the raw disk in between; and what came of it all.
//!
//! A run that fails is made again once. What fails twice is told and left out of the figures, and the benchmark ends with an error.

use super::case::{Case, Work};
use super::measure::{Bench, Measured};
use super::peer::Peer;
use super::raw_disk::{self, Bandwidth, Latencies};
use anyhow::anyhow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs that are made until one is not disturbed.
const TRIES_MAX: u32 = 3;

/// How often, and how long.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) rounds: u64,
    pub(super) seconds: u64,
    /// In percent of the machine.
    pub(super) others_max: u32,
    pub(super) is_quick: bool,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, seconds, others_max, .. } = self;
        write!(
            f,
            "each figure: median (least - greatest) of {rounds} interleaved runs of {seconds} s, each after a warm-up of 1 s; \
             runs in which others used more than {others_max} % of the machine were made again, at most {TRIES_MAX} times in all"
        )
    }
}

/// The runs of one kind of work through one peer.
pub(super) struct Cell {
    pub(super) work: Work,
    pub(super) peer: Peer,
    pub(super) runs: Vec<Measured>,
    pub(super) failures: Vec<String>,
}

/// Everything that was measured.
pub(super) struct Results {
    pub(super) cells: Vec<Cell>,
    /// One for each round.
    pub(super) latencies: Vec<Latencies>,
    /// One for each round with an upload, and each size of write.
    pub(super) bandwidths: Vec<Bandwidth>,
}

impl Results {
    pub(super) fn cell(&self, work: Work, peer: Peer) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.work == work && cell.peer == peer && !cell.runs.is_empty())
    }

    pub(super) fn failures(&self) -> impl Iterator<Item = String> {
        let of = |cell: &Cell| -> Vec<String> {
            cell.failures.iter().map(|why| format!("{}, {}: {why}", cell.work, cell.peer)).collect()
        };
        self.cells.iter().flat_map(of)
    }
}

impl Plan {
    pub(super) fn run(self, bench: &mut Bench, cases: &[Case]) -> Results {
        let cells = cases.iter().flat_map(|case| {
            let cell = |&peer| Cell { work: case.work, peer, runs: Vec::new(), failures: Vec::new() };
            case.peers.iter().map(cell)
        });
        let mut results = Results { cells: cells.collect(), latencies: Vec::new(), bandwidths: Vec::new() };
        for round in 0..self.rounds {
            match raw_disk::latencies(&bench.folder) {
                Ok(latencies) => results.latencies.push(latencies),
                Err(error) => eprintln!("the raw disk cannot be measured: {error}"),
            }
            for case in cases {
                self.round(round, case, bench, &mut results);
            }
        }
        results
    }

    /// One run of a case through each of its peers; another one begins in each round.
    fn round(self, round: u64, case: &Case, bench: &mut Bench, results: &mut Results) {
        if matches!(case.work, Work::Upload { .. }) {
            match raw_disk::bandwidths(&bench.folder, self.is_quick) {
                Ok(bandwidths) => results.bandwidths.extend(bandwidths),
                Err(error) => eprintln!("the raw disk cannot be measured: {error}"),
            }
        }
        let mut peers = case.peers.clone();
        let first = round as usize % peers.len();
        peers.rotate_left(first);
        for peer in peers {
            eprintln!("round {} of {}: {}, {peer}", round + 1, self.rounds, case.work);
            let run = self.undisturbed(round, case, peer, bench);
            let cell = results.cells.iter_mut().find(|cell| cell.work == case.work && cell.peer == peer);
            let Some(cell) = cell else { continue };
            match run {
                Ok(run) => cell.runs.push(run),
                Err(error) => cell.failures.push(format!("{error:#}")),
            }
        }
    }

    /// The first of several runs that others leave alone; the least disturbed where there is none.
    fn undisturbed(self, round: u64, case: &Case, peer: Peer, bench: &mut Bench) -> anyhow::Result<Measured> {
        let seconds = if case.is_brief { (self.seconds - 1).max(1) } else { self.seconds };
        let mut best: Option<Measured> = None;
        let mut failures = 0;
        for _ in 0..TRIES_MAX {
            // The first ledger of each case is verified.
            match guarded(|| bench.measure(case.work, peer, seconds, round == 0)) {
                Ok(run) => {
                    let is_calm = run.others <= f64::from(self.others_max);
                    let is_better = best.as_ref().is_none_or(|best| run.others < best.others);
                    if is_better {
                        best = Some(run);
                    }
                    if is_calm {
                        break;
                    }
                    eprintln!("  disturbed by others");
                }
                Err(error) => {
                    eprintln!("  FAILED: {error:#}");
                    failures += 1;
                    if failures > 1 {
                        return Err(error);
                    }
                }
            }
        }
        best.ok_or_else(|| anyhow!("no run succeeded"))
    }
}

/// What supports the tests panics where something went wrong; here that is one failed run among many.
fn guarded(run: impl FnOnce() -> anyhow::Result<Measured>) -> anyhow::Result<Measured> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(anyhow!("{}", text.unwrap_or_else(|| "it panicked".to_owned())))
    })
}
