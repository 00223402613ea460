//! The machine that the figures are of: who runs on which core, and what the reader has to know of it.
//!
//! Where there are two cores, a proxy has the first for itself; everything else, the benchmark's own process included, is on the second.

use super::disk::DiskLatency;
use anyhow::{Context as _, ensure};
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::thread;

const PROXY_CORE: &str = "0";
const LOAD_CORE: &str = "1";
/// For a proxy with two cores: a core beside the load's where there is one, else the load's, which it then shares.
const TWO_CORES: [&str; 2] = ["0,1", "0,2"];

/// The cores of this machine, as far as the benchmark uses them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cores {
    are_two: bool,
    are_three: bool,
}

impl Cores {
    /// Binds this process, and with it all that it starts, to the second core, where there is one.
    pub(super) fn divide() -> anyhow::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (are_two, are_three) = (cores > 1, cores > 2);
        if are_two {
            let pid = std::process::id().to_string();
            let taskset = Command::new("taskset").args(["--cpu-list", "--pid", LOAD_CORE, &pid]).output();
            let taskset = taskset.context("taskset (util-linux) cannot be started")?;
            ensure!(taskset.status.success(), "taskset: {}", String::from_utf8_lossy(&taskset.stderr));
        }
        Ok(Self { are_two, are_three })
    }

    /// The command that a proxy is started under.
    pub(super) fn wrapper(self) -> &'static [&'static str] {
        if self.are_two { &["taskset", "--cpu-list", PROXY_CORE] } else { &[] }
    }

    /// The command that a proxy with two workers is started under.
    #[allow(dead_code, reason = "not every benchmark has one")]
    pub(super) fn wrapper_of_two(self) -> &'static [&'static str] {
        match (self.are_two, self.are_three) {
            (false, _) => &[],
            (true, false) => &["taskset", "--cpu-list", TWO_CORES[0]],
            (true, true) => &["taskset", "--cpu-list", TWO_CORES[1]],
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.are_two {
            "the proxy with one worker on core 0; the load and the backend on core 1"
        } else {
            "ONE CORE for everything: latencies and calls/s say little, CPU per call is still right"
        })
    }
}

/// What the reader has to know of machine and versions, a line each.
pub(super) fn circumstances(cores: Cores, ledger: &Path, disk: &DiskLatency) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let count = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let file_system = Command::new("stat").args(["--file-system", "--format=%T"]).arg(ledger).output();
    let file_system = file_system.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    vec![
        format!(
            "machine: {count} x {}; Linux {}",
            cpu.trim_start_matches(['\t', ' ', ':']),
            read("/proc/sys/kernel/osrelease").trim()
        ),
        format!("cores: {cores}"),
        format!("other load before the start (load average): {}", read("/proc/loadavg").trim()),
        format!(
            "disk: {}; append + fdatasync of 4 KiB into zeros: p50 {:.0} µs, p99 {:.0} µs",
            file_system.unwrap_or_default(),
            disk.p50_us,
            disk.p99_us
        ),
    ]
}
