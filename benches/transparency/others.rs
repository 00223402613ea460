//! What others use of the machine while a run lasts: a run that they have disturbed says little.
//!
//! The kernel's own threads count as others, those that write the ledger's disk too, so some remains on a quiet machine.

use super::usage::{cpu_us, ticks_per_s};
use anyhow::Context as _;
use std::path::Path;

/// CPU time since the start of the machine.
pub(super) struct Others {
    total_us: f64,
    others_us: f64,
}

impl Others {
    /// Samples; `own` are the processes that do not count.
    pub(super) fn sample(own: &[u32]) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("/proc/stat is empty")?;
        // proc(5): user, nice, system, idle, iowait, irq, softirq, steal; what guests use is in user already.
        let ticks =
            line.split_whitespace().skip(1).take(8).map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let us = |ticks: &[u64]| anyhow::Ok(ticks.iter().sum::<u64>() as f64 * 1e6 / ticks_per_s()?);
        let (total_us, idle_us) = (us(&ticks)?, us(ticks.get(3..5).context("/proc/stat has no idle time")?)?);
        let mut others_us = total_us - idle_us;
        for pid in own {
            others_us -= cpu_us(Path::new(&format!("/proc/{pid}")))?.1;
        }
        Ok(Self { total_us, others_us })
    }

    /// What others have used since `earlier`, in percent of all cores.
    pub(super) fn percent_since(&self, earlier: &Self) -> f64 {
        100.0 * (self.others_us - earlier.others_us).max(0.0) / (self.total_us - earlier.total_us)
    }
}
