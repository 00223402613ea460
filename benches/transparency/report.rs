//! The report: Markdown tables of exchanges and of bulk transfers, with what each way adds to a direct connection and where its CPU goes.

use super::Measured;
use super::cases::{Case, Doing};
use super::disk::DiskLatency;
use super::figures::Spread;
use super::load::Latency;
use super::usage::Cost;
use super::ways::Way;
use std::collections::BTreeSet;

/// The runs of one case and way.
pub(super) struct Cell {
    pub(super) case: &'static Case,
    pub(super) way: Way,
    pub(super) runs: Vec<Measured>,
}

impl Cell {
    fn of_runs(&self, figure: impl Fn(&Measured) -> Option<f64>) -> Option<Spread> {
        let figures: Vec<f64> = self.runs.iter().filter_map(figure).collect();
        if figures.is_empty() { None } else { Some(Spread::of(figures)) }
    }

    fn latency(&self, figure: impl Fn(Latency) -> f64) -> Option<Spread> {
        self.of_runs(|run| run.seen.latency.map(&figure))
    }

    fn cost(&self, figure: impl Fn(&Cost) -> Option<f64>) -> Option<Spread> {
        self.of_runs(|run| figure(run.cost.as_ref()?))
    }

    fn exchanges_per_s(&self) -> Option<Spread> {
        self.of_runs(|run| Some(run.seen.exchanges_per_s))
    }

    /// By how much a median is over that of the direct way.
    fn added(&self, cells: &[Self], figure: fn(Latency) -> f64) -> String {
        let direct = |cell: &&Self| std::ptr::eq(cell.case, self.case) && cell.way == Way::Direct;
        let direct = cells.iter().find(direct).filter(|_| self.way != Way::Direct);
        let medians = direct.and_then(|direct| direct.latency(figure)).zip(self.latency(figure));
        medians.map_or_else(String::new, |(direct, own)| format!("{:+.0}", own.median - direct.median))
    }

    /// The medians of the CPU time by threads, in `unit` microseconds.
    fn threads(&self, unit: f64) -> String {
        let costs = self.runs.iter().filter_map(|run| run.cost.as_ref());
        let names: BTreeSet<&String> = costs.flat_map(|cost| cost.thread_cpu_us_per_call.keys()).collect();
        let share = |name: &&String| {
            let own = self.cost(|cost| cost.thread_cpu_us_per_call.get(*name).copied())?.median / unit;
            (own >= 0.05).then(|| format!("{name} {own:.1}"))
        };
        names.iter().filter_map(share).collect::<Vec<_>>().join(", ")
    }
}

/// All of it.
pub(super) fn tables(cells: &[Cell], disks: &[DiskLatency]) -> String {
    let (bulk, exchanges): (Vec<&Cell>, Vec<&Cell>) =
        cells.iter().partition(|cell| cell.case.doing == Doing::Bulk);
    let mut text = format!(
        "append + fdatasync of 4 KiB into zeros, before each round: p50 {} µs, p99 {} µs\n",
        Spread::of(disks.iter().map(|disk| disk.p50_us)),
        Spread::of(disks.iter().map(|disk| disk.p99_us))
    );
    if !exchanges.is_empty() {
        text.push_str(
            "\n| exchange, through | exchanges/s | p50 µs | p99 µs | p50 added µs | p99 added µs | CPU µs per exchange | by thread | ledger bytes per exchange | RSS MiB | others' CPU % |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n",
        );
    }
    text.extend(exchanges.iter().map(|cell| exchange_row(cell, cells)));
    if !bulk.is_empty() {
        text.push_str(
            "\n| transfer, through | GiB/s | CPU ms per GiB | by thread | RSS MiB | others' CPU % |\n|---|---|---|---|---|---|\n",
        );
    }
    text.extend(bulk.iter().map(|cell| bulk_row(cell)));
    text
}

fn exchange_row(cell: &Cell, cells: &[Cell]) -> String {
    line(&[
        cell.case.name_through(cell.way),
        shown(cell.exchanges_per_s()),
        shown(cell.latency(|latency| latency.p50_us)),
        shown(cell.latency(|latency| latency.p99_us)),
        cell.added(cells, |latency| latency.p50_us),
        cell.added(cells, |latency| latency.p99_us),
        shown(cell.cost(|cost| Some(cost.cpu_us_per_call))),
        cell.threads(1.0),
        shown(cell.cost(|cost| cost.ledger_bytes_per_call)),
        shown(cell.cost(|cost| Some(cost.rss_mib))),
        shown(cell.of_runs(|run| Some(run.others_percent))),
    ])
}

/// Exchanges are of 1 MiB here.
fn bulk_row(cell: &Cell) -> String {
    let ms_per_gib = |us_per_mib: f64| us_per_mib * 1024.0 / 1000.0;
    line(&[
        cell.case.name_through(cell.way),
        cell.exchanges_per_s().map_or_else(String::new, |rate| format!("{:.2}", rate.median / 1024.0)),
        shown(cell.cost(|cost| Some(ms_per_gib(cost.cpu_us_per_call)))),
        cell.threads(1000.0 / 1024.0),
        shown(cell.cost(|cost| Some(cost.rss_mib))),
        shown(cell.of_runs(|run| Some(run.others_percent))),
    ])
}

fn shown(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |spread| spread.to_string())
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}
