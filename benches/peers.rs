//! What a unary call costs: calls per second, latency, CPU, memory and ledger bytes of attestry, beside a direct connection and a plain proxy, in one run.
//!
//! `cargo bench --bench unary` prints a Markdown table; `-- --help` tells its flags, and `-- --quick` is a smoke run of seconds. The peers take turns in each round, so that a
//! disturbance hits all of them; figures of two runs, days or machines do not compare. Needs h2load (Debian: nghttp2-client), and nghttpx (nghttp2-proxy) for
//! the peer. What a run must show to count is in `load` and `echo`; how CPU is counted, in `usage`.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]
#![allow(clippy::cast_possible_wrap, reason = "window arithmetic on lengths far below the bound")]

#[path = "unary/backend.rs"]
mod backend;
#[path = "unary/conversation.rs"]
mod conversation;
#[path = "unary/disk.rs"]
mod disk;
#[path = "unary/echo.rs"]
mod echo;
#[path = "unary/figures.rs"]
mod figures;
#[path = "unary/load.rs"]
mod load;
#[path = "unary/machine.rs"]
mod machine;
#[path = "unary/peers.rs"]
mod peers;
#[path = "unary/report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "unary/usage.rs"]
mod usage;

use anyhow::Context as _;
use clap::Parser as _;
use load::{Load, Seen, Shape};
use machine::Cores;
use peers::{Backend, Running, Through};
use report::Cell;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use usage::Cost;

const SHAPES: [Shape; 2] = [Shape { connections: 1, streams: 1 }, Shape { connections: 8, streams: 32 }];

/// What a unary call costs.
#[derive(clap::Parser)]
struct Args {
    /// Smoke run: one round of one second
    #[arg(long)]
    quick: bool,
    /// Runs of each cell
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Length of a run, in seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Bytes of a message, such as 100,1024,16384
    #[arg(long, value_delimiter = ',', default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    payloads: Vec<u32>,
    /// Be the echo server (the benchmark starts itself so)
    #[arg(long, hide = true)]
    backend: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one run gave.
struct Measured {
    seen: Seen,
    cost: Option<Cost>,
}

/// What all runs have in common.
struct Bench {
    warm_up_s: u64,
    seconds: u64,
    cores: Cores,
    backend: Backend,
    /// For ledgers: beside the build, on a disk.
    folder: PathBuf,
    /// For h2load's files: in memory where that is possible, so that they cost the ledger's disk nothing.
    scratch: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.backend {
        return backend::serve();
    }
    let Some(h2load) = load::version("h2load") else {
        support::skip("the benchmark of unary calls", "h2load is not installed (Debian: nghttp2-client)");
        return Ok(());
    };
    let nghttpx = load::version("nghttpx");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
    let cores = Cores::divide()?;
    let disk = disk::measure(folder.path())?;
    for line in machine::circumstances(cores, folder.path(), &disk) {
        println!("{line}");
    }
    let peer =
        nghttpx.as_deref().unwrap_or("nghttpx is not installed (Debian: nghttp2-proxy), so there is no peer");
    println!("versions: attestry {}; {h2load}; {peer}", env!("CARGO_PKG_VERSION"));

    let (rounds, seconds) = if args.quick { (1, 1) } else { (args.rounds, args.seconds) };
    println!(
        "each cell: median (least - greatest) of {rounds} interleaved runs of {seconds} s, each after a warm-up of 1 s\n"
    );
    let backend = Backend::start(folder.path())?;
    let (folder, scratch) = (folder.path().to_owned(), scratch.path().to_owned());
    let mut bench = Bench { warm_up_s: 1, seconds, cores, backend, folder, scratch };
    let peers = [Some(Through::Direct), Some(Through::Attestry), nghttpx.map(|_| Through::Nghttpx)];
    let peers: Vec<Through> = peers.into_iter().flatten().collect();
    bench.check_each(&peers, &args.payloads)?;
    let cells = bench.measure_all(&peers, &args.payloads, rounds)?;
    print!("{}", report::table(&cells));
    Ok(())
}

impl Bench {
    /// One call through each peer, looked at closely; and attestry's evidence of it, verified.
    fn check_each(&self, peers: &[Through], payloads: &[u32]) -> anyhow::Result<()> {
        for &through in peers {
            let running = Running::start(through, self.backend.address, self.cores, &self.folder)?;
            for &payload_bytes in payloads {
                let checked = echo::check(running.address, &echo::message(payload_bytes));
                checked.with_context(|| format!("one call of {payload_bytes} bytes, {through}"))?;
            }
            running.stop_and_verify()?;
        }
        Ok(())
    }

    fn measure_all(&mut self, peers: &[Through], payloads: &[u32], rounds: u64) -> anyhow::Result<Vec<Cell>> {
        let shapes = SHAPES.iter().flat_map(|&shape| payloads.iter().map(move |&bytes| (shape, bytes)));
        let places =
            shapes.flat_map(|(shape, bytes)| peers.iter().map(move |&through| (shape, bytes, through)));
        let mut cells: Vec<Cell> = places
            .map(|(shape, payload_bytes, through)| Cell { shape, payload_bytes, through, runs: Vec::new() })
            .collect();
        for round in 1..=rounds {
            for cell in &mut cells {
                eprintln!("round {round} of {rounds}: {}", cell.name());
                let measured = self.measure(cell.shape, &echo::message(cell.payload_bytes), cell.through);
                cell.runs.push(measured.with_context(|| cell.name())?);
            }
        }
        Ok(cells)
    }

    /// One run, through a proxy of its own, so that each begins with an empty ledger.
    fn measure(&mut self, shape: Shape, message: &[u8], through: Through) -> anyhow::Result<Measured> {
        let running = Running::start(through, self.backend.address, self.cores, &self.folder)?;
        let Self { warm_up_s, seconds, backend, .. } = self;
        let (warm_up_s, seconds) = (*warm_up_s, *seconds);
        let load =
            Load { address: running.address, shape, message, warm_up_s, seconds, folder: &self.scratch };
        let answered_before = backend.calls()?;
        let (seen, cost) = load.run(|| {
            let Some(meter) = &running.meter else { return Ok(None) };
            // Costs are those of the middle of the run: neither its warm-up nor its end is in them.
            thread::sleep(Duration::from_millis(warm_up_s * 1000 + seconds * 100));
            let before = meter.sample(backend.calls()?)?;
            thread::sleep(Duration::from_millis(seconds * 800));
            Ok(Some(meter.sample(backend.calls()?)?.since(&before)))
        })?;
        load.check_bytes(&seen, backend.calls()? - answered_before)?;
        running.stop()?;
        Ok(Measured { seen, cost })
    }
}
