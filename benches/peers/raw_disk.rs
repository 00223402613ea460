//! The disk beside attestry: latency of small appends in each round, and bandwidth of appends as large as an upload's messages and larger, right before the upload.

use super::disk::{self, DiskLatency, Into};
use std::path::Path;

/// Written for each figure of bandwidth.
const WRITTEN_BYTES: usize = 256 << 20;
/// As large as the messages of the upload, and what a large commit may hold.
pub(super) const WRITES_BYTES: [usize; 2] = [64 << 10, 1 << 20];

/// Append + fdatasync of 4 KiB.
pub(super) struct Latencies {
    pub(super) zeros: DiskLatency,
    pub(super) growing: DiskLatency,
}

/// Append + fdatasync of one size, in MB/s (10^6 bytes).
pub(super) struct Bandwidth {
    pub(super) write_bytes: usize,
    pub(super) zeros_mb_per_s: f64,
    pub(super) growing_mb_per_s: f64,
}

pub(super) fn latencies(folder: &Path) -> std::io::Result<Latencies> {
    Ok(Latencies {
        zeros: disk::latency(folder, Into::Zeros)?,
        growing: disk::latency(folder, Into::Growing)?,
    })
}

/// One figure for each size of write; a sixteenth of the bytes with `is_quick`.
pub(super) fn bandwidths(folder: &Path, is_quick: bool) -> std::io::Result<Vec<Bandwidth>> {
    let written_bytes = if is_quick { WRITTEN_BYTES / 16 } else { WRITTEN_BYTES };
    let of = |write_bytes: usize, into| {
        let latencies_us = disk::append(folder, into, write_bytes, written_bytes / write_bytes)?;
        std::io::Result::Ok(written_bytes as f64 / latencies_us.iter().sum::<u64>() as f64)
    };
    let both = |write_bytes| {
        let (zeros, growing) = (of(write_bytes, Into::Zeros)?, of(write_bytes, Into::Growing)?);
        Ok(Bandwidth { write_bytes, zeros_mb_per_s: zeros, growing_mb_per_s: growing })
    };
    WRITES_BYTES.into_iter().map(both).collect()
}
