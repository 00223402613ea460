//! The report: one row for each cell as a Markdown table, what attestry adds to the latency, and where its CPU goes.

use super::Measured;
use super::figures::Spread;
use super::load::Shape;
use super::peers::Through;
use super::usage::Cost;
use std::collections::BTreeSet;

/// The runs of one shape, message and way.
pub(super) struct Cell {
    pub(super) shape: Shape,
    pub(super) payload_bytes: u32,
    pub(super) through: Through,
    pub(super) runs: Vec<Measured>,
}

impl Cell {
    pub(super) fn name(&self) -> String {
        let Shape { connections, streams } = self.shape;
        format!("{connections} x {streams}, {} B, {}", self.payload_bytes, self.through)
    }

    fn is_baseline_of(&self, other: &Self) -> bool {
        let place = |cell: &Self| (cell.shape.connections, cell.shape.streams, cell.payload_bytes);
        self.through == Through::Direct && place(self) == place(other)
    }

    fn p50_us(&self) -> Spread {
        Spread::of(self.runs.iter().map(|run| run.seen.p50_us))
    }

    /// Of the runs that have such a figure; nothing where none has.
    fn cost(&self, figure: impl Fn(&Cost) -> Option<f64>) -> String {
        let figures: Vec<f64> = self.runs.iter().filter_map(|run| figure(run.cost.as_ref()?)).collect();
        if figures.is_empty() { String::new() } else { Spread::of(figures).to_string() }
    }
}

/// All of it.
pub(super) fn table(cells: &[Cell]) -> String {
    let mut text = String::from(
        "| connections x streams, message, through | calls/s | p50 µs | p99 µs | p50 over direct µs | proxy CPU µs per call | ledger bytes per call | RSS MiB |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for cell in cells {
        text.push_str(&row(cell, cells));
    }
    text.push_str(&threads(cells));
    text
}

fn row(cell: &Cell, cells: &[Cell]) -> String {
    let seen = |figure: fn(&Measured) -> f64| Spread::of(cell.runs.iter().map(figure));
    let direct = cells.iter().find(|other| other.is_baseline_of(cell) && cell.through != Through::Direct);
    let added = direct.map(|direct| format!("{:.0}", cell.p50_us().median - direct.p50_us().median));
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
        cell.name(),
        seen(|run| run.seen.calls_per_s),
        cell.p50_us(),
        seen(|run| run.seen.p99_us),
        added.unwrap_or_default(),
        cell.cost(|cost| Some(cost.cpu_us_per_call)),
        cell.cost(|cost| cost.ledger_bytes_per_call),
        cell.cost(|cost| Some(cost.rss_mib)),
    )
}

/// attestry's CPU per call by thread; its workers, the committer and the indexer have names.
fn threads(cells: &[Cell]) -> String {
    let ours: Vec<&Cell> = cells.iter().filter(|cell| cell.through == Through::Attestry).collect();
    let costs = ours.iter().flat_map(|cell| &cell.runs).filter_map(|run| run.cost.as_ref());
    let used = costs.flat_map(|cost| &cost.thread_cpu_us_per_call).filter(|(_, cpu_us)| **cpu_us > 0.0);
    let names: BTreeSet<&str> = used.map(|(name, _)| name.as_str()).collect();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let row = |cell: &Cell| {
        let cost = |name: &&str| cell.cost(|cost| cost.thread_cpu_us_per_call.get(*name).copied());
        line([cell.name()].into_iter().chain(names.iter().map(cost)).collect())
    };
    let titles = ["CPU µs per call, by thread"].into_iter().chain(names.iter().copied());
    let rule = vec!["---".to_owned(); names.len() + 1];
    let mut text = format!("\n{}{}", line(titles.map(str::to_owned).collect()), line(rule));
    text.extend(ours.into_iter().map(row));
    text
}
