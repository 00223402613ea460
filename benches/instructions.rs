//! How many instructions the hot path takes, case by case, against the counts that are checked in: a regression check that a busy machine does not disturb.
//!
//! `cargo bench --bench instructions` runs each case under `valgrind --tool=callgrind`, prints a table, and exits with 1 where a case takes over 5 % more than
//! `benches/instructions/baseline.json` says; `-- --accept` writes the counts of this run there. `-- --help` tells the other flags. Counts of another toolchain, valgrind or
//! processor do not compare, so the file names its own. What is counted and how, is in `cases` and `callgrind`; what it cannot see (the kernel, caches, SHA-NI), in docs/testing.md.

#[path = "instructions/baseline.rs"]
mod baseline;
#[path = "instructions/callgrind.rs"]
mod callgrind;
#[path = "instructions/captures.rs"]
mod captures;
#[path = "instructions/cases.rs"]
mod cases;
#[path = "instructions/commits.rs"]
mod commits;
#[path = "../tests/wire/hpack.rs"]
mod hpack;
#[path = "../tests/support/relay.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "it is made for tests, of which each takes what it needs")]
mod relay;
#[path = "instructions/relayed.rs"]
mod relayed;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "instructions/wire.rs"]
mod wire;

use anyhow::{Context as _, bail, ensure};
use baseline::{Baseline, Environment, Measured, Verdict};
use callgrind::PARTS;
use cases::Case;
use clap::Parser as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Counts the instructions of the hot path.
#[derive(clap::Parser)]
struct Args {
    /// Make the counts of this run the baseline, for the cases that were run
    #[arg(long)]
    accept: bool,
    /// Only the cases whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Runs of each case; the least counts, and the table shows how far they are apart
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// Show so many functions of each case, those that take most of it themselves
    #[arg(long, default_value_t = 0)]
    top: usize,
    /// Be the process that is counted (the benchmark starts itself so)
    #[arg(long, hide = true, requires = "folder")]
    case: Option<String>,
    /// How many times the work of a case is to be done
    #[arg(long, hide = true, default_value_t = 1)]
    scale: u64,
    /// What was prepared for the case
    #[arg(long, hide = true)]
    folder: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let (Some(name), Some(folder)) = (&args.case, &args.folder) {
        cases::named(name)?.run(folder, args.scale)?;
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(
        !cfg!(debug_assertions),
        "counts of an unoptimised build say nothing: cargo bench --bench instructions"
    );
    let Some(environment) = Environment::find()? else {
        support::skip("instructions", "there is no valgrind (Debian: valgrind)");
        return Ok(ExitCode::SUCCESS);
    };
    let wanted = |case: &&'static Case| args.only.as_ref().is_none_or(|only| case.name.contains(only));
    let measured = measure(&cases::all().filter(wanted).collect::<Vec<_>>(), args.runs)?;
    for case in &measured {
        case.print_functions(args.top);
    }
    let baseline = Baseline::read()?;
    if args.accept {
        print_table(&measured, baseline.as_ref());
        return baseline::accept(baseline, &environment, &measured).map(|()| ExitCode::SUCCESS);
    }
    compare(&measured, baseline, &environment)
}

/// Runs all cases, as many at a time as there are cores: how busy a core is does not change what is counted.
fn measure(cases: &[&'static Case], runs: u64) -> anyhow::Result<Vec<Measured>> {
    ensure!(!cases.is_empty(), "no case has such a name");
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let counted = (0..runs).map(|_| callgrind::count(case)).collect::<anyhow::Result<Vec<_>>>();
            let counted = counted.with_context(|| format!("case \"{}\"", case.name));
            done.lock().expect("no worker panics with the lock").push((case.name, counted));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().expect("no worker panics with the lock");
    done.sort_by_key(|(name, _)| cases.iter().position(|case| case.name == *name));
    done.into_iter().map(|(name, runs)| Ok(Measured::new(cases::named(name)?, runs?))).collect()
}

fn compare(
    measured: &[Measured],
    baseline: Option<Baseline>,
    environment: &Environment,
) -> anyhow::Result<ExitCode> {
    let Some(baseline) = baseline else {
        print_table(measured, None);
        bail!("there is no {}: write it with -- --accept", baseline::PATH);
    };
    if baseline.environment.cpu != environment.cpu {
        print_table(measured, None);
        let theirs = &baseline.environment.cpu;
        support::skip(
            "instructions",
            &format!("the baseline is of {theirs}, and this is {}", environment.cpu),
        );
        return Ok(ExitCode::SUCCESS);
    }
    print_table(measured, Some(&baseline));
    let verdicts: Vec<Verdict> = measured.iter().flat_map(|case| case.verdicts(&baseline)).collect();
    for verdict in &verdicts {
        println!("{verdict}");
    }
    if baseline.environment != *environment {
        println!("NOTE: the baseline is of {}; this run is of {environment}", baseline.environment);
    }
    let failed = verdicts.iter().any(Verdict::is_failure);
    println!(
        "\n{}",
        if failed { baseline::WHAT_TO_DO } else { "No case takes more than its baseline allows." }
    );
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_table(measured: &[Measured], baseline: Option<&Baseline>) {
    println!(
        "Instructions for each unit of a case, with the change against the baseline, and how far runs were apart:\n"
    );
    println!("| case | unit | {} | all | apart |", PARTS.join(" | "));
    println!("|---|---|{}---|---|", "---|".repeat(PARTS.len()));
    for case in measured {
        println!("{}", case.row(baseline));
    }
    println!();
}
