//! What is looked at while a load runs: the proxy's cost, who has used which core, and its memory.

use super::others::Others;
use super::usage::{Cost, Meter, Sample, ticks_per_s};
use anyhow::Context as _;
use std::fs;
use std::time::Instant;

/// The processes of one run.
pub(super) struct Watch<'a> {
    pub(super) meter: Option<&'a Meter>,
    /// All that belongs to the benchmark: everything else are others.
    pub(super) own: Vec<u32>,
}

/// Totals up to a moment.
pub(super) struct Moment {
    cost: Option<Sample>,
    cores_busy_s: Vec<f64>,
    at: Instant,
    others: Others,
}

/// Between two moments.
pub(super) struct Watched {
    pub(super) cost: Option<Cost>,
    /// Of each core, in percent.
    pub(super) cores_busy: Vec<f64>,
    /// Used by none of the benchmark's processes, in percent of the machine.
    pub(super) others: f64,
}

impl Watch<'_> {
    /// Now, after so many calls.
    pub(super) fn moment(&self, calls: u64) -> anyhow::Result<Moment> {
        Ok(Moment {
            cost: self.meter.map(|meter| meter.sample(calls)).transpose()?,
            cores_busy_s: cores_busy_s()?,
            at: Instant::now(),
            others: Others::sample(&self.own)?,
        })
    }
}

impl Moment {
    pub(super) fn seconds_since(&self, earlier: &Self) -> f64 {
        (self.at - earlier.at).as_secs_f64()
    }

    pub(super) fn since(&self, earlier: &Self) -> Watched {
        let seconds = self.seconds_since(earlier);
        let cores = self.cores_busy_s.iter().zip(&earlier.cores_busy_s);
        Watched {
            cost: self.cost.as_ref().zip(earlier.cost.as_ref()).map(|(now, then)| now.since(then)),
            cores_busy: cores.map(|(now, then)| (100.0 * (now - then) / seconds).min(100.0)).collect(),
            others: self.others.percent_since(&earlier.others),
        }
    }
}

/// A line of /proc/PID/status that is a number of KiB (proc(5)), such as VmRSS or VmHWM, in MiB.
pub(super) fn memory_mib(pid: u32, name: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.with_context(|| format!("no {name} in /proc status"))?;
    Ok(value.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

fn cores_busy_s() -> anyhow::Result<Vec<f64>> {
    let stat = fs::read_to_string("/proc/stat")?;
    let of = |line: &str| {
        let ticks = line.split_whitespace().skip(1).map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        // proc(5): user, nice, system, idle, iowait, irq, softirq, steal.
        let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|&at| ticks.get(at)).sum();
        anyhow::Ok(busy as f64 / ticks_per_s()?)
    };
    let is_core = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    stat.lines().filter(is_core).map(of).collect()
}
