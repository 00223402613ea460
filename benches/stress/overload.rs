//! Ten times the connections that there is room for: those inside keep their latency, and the others learn quickly that the service is unavailable.
//!
//! The clients inside call at a rate that they would keep without the others, first alone and then with nine times as many knocking, at several intervals. What the clients
//! outside meet is `knock`'s to see.

use super::client::message;
use super::figures::Spread;
use super::knock::{Knockers, Met};
use super::load::{Rate, Seen};
use super::report::Report;
use super::vitals::{Vitals, forget_peak};
use super::{Bench, stop};
use std::time::Duration;

/// Clients inside, which is all that there is room for.
const PLACES: u32 = 32;
const OUTSIDE: u32 = 9 * PLACES;
/// Of all inside together: about a third of what one core serves in this shape.
const CALLS_PER_S: u32 = 3_200;
const PAYLOAD_BYTES: u32 = 1_024;

/// Pauses of a client outside: what clients of gRPC wait at first (gRPC Connection Backoff Protocol), a tenth of it, and a hundredth.
const PAUSES_MS: [u64; 3] = [1_000, 100, 10];
const QUICK_PAUSES_MS: [u64; 1] = [100];

/// The p99 of those inside, as a multiple of what it is without the others.
const P99_RATIO_MAX: f64 = 3.0;
/// With shorter pauses 288 clients are more than a flood of 10 x the connections: 28,800 new ones each second. It is told, and not judged.
const JUDGED_PAUSE_MS_MIN: u64 = 100;
/// "Quick": a tenth of what gRPC's clients wait before they try again.
const TOLD_P99_MS_MAX: f64 = 100.0;
const RSS_MIB_MAX: f64 = 64.0;

pub(super) fn run(bench: &Bench) -> anyhow::Result<Report> {
    let mut report = Report::new("overload");
    report.line(format_args!(
        "`limits.connections_max` = {PLACES}; {PLACES} clients inside make {CALLS_PER_S} calls/s of {PAYLOAD_BYTES} B together, {OUTSIDE} are outside.\n"
    ));
    report.head(&[
        "outside, pause after each try",
        "inside: calls/s",
        "p50 · p99 ms",
        "p99 over that without others",
        "inside: failures",
        "tries/s outside",
        "told UNAVAILABLE · reset",
        "until they knew, p50 · p99 · max ms",
        "sidecar CPU %",
        "peak RSS MiB",
    ]);
    let pauses = if bench.is_quick { &QUICK_PAUSES_MS[..] } else { &PAUSES_MS };
    let rounds = if bench.is_short { 1 } else { 3 };
    for &pause_ms in pauses {
        let mut ratios = Vec::new();
        for _ in 0..rounds {
            // Before each, since the machine may be another one by then.
            let alone = measure(bench, None, None, &mut report)?;
            let among_others = measure(bench, Some(pause_ms), Some(&alone), &mut report)?;
            ratios.push(ratio(&among_others, &alone));
        }
        let ratio = Spread::of(ratios).median;
        report.must_in_time(pause_ms < JUDGED_PAUSE_MS_MIN || ratio <= P99_RATIO_MAX, || {
            format!("at a pause of {pause_ms} ms, the p99 inside is {ratio:.1} x that without others (median of {rounds})")
        });
    }
    Ok(report)
}

/// One row. `alone` is what those inside see without the others.
fn measure(
    bench: &Bench,
    pause_ms: Option<u64>,
    alone: Option<&Seen>,
    report: &mut Report,
) -> anyhow::Result<Seen> {
    let sidecar = bench.sidecar(&[]).set("limits", "connections_max", &PLACES.to_string()).start();
    let load = Rate { connections: PLACES, calls_per_s: CALLS_PER_S, message: message(PAYLOAD_BYTES) };
    let (address, window) = (sidecar.addr, bench.window());
    let inside = bench.runtime.spawn(async move { load.run(address, SETTLING, window).await });
    // The places are taken by then.
    std::thread::sleep(SETTLING);
    forget_peak(sidecar.pid())?;
    let before = Vitals::of(sidecar.pid())?;
    let pause = pause_ms.map(Duration::from_millis);
    let knockers =
        pause.map(|pause| Knockers::start(address, OUTSIDE, pause, bench.folder.path())).transpose()?;
    std::thread::sleep(window);
    let after = Vitals::of(sidecar.pid())?;
    let seen = bench.runtime.block_on(inside)?;
    let complaints = knockers.as_ref().map(Knockers::stderr).unwrap_or_default();
    let met = knockers.map(Knockers::end).transpose()?.unwrap_or_default();
    stop(sidecar)?;
    let row = Row { pause_ms, seen: &seen, alone, met: &met, window };
    let peak_mib = after.peak_kib as f64 / 1024.0;
    let cpu_percent = (after.cpu_us - before.cpu_us) / window.as_micros() as f64 * 100.0;
    report.row(&row.cells(cpu_percent, peak_mib));
    row.judge(report, &complaints, peak_mib);
    Ok(seen)
}

const SETTLING: Duration = Duration::from_secs(1);

/// Of the p99.
fn ratio(among_others: &Seen, alone: &Seen) -> f64 {
    among_others.latency_ms(0.99) / alone.latency_ms(0.99)
}

struct Row<'a> {
    pause_ms: Option<u64>,
    seen: &'a Seen,
    alone: Option<&'a Seen>,
    met: &'a Met,
    window: Duration,
}

impl Row<'_> {
    fn cells(&self, cpu_percent: f64, peak_mib: f64) -> Vec<String> {
        let Self { pause_ms, seen, met, window, .. } = self;
        let ms = |us: u64| us as f64 / 1e3;
        let tries = met.unavailable + met.reset + met.answered + met.failed;
        let of_others = |text: String| if pause_ms.is_some() { text } else { String::new() };
        vec![
            pause_ms.map_or_else(|| "nobody".into(), |pause_ms| format!("{OUTSIDE}, {pause_ms} ms")),
            format!("{:.0}", seen.answered() as f64 / window.as_secs_f64()),
            seen.to_string(),
            self.alone.map_or_else(String::new, |alone| format!("{:.2}", ratio(seen, alone))),
            seen.failures.to_string(),
            of_others(format!("{:.0}", tries as f64 / window.as_secs_f64())),
            of_others(format!("{} · {}", met.unavailable, met.reset)),
            of_others(format!("{:.1} · {:.1} · {:.1}", ms(met.p50_us), ms(met.p99_us), ms(met.max_us))),
            format!("{cpu_percent:.0}"),
            format!("{peak_mib:.1}"),
        ]
    }

    fn judge(&self, report: &mut Report, complaints: &str, peak_mib: f64) {
        let Self { pause_ms, seen, met, .. } = self;
        let pause_ms = pause_ms.unwrap_or_default();
        report.must(seen.failures == 0, || format!("{} calls inside failed: {:?}", seen.failures, seen.told));
        report.must(met.failed == 0, || {
            format!("{} clients outside met something else: {complaints}", met.failed)
        });
        report.must(peak_mib <= RSS_MIB_MAX, || {
            format!("{peak_mib:.0} MiB were resident, over {RSS_MIB_MAX:.0}")
        });
        if pause_ms < JUDGED_PAUSE_MS_MIN {
            return;
        }
        let told_p99_ms = met.p99_us as f64 / 1e3;
        report.must_in_time(told_p99_ms <= TOLD_P99_MS_MAX, || {
            format!("at a pause of {pause_ms} ms, it takes {told_p99_ms:.0} ms to be turned away (p99)")
        });
        report.must(met.unavailable + met.reset > 0, || "nobody was turned away".into());
    }
}
