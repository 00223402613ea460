//! A ledger read back by a test: its frames and entries in order, what the verifier says, and copies as a crash would leave them.
//!
//! Reads segments only, as docs/ledger-format.md gives them, and needs no writer to have ended. Making ledgers is `ledger_maker`'s.
#![allow(dead_code, reason = "each test takes what it needs")]

use attestry::entry::{self, Body};
use attestry::generated::v1;
use attestry::ledger::frame::Frame;
use attestry::ledger::fsck::{self, Report, Verdict};
use attestry::ledger::segment::{self, Found, Segment};
use std::fs;
use std::path::{Path, PathBuf};

/// A frame, and where it stands.
pub struct Placed {
    pub segment: u64,
    pub offset: u64,
    pub frame: Frame,
}

impl Placed {
    /// The offset behind it.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.frame.header().length)
    }
}

/// All well-formed frames, in order; what stands between them is skipped.
pub fn frames(ledger: &Path) -> Vec<Placed> {
    let mut frames = Vec::new();
    for first_index in segment::list(ledger).unwrap() {
        let file = Segment::open(ledger, first_index).unwrap();
        let mut offset = segment::HEADER_LEN;
        loop {
            let found = match file.at(offset).unwrap() {
                Found::Frame(frame) => Some((offset, frame)),
                Found::Bad(_) => file.next_frame(offset + 1, |_| true).unwrap(),
                Found::End => None,
            };
            let Some((at, frame)) = found else { break };
            offset = at + u64::from(frame.header().length);
            frames.push(Placed { segment: first_index, offset: at, frame });
        }
    }
    frames
}

/// All entries that can be read, in order.
pub fn entries(ledger: &Path) -> Vec<v1::Entry> {
    let frames = frames(ledger);
    frames.iter().flat_map(|placed| entries_of(&placed.frame)).collect()
}

/// The entries of one frame.
pub fn entries_of(frame: &Frame) -> Vec<v1::Entry> {
    let stored = frame.entries().unwrap();
    stored.into_iter().map(|stored| entry::decode(stored.entry).unwrap()).collect()
}

/// Their bodies.
pub fn bodies(ledger: &Path) -> Vec<Body> {
    entries(ledger).into_iter().filter_map(|entry| entry.body).collect()
}

/// The bodies that `pick` takes.
pub fn bodies_of<T>(ledger: &Path, pick: impl Fn(Body) -> Option<T>) -> Vec<T> {
    bodies(ledger).into_iter().filter_map(pick).collect()
}

/// All gap entries.
pub fn gaps(ledger: &Path) -> Vec<v1::Gap> {
    bodies_of(ledger, |body| if let Body::Gap(gap) = body { Some(gap) } else { None })
}

/// All damage entries.
pub fn damages(ledger: &Path) -> Vec<v1::Damage> {
    bodies_of(ledger, |body| if let Body::Damage(damage) = body { Some(damage) } else { None })
}

/// All entries of a writer's start.
pub fn starts(ledger: &Path) -> Vec<v1::Started> {
    bodies_of(ledger, |body| if let Body::Started(started) = body { Some(started) } else { None })
}

/// All entries of a writer's end.
pub fn stops(ledger: &Path) -> Vec<v1::Stopped> {
    bodies_of(ledger, |body| if let Body::Stopped(stopped) = body { Some(stopped) } else { None })
}

/// What the verifier finds.
pub fn verify(ledger: &Path) -> Report {
    let options = fsck::Options { ledger: ledger.to_owned(), ..fsck::Options::default() };
    fsck::verify(options, |_| {})
}

/// The verifier must find nothing.
pub fn assert_intact(ledger: &Path, what: &str) {
    let report = verify(ledger);
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    assert_eq!(report.verdict, Verdict::Intact, "{what}: {faults:#?} {:?}", report.remarks);
}

/// Copies the ledger as a crash at this moment would leave it: without what is only in memory, and without the lookup tables, which
/// are not to be had consistently while they are in use. The head comes first, since it may be older than the segments and never newer.
pub fn crash(ledger: &Path, to: &Path) {
    fs::create_dir_all(segment::folder(to)).unwrap();
    for name in ["head", "origin", "key"] {
        if ledger.join(name).exists() {
            fs::copy(ledger.join(name), to.join(name)).unwrap();
        }
    }
    for first_index in segment::list(ledger).unwrap() {
        fs::copy(segment_path(ledger, first_index), segment_path(to, first_index)).unwrap();
    }
}

/// A segment's file.
pub fn segment_path(ledger: &Path, first_index: u64) -> PathBuf {
    segment::folder(ledger).join(segment::file_name(first_index))
}

/// Every file below `folder` with its bytes, by path.
pub fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for file in fs::read_dir(&folder).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_dir() {
                open.push(file.path());
            } else {
                files.push((file.path(), fs::read(file.path()).unwrap()));
            }
        }
    }
    files.sort();
    files
}
