//! What transparency costs: added latency, CPU and ledger bytes of attestry for everything that it relays, beside a direct connection and a relay that records nothing, in one run.
//!
//! `cargo bench --bench transparency` prints Markdown tables; `-- --help` tells its flags, and `-- --quick` is a smoke run. Clients, backends, TLS included, are the benchmark's own, so
//! that every byte that comes back is compared; needs the openssl command for certificates. The ways take turns in each round, so that a disturbance hits all of them, and what others have used of
//! the machine stands beside each figure. Figures of two runs, days or machines do not compare. What is measured is in `cases`.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]
#![allow(clippy::cast_possible_wrap, reason = "window arithmetic on lengths far below the bound")]

#[path = "../tests/tls/authority.rs"]
mod authority;
#[path = "transparency/backend.rs"]
mod backend;
#[path = "transparency/bare.rs"]
mod bare;
#[path = "transparency/calls.rs"]
mod calls;
#[path = "transparency/cases.rs"]
mod cases;
#[path = "peers/conversation.rs"]
mod conversation;
#[path = "peers/disk.rs"]
mod disk;
#[path = "peers/figures.rs"]
mod figures;
#[path = "transparency/load.rs"]
mod load;
#[path = "peers/machine.rs"]
mod machine;
#[path = "transparency/others.rs"]
mod others;
#[path = "transparency/report.rs"]
mod report;
#[path = "transparency/secrets.rs"]
mod secrets;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "transparency/talks.rs"]
mod talks;
#[path = "peers/usage.rs"]
mod usage;
#[path = "transparency/ways.rs"]
mod ways;

use anyhow::Context as _;
use backend::Backend;
use cases::Case;
use clap::Parser as _;
use disk::DiskLatency;
use load::{Load, Seen};
use machine::Cores;
use others::Others;
use report::Cell;
use secrets::Secrets;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use talks::Dial;
use usage::Cost;
use ways::{Running, Way};

/// Length of the run that is only looked at.
const CHECK: Duration = Duration::from_millis(300);

/// Runs that are made until one is not disturbed.
const TRIES_MAX: u32 = 5;

/// What transparency costs.
#[derive(clap::Parser)]
struct Args {
    /// Smoke run: one round of half a second
    #[arg(long)]
    quick: bool,
    /// Runs of each cell
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Length of a run, in seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// A run in which others use more of the machine than this is made again, up to five times
    #[arg(long, default_value_t = 100, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    others_max: u32,
    /// Only cases that have this in their names; may be given several times
    #[arg(long)]
    only: Vec<String>,
    /// Be the servers, with the certificates of this folder (the benchmark starts itself so)
    #[arg(long, hide = true)]
    backend: Option<PathBuf>,
    /// Be a relay that records nothing (the benchmark starts itself so)
    #[arg(long, hide = true)]
    relay: Option<SocketAddr>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one run gave.
struct Measured {
    seen: Seen,
    /// Of all that is on the way together; `None` where there is nothing.
    cost: Option<Cost>,
    /// CPU that neither the sidecars nor the benchmark has used, in percent of the machine.
    others_percent: f64,
}

/// What all runs have in common.
struct Bench {
    warm_up: Duration,
    window: Duration,
    others_max: u32,
    cores: Cores,
    backend: Backend,
    secrets: Secrets,
    /// For ledgers: beside the build, on a disk.
    folder: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(folder) = &args.backend {
        return backend::serve(&Secrets::of(folder));
    }
    if let Some(upstream) = args.relay {
        return bare::relay(upstream);
    }
    if std::process::Command::new("openssl").arg("version").output().is_err() {
        support::skip("the benchmark of transparency", "openssl is not installed (Debian: openssl)");
        return Ok(());
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let cores = Cores::divide()?;
    let disk = disk::latency(folder.path(), disk::Into::Zeros)?;
    for line in machine::circumstances(cores, folder.path(), &disk) {
        println!("{line}");
    }
    let (rounds, window) = if args.quick {
        (1, Duration::from_millis(500))
    } else {
        (args.rounds, Duration::from_secs(args.seconds))
    };
    let warm_up = window.min(Duration::from_secs(1));
    println!("versions: attestry {}", env!("CARGO_PKG_VERSION"));
    println!(
        "each cell: median (least - greatest) of {rounds} interleaved runs of {window:?}, each after a warm-up of {warm_up:?}\n"
    );
    let secrets = Secrets::make(folder.path());
    let backend = Backend::start(&secrets, folder.path())?;
    let others_max = args.others_max;
    let bench =
        Bench { warm_up, window, others_max, cores, backend, secrets, folder: folder.path().to_owned() };
    let cases = cases::named(&args.only);
    bench.check_each(&cases)?;
    let (cells, disks) = bench.measure_all(&cases, rounds)?;
    print!("{}", report::tables(&cells, &disks));
    Ok(())
}

impl Bench {
    /// A short run of each case each way, whose evidence is looked at: the ledger is intact, and what was to be measured is what attestry has found.
    fn check_each(&self, cases: &[&Case]) -> anyhow::Result<()> {
        for case in cases {
            for &way in case.ways {
                let name = case.name_through(way);
                eprintln!("check: {name}");
                let running = Running::start(case, way, self)?;
                let load =
                    Load { case, dial: self.dial(case, &running), warm_up: Duration::ZERO, window: CHECK };
                load.run(|_| Ok(())).with_context(|| name.clone())?;
                running.stop_and_verify(case).context(name)?;
            }
        }
        Ok(())
    }

    fn measure_all(
        &self,
        cases: &[&'static Case],
        rounds: u64,
    ) -> anyhow::Result<(Vec<Cell>, Vec<DiskLatency>)> {
        let places = cases.iter().flat_map(|&case| case.ways.iter().map(move |&way| (case, way)));
        let mut cells: Vec<Cell> = places.map(|(case, way)| Cell { case, way, runs: Vec::new() }).collect();
        let mut disks = Vec::new();
        for round in 1..=rounds {
            disks.push(disk::latency(&self.folder, disk::Into::Zeros)?);
            for cell in &mut cells {
                let name = cell.case.name_through(cell.way);
                eprintln!("round {round} of {rounds}: {name}");
                cell.runs.push(self.measure_undisturbed(cell.case, cell.way).context(name)?);
            }
        }
        Ok((cells, disks))
    }

    /// The first of several runs that others leave alone; the last of them where there is none.
    fn measure_undisturbed(&self, case: &Case, way: Way) -> anyhow::Result<Measured> {
        let mut measured = self.measure(case, way)?;
        for _ in 1..TRIES_MAX {
            if measured.others_percent <= f64::from(self.others_max) {
                break;
            }
            measured = self.measure(case, way)?;
        }
        Ok(measured)
    }

    /// One run, through sidecars of its own, so that each begins with an empty ledger.
    fn measure(&self, case: &Case, way: Way) -> anyhow::Result<Measured> {
        let running = Running::start(case, way, self)?;
        let meters = running.meters();
        let own = meters.iter().map(|meter| meter.pid).chain([std::process::id(), self.backend.pid()]);
        let own: Vec<u32> = own.collect();
        let dial = self.dial(case, &running);
        let load = Load { case, dial, warm_up: self.warm_up, window: self.window };
        let (seen, [(costs_before, others_before), (costs, others)]) = load.run(|done| {
            let samples = meters.iter().map(|meter| meter.sample(done)).collect::<Result<Vec<_>, _>>()?;
            Ok((samples, Others::sample(&own)?))
        })?;
        let costs = costs.iter().zip(&costs_before).map(|(now, then)| now.since(then));
        let measured = Measured {
            seen,
            cost: costs.reduce(ways::sum),
            others_percent: others.percent_since(&others_before),
        };
        running.stop()?;
        Ok(measured)
    }

    fn dial(&self, case: &Case, running: &Running) -> Dial {
        let tls = case.speaks_tls.then(|| self.secrets.client(case.alpn()));
        Dial { address: running.address, tls }
    }
}
