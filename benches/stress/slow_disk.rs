//! A disk whose every fdatasync takes longer: latency may grow with it, throughput may not fall, memory stays bounded, and nothing fails.
//!
//! The disk is made slow under the real binary by strace, which delays the return of that system call; strace itself is not on the sidecar's core. Calls come at
//! a rate, so that waiting for the disk does not slow their makers down; and as uploads without a pause, which hold as much as attestry lets them.

use super::client::message;
use super::load::{Rate, Seen, saturate};
use super::report::Report;
use super::vitals::{Vitals, forget_peak};
use super::{Bench, stop, support};
use std::process::Command;
use std::time::Duration;

/// Milliseconds by which each fdatasync is longer.
const DELAYS_MS: [u32; 4] = [0, 1, 10, 50];
const QUICK_DELAYS_MS: [u32; 2] = [0, 10];

const CONNECTIONS: u32 = 8;
const CALLS_PER_S: u32 = 4_000;
const PAYLOAD_BYTES: u32 = 1_024;

/// Calls of a transfer that are open at a time on each connection, and their messages.
const TRANSFER_STREAMS: u32 = 32;
const TRANSFER_BYTES: u32 = 65_536;

/// Until what came while the connections were made is answered.
const SETTLING: Duration = Duration::from_secs(2);

/// Less is a throughput that fell.
const ANSWERED_PER_DUE_MIN: f64 = 0.98;

/// What eight busy connections may take, however slow the disk is.
const RSS_MIB_MAX: f64 = 64.0;
/// The same of transfers: idle, and twice what all directions may hold and a batch may carry, since it is copied once on its way to the disk; and a quarter for the allocator.
const TRANSFER_RSS_MIB_MAX: f64 = (20.0 + 2.0 * (2.0 * CONNECTIONS as f64 + 8.0)) * 1.25;

pub(super) fn run(bench: &Bench) -> anyhow::Result<Report> {
    let mut report = Report::new("slow-disk");
    if Command::new("strace").arg("-V").output().is_err() {
        support::skip("the slow disk", "strace is not installed (Debian: strace)");
        return Ok(report);
    }
    report.head(&[
        "added to each fdatasync",
        "load",
        "calls/s",
        "p50 · p99 ms",
        "failures",
        "commits",
        "calls per commit",
        "peak RSS MiB",
    ]);
    for &delay_ms in if bench.is_quick { &QUICK_DELAYS_MS[..] } else { &DELAYS_MS } {
        at_a_rate(bench, delay_ms, &mut report)?;
        transfers(bench, delay_ms, &mut report)?;
    }
    Ok(report)
}

fn at_a_rate(bench: &Bench, delay_ms: u32, report: &mut Report) -> anyhow::Result<()> {
    let load = Rate { connections: CONNECTIONS, calls_per_s: CALLS_PER_S, message: message(PAYLOAD_BYTES) };
    let name = format!("{CALLS_PER_S} calls/s of {PAYLOAD_BYTES} B on {CONNECTIONS} connections");
    let (seen, calls_per_s) = measure(bench, delay_ms, &name, RSS_MIB_MAX, report, |address| {
        bench.runtime.block_on(load.run(address, SETTLING, bench.window()))
    })?;
    let share = calls_per_s / f64::from(CALLS_PER_S);
    report.must_in_time(share >= ANSWERED_PER_DUE_MIN, || {
        format!("at {delay_ms} ms, only {calls_per_s:.0} calls/s were answered")
    });
    // Two commits, one after the other: less would show that the disk was not slow at all.
    let least_ms = f64::from(2 * delay_ms);
    report.must(seen.latency_ms(0.5) >= least_ms, || {
        format!("at {delay_ms} ms, calls were faster than their two commits")
    });
    Ok(())
}

fn transfers(bench: &Bench, delay_ms: u32, report: &mut Report) -> anyhow::Result<()> {
    let message = message(TRANSFER_BYTES);
    let name = format!("{TRANSFER_BYTES} B without a pause, {CONNECTIONS} x {TRANSFER_STREAMS}");
    measure(bench, delay_ms, &name, TRANSFER_RSS_MIB_MAX, report, |address| {
        let load = saturate(address, CONNECTIONS, TRANSFER_STREAMS, &message, bench.window());
        bench.runtime.block_on(load)
    })?;
    Ok(())
}

/// One row; returns what was seen, and the calls per second.
fn measure(
    bench: &Bench,
    delay_ms: u32,
    load: &str,
    mib_max: f64,
    report: &mut Report,
    run: impl FnOnce(std::net::SocketAddr) -> Seen,
) -> anyhow::Result<(Seen, f64)> {
    let delay = format!("--inject=fdatasync:delay_exit={}", u64::from(delay_ms) * 1_000);
    // The tracer stands beside the sidecar (-D), so that the process that is measured is the sidecar's, and stops it at that one system call alone.
    let strace =
        ["strace", "-D", "-f", "-q", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync", &delay];
    let sidecar = bench.sidecar(if delay_ms == 0 { &[] } else { &strace }).start();
    forget_peak(sidecar.pid())?;
    let seen = run(sidecar.addr);
    let calls_per_s = seen.answered() as f64 / bench.window().as_secs_f64();
    let peak_mib = Vitals::of(sidecar.pid())?.peak_kib as f64 / 1024.0;
    let counters = stop(sidecar)?;
    let of = |name: &str| counters.get(name).copied().unwrap_or_default();
    report.row(&[
        format!("{delay_ms} ms"),
        load.to_owned(),
        format!("{calls_per_s:.0}"),
        seen.to_string(),
        seen.failures.to_string(),
        of("commits").to_string(),
        format!("{:.1}", of("calls_ended") as f64 / of("commits") as f64),
        format!("{peak_mib:.1}"),
    ]);
    report.must(seen.failures == 0, || {
        format!("at {delay_ms} ms, {} calls failed: {:?}", seen.failures, seen.told)
    });
    report.must(peak_mib <= mib_max, || {
        format!("at {delay_ms} ms, {peak_mib:.0} MiB were resident, over {mib_max:.0}")
    });
    Ok((seen, calls_per_s))
}
