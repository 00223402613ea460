//! The counts that are checked in, and what is said of counts that differ from them.

use super::callgrind::{Counted, Counts, PARTS};
use super::cases::Case;
use anyhow::{Context as _, ensure};
use serde_json::{Map, Value, json};
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The file, from the root of the project.
pub(crate) const PATH: &str = "benches/instructions/baseline.json";

/// What is said where a case takes too many instructions.
pub(crate) const WHAT_TO_DO: &str = "FAILED: the hot path has become more expensive. `-- --only CASE --top 30` shows where: make it cheaper;\n\
     where the cost is wanted, run `cargo bench --bench instructions -- --accept` and say in the commit what it buys.";

/// Change that is neither a failure nor worth a word.
const CHANGE_PERCENT_MAX: u64 = 5;

/// What decides about counts beside the code that is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    /// What valgrind shows of the processor follows from this.
    pub(crate) cpu: String,
    rustc: String,
    valgrind: String,
}

impl Environment {
    /// That of this process; `None` where there is no valgrind.
    pub(crate) fn find() -> anyhow::Result<Option<Self>> {
        let Some(valgrind) = version_of("valgrind")? else { return Ok(None) };
        let rustc = version_of("rustc")?.unwrap_or_default();
        Ok(Some(Self { cpu: cpu(), rustc, valgrind }))
    }

    fn to_json(&self) -> Value {
        json!({ "cpu": self.cpu, "rustc": self.rustc, "valgrind": self.valgrind })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |key| value.get(key)?.as_str().map(str::to_owned);
        Some(Self { cpu: text("cpu")?, rustc: text("rustc")?, valgrind: text("valgrind")? })
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}, {}, {}", self.rustc, self.valgrind, self.cpu)
    }
}

/// valgrind shows AVX2 where the processor has it, and the C library and the curve arithmetic have other code for it.
fn cpu() -> String {
    #[cfg(target_arch = "x86_64")]
    let extension = if std::arch::is_x86_feature_detected!("avx2") { " with AVX2" } else { " without AVX2" };
    #[cfg(not(target_arch = "x86_64"))]
    let extension = "";
    format!("{}{extension}", std::env::consts::ARCH)
}

fn version_of(program: &str) -> anyhow::Result<Option<String>> {
    let output = match Command::new(program).arg("--version").output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        output => output.with_context(|| format!("{program} cannot be started"))?,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().map(str::to_owned))
}

/// The file's content.
pub(crate) struct Baseline {
    pub(crate) environment: Environment,
    cases: Map<String, Value>,
}

impl Baseline {
    /// Reads it; `None` where there is no file.
    pub(crate) fn read() -> anyhow::Result<Option<Self>> {
        let Ok(text) = fs::read_to_string(path()) else { return Ok(None) };
        let value: Value = serde_json::from_str(&text).with_context(|| PATH.to_owned())?;
        let environment = value.get("environment").and_then(Environment::from_json);
        let environment =
            environment.with_context(|| format!("{PATH} does not say of which environment it is"))?;
        let cases = value.get("cases").and_then(Value::as_object).cloned().unwrap_or_default();
        Ok(Some(Self { environment, cases }))
    }

    fn counts(&self, case: &str) -> Option<Counts> {
        let counts = self.cases.get(case)?;
        let counts: Vec<u64> = PARTS.iter().map_while(|part| counts.get(part)?.as_u64()).collect();
        counts.try_into().ok()
    }
}

/// Writes the counts of this run into the file. Others stay if they are of the same environment.
pub(crate) fn accept(
    baseline: Option<Baseline>,
    environment: &Environment,
    measured: &[Measured],
) -> anyhow::Result<()> {
    let same = baseline.filter(|baseline| baseline.environment == *environment);
    ensure!(
        same.is_some() || measured.len() == super::cases::all().count(),
        "{PATH} is of another environment: accept the counts of all cases, without --only"
    );
    let mut cases = same.map(|baseline| baseline.cases).unwrap_or_default();
    cases.retain(|name, _| super::cases::named(name).is_ok());
    for Measured { name, counts, .. } in measured {
        let parts = PARTS.iter().zip(counts).map(|(part, count)| ((*part).to_owned(), json!(count)));
        cases.insert((*name).to_owned(), Value::Object(parts.collect()));
    }
    let content = json!({ "environment": environment.to_json(), "cases": cases });
    fs::write(path(), format!("{content:#}\n")).with_context(|| format!("{PATH} cannot be written"))?;
    println!("{PATH} holds these counts now.");
    Ok(())
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(PATH)
}

/// What the runs of one case gave.
pub(crate) struct Measured {
    name: &'static str,
    unit: &'static str,
    noise: u64,
    /// The least of each part.
    counts: Counts,
    /// The most by which a part of one run is above the least, in thousandths of that.
    apart_permille: u64,
    /// Of the last run.
    functions: Vec<(u64, String)>,
}

impl Measured {
    pub(crate) fn new(case: &Case, runs: Vec<Counted>) -> Self {
        let of_part = |part: usize| runs.iter().map(move |run| run.counts[part]);
        let counts: Counts = std::array::from_fn(|part| of_part(part).min().unwrap_or_default());
        let apart = |part: usize| {
            let most = of_part(part).max().unwrap_or_default();
            ((most - counts[part]) * 1_000).checked_div(counts[part]).unwrap_or_default()
        };
        let apart_permille = (0..PARTS.len()).map(apart).max().unwrap_or_default();
        let functions = runs.into_iter().next_back().map(|run| run.functions).unwrap_or_default();
        Self { name: case.name, unit: case.unit, noise: case.noise, counts, apart_permille, functions }
    }

    /// Prints the functions that take most.
    pub(crate) fn print_functions(&self, top: usize) {
        for (number, (count, function)) in self.functions.iter().take(top).enumerate() {
            if number == 0 {
                println!("{}, of {} for each {}:", self.name, self.counts.iter().sum::<u64>(), self.unit);
            }
            println!("{count:>10} {function}");
        }
    }

    /// A row of the table.
    pub(crate) fn row(&self, baseline: Option<&Baseline>) -> String {
        let before = baseline.and_then(|baseline| baseline.counts(self.name));
        let mut cells = Vec::new();
        for (part, &count) in self.counts.iter().enumerate() {
            cells.push(cell(count, before.map(|before| before[part])));
        }
        cells.push(cell(self.counts.iter().sum(), before.map(|before| before.iter().sum())));
        let apart = format!("{}.{} %", self.apart_permille / 10, self.apart_permille % 10);
        format!("| {} | {} | {} | {apart} |", self.name, self.unit, cells.join(" | "))
    }

    /// What is to be said of the case: each part that has changed.
    pub(crate) fn verdicts(&self, baseline: &Baseline) -> Vec<Verdict> {
        let Some(before) = baseline.counts(self.name) else { return vec![Verdict::Unknown(self.name)] };
        let mut verdicts = Vec::new();
        for ((part, &count), &before) in PARTS.iter().zip(&self.counts).zip(&before) {
            if count.abs_diff(before) > self.noise
                && count.abs_diff(before) * 100 > before * CHANGE_PERCENT_MAX
            {
                verdicts.push(Verdict::Changed { case: self.name, part, before, count });
            }
        }
        verdicts
    }
}

fn cell(count: u64, before: Option<u64>) -> String {
    match before {
        Some(before) if before != count => format!("{count} ({})", change(before, count)),
        _ => count.to_string(),
    }
}

/// The change from `before` to `count` in per cent, with its sign.
fn change(before: u64, count: u64) -> String {
    let sign = if count < before { '-' } else { '+' };
    let permille = (count.abs_diff(before) * 1_000).checked_div(before);
    permille.map_or("new".into(), |permille| format!("{sign}{}.{} %", permille / 10, permille % 10))
}

/// A count that is not what the baseline says.
pub(crate) enum Verdict {
    /// By more than is allowed.
    Changed { case: &'static str, part: &'static str, before: u64, count: u64 },
    /// The baseline does not know the case.
    Unknown(&'static str),
}

impl Verdict {
    pub(crate) fn is_failure(&self) -> bool {
        match self {
            Self::Changed { before, count, .. } => count > before,
            Self::Unknown(_) => true,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { case, part, before, count } if count > before => {
                let by = change(*before, *count);
                write!(
                    out,
                    "COSTLIER: {case}, {part}: {count} instructions, {by} over the baseline of {before}"
                )
            }
            Self::Changed { case, part, before, count } => {
                let by = change(*before, *count);
                write!(
                    out,
                    "CHEAPER: {case}, {part}: {count} instructions, {by} against {before}: keep it with -- --accept"
                )
            }
            Self::Unknown(case) => {
                write!(out, "UNKNOWN: {case} has no baseline: give it one with -- --accept --only")
            }
        }
    }
}
