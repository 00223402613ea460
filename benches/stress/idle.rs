//! Memory: of a sidecar without connections, under load, and with a thousand connections that are open and silent, before and after they have carried something.

use super::client::{Client, message};
use super::load::saturate;
use super::report::Report;
use super::vitals::{Vitals, forget_peak};
use super::{Bench, stop};
use anyhow::{anyhow, ensure};
use std::time::Duration;

const CONNECTIONS: usize = 1_000;
const QUICK_CONNECTIONS: usize = 200;

/// More than the largest read of a pipe, each way, in calls of one message.
const CARRIED_CALLS: usize = 3;
const CARRIED_BYTES: u32 = 65_536;

/// Connections that work at a time: what a thousand carry must not be in memory all at once.
const AT_A_TIME: usize = 10;

const LOADS: [u32; 3] = [100, 1_024, 16_384];

const IDLE_MIB_MAX: f64 = 20.0;
const LOAD_MIB_MAX: f64 = 64.0;
const CONNECTIONS_MIB_MAX: f64 = 120.0;

/// For what is freed behind an answer.
const SETTLING: Duration = Duration::from_secs(1);

pub(super) fn run(bench: &Bench) -> anyhow::Result<Report> {
    let mut report = Report::new("idle");
    report.head(&["state", "RSS MiB", "at most", "KiB for each connection", "descriptors"]);
    connections(bench, &mut report)?;
    for payload_bytes in LOADS {
        under_load(bench, payload_bytes, &mut report)?;
    }
    Ok(report)
}

fn connections(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let count = if bench.is_quick { QUICK_CONNECTIONS } else { CONNECTIONS };
    let sidecar = bench.sidecar(&[]).start();
    let pid = sidecar.pid();
    let mut state = |name: &str, mib_max: f64, base_kib: Option<u64>| -> anyhow::Result<u64> {
        std::thread::sleep(SETTLING);
        let vitals = Vitals::of(pid)?;
        let each = base_kib.map(|base| vitals.rss_kib.saturating_sub(base) as f64 / count as f64);
        row(report, name, vitals.rss_kib, mib_max, each, vitals.descriptors);
        Ok(vitals.rss_kib)
    };
    let idle_kib = state("no connection yet", IDLE_MIB_MAX, None)?;
    let mut clients = Vec::new();
    bench.runtime.block_on(async {
        for _ in 0..count {
            let client = Client::connect(sidecar.addr).await.map_err(|ended| anyhow!("{ended:?}"))?;
            let ended = client.unary(&message(100)).await;
            ensure!(matches!(ended, super::client::Ended::Answered), "{ended:?}");
            clients.push(client);
        }
        Ok(())
    })?;
    state(
        &format!("{count} silent connections, each after one small call"),
        CONNECTIONS_MIB_MAX,
        Some(idle_kib),
    )?;
    bench.runtime.block_on(carry(&clients))?;
    state(
        &format!("the same, each after {CARRIED_CALLS} calls of {CARRIED_BYTES} B both ways"),
        CONNECTIONS_MIB_MAX,
        Some(idle_kib),
    )?;
    drop(clients);
    state("all of them closed", CONNECTIONS_MIB_MAX, None)?;
    stop(sidecar).map(drop)
}

async fn carry(clients: &[Client]) -> anyhow::Result<()> {
    let message = message(CARRIED_BYTES);
    for some in clients.chunks(AT_A_TIME) {
        let mut calls = tokio::task::JoinSet::new();
        for client in some {
            let (client, message) = (client.clone(), message.clone());
            calls.spawn(async move {
                for _ in 0..CARRIED_CALLS {
                    let ended = client.unary(&message).await;
                    ensure!(matches!(ended, super::client::Ended::Answered), "{ended:?}");
                }
                Ok(())
            });
        }
        calls.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
    }
    Ok(())
}

fn under_load(bench: &Bench, payload_bytes: u32, report: &mut Report) -> anyhow::Result<()> {
    let sidecar = bench.sidecar(&[]).start();
    forget_peak(sidecar.pid())?;
    let message = message(payload_bytes);
    let seen = bench.runtime.block_on(saturate(sidecar.addr, 8, 32, &message, bench.window()));
    let vitals = Vitals::of(sidecar.pid())?;
    let calls_per_s = seen.answered() as f64 / bench.window().as_secs_f64();
    let name = format!("at the peak of 8 x 32 calls of {payload_bytes} B ({calls_per_s:.0} calls/s)");
    row(report, &name, vitals.peak_kib, LOAD_MIB_MAX, None, vitals.descriptors);
    report.must(seen.failures == 0, || format!("{} calls failed: {:?}", seen.failures, seen.told));
    stop(sidecar).map(drop)
}

fn row(report: &mut Report, name: &str, rss_kib: u64, mib_max: f64, each_kib: Option<f64>, descriptors: u64) {
    let resident_mib = rss_kib as f64 / 1024.0;
    report.row(&[
        name.to_owned(),
        format!("{resident_mib:.1}"),
        format!("{mib_max:.0}"),
        each_kib.map_or_else(String::new, |kib| format!("{kib:.1}")),
        descriptors.to_string(),
    ]);
    report.must(resident_mib <= mib_max, || format!("{name}: {resident_mib:.0} MiB, over {mib_max:.0}"));
}
