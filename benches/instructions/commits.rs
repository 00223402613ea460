//! Cases of the ledger: from entries to a signed frame, on a disk that takes everything and keeps nothing, and the way back by the verifier.

use super::captures::entries_of_unary_calls;
use super::cases::{Case, LITTLE, Ready, Work};
use anyhow::ensure;
use attestry::clock::ManualClock;
use attestry::entry::{Body, PendingEntry};
use attestry::generated::v1;
use attestry::ledger::disk::{Disk, FsDisk, SegmentFile};
use attestry::ledger::fsck::{self, Verdict};
use attestry::ledger::segment;
use attestry::ledger::writer::{State, Writer};
use attestry::merkle::CompactRange;
use attestry::note::Signer;
use ed25519_dalek::SigningKey;
use std::fs;
use std::hint::black_box;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

const COMMITS: u64 = 32;
const ENTRIES_OF_A_BATCH: u64 = 64;
const FRAMES_TO_VERIFY: u64 = 32;
const MESSAGE_BYTES: usize = 100;
const ORIGIN: &str = "bench.example/log";

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "commit of 1 entry",
        unit: "commit",
        units: COMMITS,
        noise: LITTLE,
        work: Work::Alone(|| commits(1, MESSAGE_BYTES)),
    },
    Case {
        name: "commit of 64 entries",
        unit: "entry",
        units: COMMITS * ENTRIES_OF_A_BATCH,
        noise: LITTLE,
        work: Work::Alone(|| commits(ENTRIES_OF_A_BATCH, MESSAGE_BYTES)),
    },
    Case {
        name: "commit of 16 entries with 16 KiB each",
        unit: "entry",
        units: COMMITS * 16,
        noise: LITTLE,
        work: Work::Alone(|| commits(16, 16_384)),
    },
    Case {
        name: "verify, 64 entries to a frame",
        unit: "entry",
        units: FRAMES_TO_VERIFY * ENTRIES_OF_A_BATCH,
        // How often its threads find each other waiting decides about a few copies.
        noise: 200,
        work: Work::WithThreads { prepare: write_ledger, run: verify_ledger },
    },
];

fn commits(entries_of_a_commit: u64, message_bytes: usize) -> Ready {
    let entries = entries_of(entries_of_a_commit, message_bytes);
    let mut writer = writer(Box::new(NoDisk)).expect("that disk never fails");
    // The builder's buffer has its size after the first.
    writer.commit(entries.iter()).expect("that disk never fails");
    Box::new(move || {
        for _ in 0..COMMITS {
            black_box(writer.commit(entries.iter()).expect("that disk never fails"));
        }
    })
}

/// Evidence of unary calls, of which each gives two entries.
fn entries_of(count: u64, message_bytes: usize) -> Vec<PendingEntry> {
    let calls = u32::try_from(count.div_ceil(2)).expect("a batch is small");
    let mut entries = entries_of_unary_calls(calls, message_bytes);
    assert!(entries.len() as u64 >= count, "each read of a call gives an entry");
    entries.truncate(usize::try_from(count).expect("a batch is small"));
    entries
}

fn writer(disk: Box<dyn Disk>) -> anyhow::Result<Writer> {
    let state = State { range: CompactRange::new(), last_leaf: [0; 32], last_time_unix_nanos: 0 };
    let clock = Arc::new(ManualClock::at(1_700_000_000_000_000_000));
    Ok(Writer::begin(disk, clock, signer(), 1 << 30, state)?)
}

/// Always the same key, so that signatures and the steps to check them are the same.
fn signer() -> Signer {
    Signer::new(ORIGIN, SigningKey::from_bytes(&[7; 32])).expect("the name can stand in a note")
}

fn write_ledger(folder: &Path, scale: u64) -> anyhow::Result<()> {
    let _ = fs::remove_dir_all(ledger_in(folder));
    fs::create_dir_all(segment::folder(&ledger_in(folder)))?;
    fs::write(ledger_in(folder).join("origin"), format!("{ORIGIN}\n"))?;
    let mut writer = writer(Box::new(FsDisk::new(&ledger_in(folder), 1 << 20)))?;
    let verifier_key = signer().verifier_key().to_string();
    let opened = v1::Opened { origin: ORIGIN.into(), verifier_key, format_version: segment::FORMAT_VERSION };
    writer.commit([PendingEntry::new(&Body::Opened(opened))].iter())?;
    let entries = entries_of(ENTRIES_OF_A_BATCH * FRAMES_TO_VERIFY * scale, MESSAGE_BYTES);
    for batch in entries.chunks(usize::try_from(ENTRIES_OF_A_BATCH)?) {
        writer.commit(batch.iter())?;
    }
    Ok(writer.finish()?)
}

fn verify_ledger(folder: &Path, scale: u64) -> anyhow::Result<()> {
    let options = fsck::Options {
        ledger: ledger_in(folder),
        key: Some(signer().verifier_key().clone()),
        threads: NonZeroUsize::new(1),
        ..fsck::Options::default()
    };
    let report = fsck::verify(options, |_| {});
    ensure!(report.verdict == Verdict::Intact, "the ledger is not intact: {report:#?}");
    let entries = ENTRIES_OF_A_BATCH * FRAMES_TO_VERIFY * scale + 1;
    ensure!(report.entries == entries, "{} entries were verified, not {entries}", report.entries);
    Ok(())
}

fn ledger_in(folder: &Path) -> std::path::PathBuf {
    folder.join("ledger")
}

/// A disk that forgets everything at once: what is left is the work of the processor.
struct NoDisk;

impl Disk for NoDisk {
    fn create_segment(&mut self, _: u64, header: &[u8]) -> io::Result<Box<dyn SegmentFile>> {
        black_box(header);
        Ok(Box::new(Self))
    }

    fn open_segment(&mut self, _: u64) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(Self))
    }

    fn write_head(&mut self, bytes: &[u8]) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }
}

impl SegmentFile for NoDisk {
    fn capacity(&self) -> u64 {
        u64::MAX
    }

    fn write_at(&mut self, bytes: &[u8], _: u64) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn trim(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}
