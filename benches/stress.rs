//! What attestry does under stress: on a slow disk, with ten times the connections that it has room for, over hours, and with connections that are open and silent.
//!
//! `cargo bench --bench stress -- slow-disk | overload | soak --minutes N | idle` prints Markdown tables and a verdict, and ends with 1 where something did not hold; without a name short
//! versions of all run, with `--quick` in less than a minute. `--write` puts the tables into docs/benchmarks-stress.md. Whatever of the answers is not what it must be counts as a failure.
//! Needs strace for the slow disk. The server behind and all clients are this process, on the second core; the sidecar has the first.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

#[path = "stress/client.rs"]
mod client;
#[path = "peers/disk.rs"]
#[allow(dead_code, reason = "appends of other sizes are the comparison's")]
mod disk;
#[path = "peers/figures.rs"]
#[allow(dead_code, reason = "how far rounds spread is told elsewhere")]
mod figures;
#[path = "stress/idle.rs"]
mod idle;
#[path = "stress/knock.rs"]
mod knock;
#[path = "stress/load.rs"]
mod load;
#[path = "peers/machine.rs"]
#[allow(dead_code, reason = "two cores for a proxy are the comparison's")]
mod machine;
#[path = "stress/overload.rs"]
mod overload;
#[path = "stress/report.rs"]
mod report;
#[path = "stress/server.rs"]
mod server;
#[path = "stress/slow_disk.rs"]
mod slow_disk;
#[path = "stress/soak.rs"]
mod soak;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "stress/vitals.rs"]
mod vitals;

use clap::Parser as _;
use machine::Cores;
use report::Report;
use server::Server;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use support::sidecar::{Builder, Sidecar};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// As in production: the default.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// What attestry does under stress.
#[derive(clap::Parser)]
struct Args {
    #[command(subcommand)]
    stress: Option<Stress>,
    /// Shorter still: less than a minute for all
    #[arg(long, global = true)]
    quick: bool,
    /// Put the tables into docs/benchmarks-stress.md
    #[arg(long, global = true)]
    write: bool,
    /// Given by cargo
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Clone, clap::Subcommand)]
enum Stress {
    /// Each fdatasync takes longer
    SlowDisk,
    /// Ten times the connections that there is room for
    Overload,
    /// Mixed load for a long time
    Soak {
        /// Two hours is the full length
        #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        minutes: u64,
    },
    /// Memory with connections that are open and silent
    Idle,
    /// Be the clients for which there is no room (the benchmark starts itself so)
    #[command(hide = true)]
    Knock(knock::Knocking),
}

/// What all stresses have in common.
struct Bench {
    is_quick: bool,
    is_short: bool,
    cores: Cores,
    runtime: Runtime,
    server: Server,
    /// For ledgers: beside the build, on a disk.
    folder: TempDir,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(Stress::Knock(knocking)) = &args.stress {
        return knock::knock(knocking).map(|()| ExitCode::SUCCESS);
    }
    let bench = Bench::start(args.quick, args.stress.is_none())?;
    let circumstances = machine::circumstances(
        bench.cores,
        bench.folder.path(),
        &disk::latency(bench.folder.path(), disk::Into::Zeros)?,
    );
    for line in &circumstances {
        println!("{line}");
    }
    let all = || vec![Stress::SlowDisk, Stress::Overload, Stress::Soak { minutes: 2 }, Stress::Idle];
    let mut holds = true;
    for stress in args.stress.map_or_else(all, |stress| vec![stress]) {
        let report = bench.run(&stress)?;
        println!("\n{report}");
        holds &= report.faults.is_empty() && (args.quick || report.slow.is_empty());
        if args.write {
            report.write(&circumstances)?;
        }
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Bench {
    fn start(is_quick: bool, is_short: bool) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let cores = Cores::divide()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let server = runtime.block_on(Server::start())?;
        Ok(Self { is_quick, is_short: is_short || is_quick, cores, runtime, server, folder })
    }

    fn run(&self, stress: &Stress) -> anyhow::Result<Report> {
        match stress {
            Stress::SlowDisk => slow_disk::run(self),
            Stress::Overload => overload::run(self),
            Stress::Soak { minutes } => soak::run(self, *minutes),
            Stress::Idle => idle::run(self),
            Stress::Knock(_) => unreachable!("it is another process"),
        }
    }

    /// How long one row is measured.
    fn window(&self) -> Duration {
        Duration::from_secs(match (self.is_quick, self.is_short) {
            (true, _) => 2,
            (_, true) => 5,
            _ => 15,
        })
    }

    /// A sidecar in front of the server, with one worker on a core of its own, and the ledger in a folder of its own.
    fn sidecar(&self, wrapper: &[&str]) -> Builder {
        let wrapper: Vec<&str> = wrapper.iter().chain(self.cores.wrapper()).copied().collect();
        Sidecar::builder(self.server.address)
            .set("proxy", "workers", "1")
            .set("ledger", "segment_bytes", &SEGMENT_BYTES.to_string())
            .set("log", "filter", "\"warn\"")
            .ledger_dir(&self.ledger())
            .wrapper(&wrapper)
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }
}

/// Ends it in order; its ledger must verify, and then goes. Returns the counters of its last entry.
fn stop(mut sidecar: Sidecar) -> anyhow::Result<vitals::Counters> {
    sidecar.stop();
    sidecar.verify();
    let counters = vitals::counters(&sidecar.ledger_dir)?;
    std::fs::remove_dir_all(&sidecar.ledger_dir)?;
    Ok(counters)
}
