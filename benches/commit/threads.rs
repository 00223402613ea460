//! What threads have used: CPU and bytes read, from /proc (proc(5)); Linux only.

use anyhow::Context as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for the ledger to have prepared a segment.
const SETTLING_MAX: Duration = Duration::from_secs(20);

/// CPU of the calling thread so far, to the nanosecond.
pub(super) fn own_cpu_us() -> anyhow::Result<f64> {
    cpu_us_of(Path::new("/proc/thread-self"))
}

/// CPU so far of the threads of this process that have the name `name`.
pub(super) fn cpu_us(name: &str) -> anyhow::Result<f64> {
    named(name)?.iter().map(|thread| cpu_us_of(thread)).sum()
}

/// CPU of the whole process so far, threads that ended included; to 10 ms.
pub(super) fn process_cpu_us() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name stands in parentheses, and may hold some itself; utime and stime are the 12th and 13th field behind it.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<_, _>>()?;
    Ok(ticks as f64 * 1e6 / ticks_per_s()?)
}

/// Bytes that the calling thread has read from files so far, in the page cache or not.
pub(super) fn own_bytes_read() -> anyhow::Result<u64> {
    bytes_read_of(Path::new("/proc/thread-self"))
}

/// Bytes that all threads of the process have read so far.
pub(super) fn process_bytes_read() -> anyhow::Result<u64> {
    bytes_read_of(Path::new("/proc/self"))
}

/// Waits until no spare segment is being prepared, so that what is measured next is not measured beside that.
pub(super) fn settle() -> anyhow::Result<()> {
    let end = Instant::now() + SETTLING_MAX;
    while !named("spare")?.is_empty() {
        anyhow::ensure!(Instant::now() < end, "a spare segment is prepared for longer than {SETTLING_MAX:?}");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn named(name: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        // A thread may end while the folder is read.
        if fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
            found.push(task);
        }
    }
    Ok(found)
}

fn cpu_us_of(task: &Path) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(task.join("schedstat"))?;
    let nanos: u64 =
        stat.split(' ').next().unwrap_or_default().parse().context("no CPU time in schedstat")?;
    Ok(nanos as f64 / 1e3)
}

fn bytes_read_of(task: &Path) -> anyhow::Result<u64> {
    let io = fs::read_to_string(task.join("io"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).context("no rchar in /proc io")?;
    Ok(line.parse()?)
}

/// The unit of CPU times in /proc/self/stat.
fn ticks_per_s() -> anyhow::Result<f64> {
    static TICKS_PER_S: OnceLock<f64> = OnceLock::new();
    if let Some(&ticks) = TICKS_PER_S.get() {
        return Ok(ticks);
    }
    let output = Command::new("getconf").arg("CLK_TCK").output().context("getconf CLK_TCK")?;
    let ticks = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(*TICKS_PER_S.get_or_init(|| ticks))
}
