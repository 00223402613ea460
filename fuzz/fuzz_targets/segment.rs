//! Fuzzes everything that reads a segment: whatever its bytes, walking and verifying end without a panic, frames lie where they are said to
//! lie, and no ledger that was not signed is found intact. Input: one octet that says whether checksums are put right, then the file.
#![no_main]

use attestry::ledger::fsck::{self, Options, Verdict};
use attestry::ledger::segment::{self, Found, HEADER_LEN, Segment};
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::LazyLock;

/// A ledger's folder, one for each process.
static LEDGER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("attestry-fuzz-{}", std::process::id()));
    fs::create_dir_all(segment::folder(&folder)).expect("the folder for temporary files can be written");
    folder
});

/// A key whose secret half was thrown away.
const KEY: &str = "nobody+ab1c7cf4+AdVIaQaBTjVVBM5zrjLbNOXV9Xnxw690f7V1k57nkYQJ";

fuzz_target!(|input: &[u8]| {
    let Some((&flags, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if flags & 1 == 1 {
        put_checksums_right(&mut bytes);
    }
    fs::write(segment::folder(&LEDGER).join(segment::file_name(0)), &bytes)
        .expect("the segment can be written");
    walk(bytes.len() as u64);
    let options = Options {
        ledger: LEDGER.clone(),
        key: (flags & 2 == 2).then(|| KEY.parse().expect("it is a verifier key")),
        threads: NonZeroUsize::new(1),
        ..Options::default()
    };
    let has_key = options.key.is_some();
    let report = fsck::verify(options, |_| {});
    assert_eq!(report.verdict == Verdict::Damaged, report.faults_total > 0);
    assert!(report.verdict != Verdict::Intact || !has_key || report.entries == 0, "{report:#?}");
});

fn walk(length: u64) {
    let segment = Segment::open(&LEDGER, 0).expect("it was just written");
    let _ = segment.check_header(Some("nobody")).expect("it can be read");
    let mut offset = HEADER_LEN;
    loop {
        let found = segment.at(offset).expect("it can be read");
        let next = match found {
            Found::Frame(frame) => Some((offset, frame)),
            Found::End => return,
            Found::Bad(_) => segment.next_frame(offset, |_| true).expect("it can be read"),
        };
        let Some((at, frame)) = next else { return };
        let end = at + frame.bytes().len() as u64;
        assert!(offset <= at && end <= length && frame.header().entry_count > 0);
        if let Ok(entries) = frame.entries() {
            assert_eq!(entries.len(), frame.header().entry_count as usize);
        }
        offset = end;
    }
}

/// Makes the checksums of the header and of all frames from the first on what they should be, so that the fuzzer gets behind them.
fn put_checksums_right(bytes: &mut [u8]) {
    if let Some(header) = bytes.first_chunk_mut::<64>() {
        let checksum = crc32fast::hash(&header[..60]);
        header[60..].copy_from_slice(&checksum.to_le_bytes());
    }
    let mut rest = bytes.get_mut(64..).unwrap_or_default();
    while let Some(length) = rest.get(8..12) {
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        let Some((frame, behind)) = rest.split_at_mut_checked(length) else { return };
        if length < 44 {
            return;
        }
        let checksum = crc32fast::hash(&frame[..36]);
        frame[36..40].copy_from_slice(&checksum.to_le_bytes());
        let checksum = crc32fast::hash(&frame[..length - 4]);
        frame[length - 4..].copy_from_slice(&checksum.to_le_bytes());
        rest = behind;
    }
}
