//! How a sidecar is: memory, descriptors, threads and CPU from /proc (proc(5)), and the counters that it leaves in its last entry.

use anyhow::Context as _;
use attestry::entry::{self, Body};
use attestry::ledger::segment::{self, Found, Segment};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// At one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vitals {
    pub(super) rss_kib: u64,
    /// The most that was resident since the last [`forget_peak`].
    pub(super) peak_kib: u64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
    /// User and system time of the whole process.
    pub(super) cpu_us: f64,
}

/// Unit of CPU times in /proc: USER_HZ is 100 on every architecture that Linux has by now.
const TICK_US: f64 = 10_000.0;

impl Vitals {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let figure = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let line = line.with_context(|| format!("no {name} in /proc status"))?;
            Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name may hold anything but its last parenthesis; utime and stime are the 12th and 13th field behind it.
        let (_, fields) = stat.rsplit_once(") ").context("no name in /proc stat")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Self {
            rss_kib: figure("VmRSS:")?,
            peak_kib: figure("VmHWM:")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
            threads: figure("Threads:")?,
            cpu_us: ticks as f64 * TICK_US,
        })
    }
}

/// Sets the peak back to what is resident now (proc_pid_clear_refs(5)).
pub(super) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// In the words of docs/operations.md.
pub(super) type Counters = BTreeMap<String, u64>;

/// What the last entry of a ledger says that was stopped in order.
pub(super) fn counters(ledger: &Path) -> anyhow::Result<Counters> {
    let first_index = *segment::list(ledger)?.last().context("a ledger without segments")?;
    let file = Segment::open(ledger, first_index)?;
    let (mut offset, mut last) = (segment::HEADER_LEN, None);
    while let Found::Frame(frame) = file.at(offset)? {
        offset += u64::from(frame.header().length);
        last = Some(frame);
    }
    let last = last.context("the last segment has no frame")?;
    let stored = last.entries().context("the last frame has no entries")?;
    let stored = stored.into_iter().last().context("the last frame is empty")?;
    let entry = entry::decode(stored.entry)?;
    let Some(Body::Stopped(stopped)) = entry.body else {
        anyhow::bail!("the last entry is not that of a stop")
    };
    Ok(stopped.counters.into_iter().map(|counter| (counter.name, counter.value)).collect())
}

/// Of all segments, as they are on the disk now.
pub(super) fn segments_bytes(ledger: &Path) -> anyhow::Result<u64> {
    let files = fs::read_dir(segment::folder(ledger))?;
    files.map(|file| Ok(file?.metadata()?.len())).sum()
}
