//! `attestry verify`: computes again all that a ledger claims, and names each fault.
//!
//! Exit codes: 0 intact, 3 damaged, 4 cannot tell (something needed for an answer is missing), 2 wrong usage. The checks are
//! `crate::ledger::fsck`'s; here is only what is asked and what is printed. The bar is on standard error, and only on a terminal.

use super::stdout::LedgerArg;
use crate::ledger::fsck::{self, Fault, Options, Progress, Report, Rows, Verdict};
use crate::note::VerifierKey;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, ValueEnum};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What `attestry verify` takes.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    ledger: LedgerArg,
    /// The log's verifier key, as `attestry key` prints it; without it the key that the ledger itself names is believed
    #[arg(long, value_name = "VKEY")]
    key: Option<VerifierKey>,
    /// A file with an earlier checkpoint of the log, which it must still contain; may be given several times
    #[arg(long, value_name = "CHECKPOINT-FILE")]
    against: Vec<PathBuf>,
    /// What to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line for each fault and remark, then a summary.
    Text,
    /// One JSON object, as docs/ledger-format.md section 8 says.
    Json,
}

/// Verifies the ledger; the exit code is the verdict.
pub fn run(args: VerifyArgs) -> ExitCode {
    let options = Options {
        ledger: args.ledger.dir(),
        key: args.key,
        against: args.against,
        rows: rows(&args.ledger.dir()),
        ..Options::default()
    };
    let bar = bar();
    let started = Instant::now();
    let report = fsck::verify(options, |Progress { done_bytes, total_bytes }| {
        bar.set_length(total_bytes);
        bar.set_position(done_bytes);
    });
    let took = started.elapsed();
    bar.finish_and_clear();
    let output = match args.output {
        Output::Text => text(&report, took),
        Output::Json => format!("{:#}\n", json(&report)),
    };
    // Whoever closed the pipe still gets the verdict.
    let _ = io::stdout().write_all(output.as_bytes());
    exit_code(report.verdict)
}

/// The rows of the lookup tables, where there are any.
#[cfg(feature = "proxy")]
fn rows(ledger: &Path) -> Option<Rows> {
    crate::ledger::store::rows_of_copy(ledger)
}

/// Reading them takes the database, which this build is without.
#[cfg(not(feature = "proxy"))]
fn rows(_: &Path) -> Option<Rows> {
    None
}

fn exit_code(verdict: Verdict) -> ExitCode {
    ExitCode::from(match verdict {
        Verdict::Intact => 0,
        Verdict::Damaged => 3,
        Verdict::Unknown => 4,
    })
}

fn bar() -> ProgressBar {
    let style = "verifying {wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}";
    let style = ProgressStyle::with_template(style).expect("the template is a constant that a test draws");
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(None, target).with_style(style)
}

fn text(report: &Report, took: Duration) -> String {
    let mut out = String::new();
    for fault in &report.faults {
        let _ = writeln!(out, "{fault}");
    }
    for remark in &report.remarks {
        let _ = writeln!(out, "{remark}");
    }
    let Report { entries, calls, segments, size, .. } = report;
    let unknown = || "not known".to_owned();
    let root = report.root.map_or_else(unknown, |root| STANDARD.encode(root));
    let origin = report.origin.clone().unwrap_or_else(unknown);
    let key = report.key.as_ref().map_or_else(unknown, |key| {
        format!("{key} ({})", if report.key_given { "given" } else { "only claimed by the ledger itself" })
    });
    let seconds = took.as_secs_f64();
    let faults = match report.faults_total {
        0 => String::new(),
        1 => " (1 fault)".to_owned(),
        faults => format!(" ({faults} faults)"),
    };
    let _ = write!(
        out,
        "{}{faults}: {entries} entries, {calls} calls, {segments} segments\n\
         tree size {size}\nroot      {root}\norigin    {origin}\nkey       {key}\n\
         read      {} in {seconds:.1} s ({}/s, {:.0} entries/s)\n",
        report.verdict.as_str(),
        HumanBytes(report.bytes),
        HumanBytes(per_second(report.bytes, seconds)),
        per_second(report.entries, seconds),
    );
    out
}

/// A rate for people to read; exactness beyond 53 bits is not asked for.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn per_second(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds.max(1e-6)) as u64
}

fn json(report: &Report) -> Value {
    let mut object = Map::new();
    object.insert("verdict".into(), report.verdict.as_str().into());
    object.insert("entries".into(), report.entries.into());
    object.insert("size".into(), report.size.into());
    let known = [
        ("root", report.root.map(|root| STANDARD.encode(root))),
        ("origin", report.origin.clone()),
        ("key", report.key.as_ref().map(ToString::to_string)),
    ];
    object.extend(known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
    object.insert("key_given".into(), report.key_given.into());
    object.insert("remarks".into(), json!(report.remarks));
    object.insert("faults".into(), report.faults.iter().map(fault_json).collect());
    Value::Object(object)
}

fn fault_json(fault: &Fault) -> Value {
    let place = [
        ("kind", Some(fault.kind.as_str().into())),
        ("segment", fault.place.segment_name().map(Value::from)),
        ("offset", fault.place.offset.map(Value::from)),
        ("index", fault.place.index.map(Value::from)),
        ("end", fault.place.end.map(Value::from)),
        ("message", Some(fault.message.as_str().into())),
    ];
    Value::Object(place.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bars_template_is_well_formed() {
        bar().finish_and_clear();
    }

    #[test]
    fn a_rate_of_nothing_is_nothing() {
        assert_eq!((per_second(0, 0.0), per_second(10, 2.0)), (0, 5));
    }
}
