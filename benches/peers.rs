//! What attestry costs beside other proxies: calls per second, latency, CPU, memory and bytes on disk, through all of them in one run, in front of one backend.
//!
//! `cargo bench --bench peers` installs the peers that it needs, measures for some twenty minutes, prints all tables and writes docs/benchmarks.md with its plots;
//! `-- --help` tells its flags, and `-- --quick` is a smoke run. The peers take turns in each round, so that a disturbance hits all of them; figures of two runs,
//! days or machines do not compare. What is measured is in `case`; what a run must show to count, in `load`, `echo` and `bulk_load`; how CPU is counted, in `usage`.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]
#![allow(clippy::cast_possible_wrap, reason = "window arithmetic on lengths far below the bound")]

#[path = "peers/backend.rs"]
mod backend;
#[path = "peers/bulk_load.rs"]
mod bulk_load;
#[path = "peers/bulk_service.rs"]
mod bulk_service;
#[path = "peers/case.rs"]
mod case;
#[path = "peers/client.rs"]
mod client;
#[path = "peers/conversation.rs"]
mod conversation;
#[path = "peers/disk.rs"]
mod disk;
#[path = "peers/document.rs"]
mod document;
#[path = "peers/echo.rs"]
mod echo;
#[path = "peers/figures.rs"]
mod figures;
#[path = "peers/install.rs"]
mod install;
#[path = "peers/load.rs"]
mod load;
#[path = "peers/machine.rs"]
mod machine;
#[path = "peers/measure.rs"]
mod measure;
#[path = "transparency/others.rs"]
mod others;
#[path = "peers/peer.rs"]
mod peer;
#[path = "peers/plots.rs"]
mod plots;
#[path = "peers/raw_disk.rs"]
mod raw_disk;
#[path = "peers/report.rs"]
mod report;
#[path = "peers/rounds.rs"]
mod rounds;
#[path = "peers/running.rs"]
mod running;
#[path = "peers/settings.rs"]
mod settings;
#[path = "peers/stored.rs"]
mod stored;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "peers/targets.rs"]
mod targets;
#[path = "peers/usage.rs"]
mod usage;
#[path = "peers/watch.rs"]
mod watch;

use anyhow::{Context as _, ensure};
use case::Case;
use clap::Parser as _;
use install::Programs;
use machine::Cores;
use measure::Bench;
use peer::Peer;
use rounds::{Plan, Results};
use running::Backend;
use std::path::Path;

const ROUNDS: u64 = 3;
const SECONDS: u64 = 3;

/// What attestry costs beside other proxies.
#[derive(clap::Parser)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Args {
    /// Smoke run: each kind of work once, for a second, with the peers that are installed already
    #[arg(long)]
    quick: bool,
    /// Runs of each cell
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Length of a run, in seconds; those that only feed plots are shorter by one
    #[arg(long, default_value_t = SECONDS, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only these peers
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Only cases that have this in their names, such as "unary 8x32" or "upload"; may be given several times
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,
    /// Leave out the peers that are not installed
    #[arg(long)]
    no_install: bool,
    /// A run in which others use more of the machine than this is made again, up to three times
    #[arg(long, default_value_t = 20, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    others_max: u32,
    /// List the cases and their peers, and measure nothing
    #[arg(long)]
    list: bool,
    /// Be the backend (the benchmark starts itself so)
    #[arg(long, hide = true)]
    backend: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.backend {
        return backend::serve();
    }
    let mut cases = args.cases();
    ensure!(!cases.is_empty(), "no case is left; --list shows their names and peers");
    if args.list {
        list(&cases);
        return Ok(());
    }
    let build = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("the build's folder has a parent")?;
    let programs = Programs::beside(build);
    if !args.quick && !args.no_install {
        programs.install(&peers_of(&cases));
    }
    let Some(h2load) = load::version() else {
        support::skip(
            "the benchmark beside other proxies",
            "h2load is not installed (Debian: nghttp2-client)",
        );
        return Ok(());
    };
    let missing = leave_out_missing(&mut cases, &programs);
    let mut circumstances = missing.clone();
    circumstances.push(h2load);
    circumstances.extend(peers_of(&cases).into_iter().filter_map(|peer| programs.version(peer)));
    circumstances.dedup();
    // 1,000 connections have a descriptor at either end of the client and of the backend, which inherits the bound.
    rlimit::increase_nofile_limit(u64::MAX)?;

    // Only a whole run speaks for the project.
    let is_long = !args.quick && args.rounds >= ROUNDS && args.seconds >= SECONDS;
    let is_whole = is_long && args.only.is_empty() && args.peers.is_empty() && missing.is_empty();
    let documents = if is_whole {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
    } else {
        build.join("peers/report")
    };
    let results = measure(&args, &cases, programs, &mut circumstances)?;
    println!("\n{}{}", targets::table(&results), report::tables(&results));
    let page = document::write(&documents, &circumstances, &results)?;
    println!("\nwritten: {} and its plots", page.display());
    let failures: Vec<String> = results.failures().collect();
    ensure!(failures.is_empty(), "{} runs failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

/// All rounds; what the reader has to know of the machine is added to `circumstances`, and told at once.
fn measure(
    args: &Args,
    cases: &[Case],
    programs: Programs,
    circumstances: &mut Vec<String>,
) -> anyhow::Result<Results> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
    let cores = Cores::divide()?;
    let disk = disk::latency(folder.path(), disk::Into::Zeros)?;
    circumstances.extend(machine::circumstances(cores, folder.path(), &disk));
    let plan = args.plan();
    circumstances.push(plan.to_string());
    println!("{}", circumstances.join("\n"));

    let backend = Backend::start(folder.path())?;
    let (folder_path, scratch_path) = (folder.path().to_owned(), scratch.path().to_owned());
    let mut bench =
        Bench { programs, cores, backend, folder: folder_path, scratch: scratch_path, warm_up_s: 1, runs: 0 };
    Ok(plan.run(&mut bench, cases))
}

impl Args {
    fn cases(&self) -> Vec<Case> {
        let mut cases = if self.quick { case::quick() } else { case::full() };
        cases.retain(|case| {
            let name = case.work.to_string();
            self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
        });
        for case in &mut cases {
            case.peers.retain(|peer| self.peers.is_empty() || self.peers.contains(peer));
        }
        cases.retain(|case| !case.peers.is_empty());
        cases
    }

    fn plan(&self) -> Plan {
        if self.quick {
            return Plan { rounds: 1, seconds: 1, others_max: 100, is_quick: true };
        }
        Plan { rounds: self.rounds, seconds: self.seconds, others_max: self.others_max, is_quick: false }
    }
}

fn list(cases: &[Case]) {
    for case in cases {
        let peers: Vec<String> = case.peers.iter().map(Peer::to_string).collect();
        println!("{}: {}", case.work, peers.join(" | "));
    }
}

/// Those of all cases, each once.
fn peers_of(cases: &[Case]) -> Vec<Peer> {
    let mut peers: Vec<Peer> = cases.iter().flat_map(|case| case.peers.iter().copied()).collect();
    peers.sort_unstable();
    peers.dedup();
    peers
}

/// Takes out of the cases what is not installed, and says so loudly.
fn leave_out_missing(cases: &mut Vec<Case>, programs: &Programs) -> Vec<String> {
    let mut said = Vec::new();
    for peer in peers_of(cases).into_iter().filter(|&peer| programs.of(peer).is_none()) {
        said.push(format!("NOT MEASURED: {peer} is not installed"));
        for case in &mut *cases {
            case.peers.retain(|&other| other != peer);
        }
    }
    cases.retain(|case| !case.peers.is_empty());
    said
}
