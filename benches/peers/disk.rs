//! What the disk under the ledger takes by itself: appends, each with its fdatasync, into zeros that are on it already or onto the end of a growing file.

use super::figures::quantile;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

/// Bytes of an append whose latency is told.
const APPEND_BYTES: usize = 4096;
const APPENDS: usize = 1000;
/// Written at a time where a file is filled beforehand.
const FILL_BYTES: usize = 1 << 20;

/// What an append is written into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each benchmark asks for what it compares with")]
pub(super) enum Into {
    /// A file that has its length already, and zeros on the disk.
    Zeros,
    /// The end of a file, which grows by it.
    Growing,
}

/// Latency of one append with its fdatasync.
#[derive(Clone, Copy)]
pub(super) struct DiskLatency {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// Of 1,000 appends of 4 KiB in a file of its own in `folder`, which goes again.
pub(super) fn latency(folder: &Path, into: Into) -> std::io::Result<DiskLatency> {
    let mut latencies_us = append(folder, into, APPEND_BYTES, APPENDS)?;
    latencies_us.sort_unstable();
    Ok(DiskLatency { p50_us: quantile(&latencies_us, 0.5), p99_us: quantile(&latencies_us, 0.99) })
}

/// Microseconds of each of `appends` appends of `append_bytes`.
pub(super) fn append(
    folder: &Path,
    into: Into,
    append_bytes: usize,
    appends: usize,
) -> std::io::Result<Vec<u64>> {
    let path = folder.join("appends");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    if into == Into::Zeros {
        fill(&file, append_bytes * appends)?;
    }
    let bytes = vec![0x5a; append_bytes];
    let mut latencies_us = Vec::with_capacity(appends);
    for append in 0..appends {
        let begin = Instant::now();
        file.write_all_at(&bytes, (append * append_bytes) as u64)?;
        file.sync_data()?;
        latencies_us.push(u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    std::fs::remove_file(path)?;
    Ok(latencies_us)
}

fn fill(file: &File, bytes: usize) -> std::io::Result<()> {
    let zeros = vec![0; FILL_BYTES];
    for at in (0..bytes).step_by(FILL_BYTES) {
        file.write_all_at(&zeros[..FILL_BYTES.min(bytes - at)], at as u64)?;
    }
    file.sync_all()
}
