//! The report: tables in Markdown of all that was measured, by kind of work.

use super::case::Work;
use super::figures::Spread;
use super::measure::Measured;
use super::rounds::{Cell, Results};
use super::usage::Cost;
use std::collections::BTreeSet;
use std::fmt::Write as _;

impl Cell {
    /// Of the runs that have such a figure; nothing where none has.
    pub(super) fn spread(&self, figure: impl Fn(&Measured) -> Option<f64>) -> Option<Spread> {
        let figures: Vec<f64> = self.runs.iter().filter_map(figure).collect();
        (!figures.is_empty()).then(|| Spread::of(figures))
    }

    pub(super) fn median(&self, figure: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        self.spread(figure).map(|spread| spread.median)
    }

    fn text(&self, figure: impl Fn(&Measured) -> Option<f64>) -> String {
        self.spread(figure).map(|spread| spread.to_string()).unwrap_or_default()
    }
}

#[allow(clippy::unnecessary_wraps, reason = "as the other figures are")]
pub(super) fn per_s(run: &Measured) -> Option<f64> {
    Some(run.per_s)
}

pub(super) fn p50_us(run: &Measured) -> Option<f64> {
    Some(run.latency?.p50_us)
}

pub(super) fn p99_us(run: &Measured) -> Option<f64> {
    Some(run.latency?.p99_us)
}

pub(super) fn mb_per_s(run: &Measured) -> Option<f64> {
    run.mb_per_s
}

pub(super) fn cpu_us(run: &Measured) -> Option<f64> {
    Some(run.cost.as_ref()?.cpu_us_per_call)
}

pub(super) fn peak_mib(run: &Measured) -> Option<f64> {
    Some(run.memory?.peak_mib)
}

/// Calls, or messages, that one commit holds.
pub(super) fn exchanges_per_commit(run: &Measured) -> Option<f64> {
    let stored = run.stored?;
    Some(stored.exchanges as f64 / stored.ledger.commits as f64)
}

/// All of it.
pub(super) fn tables(results: &Results) -> String {
    [unary(results), bulk(results), memory(results), ledger(results), threads(results), raw_disk(results)]
        .concat()
}

fn title(text: &mut String, title: &str, columns: &[&str]) {
    let _ = writeln!(text, "\n### {title}\n\n| {} |", columns.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(columns.len()));
}

fn unary(results: &Results) -> String {
    let mut text = String::new();
    let columns = [
        "connections x streams, payload",
        "through",
        "calls/s",
        "p50 µs",
        "p99 µs",
        "proxy CPU µs per call",
        "peak RSS MiB",
        "core 0 / 1 busy %",
        "others %",
    ];
    title(&mut text, "Unary calls", &columns);
    for cell in &results.cells {
        let Work::Unary { shape, payload_bytes } = cell.work else { continue };
        let core = |at: usize| cell.median(|run| run.cores_busy.get(at).copied()).unwrap_or_default();
        let _ = writeln!(
            text,
            "| {shape}, {payload_bytes} B | {} | {} | {} | {} | {} | {} | {:.0} / {:.0} | {} |",
            cell.peer,
            cell.text(per_s),
            cell.text(p50_us),
            cell.text(p99_us),
            cell.text(cpu_us),
            cell.text(peak_mib),
            core(0),
            core(1),
            cell.text(|run| Some(run.others)),
        );
    }
    text
}

fn bulk(results: &Results) -> String {
    let mut text = String::new();
    let columns = [
        "work",
        "through",
        "MB/s of payload",
        "messages/s",
        "proxy CPU µs per message",
        "peak RSS MiB",
        "messages per commit",
    ];
    title(&mut text, "Streams and uploads", &columns);
    for cell in
        results.cells.iter().filter(|cell| matches!(cell.work, Work::Streams { .. } | Work::Upload { .. }))
    {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            cell.work,
            cell.peer,
            cell.text(mb_per_s),
            cell.text(per_s),
            cell.text(cpu_us),
            cell.text(peak_mib),
            cell.text(exchanges_per_commit),
        );
    }
    text
}

fn memory(results: &Results) -> String {
    let mut text = String::new();
    title(&mut text, "Memory", &["through", "work", "RSS MiB at rest", "RSS MiB with it", "peak RSS MiB"]);
    for cell in results.cells.iter().filter(|cell| matches!(cell.work, Work::Idle { .. })) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            cell.peer,
            cell.work,
            cell.text(|run| Some(run.memory?.idle_mib)),
            cell.text(|run| Some(run.memory?.loaded_mib)),
            cell.text(peak_mib),
        );
    }
    text
}

/// Of attestry alone.
fn ledger(results: &Results) -> String {
    let mut text = String::new();
    let columns = [
        "work",
        "ledger bytes per call or message",
        "calls or messages per commit",
        "bytes per commit",
        "db/ in % of the segments",
    ];
    title(&mut text, "What the ledger takes", &columns);
    for cell in results.cells.iter().filter(|cell| cell.peer.is_attestry()) {
        let _ = writeln!(
            text,
            "| {}, {} | {} | {} | {} | {} |",
            cell.work,
            cell.peer,
            cell.text(ledger_bytes),
            cell.text(exchanges_per_commit),
            cell.text(|run| {
                let ledger = run.stored?.ledger;
                Some(ledger.segments_bytes as f64 / ledger.commits as f64)
            }),
            cell.text(db_percent),
        );
    }
    text
}

/// Of the segments.
pub(super) fn ledger_bytes(run: &Measured) -> Option<f64> {
    run.cost.as_ref()?.ledger_bytes_per_call
}

/// The index against the segments.
pub(super) fn db_percent(run: &Measured) -> Option<f64> {
    let ledger = run.stored?.ledger;
    Some(100.0 * ledger.db_bytes as f64 / ledger.segments_bytes as f64)
}

/// attestry's CPU per call by thread; its workers, the committer and the indexer have names.
fn threads(results: &Results) -> String {
    let ours: Vec<&Cell> = results.cells.iter().filter(|cell| cell.peer.is_attestry()).collect();
    let of = |cost: &Cost, name: &str| cost.thread_cpu_us_per_call.get(name).copied();
    let costs = ours.iter().flat_map(|cell| &cell.runs).filter_map(|run| run.cost.as_ref());
    let used = costs.flat_map(|cost| &cost.thread_cpu_us_per_call).filter(|(_, cpu_us)| **cpu_us > 0.0);
    let names: BTreeSet<&str> = used.map(|(name, _)| name.as_str()).collect();
    let mut text = String::new();
    let columns: Vec<&str> = ["work"].into_iter().chain(names.iter().copied()).collect();
    title(&mut text, "attestry's CPU µs per call or message, by thread", &columns);
    for cell in ours {
        let costs = names.iter().map(|name| cell.text(|run| of(run.cost.as_ref()?, name)));
        let _ =
            writeln!(text, "| {}, {} | {} |", cell.work, cell.peer, costs.collect::<Vec<_>>().join(" | "));
    }
    text
}

fn raw_disk(results: &Results) -> String {
    let mut text = String::new();
    title(
        &mut text,
        "The raw disk: append + fdatasync",
        &["write", "into zeros on the disk", "into a growing file"],
    );
    let latency = |figure: fn(&super::disk::DiskLatency) -> f64| {
        let zeros = Spread::of(results.latencies.iter().map(|round| figure(&round.zeros)));
        (zeros, Spread::of(results.latencies.iter().map(|round| figure(&round.growing))))
    };
    for (name, (zeros, growing)) in
        [("p50", latency(|disk| disk.p50_us)), ("p99", latency(|disk| disk.p99_us))]
    {
        let _ = writeln!(text, "| 4 KiB, {name} µs | {zeros} | {growing} |");
    }
    for write_bytes in super::raw_disk::WRITES_BYTES {
        let of = || results.bandwidths.iter().filter(move |bandwidth| bandwidth.write_bytes == write_bytes);
        if of().next().is_some() {
            let zeros = Spread::of(of().map(|bandwidth| bandwidth.zeros_mb_per_s));
            let growing = Spread::of(of().map(|bandwidth| bandwidth.growing_mb_per_s));
            let _ = writeln!(text, "| {} KiB, MB/s | {zeros} | {growing} |", write_bytes >> 10);
        }
    }
    text
}
