//! What a proxy has used up to a moment: CPU of all its threads, memory, bytes of its ledger, and the calls that the backend has answered meanwhile.
//!
//! Linux only: everything is read from /proc (proc(5)). A cost per call is the difference of two samples.

use anyhow::Context as _;
use attestry::ledger::{head, segment};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What can be sampled of one proxy.
pub(super) struct Meter {
    pub(super) pid: u32,
    /// Of attestry.
    pub(super) ledger: Option<PathBuf>,
}

/// Totals since the start of the process.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    calls: u64,
    cpu_us: f64,
    thread_cpu_us: BTreeMap<String, f64>,
    rss_mib: f64,
    ledger_bytes: Option<u64>,
}

/// Costs between two samples.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    /// User and system time of the whole process.
    pub(super) cpu_us_per_call: f64,
    /// The same by the names of the threads.
    pub(super) thread_cpu_us_per_call: BTreeMap<String, f64>,
    /// Resident at the end.
    pub(super) rss_mib: f64,
    /// Growth of the used part of the segments.
    pub(super) ledger_bytes_per_call: Option<f64>,
}

impl Meter {
    /// Samples the proxy after `calls` calls.
    pub(super) fn sample(&self, calls: u64) -> anyhow::Result<Sample> {
        let process = PathBuf::from(format!("/proc/{}", self.pid));
        let mut thread_cpu_us = BTreeMap::new();
        for task in fs::read_dir(process.join("task"))? {
            // A thread may end while the folder is read.
            if let Ok((name, cpu_us)) =
                task.map_err(anyhow::Error::from).and_then(|task| cpu_us(&task.path()))
            {
                // Threads of a pool differ in the number at the end of their names.
                let pool = name.trim_end_matches(|last: char| last.is_ascii_digit()).trim_end_matches('-');
                *thread_cpu_us.entry(pool.to_owned()).or_default() += cpu_us;
            }
        }
        let ledger_bytes = self.ledger.as_deref().map(used_bytes).transpose()?;
        Ok(Sample {
            calls,
            cpu_us: cpu_us(&process)?.1,
            thread_cpu_us,
            rss_mib: rss_mib(&process)?,
            ledger_bytes,
        })
    }
}

impl Sample {
    /// What was used since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Cost {
        let calls = (self.calls - earlier.calls) as f64;
        let before = |name: &String| earlier.thread_cpu_us.get(name).copied().unwrap_or_default();
        let threads = self.thread_cpu_us.iter().map(|(name, cpu_us)| (name.clone(), cpu_us - before(name)));
        let mut threads: BTreeMap<String, f64> = threads.collect();
        let cpu_us = self.cpu_us - earlier.cpu_us;
        threads.insert("threads that ended".to_owned(), (cpu_us - threads.values().sum::<f64>()).max(0.0));
        let ledger_bytes = self.ledger_bytes.zip(earlier.ledger_bytes);
        Cost {
            cpu_us_per_call: cpu_us / calls,
            thread_cpu_us_per_call: threads
                .into_iter()
                .map(|(name, cpu_us)| (name, cpu_us / calls))
                .collect(),
            rss_mib: self.rss_mib,
            ledger_bytes_per_call: ledger_bytes.map(|(now, then)| now.saturating_sub(then) as f64 / calls),
        }
    }
}

/// Name and CPU time of a process or a thread, from its `stat`.
pub(super) fn cpu_us(folder: &Path) -> anyhow::Result<(String, f64)> {
    let stat = fs::read_to_string(folder.join("stat"))?;
    // The name stands in parentheses, and may hold some itself; utime and stime are the 14th and 15th field, the 12th and 13th behind it.
    let (name, fields) = stat.rsplit_once(')').context("no name in /proc stat")?;
    let ticks: Vec<u64> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    let name = name.split_once('(').map_or(name, |(_, name)| name);
    Ok((name.to_owned(), ticks.iter().sum::<u64>() as f64 * 1e6 / ticks_per_s()?))
}

/// The unit of CPU times in /proc.
pub(super) fn ticks_per_s() -> anyhow::Result<f64> {
    static TICKS_PER_S: std::sync::OnceLock<f64> = std::sync::OnceLock::new();
    if let Some(&ticks) = TICKS_PER_S.get() {
        return Ok(ticks);
    }
    let output = Command::new("getconf").arg("CLK_TCK").output().context("getconf CLK_TCK")?;
    let ticks = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(*TICKS_PER_S.get_or_init(|| ticks))
}

fn rss_mib(process: &Path) -> anyhow::Result<f64> {
    let status = fs::read_to_string(process.join("status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// Bytes of the segments up to the published head: all of those before its segment, and the head's offset in that one. What was prepared with zeros does not count.
fn used_bytes(ledger: &Path) -> anyhow::Result<u64> {
    // The head is rewritten in place beside this reader, so that one read of it may be torn.
    let head = (0..100)
        .find_map(|_| head::Head::read(ledger).ok().flatten())
        .context("the ledger's head cannot be read")?;
    let mut used_bytes = head.offset;
    for first_index in segment::list(ledger)?.into_iter().filter(|&first_index| first_index < head.segment) {
        used_bytes += fs::metadata(segment::folder(ledger).join(segment::file_name(first_index)))?.len();
    }
    Ok(used_bytes)
}
