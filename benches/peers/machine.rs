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

/// The cores of this machine, as far as the benchmark uses them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cores {
    are_two: bool,
}

impl Cores {
    /// Binds this process, and with it all that it starts, to the second core, where there is one.
    pub(super) fn divide() -> anyhow::Result<Self> {
        let are_two = thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        if are_two {
            let pid = std::process::id().to_string();
            let taskset = Command::new("taskset").args(["--cpu-list", "--pid", LOAD_CORE, &pid]).output();
            let taskset = taskset.context("taskset (util-linux) cannot be started")?;
            ensure!(taskset.status.success(), "taskset: {}", String::from_utf8_lossy(&taskset.stderr));
        }
        Ok(Self { are_two })
    }

    /// The command that a proxy is started under.
    pub(super) fn wrapper(self) -> &'static [&'static str] {
        if self.are_two { &["taskset", "--cpu-list", PROXY_CORE] } else { &[] }
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
