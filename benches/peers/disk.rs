//! What the disk under the ledger takes by itself: append and fdatasync of 4 KiB into zeros that are on it already.

use super::figures::quantile;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

const APPEND_BYTES: usize = 4096;
const APPENDS: usize = 1000;

/// Latency of one append with its fdatasync.
pub(super) struct DiskLatency {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// Measures in a file of its own in `folder`, which it removes.
pub(super) fn measure(folder: &Path) -> std::io::Result<DiskLatency> {
    let path = folder.join("appends");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    file.write_all_at(&vec![0; APPEND_BYTES * APPENDS], 0)?;
    file.sync_all()?;
    let mut latencies = Vec::with_capacity(APPENDS);
    for append in 0..APPENDS {
        let begin = Instant::now();
        file.write_all_at(&[0x5a; APPEND_BYTES], (append * APPEND_BYTES) as u64)?;
        file.sync_data()?;
        latencies.push(u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    std::fs::remove_file(path)?;
    latencies.sort_unstable();
    Ok(DiskLatency { p50_us: quantile(&latencies, 0.5), p99_us: quantile(&latencies, 0.99) })
}
