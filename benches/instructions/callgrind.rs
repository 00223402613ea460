//! Runs one case under `valgrind --tool=callgrind` and reads what it counted: instructions of the process itself, by the function that executed them.
//!
//! Hashing, signing and copying are counted apart from the rest. valgrind's processor has no SHA-NI, so that SHA-256 takes its software path there and would hide all that
//! stands around it, and a needless copy of a message would hide behind that.

use super::cases::Case;
use anyhow::{Context as _, ensure};
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What instructions are told apart by.
pub(crate) const PARTS: [&str; 4] = ["own", "copying", "SHA-256", "Ed25519"];

/// Instructions of each of [`PARTS`].
pub(crate) type Counts = [u64; PARTS.len()];

const OWN: usize = 0;
const COPYING: usize = 1;
const SHA256: usize = 2;
const ED25519: usize = 3;

/// Runs at each scale of a case with threads.
const RUNS_WITH_THREADS: u64 = 4;

/// Instructions of each function itself, by its name.
type Profile = BTreeMap<String, u64>;

/// What one unit of a case takes.
pub(crate) struct Counted {
    pub(crate) counts: Counts,
    /// The functions that take most of it, and how much.
    pub(crate) functions: Vec<(u64, String)>,
}

/// Counts the instructions of one unit of `case`.
pub(crate) fn count(case: &Case) -> anyhow::Result<Counted> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).context("no folder for the profile")?;
    let mut profile = run(case, folder.path(), 1)?;
    if !case.is_alone() {
        let once = least(profile, case, folder.path(), 1)?;
        profile = least(run(case, folder.path(), 2)?, case, folder.path(), 2)?;
        for (function, count) in &mut profile {
            *count = count.saturating_sub(once.get(function).copied().unwrap_or_default());
        }
    }
    let mut counts = Counts::default();
    for (function, count) in &profile {
        counts[part_of(function)] += count;
    }
    let mut functions: Vec<_> = profile.into_iter().map(|(name, count)| (count / case.units, name)).collect();
    functions.sort_unstable_by(|one, other| other.cmp(one));
    Ok(Counted { counts: counts.map(|count| count / case.units), functions })
}

/// Threads that wait for each other do so in more or fewer steps, never in fewer than needed: the least of some runs, function by function.
fn least(first: Profile, case: &Case, folder: &Path, scale: u64) -> anyhow::Result<Profile> {
    (1..RUNS_WITH_THREADS).try_fold(first, |mut least, _| {
        let other = run(case, folder, scale)?;
        for (function, count) in &mut least {
            *count = (*count).min(other.get(function).copied().unwrap_or_default());
        }
        Ok(least)
    })
}

fn run(case: &Case, folder: &Path, scale: u64) -> anyhow::Result<Profile> {
    case.prepare(folder, scale)?;
    let profile = folder.join("profile");
    let mut command = Command::new("valgrind");
    command.args([
        "--quiet",
        "--tool=callgrind",
        "--dump-line=no",
        "--compress-strings=no",
        "--compress-pos=no",
    ]);
    command.arg(format!("--callgrind-out-file={}", profile.display()));
    if case.is_alone() {
        command.arg(format!("--toggle-collect=*{}*", super::cases::COUNTED_FUNCTION));
    }
    command.arg(env::current_exe().context("a process knows its executable")?);
    command.args(["--case", case.name, "--scale", &scale.to_string(), "--folder"]).arg(folder);
    let output = command.stdin(Stdio::null()).output().context("valgrind cannot be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind ended with {}:\n{said}", output.status);
    let text = fs::read_to_string(&profile).context("valgrind left no profile")?;
    read(&text).with_context(|| format!("valgrind said:\n{said}"))
}

/// Sums the self costs of a profile by function (valgrind manual, "Callgrind Format Specification").
fn read(text: &str) -> anyhow::Result<Profile> {
    let (mut profile, mut function, mut of_callee, mut total) = (Profile::new(), "", false, None);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = name;
        } else if let Some(all) = line.strip_prefix("totals: ") {
            total = all.trim().parse().ok();
        } else if line.starts_with("calls=") {
            // The next line is what the callee took, which stands at the callee too.
            of_callee = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) && !std::mem::take(&mut of_callee) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
            *profile.entry(function.to_owned()).or_default() +=
                cost.with_context(|| format!("no cost in {line:?}"))?;
        }
    }
    let sum: u64 = profile.values().sum();
    ensure!(
        Some(sum) == total && sum > 0,
        "a profile of {sum} instructions says that its total is {total:?}"
    );
    Ok(profile)
}

fn part_of(function: &str) -> usize {
    const OF_SIGNATURES: [&str; 3] = ["curve25519_dalek", "ed25519", "sha512"];
    const OF_COPIES: [&str; 3] = ["memcpy", "memmove", "memset"];
    let is_one_of = |names: &[&str]| names.iter().any(|name| function.contains(name));
    if is_one_of(&OF_SIGNATURES) {
        ED25519
    } else if is_one_of(&["sha2"]) {
        SHA256
    } else if is_one_of(&OF_COPIES) {
        COPYING
    } else {
        OWN
    }
}
