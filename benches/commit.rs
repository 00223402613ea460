//! What the ledger alone costs: commits against the bare disk's append and fdatasync in the same run, the speed of verifying, and that of starting with a large ledger.
//!
//! `cargo bench --bench commit` prints Markdown tables, the targets first; `-- --help` tells its flags, `-- --quick` is a smoke run of seconds, `-- --write` puts the
//! report into docs/benchmarks-ledger.md. All of it is on the file system of the build, and is removed at the end. What is compared took turns in one run: figures of two
//! runs, days or machines do not compare. Calls through the proxy are the bench `peers`'.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

#[path = "commit/appends.rs"]
mod appends;
#[path = "commit/child.rs"]
mod child;
#[path = "commit/entries.rs"]
mod entries;
#[path = "commit/figures.rs"]
mod figures;
#[path = "commit/ledgers.rs"]
mod ledgers;
#[path = "commit/readings.rs"]
mod readings;
#[path = "commit/report.rs"]
mod report;
#[path = "commit/starts.rs"]
mod starts;
#[path = "commit/sweep.rs"]
mod sweep;
#[path = "commit/threads.rs"]
mod threads;

use attestry::limits;
use clap::Parser as _;
use ledgers::Place;
use report::{Measured, TARGET_SHAPE};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use sweep::{Effort, Shape};

const MIB: u64 = 1024 * 1024;

/// Commits that a ledger of lone small entries is made of, at the most, and in a smoke run: each takes an fdatasync.
const READ_COMMITS_MAX: u64 = 50_000;
const READ_COMMITS_QUICK: u64 = 2_000;

/// What is verified: small entries in batches as load makes them, as a lone caller makes them, and large ones.
const READ_SHAPES: [Shape; 4] = [
    Shape { batch: 64, payload_bytes: 100 },
    Shape { batch: 8, payload_bytes: 100 },
    Shape { batch: 1, payload_bytes: 100 },
    Shape { batch: 8, payload_bytes: 16 * 1024 },
];

/// What the ledger alone costs.
#[derive(clap::Parser)]
struct Args {
    /// Smoke run: few shapes, short blocks, small ledgers
    #[arg(long)]
    quick: bool,
    /// Put the report into docs/benchmarks-ledger.md
    #[arg(long)]
    write: bool,
    /// Only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Blocks of each way in each cell
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Length of a block, in milliseconds
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    block_ms: u64,
    /// Entries in a batch, such as 1,8,64,512
    #[arg(long, value_delimiter = ',', default_value = "1,8,64,512", value_parser = clap::value_parser!(u16).range(1..=16_384))]
    batch: Vec<u16>,
    /// Bytes of payload in an entry
    #[arg(long, value_delimiter = ',', default_value = "100,300,1024,16384,65536", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    payload: Vec<u32>,
    /// Bytes of a segment
    #[arg(long, default_value_t = limits::SEGMENT_BYTES, value_parser = clap::value_parser!(u64).range(limits::SEGMENT_BYTES_RANGE))]
    segment_bytes: u64,
    /// The ledger that is started, in MiB
    #[arg(long, default_value_t = 10_240, value_parser = clap::value_parser!(u64).range(16..=1_000_000))]
    start_mib: u64,
    /// Each ledger that is verified, in MiB
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(16..=1_000_000))]
    read_mib: u64,
    /// Be a ledger in this folder (the benchmark starts itself so)
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
    #[arg(long, hide = true, default_value_t = 0)]
    fill_bytes: u64,
    #[arg(long, hide = true, default_value_t = 0)]
    newest_bytes: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Commit,
    Verify,
    Start,
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if let Some(dir) = &args.child {
        let shape = shapes(&args).next().expect("clap gives one batch size and one payload at least");
        let place = Place { dir: dir.clone(), segment_bytes: args.segment_bytes };
        return child::serve(&place, shape, args.fill_bytes, args.newest_bytes);
    }
    if args.quick {
        (args.batch, args.payload) = (vec![1, 64], vec![300, 16_384]);
        (args.rounds, args.block_ms, args.start_mib, args.read_mib) = (2, 50, 64, 32);
        // Small segments, so that less is filled with zeros than with entries.
        args.segment_bytes = 8 * MIB;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let measured =
        measure(&args, &Place { dir: folder.path().to_owned(), segment_bytes: args.segment_bytes })?;
    let text = measured.text();
    print!("{text}");
    if args.write {
        report::write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks-ledger.md"), &text)?;
    }
    Ok(())
}

fn measure(args: &Args, place: &Place) -> anyhow::Result<Measured> {
    let is_wanted = |part| args.only.is_none_or(|only| only == part);
    let circumstances = circumstances(args, &place.dir);
    let block = Duration::from_millis(args.block_ms);
    let mut cells = Vec::new();
    for shape in shapes(args).filter(|_| is_wanted(Part::Commit)) {
        eprintln!("commits: {shape}");
        // The p99 that a target is about is taken from more commits.
        let rounds = usize::from(args.rounds) * if shape == TARGET_SHAPE { 4 } else { 1 };
        cells.push(sweep::measure(place, shape, Effort { rounds, block })?);
    }
    let (rounds, mut readings) = (if args.quick { 1 } else { 3 }, Vec::new());
    for shape in READ_SHAPES.into_iter().filter(|_| is_wanted(Part::Verify)) {
        eprintln!("verifying: {shape}");
        let commits_max = if args.quick { READ_COMMITS_QUICK } else { READ_COMMITS_MAX };
        let log_bytes = (args.read_mib * MIB).min(commits_max * shape.frame_bytes());
        readings.push(readings::measure(place, shape, log_bytes, rounds)?);
    }
    let started = is_wanted(Part::Start).then(|| {
        eprintln!("starting with {} MiB", args.start_mib);
        starts::measure(place, TARGET_SHAPE, args.start_mib * MIB, rounds)
    });
    Ok(Measured { circumstances, cells, readings, started: started.transpose()? })
}

fn shapes(args: &Args) -> impl Iterator<Item = Shape> {
    let pairs = args.batch.iter().flat_map(|&batch| args.payload.iter().map(move |&bytes| (batch, bytes)));
    pairs.map(|(batch, bytes)| Shape { batch: batch.into(), payload_bytes: bytes as usize })
}

/// What the reader has to know of machine and run.
fn circumstances(args: &Args, folder: &Path) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let df = Command::new("df").arg("--output=fstype").arg(folder).output();
    let df = df.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let file_system = df.lines().nth(1).unwrap_or("unknown file system");
    format!(
        "attestry {} on {cores} x {}, Linux {}, {}; load average before the run: {}.\nEach cell: {} blocks of {} ms in each way, in turns.{}\n",
        env!("CARGO_PKG_VERSION"),
        cpu.trim_start_matches(['\t', ' ', ':']),
        read("/proc/sys/kernel/osrelease").trim(),
        file_system,
        read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        args.rounds,
        args.block_ms,
        if args.quick { " A SMOKE RUN: its figures are too few to mean anything." } else { "" },
    )
}
