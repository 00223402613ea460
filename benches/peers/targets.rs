//! What attestry is to reach beside the others, and whether it has in this run: ratios of medians, as a table.
//!
//! Targets of the ledger alone, of `verify` and of starts are `cargo bench --bench commit`'s; those under stress, `--bench stress`'s.

use super::case::{self, BUSY, SINGLE, WIDE, Work, unary};
use super::figures::Spread;
use super::measure::Measured;
use super::peer::Peer;
use super::report::{
    cpu_us, db_percent, exchanges_per_commit, ledger_bytes, mb_per_s, p50_us, p99_us, peak_mib, per_s,
};
use super::rounds::Results;
use std::fmt::{self, Write as _};

/// One row.
pub(super) struct Target {
    work: String,
    asked: String,
    measured: String,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Met,
    Missed,
    /// Something that it is computed from is not there.
    NotMeasured,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "yes",
            Self::Missed => "**no**",
            Self::NotMeasured => "not measured",
        })
    }
}

/// A bound of a figure.
#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn row(self, work: impl fmt::Display, of: &str, unit: &str, figure: Option<f64>) -> Target {
        let (side, bound, is_met) = match self {
            Self::AtMost(bound) => ("at most", bound, figure.is_some_and(|figure| figure <= bound)),
            Self::AtLeast(bound) => ("at least", bound, figure.is_some_and(|figure| figure >= bound)),
        };
        let verdict = match figure {
            Some(figure) if figure.is_finite() && bound.is_finite() => {
                if is_met {
                    Verdict::Met
                } else {
                    Verdict::Missed
                }
            }
            _ => Verdict::NotMeasured,
        };
        Target {
            work: work.to_string(),
            asked: format!("{of} {side} {}{unit}", number(bound)),
            measured: figure.map(|figure| format!("{}{unit}", number(figure))).unwrap_or_default(),
            verdict,
        }
    }
}

/// Ratios with two digits, the rest as short as it may be.
fn number(figure: f64) -> String {
    if !figure.is_finite() {
        return "?".to_owned();
    }
    let digits = if figure < 10.0 { 2 } else { usize::from(figure < 100.0) };
    let text = format!("{figure:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The table, in Markdown.
pub(super) fn table(results: &Results) -> String {
    let mut text = String::from("| work | target | measured | met |\n|---|---|---|---|\n");
    for Target { work, asked, measured, verdict } in all(results) {
        let _ = writeln!(text, "| {work} | {asked} | {measured} | {verdict} |");
    }
    text
}

fn all(results: &Results) -> Vec<Target> {
    let groups =
        [busy(results), single(results), bulk(results), stored(results), memory(results), two_cores(results)];
    groups.into_iter().flatten().collect()
}

impl Results {
    fn median(&self, work: Work, peer: Peer, figure: fn(&Measured) -> Option<f64>) -> Option<f64> {
        self.cell(work, peer)?.median(figure)
    }

    /// attestry's against a peer's.
    fn ratio(&self, work: Work, peer: Peer, figure: fn(&Measured) -> Option<f64>) -> Option<f64> {
        Some(self.median(work, Peer::Attestry, figure)? / self.median(work, peer, figure)?)
    }
}

fn busy(results: &Results) -> Vec<Target> {
    let small = unary(BUSY, 100);
    let cpu = |work, peer, bound| {
        let of = format!("CPU per call, against {peer}:");
        Bound::AtMost(bound).row(work, &of, " x", results.ratio(work, peer, cpu_us))
    };
    let mut rows = vec![
        cpu(small, Peer::Envoy, 0.5),
        cpu(small, Peer::Nginx, 0.25),
        Bound::AtLeast(1.3).row(
            small,
            "calls/s, against Envoy:",
            " x",
            results.ratio(small, Peer::Envoy, per_s),
        ),
        cpu(unary(BUSY, 1024), Peer::Envoy, 0.8),
        cpu(unary(BUSY, 16_384), Peer::Envoy, 1.6),
        cpu(unary(WIDE, 1024), Peer::Envoy, 1.2),
    ];
    let tapped = [100, 1024, 16_384].map(|payload_bytes| unary(BUSY, payload_bytes));
    rows.extend(tapped.map(|work| {
        let less = results.ratio(work, Peer::EnvoyTap, cpu_us).map(|ratio| 1.0 / ratio);
        Bound::AtLeast(4.0).row(
            work,
            "CPU per call of Envoy with its HTTP tap, against attestry's:",
            " x",
            less,
        )
    }));
    rows
}

/// The latency of one call at a time, against what the disk must take of it.
fn single(results: &Results) -> Vec<Target> {
    const OWN_US: f64 = 120.0;
    let work = unary(SINGLE, 100);
    let of = |figure| results.median(work, Peer::Attestry, figure);
    let direct = results.median(work, Peer::Direct, p50_us).unwrap_or(f64::NAN);
    let raw = Spread::of(results.latencies.iter().map(|round| round.zeros.p50_us)).median;
    let bound = direct + 2.0 * raw + OWN_US;
    let (direct, raw) = (number(direct), number(raw));
    let p50 = format!("p50 (direct {direct} µs + 2 x raw fdatasync {raw} µs + {OWN_US:.0} µs)");
    vec![
        Bound::AtMost(bound).row(work, &p50, " µs", of(p50_us)),
        Bound::AtMost(1.5 * bound).row(work, "p99 (1.5 x that)", " µs", of(p99_us)),
    ]
}

fn bulk(results: &Results) -> Vec<Target> {
    let of = |work, figure| results.median(work, Peer::Attestry, figure);
    let (streams, upload) = (case::STREAMS, case::GIB_UPLOAD);
    let mut rows = vec![
        Bound::AtLeast(150.0).row(streams, "messages,", " MB/s", of(streams, mb_per_s)),
        // One message for each fdatasync would be 1.
        Bound::AtLeast(2.0).row(streams, "messages per commit,", "", of(streams, exchanges_per_commit)),
    ];
    rows.extend(super::raw_disk::WRITES_BYTES.map(|write_bytes| {
        let raw = results.bandwidths.iter().filter(|raw| raw.write_bytes == write_bytes);
        let raw = Spread::of(raw.map(|raw| raw.zeros_mb_per_s)).median;
        let share = of(upload, mb_per_s).map(|mb_per_s| 100.0 * mb_per_s / raw);
        let asked = format!("of raw append + fdatasync of {} KiB ({} MB/s),", write_bytes >> 10, number(raw));
        Bound::AtLeast(60.0).row(upload, &asked, " %", share)
    }));
    rows
}

fn stored(results: &Results) -> Vec<Target> {
    let works = [unary(BUSY, 100), unary(BUSY, 1024), unary(SINGLE, 100)];
    let bytes = works.iter().map(|&work| {
        let Work::Unary { payload_bytes, .. } = work else { unreachable!("all of them are unary") };
        let beyond = results.median(work, Peer::Attestry, ledger_bytes);
        let beyond = beyond.map(|bytes| bytes - 2.0 * f64::from(payload_bytes));
        Bound::AtMost(450.0).row(work, "in the ledger beyond the two payloads of a call", " B", beyond)
    });
    let db = works.iter().map(|&work| {
        let percent = results.median(work, Peer::Attestry, db_percent);
        Bound::AtMost(15.0).row(work, "db/ against the segments", " %", percent)
    });
    bytes.chain(db).collect()
}

fn memory(results: &Results) -> Vec<Target> {
    let of = |work, figure| results.median(work, Peer::Attestry, figure);
    let busy = [100, 1024, 16_384].map(|payload_bytes| of(unary(BUSY, payload_bytes), peak_mib));
    let busy = busy.into_iter().flatten().reduce(f64::max);
    let (idle, connected) = (of(case::IDLE, |run| Some(run.memory?.idle_mib)), of(case::IDLE, peak_mib));
    vec![
        Bound::AtMost(20.0).row("at rest", "RSS", " MiB", idle),
        Bound::AtMost(64.0).row("unary 8x32, every size", "peak RSS", " MiB", busy),
        Bound::AtMost(120.0).row(case::IDLE, "peak RSS", " MiB", connected),
    ]
}

/// Two cores for attestry, and what else was at its limit then.
fn two_cores(results: &Results) -> Vec<Target> {
    let of = |payload_bytes| {
        let work = unary(BUSY, payload_bytes);
        let both = results.cell(work, Peer::AttestryTwo);
        let one = results.median(work, Peer::Attestry, per_s);
        let ratio = both.and_then(|both| both.median(per_s)).zip(one).map(|(both, one)| both / one);
        let mut row = Bound::AtLeast(1.7).row(work, "calls/s on two cores, against one:", " x", ratio);
        if let Some(both) = both {
            let core = |at: usize| both.median(|run| run.cores_busy.get(at).copied()).unwrap_or_default();
            let _ = write!(
                row.measured,
                " (cores 0 and 1, of which 1 carries the load: {:.0} and {:.0} % busy)",
                core(0),
                core(1)
            );
        }
        row
    };
    vec![of(100), of(1024)]
}
