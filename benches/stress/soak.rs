//! A long time of mixed load through one sidecar: memory, descriptors, threads and latency must be at the end what they were at the beginning, nothing may fail, every call must be
//! in the ledger's count, and the ledger must verify.
//!
//! Each client works at a rate of its own, the same from the first minute to the last. Growth is judged between the first and the last third of the time, without the first minute, in
//! which caches fill.

use super::client::{Client, Ended, Other, message};
use super::load::{Seen, Tally};
use super::report::Report;
use super::vitals::{self, Vitals};
use super::{Bench, stop};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const MINUTE: Duration = Duration::from_mins(1);
/// In place of a minute, where all must be over in a minute.
const QUICK_SLICE: Duration = Duration::from_secs(3);
const QUICK_SLICES: u64 = 4;

/// Between two looks at the sidecar.
const LOOK: Duration = Duration::from_secs(1);

/// Slices without which nothing can be said about growth: one to warm up, and two in each third.
const JUDGED_SLICES_MIN: usize = 7;

/// What may be more at the end than at the beginning: what caches and the allocator still do.
const RSS_RATIO_MAX: f64 = 1.10;
const RSS_SLACK_KIB: f64 = 4.0 * 1024.0;
const DESCRIPTORS_SLACK: f64 = 4.0;
const P50_RATIO_MAX: f64 = 1.3;
const P99_RATIO_MAX: f64 = 2.0;
const LATENCY_SLACK_MS: f64 = 0.2;

/// What one client does, again and again.
#[derive(Clone, Copy)]
enum Doing {
    /// A unary call with a payload of so many bytes.
    Unary(u32),
    /// A stream of so many messages.
    Stream(u32),
    /// The same, cancelled before its end.
    Cancel(u32),
    /// A new connection for each unary call.
    Churn,
    Http1,
    Opaque,
}

/// How many clients do what, and how often each.
const MIX: [(u32, Doing, Duration); 8] = [
    (16, Doing::Unary(100), Duration::from_millis(50)),
    (8, Doing::Unary(1_024), Duration::from_millis(50)),
    (2, Doing::Unary(65_536), Duration::from_millis(200)),
    (4, Doing::Stream(20), Duration::from_millis(500)),
    (2, Doing::Cancel(5), Duration::from_millis(200)),
    (2, Doing::Churn, Duration::from_millis(100)),
    (4, Doing::Http1, Duration::from_millis(50)),
    (4, Doing::Opaque, Duration::from_millis(50)),
];

/// Between the messages of a stream.
const MESSAGE_PAUSE: Duration = Duration::from_millis(20);
const STREAM_PAYLOAD_BYTES: u32 = 512;

/// What all clients share.
#[derive(Default)]
struct Shared {
    /// Of unary calls of 100 and 1,024 bytes, whose latency is told.
    small: Tally,
    /// Of all other calls.
    others: Tally,
    /// Of what are no calls.
    opaque: Tally,
    is_over: AtomicBool,
}

/// What one minute was like.
struct Slice {
    rss_kib: f64,
    descriptors: f64,
    threads: f64,
    seen: Seen,
    others: Seen,
}

pub(super) fn run(bench: &Bench, minutes: u64) -> anyhow::Result<Report> {
    let mut report = Report::new("soak");
    let (slice, slices) = match (bench.is_quick, bench.is_short) {
        (true, _) => (QUICK_SLICE, QUICK_SLICES),
        (_, true) => (QUICK_SLICE * 3, 7),
        _ => (MINUTE, minutes),
    };
    let sidecar = bench.sidecar(&[]).start();
    let (pid, address) = (sidecar.pid(), sidecar.addr);
    let shared = Arc::<Shared>::default();
    let clients = bench.runtime.spawn(all_clients(address, Arc::clone(&shared)));
    report.line(format_args!("{slices} x {} s of mixed load.\n", slice.as_secs()));
    report.head(&[
        "slice",
        "RSS MiB",
        "descriptors",
        "threads",
        "small calls",
        "p50 · p99 ms",
        "other exchanges",
        "failures",
    ]);
    let mut all = Vec::new();
    for number in 1..=slices {
        let slice = watch(pid, slice, &shared)?;
        report.row(&slice.cells(number));
        all.push(slice);
    }
    shared.is_over.store(true, Ordering::Relaxed);
    bench.runtime.block_on(clients)?;
    let last = [shared.small.take(), shared.others.take(), shared.opaque.take()];
    let ledger_gb = vitals::segments_bytes(&sidecar.ledger_dir)? as f64 / 1e9;
    let begun = Instant::now();
    let counters = stop(sidecar)?;
    let of = |name: &str| counters.get(name).copied().unwrap_or_default();
    let calls = shared.small.begun.load(Ordering::Relaxed) + shared.others.begun.load(Ordering::Relaxed);
    report.line(format_args!(
        "\nStopped in order, and `attestry verify` finds the ledger intact ({:.1} s for both): {calls} calls made and {} captured, on {} connections, in {} commits and {ledger_gb:.2} GB.",
        begun.elapsed().as_secs_f64(),
        of("calls_started"),
        of("connections_accepted"),
        of("commits"),
    ));
    judge(&all, &last, &mut report);
    report.must(of("calls_started") == calls, || {
        format!("{calls} calls were made, and the ledger has {}", of("calls_started"))
    });
    Ok(report)
}

async fn all_clients(address: SocketAddr, shared: Arc<Shared>) {
    let mut clients = JoinSet::new();
    for (count, doing, pause) in MIX {
        for number in 0..count {
            let shared = Arc::clone(&shared);
            clients.spawn(async move {
                // Not all at the same moment.
                tokio::time::sleep(pause * number / count).await;
                client(address, doing, pause, &shared).await;
            });
        }
    }
    clients.join_all().await;
}

/// One client, until all is over. One whose connection fails connects anew; the failure is counted.
async fn client(address: SocketAddr, doing: Doing, pause: Duration, shared: &Shared) {
    let (mut ticks, mut talk) = (tokio::time::interval(pause), None);
    // A late answer delays the next call: the rate is an upper bound, and no backlog builds up here.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shared.is_over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let tally = doing.tally(shared);
        let open = match talk.take() {
            Some(open) => Ok(open),
            None => Talk::open(address, doing).await,
        };
        let begun = Instant::now();
        match open {
            Err(ended) => tally.ended(begun, &ended),
            Ok(mut open) => {
                let begun = tally.begin();
                let ended = open.turn(doing).await;
                tally.ended(begun, &ended);
                talk =
                    Some(open).filter(|_| matches!(ended, Ended::Answered) && !matches!(doing, Doing::Churn));
            }
        }
    }
}

impl Doing {
    fn tally(self, shared: &Shared) -> &Tally {
        match self {
            Self::Unary(..=1_024) => &shared.small,
            Self::Opaque => &shared.opaque,
            _ => &shared.others,
        }
    }

    fn message(self) -> Bytes {
        message(if let Self::Unary(payload_bytes) = self { payload_bytes } else { STREAM_PAYLOAD_BYTES })
    }
}

/// A client's connection.
enum Talk {
    Grpc(Client, Bytes),
    Other(Other),
}

impl Talk {
    async fn open(address: SocketAddr, doing: Doing) -> Result<Self, Ended> {
        let failed = |error: std::io::Error| Ended::Failed(format!("no connection: {error}"));
        Ok(match doing {
            Doing::Http1 => Self::Other(Other::http1(address).await.map_err(failed)?),
            Doing::Opaque => Self::Other(Other::opaque(address).await.map_err(failed)?),
            _ => Self::Grpc(Client::connect(address).await?, doing.message()),
        })
    }

    async fn turn(&mut self, doing: Doing) -> Ended {
        match (self, doing) {
            (Self::Other(other), _) => other.exchange().await,
            (Self::Grpc(client, message), Doing::Stream(messages)) => {
                client.stream(message, messages, MESSAGE_PAUSE, false).await
            }
            (Self::Grpc(client, message), Doing::Cancel(messages)) => {
                client.stream(message, messages, MESSAGE_PAUSE, true).await
            }
            (Self::Grpc(client, message), _) => client.unary(message).await,
        }
    }
}

/// Looks at the sidecar again and again for one slice. Of what goes up and down with each connection, the median counts.
fn watch(pid: u32, slice: Duration, shared: &Shared) -> anyhow::Result<Slice> {
    let (begin, mut looks) = (Instant::now(), Vec::new());
    while begin.elapsed() < slice {
        std::thread::sleep(LOOK.min(slice.saturating_sub(begin.elapsed())));
        looks.push(Vitals::of(pid)?);
    }
    let median_of = |figure: fn(&Vitals) -> u64| median(looks.iter().map(|vitals| figure(vitals) as f64));
    let mut others = shared.others.take();
    let opaque = shared.opaque.take();
    others.add(opaque);
    Ok(Slice {
        rss_kib: median_of(|vitals| vitals.rss_kib),
        descriptors: median_of(|vitals| vitals.descriptors),
        threads: median_of(|vitals| vitals.threads),
        seen: shared.small.take(),
        others,
    })
}

impl Slice {
    fn cells(&self, number: u64) -> Vec<String> {
        vec![
            number.to_string(),
            format!("{:.1}", self.rss_kib / 1024.0),
            format!("{:.0}", self.descriptors),
            format!("{:.0}", self.threads),
            self.seen.answered().to_string(),
            self.seen.to_string(),
            self.others.answered().to_string(),
            (self.seen.failures + self.others.failures).to_string(),
        ]
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn judge(slices: &[Slice], last: &[Seen], report: &mut Report) {
    let seen = slices.iter().flat_map(|slice| [&slice.seen, &slice.others]).chain(last);
    let failed: Vec<_> = seen.filter(|seen| seen.failures > 0).collect();
    let failures: u64 = failed.iter().map(|seen| seen.failures).sum();
    report.must(failures == 0, || {
        let told: Vec<_> = failed.iter().flat_map(|seen| &seen.told).take(5).collect();
        format!("{failures} calls failed: {told:?}")
    });
    if slices.len() < JUDGED_SLICES_MIN {
        return report.line("Too short to say anything about growth.");
    }
    let third = (slices.len() - 1) / 3;
    let (first, end) = (&slices[1..=third], &slices[slices.len() - third..]);
    let mut grows = |name: &str, figure: fn(&Slice) -> f64, ratio_max: f64, slack: f64| {
        let [before, after] = [first, end].map(|slices| median(slices.iter().map(figure)));
        report.line(format_args!("- {name}: {before:.2} in the first third, {after:.2} in the last"));
        report.must(after <= before * ratio_max + slack, || {
            format!("{name} grew from {before:.2} to {after:.2}")
        });
    };
    grows("RSS MiB", |slice| slice.rss_kib / 1024.0, RSS_RATIO_MAX, RSS_SLACK_KIB / 1024.0);
    grows("descriptors", |slice| slice.descriptors, 1.0, DESCRIPTORS_SLACK);
    grows("threads", |slice| slice.threads, 1.0, 0.0);
    grows("p50 ms", |slice| slice.seen.latency_ms(0.5), P50_RATIO_MAX, LATENCY_SLACK_MS);
    grows("p99 ms", |slice| slice.seen.latency_ms(0.99), P99_RATIO_MAX, LATENCY_SLACK_MS);
}
