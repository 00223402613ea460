//! `attestry verify` and the Python verifier, which was written from the format's document alone, on the same ledgers: intact ones, and ones
//! damaged in every way that the document names. Each finding is held against what it must be, and the two against each other.
//!
//! Without Python and its `cryptography` package the comparison is skipped, loudly; ATTESTRY_REQUIRE_ALL=1 makes that a failure.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]
#![allow(clippy::cast_possible_truncation, reason = "everything here is a few kilobytes long")]

#[path = "support/ledger_maker.rs"]
mod ledger_maker;

#[path = "verify/claims.rs"]
mod claims;

use attestry::generated::v1;
use attestry::ledger::fsck::{self, FaultKind, Options, Report, Verdict};
use attestry::ledger::row::Row;
use attestry::ledger::segment as segments;
use attestry::merkle::CompactRange;
use attestry::note::{Checkpoint, VerifierKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ledger_maker::*;
use prost::Message as _;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::slice;
use std::sync::Mutex;
use tempfile::TempDir;

/// The secret of the sample's key, and that of a stranger's.
const SEED: u8 = 7;
const STRANGER: u8 = 8;

/// The first indexes of the sample's segments.
const FIRST: u64 = 0;
const SECOND: u64 = 6;

/// (kind, segment, offset, index, end), as both verifiers give it.
type Finding = (String, Option<u64>, Option<u64>, Option<u64>, Option<u64>);

fn finding(
    kind: FaultKind,
    place: impl Into<Option<(u64, u64)>>,
    index: impl Into<Option<u64>>,
    end: impl Into<Option<u64>>,
) -> Finding {
    let place = place.into();
    (kind.as_str().into(), place.map(|place| place.0), place.map(|place| place.1), index.into(), end.into())
}

// The two verifiers.

/// Both verifiers; every question goes to both, and they must agree.
struct Judges {
    python: Option<Python>,
}

impl Judges {
    fn new() -> Self {
        Self { python: Python::start() }
    }

    /// The findings on a ledger, given the key, on which both agree.
    fn judge(&mut self, ledger: &Path) -> (Verdict, Vec<Finding>) {
        let report = self.ask(ledger, Some(&key(SEED)), &[]);
        (report.verdict, findings(&report))
    }

    fn ask(&mut self, ledger: &Path, key: Option<&VerifierKey>, against: &[PathBuf]) -> Report {
        if let Some(python) = &mut self.python {
            python.ask(ledger, key, against);
        }
        let report = verify(ledger, key, against);
        if let Some(python) = &mut self.python {
            python.compare(&report);
        }
        report
    }
}

fn verify(ledger: &Path, key: Option<&VerifierKey>, against: &[PathBuf]) -> Report {
    let options = Options {
        ledger: ledger.to_path_buf(),
        key: key.cloned(),
        against: against.to_vec(),
        threads: NonZeroUsize::new(2),
        ..Options::default()
    };
    fsck::verify(options, |_| {})
}

fn findings(report: &Report) -> Vec<Finding> {
    let finding = |fault: &fsck::Fault| {
        let place = fault.place;
        (fault.kind.as_str().to_owned(), place.segment, place.offset, place.index, place.end)
    };
    report.faults.iter().map(finding).collect()
}

/// The Python verifier, as a process that answers one request after another.
struct Python {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Python {
    fn start() -> Option<Self> {
        let interpreter = required_interpreter()?;
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifier_batch.py");
        let mut child = Command::new(interpreter)
            .arg("-B")
            .arg(driver)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (requests, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Self { child, requests, answers })
    }

    fn ask(&mut self, ledger: &Path, key: Option<&VerifierKey>, against: &[PathBuf]) {
        let key = key.map(ToString::to_string);
        writeln!(self.requests, "{}", json!({ "ledger": ledger, "key": key, "against": against })).unwrap();
    }

    fn compare(&mut self, report: &Report) {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).expect("the Python verifier answers each request");
        let number = |value: &Value| value.as_u64();
        let theirs = answer["faults"].as_array().unwrap().iter().map(|fault| {
            let segment = fault["segment"].as_str().map(|name| name[..20].parse().unwrap());
            let kind = fault["kind"].as_str().unwrap().to_owned();
            (kind, segment, number(&fault["offset"]), number(&fault["index"]), number(&fault["end"]))
        });
        let theirs: Vec<Finding> = theirs.collect();
        assert_eq!(findings(report), theirs, "left: Rust {:#?}\nright: Python {answer:#}", report.faults);
        let ours = json!({
            "verdict": report.verdict.as_str(),
            "entries": report.entries,
            "size": report.size,
            "root": report.root.map(|root| STANDARD.encode(root)),
            "origin": report.origin,
            "key": report.key.as_ref().map(ToString::to_string),
            "key_given": report.key_given,
        });
        for (name, value) in ours.as_object().unwrap() {
            assert_eq!(*value, answer[name], "{name}; Rust: {report:#?}\nPython: {answer:#}");
        }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

static MAKING: Mutex<()> = Mutex::new(());

/// The interpreter, or `None` where none can be had and that is allowed.
fn required_interpreter() -> Option<PathBuf> {
    let interpreter = interpreter();
    if interpreter.is_none() {
        let required = std::env::var_os("ATTESTRY_REQUIRE_ALL").is_some();
        assert!(!required, "no Python with the package `cryptography`");
        eprintln!("SKIPPED: what needs tests/verifier.py, for lack of Python with `cryptography`");
    }
    interpreter
}

/// A Python that has the package `cryptography`: the system's, or one of a venv of our own.
fn interpreter() -> Option<PathBuf> {
    let has_package = |python: &Path| {
        let import = Command::new(python).args(["-c", "import cryptography"]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    };
    let run = |program: &Path, args: &[&str]| {
        Command::new(program).args(args).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let system = PathBuf::from("python3");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/verifier-venv");
    let venv = folder.join("bin/python");
    if has_package(&system) {
        return Some(system);
    }
    // Several tests may come here at a time: one makes the venv, the others wait for it.
    let _making = MAKING.lock().unwrap();
    let made = has_package(&venv)
        || (run(&system, &["-m", "venv", folder.to_str()?])
            && run(&venv, &["-m", "pip", "install", "--quiet", "cryptography"])
            && has_package(&venv));
    made.then_some(venv)
}

/// The Python verifier finds every kind of fault in ledgers that it writes itself, from the document alone.
#[test]
fn the_python_verifier_passes_its_own_tests() {
    let Some(interpreter) = required_interpreter() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifier_selftest.py");
    let output = Command::new(interpreter).arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

// The sample.

/// A call's message of three segments.
const MESSAGE: &[u8] = b"the quick brown fox jumps over the lazy dog";

/// Frames 0 to 2 in the first segment, 3 to 5 in the second; entries [0, 2) [2, 4) [4, 6) and [6, 8) [8, 10) [10, 11).
fn sample() -> (TempDir, LedgerMaker) {
    let folder = tempfile::tempdir().unwrap();
    let mut maker = LedgerMaker::new(folder.path(), SEED);
    maker.commit(vec![maker.opened(), started()]);
    maker.commit(vec![
        call(1, 1, vec![header_beside(b"a long list"), part(0, MESSAGE, 0, 10)]),
        goaway(b"enough"),
    ]);
    maker.commit(vec![
        call(1, 3, vec![part(0, MESSAGE, 10, 20)]),
        call(2, 1, vec![whole(0, b""), whole(1, b"hello")]),
    ]);
    maker.begin_segment();
    maker.commit(vec![started(), call(1, 4, vec![part(0, MESSAGE, 20, MESSAGE.len())])]);
    maker.commit(vec![
        call(3, 1, vec![part(0, b"broken off", 0, 6), abandoned()]),
        call(3, 3, vec![whole(0, b"new")]),
    ]);
    maker.commit(vec![stopped()]);
    (folder, maker)
}

/// The smallest ledger with all sorts of files.
fn tiny() -> (TempDir, LedgerMaker) {
    let folder = tempfile::tempdir().unwrap();
    let mut maker = LedgerMaker::new(folder.path(), SEED);
    maker.commit(vec![maker.opened()]);
    maker.commit(vec![call(1, 1, vec![part(0, b"hello", 0, 2)])]);
    maker.begin_segment();
    maker.commit(vec![call(1, 2, vec![part(0, b"hello", 2, 5)]), stopped()]);
    (folder, maker)
}

fn segment_path(ledger: &Path, number: u64) -> PathBuf {
    segments::folder(ledger).join(segments::file_name(number))
}

/// Changes the bytes of a file.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Changes a ledger's frames and puts it together again with right checksums.
fn rework(ledger: &Path, change: impl FnOnce(&mut LogParts)) {
    let mut parts = LogParts::read(ledger);
    change(&mut parts);
    parts.write(ledger);
}

/// Changes an entry as decoded.
fn rework_entry(ledger: &Path, frame: usize, position: usize, change: impl FnOnce(&mut v1::Entry)) {
    rework(ledger, |parts| {
        let bytes = &mut parts.frame(frame).entries[position].0;
        let mut entry = v1::Entry::decode(&bytes[..]).unwrap();
        change(&mut entry);
        *bytes = entry.encode_to_vec();
    });
}

/// Signs the checkpoints of all frames anew, over the entries as they are: what only the holder of a key can do.
fn sign_again(parts: &mut LogParts, seed: u8, from: usize) {
    let mut range = CompactRange::new();
    for (number, frame) in parts.frames().enumerate() {
        let before = range.hashes().to_vec();
        frame.entries.iter().for_each(|(entry, _)| range.push(attestry::merkle::leaf_hash(entry)));
        if number >= from {
            frame.range = before;
            let checkpoint = Checkpoint {
                origin: ORIGIN.into(),
                size: range.size(),
                root: range.root(),
                extensions: vec![],
            };
            frame.checkpoint = signer(seed).sign(&checkpoint.text()).into_bytes();
        }
    }
}

// Intact.

#[test]
fn an_intact_ledger_is_found_intact() {
    let (folder, maker) = sample();
    let mut judges = Judges::new();
    let given = judges.ask(folder.path(), Some(&key(SEED)), &[]);
    assert_eq!((given.verdict, findings(&given), given.remarks), (Verdict::Intact, vec![], vec![]));
    assert_eq!((given.entries, given.calls, given.segments, given.size), (11, 3, 2, 11));
    assert_eq!(
        Checkpoint::parse(
            maker.checkpoint().split("\n\n").next().map(|t| format!("{t}\n")).unwrap().as_str()
        )
        .unwrap()
        .root,
        given.root.unwrap()
    );
    let claimed = judges.ask(folder.path(), None, &[]);
    assert_eq!((claimed.verdict, claimed.key, claimed.key_given), (Verdict::Intact, Some(key(SEED)), false));
    assert!(claimed.remarks[0].contains("as far as the key in entry 0 is trusted"), "{:?}", claimed.remarks);
}

#[test]
fn any_number_of_threads_finds_the_same() {
    let (folder, _) = sample();
    rework(folder.path(), |parts| parts.frames().for_each(|frame| frame.entries.reverse()));
    let reports = [1, 2, 3, 16].map(|threads| {
        let threads = NonZeroUsize::new(threads);
        findings(&fsck::verify(
            Options { ledger: folder.path().into(), threads, ..Options::default() },
            |_| {},
        ))
    });
    assert!(reports.iter().all(|report| *report == reports[0] && report.len() > 5), "{reports:#?}");
}

#[test]
fn zeros_behind_the_last_frame_and_files_of_other_names_are_no_fault() {
    let (folder, _) = sample();
    for number in [FIRST, SECOND] {
        edit(&segment_path(folder.path(), number), |bytes| bytes.resize(600_000, 0));
    }
    fs::write(segments::folder(folder.path()).join("spare"), b"anything").unwrap();
    fs::write(segments::folder(folder.path()).join("1.seg"), b"anything").unwrap();
    edit(&folder.path().join("head"), |bytes| bytes.extend(b"behind it"));
    fs::remove_file(folder.path().join("origin")).unwrap();
    assert_eq!(Judges::new().judge(folder.path()), (Verdict::Intact, vec![]));
}

#[test]
fn a_segment_without_frames_means_nothing() {
    let (folder, mut maker) = sample();
    maker.begin_segment();
    assert_eq!(Judges::new().judge(folder.path()), (Verdict::Intact, vec![]));
}

/// A commit that was cut by a crash: nothing of it was released.
#[test]
fn an_unfinished_commit_is_a_remark() {
    let mut judges = Judges::new();
    let (folder, maker) = sample();
    // Without the last frame, which says that the writer stopped.
    let places = LogParts::read(folder.path()).places();
    let (_, last) = places[5];
    let whole = fs::read(maker.segment_path()).unwrap();
    fs::remove_file(folder.path().join("head")).unwrap();
    for cut in [1, 39, 40, 100, whole.len() - last as usize - 1] {
        for zeros in [0, 5_000] {
            let mut bytes = whole[..last as usize + cut].to_vec();
            bytes.resize(bytes.len() + zeros, 0);
            fs::write(maker.segment_path(), bytes).unwrap();
            let report = judges.ask(folder.path(), Some(&key(SEED)), &[]);
            assert_eq!((report.verdict, findings(&report), report.size), (Verdict::Intact, vec![], 10));
            assert!(report.remarks[1].contains("unfinished commit"), "{:?}", report.remarks);
        }
    }
    // After a clean stop too: the next writer's first commit, in a segment of its own.
    let (folder, mut maker) = sample();
    maker.begin_segment();
    edit(&maker.segment_path(), |bytes| bytes.extend([0x8a, b'A', b'T']));
    assert_eq!(judges.judge(folder.path()), (Verdict::Intact, vec![]));
}

// Every fault.

/// Makes the sample, damages it, and says what must be found.
fn case(judges: &mut Judges, name: &str, damage: impl FnOnce(&Path), expected: &[Finding]) {
    let (folder, _) = sample();
    damage(folder.path());
    let (verdict, found) = judges.judge(folder.path());
    assert_eq!((verdict, &found[..]), (Verdict::Damaged, expected), "{name}");
}

/// The places of the sample's frames.
fn places() -> Vec<(u64, u64)> {
    let (folder, _) = sample();
    LogParts::read(folder.path()).places()
}

#[test]
fn damaged_head_origin_and_header_are_named() {
    use FaultKind::{Fork, Head, Origin, SegmentHeader, Truncated};
    let judges = &mut Judges::new();
    let second = |ledger: &Path| segment_path(ledger, SECOND);
    let head = finding(Head, None, None, None);
    case(judges, "head too short", |l| edit(&l.join("head"), |b| b.truncate(50)), slice::from_ref(&head));
    case(judges, "head flipped", |l| edit(&l.join("head"), |b| b[20] ^= 1), &[head]);
    let forge = |byte: usize| {
        move |ledger: &Path| {
            edit(&ledger.join("head"), |bytes| {
                bytes[byte] ^= 0x20;
                let end = head_checksum_at(bytes);
                let checksum = crc32fast::hash(&bytes[..end]);
                bytes[end..end + 4].copy_from_slice(&checksum.to_le_bytes());
            });
        }
    };
    case(judges, "head with another root", forge(20), &[finding(Fork, None, None, 11)]);
    case(judges, "head with another size", forge(8), &[finding(Truncated, None, 11, 43)]);
    let origin = finding(Origin, None, None, None);
    case(judges, "origin", |l| fs::write(l.join("origin"), "other\n").unwrap(), &[origin]);
    let header = finding(SegmentHeader, (SECOND, 0), None, None);
    case(judges, "header", |l| edit(&second(l), |b| b[30] ^= 1), slice::from_ref(&header));
    let expected = [header, finding(Truncated, None, 6, 11)];
    case(judges, "header cut", |l| edit(&second(l), |b| b.truncate(63)), &expected);
}

#[test]
fn segments_that_are_removed_or_cut_are_named() {
    use FaultKind::{DamagedFrame, MissingEntries, Truncated};
    let judges = &mut Judges::new();
    let at = places();
    let remove = |number| move |l: &Path| fs::remove_file(segment_path(l, number)).unwrap();
    let cut = |place: (u64, u64), behind: u64| {
        move |l: &Path| edit(&segment_path(l, place.0), |bytes| bytes.truncate((place.1 + behind) as usize))
    };
    case(judges, "the first removed", remove(FIRST), &[finding(MissingEntries, (SECOND, 0), 0, 6)]);
    case(judges, "the last removed", remove(SECOND), &[finding(Truncated, None, 6, 11)]);
    let all = |l: &Path| [FIRST, SECOND].into_iter().for_each(|number| remove(number)(l));
    case(judges, "all removed", all, &[finding(Truncated, None, 0, 11)]);
    case(judges, "the last cut at a frame", cut(at[5], 0), &[finding(Truncated, None, 10, 11)]);
    case(judges, "the last cut in a frame", cut(at[5], 50), &[finding(DamagedFrame, at[5], 10, 11)]);
    case(judges, "the first cut at a frame", cut(at[2], 0), &[finding(MissingEntries, (SECOND, 0), 4, 6)]);
    case(judges, "the first cut in a frame", cut(at[1], 50), &[finding(DamagedFrame, at[1], 2, 6)]);
}

#[test]
fn bytes_that_are_no_frame_are_named() {
    use FaultKind::{DamagedFrame, TrailingBytes};
    let judges = &mut Judges::new();
    let at = places();
    let (intact, _) = sample();
    for number in [FIRST, SECOND] {
        let end = fs::metadata(segment_path(intact.path(), number)).unwrap().len();
        let expected = finding(TrailingBytes, (number, end), None, None);
        let damage = |l: &Path| edit(&segment_path(l, number), |b| b.extend(b"\0\0more"));
        case(judges, "bytes behind the last frame", damage, &[expected]);
    }
    for (frame, entries) in [(0, 0..2), (1, 2..4), (2, 4..6), (3, 6..8), (4, 8..10), (5, 10..11)] {
        let damage = |l: &Path| edit(&segment_path(l, at[frame].0), |b| b[at[frame].1 as usize + 60] ^= 4);
        let expected = finding(DamagedFrame, at[frame], entries.start, entries.end);
        case(judges, "a flipped bit", damage, &[expected]);
    }
    let insert = |l: &Path| {
        let offset = at[4].1 as usize;
        edit(&segment_path(l, SECOND), |bytes| drop(bytes.splice(offset..offset, *b"stray")));
    };
    case(judges, "bytes between frames", insert, &[finding(DamagedFrame, at[4], 8, 8)]);
}

#[test]
fn frames_in_the_wrong_place_are_named() {
    use FaultKind::{EntryTime, MissingEntries, RepeatedEntries};
    let judges = &mut Judges::new();
    let at = places();
    let (_, second_frame) = at[1];
    let remove = |l: &Path| rework(l, |parts| drop(parts.segments[0].1.remove(1)));
    case(judges, "a frame removed", remove, &[finding(MissingEntries, (FIRST, second_frame), 2, 4)]);
    let repeat = |l: &Path| {
        rework(l, |parts| {
            let frame = parts.segments[0].1[1].clone();
            parts.segments[0].1.insert(2, frame);
        });
    };
    let expected = [finding(RepeatedEntries, at[2], 2, 4), finding(EntryTime, at[2], 2, None)];
    case(judges, "a frame repeated", repeat, &expected);
    let swap = |l: &Path| rework(l, |parts| parts.segments[0].1.swap(1, 2));
    let found = case_kinds(judges, swap);
    assert_eq!(found[..2], ["missing-entries", "repeated-entries"]);
    // A copy of the first segment under the number of an entry inside it.
    let copy = |l: &Path| assert!(fs::copy(segment_path(l, FIRST), segment_path(l, 4)).is_ok());
    let found = case_kinds(judges, copy);
    assert_eq!(found[..3], ["repeated-entries", "segment-header", "repeated-entries"]);
}

fn case_kinds(judges: &mut Judges, damage: impl FnOnce(&Path)) -> Vec<String> {
    let (folder, _) = sample();
    damage(folder.path());
    judges.judge(folder.path()).1.into_iter().map(|finding| finding.0).collect()
}

/// Changes an entry and signs the log anew from its frame on, as only the log's own key can: no checksum, root or signature gives it away.
fn signed_wrong(
    judges: &mut Judges,
    frame: usize,
    position: usize,
    change: impl FnOnce(&mut Vec<u8>),
) -> Vec<Finding> {
    let (folder, _) = sample();
    fs::remove_file(folder.path().join("head")).unwrap();
    rework(folder.path(), |parts| {
        change(&mut parts.frame(frame).entries[position].0);
        chain_again(parts, frame, position);
        sign_again(parts, SEED, frame);
    });
    judges.judge(folder.path()).1
}

/// The same, of an entry as decoded.
fn entry_signed_wrong(
    judges: &mut Judges,
    frame: usize,
    position: usize,
    change: impl FnOnce(&mut v1::Entry),
) -> Vec<Finding> {
    signed_wrong(judges, frame, position, |bytes| {
        let mut entry = v1::Entry::decode(&bytes[..]).unwrap();
        change(&mut entry);
        *bytes = entry.encode_to_vec();
    })
}

#[test]
fn wrong_entries_are_named_though_the_key_signed_them() {
    use FaultKind::{EntryChain, EntryEncoding, EntryIndex, EntryTime, Genesis};
    let judges = &mut Judges::new();
    let at = places();
    let here = |kind, frame: usize, index: u64| [finding(kind, at[frame], index, None)];
    let found = entry_signed_wrong(judges, 1, 1, |entry| entry.index = 9);
    assert_eq!(found, here(EntryIndex, 1, 3));
    for (frame, position, index) in [(1, 1, 3), (0, 0, 0)] {
        let found = entry_signed_wrong(judges, frame, position, |entry| entry.previous = vec![1; 32].into());
        assert_eq!(found, here(EntryChain, frame, index));
    }
    let found = entry_signed_wrong(judges, 3, 0, |entry| entry.committed_unix_nanos -= 1_000_000);
    assert_eq!(found, here(EntryTime, 3, 6));
    let found = entry_signed_wrong(judges, 0, 0, |entry| entry.body = Some(started().0));
    assert_eq!(found, here(Genesis, 0, 0), "no genesis");
    let opened = v1::entry::Body::Opened(v1::Opened::default());
    let found = entry_signed_wrong(judges, 3, 0, |entry| entry.body = Some(opened));
    assert_eq!(found, here(Genesis, 3, 6), "a second genesis");
    let too_long = [vec![0x8a, 0x06, 0xfc, 0xff, 0x03], vec![0; 65_532]].concat();
    for garbage in [vec![0xff; 20], vec![], too_long] {
        let found = signed_wrong(judges, 3, 0, |bytes| *bytes = garbage);
        assert_eq!(found, here(EntryEncoding, 3, 6));
    }
}

/// Entry 4 holds the second of a message's three segments, entry 7 the third.
#[test]
fn segments_that_do_not_follow_each_other_are_named_though_the_key_signed_them() {
    use FaultKind::{MessageOrder, PayloadDigest, PayloadLength};
    let judges = &mut Judges::new();
    let at = places();
    let mut wrong = |position: usize, change: fn(&mut v1::CallEvents)| {
        entry_signed_wrong(judges, 2, position, |entry| match &mut entry.body {
            Some(v1::entry::Body::CallEvents(events)) => change(events),
            other => panic!("{other:?}"),
        })
    };
    let here = |kind| finding(kind, at[2], 4, None);
    let next = || finding(MessageOrder, at[3], 7, None);
    assert_eq!(wrong(0, |events| segment(events).length += 1), [here(PayloadLength), next()]);
    assert_eq!(wrong(0, |events| segment(events).sha256 = vec![0; 32].into()), [here(PayloadDigest)]);
    assert_eq!(wrong(0, |events| segment(events).sha256.clear()), [here(PayloadDigest)]);
    assert_eq!(wrong(0, |events| segment(events).offset += 1), [here(MessageOrder), next()]);
    assert_eq!(wrong(0, |events| segment(events).message = 1), [here(MessageOrder), next()]);
    assert_eq!(wrong(0, |events| events.call = vec![9; 16].into()), [here(MessageOrder), next()]);
    assert_eq!(wrong(0, |events| events.direction = 2), [here(MessageOrder), next()]);
    assert_eq!(wrong(0, |events| segment(events).end = true), [next()], "it ended too early");
    let found = wrong(1, |events| segment(events).offset = 3);
    assert_eq!(found, [finding(MessageOrder, at[2], 5, None)], "a beginning that is none");
}

/// The first message segment of an entry.
fn segment(events: &mut v1::CallEvents) -> &mut v1::MessageSegment {
    events.events.iter_mut().find_map(|event| event.message.as_mut()).unwrap()
}

/// Makes the entries behind one name their predecessors as those are now.
fn chain_again(parts: &mut LogParts, frame: usize, position: usize) {
    let mut previous = None;
    for (number, parts) in parts.frames().enumerate() {
        for (place, (bytes, _)) in parts.entries.iter_mut().enumerate() {
            if let Some(previous) = previous.filter(|_| (number, place) > (frame, position)) {
                let mut entry = v1::Entry::decode(&bytes[..]).unwrap();
                entry.previous = bytes::Bytes::copy_from_slice(&previous as &[u8; 32]);
                *bytes = entry.encode_to_vec();
            }
            previous = Some(attestry::merkle::leaf_hash(bytes));
        }
    }
}

#[test]
fn entries_of_a_body_unknown_to_this_version_are_no_fault() {
    let (folder, _) = sample();
    fs::remove_file(folder.path().join("head")).unwrap();
    rework(folder.path(), |parts| {
        let entry = &mut parts.frame(3).entries[0].0;
        let mut known = v1::Entry::decode(&entry[..]).unwrap();
        known.body = None;
        *entry = [known.encode_to_vec(), vec![0xfa, 0x01, 0x01, 0x00]].concat();
        chain_again(parts, 3, 0);
        sign_again(parts, SEED, 3);
    });
    assert_eq!(Judges::new().judge(folder.path()), (Verdict::Intact, vec![]));
}

#[test]
fn altered_payload_is_named() {
    use FaultKind::{PayloadDigest, PayloadLength};
    let judges = &mut Judges::new();
    let at = places();
    let payload = |frame: usize, position: usize, change: fn(&mut Vec<u8>)| {
        move |l: &Path| rework(l, |parts| change(&mut parts.frame(frame).entries[position].1))
    };
    let flip: fn(&mut Vec<u8>) = |bytes| bytes[0] ^= 1;
    case(judges, "headers", payload(1, 0, flip), &[finding(PayloadDigest, at[1], 2, None)]);
    case(judges, "first segment", payload(1, 0, |b| b[15] ^= 1), &[finding(PayloadDigest, at[1], 2, None)]);
    case(
        judges,
        "both",
        payload(1, 0, |b| (b[0], b[15]) = (0, 0)),
        &[finding(PayloadDigest, at[1], 2, None), finding(PayloadDigest, at[1], 2, None)],
    );
    case(judges, "connection", payload(1, 1, flip), &[finding(PayloadDigest, at[1], 3, None)]);
    case(judges, "second segment", payload(2, 0, flip), &[finding(PayloadDigest, at[2], 4, None)]);
    case(judges, "in another file", payload(3, 1, flip), &[finding(PayloadDigest, at[3], 7, None)]);
    case(judges, "longer", payload(3, 1, |b| b.push(0)), &[finding(PayloadLength, at[3], 7, None)]);
    case(judges, "erased", payload(1, 0, Vec::clear), &[finding(PayloadLength, at[1], 2, None)]);
    case(
        judges,
        "of an entry without",
        payload(3, 0, |b| b.push(0)),
        &[finding(PayloadLength, at[3], 6, None)],
    );
}

/// Traffic that went on unrecorded excuses what is missing, not what was altered.
#[test]
fn behind_a_gap_segments_may_be_missing_and_none_may_be_altered() {
    let judges = &mut Judges::new();
    let ledger = |parts: &[(usize, usize)]| {
        let folder = tempfile::tempdir().unwrap();
        let mut maker = LedgerMaker::new(folder.path(), SEED);
        maker.commit(vec![maker.opened(), call(1, 1, vec![part(0, MESSAGE, 0, 10)]), gap()]);
        let parts = parts.iter().map(|&(from, to)| part(0, MESSAGE, from, to)).collect();
        maker.commit(vec![call(1, 9, parts)]);
        maker.commit(vec![stopped()]);
        folder
    };
    for (parts, unchecked) in
        [(&[(10, 20), (20, 43)][..], 0), (&[(15, 20), (20, 43)], 2), (&[(0, 5), (5, 43)], 0)]
    {
        let folder = ledger(parts);
        let report = judges.ask(folder.path(), Some(&key(SEED)), &[]);
        assert_eq!((report.verdict, findings(&report)), (Verdict::Intact, vec![]), "{parts:?}");
        let remark = format!("{unchecked} segments of messages could not be checked");
        assert_eq!(
            report.remarks.iter().any(|text| text.contains(&remark)),
            unchecked > 0,
            "{:?}",
            report.remarks
        );
    }
    let folder = ledger(&[(10, 20)]);
    rework(folder.path(), |parts| parts.frame(1).entries[0].1[3] ^= 1);
    let found = judges.judge(folder.path());
    assert_eq!((found.0, found.1[0].0.as_str()), (Verdict::Damaged, "payload-digest"));
    let folder = ledger(&[(15, 20), (30, 43)]);
    let found = judges.judge(folder.path());
    assert_eq!((found.0, found.1[0].0.as_str()), (Verdict::Damaged, "message-order"), "no gap between these");
}

/// A frame that follows an unknown one and states no usable range is followed by an unknown tree: its open messages are forgotten.
#[test]
fn behind_a_tree_that_is_not_known_messages_are_forgotten() {
    let judges = &mut Judges::new();
    let folder = tempfile::tempdir().unwrap();
    let mut maker = LedgerMaker::new(folder.path(), SEED);
    maker.commit(vec![maker.opened()]);
    maker.commit(vec![goaway(b"to be lost")]);
    maker.commit(vec![call(1, 1, vec![part(0, MESSAGE, 0, 10)])]);
    maker.commit(vec![call(1, 2, vec![part(0, MESSAGE, 10, 20)])]);
    maker.commit(vec![stopped()]);
    rework(folder.path(), |parts| {
        parts.frame(3).entries[0].1[0] ^= 1;
        parts.frame(2).range = vec![[0; 32]; 7];
        parts.segments[0].1.remove(1);
    });
    let kinds: Vec<String> = judges.judge(folder.path()).1.into_iter().map(|finding| finding.0).collect();
    assert_eq!(kinds, ["missing-entries", "range"], "the altered segment cannot be checked");
}

#[test]
fn a_frame_that_contradicts_itself_or_its_key_is_named() {
    use FaultKind::{Checkpoint as Unreadable, Range, Root, Signature};
    let judges = &mut Judges::new();
    let at = places();
    let here = |kind| finding(kind, at[3], 6, None);
    let next = finding(Range, at[4], 8, None);
    case(judges, "a hash too few", rework_frame(|f| f.range.truncate(1)), &[here(Range)]);
    case(judges, "another hash", rework_frame(|f| f.range[0][5] ^= 1), &[here(Range), here(Root), next]);
    case(judges, "no note", rework_frame(|f| f.checkpoint = b"nothing".to_vec()), &[here(Unreadable)]);
    let sign = |size: u64, root: u8, origin: &str, seed: u8| {
        let checkpoint = Checkpoint { origin: origin.into(), size, root: [root; 32], extensions: vec![] };
        signer(seed).sign(&checkpoint.text()).into_bytes()
    };
    case(judges, "another root", rework_frame(|f| f.checkpoint = sign(8, 1, ORIGIN, SEED)), &[here(Root)]);
    case(
        judges,
        "all of it",
        rework_frame(|f| f.checkpoint = sign(9, 1, "elsewhere", STRANGER)),
        &[here(Unreadable), here(Root), here(Signature)],
    );
    let resign = |l: &Path| {
        rework(l, |parts| {
            let rest = parts.segments[1].1[1..].to_vec();
            sign_again(parts, STRANGER, 3);
            parts.segments[1].1.splice(1.., rest);
        });
    };
    case(judges, "signed by a stranger", resign, &[here(Signature)]);
    let moved = |l: &Path| rework(l, |parts| parts.frame(3).checkpoint = parts.frame(2).checkpoint.clone());
    case(judges, "the checkpoint before", moved, &[here(Unreadable), here(Root)]);
    let signature = |f: &mut FrameParts| {
        let last = f.checkpoint.len() - 10;
        f.checkpoint[last] = if f.checkpoint[last] == b'A' { b'B' } else { b'A' };
    };
    case(judges, "another signature", rework_frame(signature), &[here(Signature)]);
}

/// Changes frame 3, the first of the second segment.
fn rework_frame(change: impl FnOnce(&mut FrameParts)) -> impl FnOnce(&Path) {
    move |ledger| rework(ledger, |parts| change(parts.frame(3)))
}

/// One who has a key of his own writes the whole log anew, from some entry on.
#[test]
fn a_rewritten_log_is_found_by_its_key() {
    let (folder, _) = sample();
    rework_entry(folder.path(), 2, 1, |entry| entry.committed_unix_nanos += 1);
    rework(folder.path(), |parts| {
        chain_again(parts, 2, 1);
        sign_again(parts, STRANGER, 0);
    });
    let mut judges = Judges::new();
    for key in [Some(key(SEED)), None] {
        let report = judges.ask(folder.path(), key.as_ref(), &[]);
        assert_eq!(report.verdict, Verdict::Damaged);
        let signatures = report.faults.iter().filter(|fault| fault.kind == FaultKind::Signature).count();
        assert_eq!((signatures, report.faults.len()), (6, 7), "and the head: {:#?}", report.faults);
    }
    let other = judges.ask(folder.path(), Some(&key(STRANGER)), &[]);
    assert_eq!(other.faults[0].kind, FaultKind::Key, "the wrong key was given: {:#?}", other.faults);
}

// Attackers without the key.

/// Each entry deleted, swapped with the next, and duplicated, with everything computed anew that can be without the key.
#[test]
fn no_entry_can_be_deleted_swapped_or_duplicated() {
    let mut judges = Judges::new();
    let (folder, _) = sample();
    let intact = LogParts::read(folder.path());
    let places = intact.places();
    let frames: Vec<FrameParts> = intact.clone().frames().map(|frame| frame.clone()).collect();
    let mut tried = 0;
    for (number, frame) in frames.iter().enumerate() {
        for position in 0..frame.entries.len() {
            let mut delete = frame.clone();
            delete.entries.remove(position);
            let mut duplicate = frame.clone();
            duplicate.entries.insert(position, frame.entries[position].clone());
            let mut swap = frame.clone();
            if position + 1 < frame.entries.len() {
                swap.entries.swap(position, position + 1);
            } else {
                swap.entries[position].0 = frames[(number + 1) % frames.len()].entries[0].0.clone();
            }
            for changed in [delete, duplicate, swap].into_iter().filter(|frame| !frame.entries.is_empty()) {
                let mut parts = intact.clone();
                *parts.frame(number) = changed;
                parts.write(folder.path());
                let (verdict, found) = judges.judge(folder.path());
                assert_eq!(verdict, Verdict::Damaged);
                let named = found.iter().any(|finding| {
                    (finding.1, finding.2) == (Some(places[number].0), Some(places[number].1))
                });
                assert!(named, "entry {position} of frame {number}: {found:#?}");
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 3 * 11 - 1, "the frame of one entry cannot lose it");
}

/// Every bit of every file, one after another.
#[test]
fn every_flipped_bit_is_found_and_named() {
    let mut judges = Judges::new();
    let (folder, _) = tiny();
    assert_eq!(judges.judge(folder.path()), (Verdict::Intact, vec![]));
    let parts = LogParts::read(folder.path());
    for (number, _) in &parts.segments {
        let frames: Vec<u64> =
            parts.places().iter().filter(|place| place.0 == *number).map(|place| place.1).collect();
        each_flip(&segment_path(folder.path(), *number), usize::MAX, |at| {
            let (verdict, found) = judges.judge(folder.path());
            let expected = frames.iter().rev().find(|&&offset| offset <= at).copied();
            let named = found
                .iter()
                .any(|finding| (finding.1, finding.2) == (Some(*number), Some(expected.unwrap_or(0))));
            assert!(verdict == Verdict::Damaged && named, "byte {at} of segment {number}: {found:#?}");
        });
    }
    // Behind its checksum, the head holds what only a writer's start needs, which checks it then.
    let head = fs::read(folder.path().join("head")).unwrap();
    for (file, end) in [("head", head_checksum_at(&head) + 4), ("origin", usize::MAX)] {
        each_flip(&folder.path().join(file), end, |at| {
            let (verdict, found) = judges.judge(folder.path());
            assert_eq!((verdict, found.len()), (Verdict::Damaged, 1), "byte {at} of {file}");
            assert_eq!(found[0].0, file);
        });
    }
}

/// Flips each bit of a file up to the byte `end` in turn, and calls `check` with its byte.
fn each_flip(path: &Path, end: usize, mut check: impl FnMut(u64)) {
    let bytes = fs::read(path).unwrap();
    for bit in 0..bytes.len().min(end) * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(path, &flipped).unwrap();
        check(bit as u64 / 8);
    }
    fs::write(path, bytes).unwrap();
}

/// The same with the frames' checksums made right again, as one does who knows the format.
#[test]
fn every_flipped_bit_is_found_behind_right_checksums() {
    let mut judges = Judges::new();
    let (folder, _) = tiny();
    let parts = LogParts::read(folder.path());
    let places = parts.places();
    for (frame, (number, offset)) in parts.clone().frames().zip(places) {
        let path = segment_path(folder.path(), number);
        let intact = fs::read(&path).unwrap();
        let frame = offset as usize..offset as usize + frame.encode().len();
        // The two checksums themselves are computed, so a flip in them would be undone.
        let bits =
            (frame.start * 8..(frame.end - 4) * 8).filter(|bit| !(36..40).contains(&(bit / 8 - frame.start)));
        for bit in bits {
            let mut bytes = intact.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fix_checksums(&mut bytes[frame.clone()]);
            fs::write(&path, &bytes).unwrap();
            let (verdict, found) = judges.judge(folder.path());
            let named = found.iter().any(|finding| (finding.1, finding.2) == (Some(number), Some(offset)));
            assert!(verdict == Verdict::Damaged && named, "byte {} of segment {number}: {found:#?}", bit / 8);
        }
        fs::write(&path, intact).unwrap();
    }
}

fn fix_checksums(frame: &mut [u8]) {
    let header = crc32fast::hash(&frame[..36]);
    frame[36..40].copy_from_slice(&header.to_le_bytes());
    let end = frame.len() - 4;
    let whole = crc32fast::hash(&frame[..end]);
    frame[end..].copy_from_slice(&whole.to_le_bytes());
}

/// Several damages at once, at random: the two need not find what somebody expects, but the same.
#[test]
fn both_agree_on_damage_at_random() {
    let mut judges = Judges::new();
    let ledgers = [sample(), claims::connections()];
    let folder = tempfile::tempdir().unwrap();
    for seed in 1..=300 {
        fs::remove_dir_all(folder.path()).unwrap();
        copy(ledgers[seed as usize % 2].0.path(), folder.path());
        let mut dice = Dice(seed);
        let damages: Vec<&str> =
            (0..=dice.below(3)).map(|_| damage_at_random(folder.path(), &mut dice)).collect();
        eprintln!("round {seed}: {damages:?}");
        let given = (dice.below(4) > 0).then(|| key(SEED));
        judges.ask(folder.path(), given.as_ref(), &[]);
    }
}

/// A xorshift generator: the same rounds on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        self.0 ^= self.0 >> 29;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

fn damage_at_random(ledger: &Path, dice: &mut Dice) -> &'static str {
    let segments = segments::list(ledger).unwrap();
    if segments.is_empty() {
        return "nothing is left";
    }
    let number = segments[dice.below(segments.len())];
    let path = segment_path(ledger, number);
    let length = fs::metadata(&path).unwrap().len() as usize;
    let at = dice.below(length + 1);
    let file = |what, change: &dyn Fn(&mut Vec<u8>)| {
        edit(&path, |bytes| change(bytes));
        what
    };
    match dice.below(12) {
        0 => file("flip", &|bytes| bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8))),
        1 => file("cut", &|bytes| bytes.truncate(at)),
        2 => file("insert", &|bytes| drop(bytes.splice(at..at, *b"abc"))),
        3 => file("zeros", &|bytes| bytes[at..(at + 50).min(length)].fill(0)),
        4 => file("zeros behind", &|bytes| bytes.resize(length + 100, 0)),
        5 => {
            fs::remove_file(path).unwrap();
            "segment removed"
        }
        6 => {
            fs::rename(path, segment_path(ledger, number + at as u64 % 4)).unwrap();
            "segment renamed"
        }
        7 => {
            let name = ["head", "origin"][at % 2];
            let _ = fs::remove_file(ledger.join(name));
            "file removed"
        }
        _ => frame_damage_at_random(&path, dice),
    }
}

/// Damages one frame, if the segment can still be taken apart so far, and makes its checksums right again.
fn frame_damage_at_random(path: &Path, dice: &mut Dice) -> &'static str {
    let mut bytes = fs::read(path).unwrap();
    let mut frames = Vec::new();
    let mut at = 64;
    while at + 44 <= bytes.len() && bytes[at..at + 2] == [0x8a, b'A'] {
        let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        if length < 44 || at + length > bytes.len() {
            break;
        }
        frames.push(at..at + length);
        at += length;
    }
    if frames.is_empty() {
        return "no frame is left";
    }
    let frame = frames[dice.below(frames.len())].clone();
    let other = frames[dice.below(frames.len())].clone();
    let what = match dice.below(4) {
        0 => {
            bytes.drain(frame);
            "frame removed"
        }
        1 => {
            let copy = bytes[frame].to_vec();
            bytes.splice(other.start..other.start, copy);
            "frame copied"
        }
        _ => {
            for _ in 0..=dice.below(2) {
                let bit = dice.below(frame.len() * 8);
                bytes[frame.start + bit / 8] ^= 1 << (bit % 8);
            }
            fix_checksums(&mut bytes[frame]);
            "frame altered"
        }
    };
    fs::write(path, bytes).unwrap();
    what
}

// Earlier checkpoints.

#[test]
fn an_older_copy_put_back_is_found_against_an_earlier_checkpoint() {
    let mut judges = Judges::new();
    let (folder, mut maker) = sample();
    let (older, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(folder.path(), older.path());
    let write = |name: &str, note: &str| {
        let path = files.path().join(name);
        fs::write(&path, note).unwrap();
        path
    };
    let middle = write("middle", &maker.checkpoint());
    maker.begin_segment();
    maker.commit(vec![started(), stopped()]);
    let newest = write("newest", &maker.checkpoint());
    let both = [middle.clone(), newest.clone()];
    let given = Some(key(SEED));
    assert_eq!(judges.ask(folder.path(), given.as_ref(), &both).verdict, Verdict::Intact);
    assert_eq!(judges.ask(older.path(), given.as_ref(), &[middle]).verdict, Verdict::Intact);
    let report = judges.ask(older.path(), given.as_ref(), &both);
    assert_eq!(findings(&report), [finding(FaultKind::Rollback, None, 11, 13)]);

    let sign = |size, origin: &str, seed| {
        let checkpoint = Checkpoint { origin: origin.into(), size, root: [3; 32], extensions: vec![] };
        signer(seed).sign(&checkpoint.text())
    };
    let against = [
        write("fork", &sign(5, ORIGIN, SEED)),
        write("stranger", &sign(5, ORIGIN, STRANGER)),
        write("garbage", "garbage"),
        write("elsewhere", &sign(5, "elsewhere", SEED)),
        write("nothing", &sign(0, ORIGIN, SEED)),
    ];
    let report = judges.ask(folder.path(), given.as_ref(), &against);
    let no_place = |kind| finding(kind, None, None, None);
    let expected = [
        finding(FaultKind::Fork, None, None, 5),
        no_place(FaultKind::Against),
        no_place(FaultKind::Against),
        no_place(FaultKind::Against),
        finding(FaultKind::Fork, None, None, 0),
    ];
    assert_eq!(findings(&report), expected);
    let unreadable = judges.ask(folder.path(), given.as_ref(), &[files.path().join("absent")]);
    assert_eq!((unreadable.verdict, unreadable.faults.len()), (Verdict::Unknown, 0));
    // Behind an unknown part, the root of a size within it is not known: told apart from a fork.
    rework(folder.path(), |parts| drop(parts.segments[0].1.remove(1)));
    let inside = write("inside", &sign(3, ORIGIN, SEED));
    let report = judges.ask(folder.path(), given.as_ref(), &[inside, newest]);
    assert_eq!(report.faults.len(), 1, "{:#?}", report.faults);
    assert!(report.remarks.iter().any(|text| text.contains("Cannot tell") && text.contains("inside")));
}

// What cannot be told.

#[test]
fn without_what_is_needed_there_is_no_answer() {
    let mut judges = Judges::new();
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(judges.ask(empty.path(), None, &[]).verdict, Verdict::Unknown);
    assert_eq!(judges.ask(&empty.path().join("absent"), Some(&key(SEED)), &[]).verdict, Verdict::Unknown);
    fs::create_dir(empty.path().join("segments")).unwrap();
    assert_eq!(judges.ask(empty.path(), Some(&key(SEED)), &[]).verdict, Verdict::Unknown);

    let (folder, mut maker) = sample();
    maker.begin_segment();
    edit(&maker.segment_path(), |bytes| {
        bytes[8] = 2;
        let checksum = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
    });
    let report = judges.ask(folder.path(), Some(&key(SEED)), &[]);
    assert_eq!((report.verdict, findings(&report)), (Verdict::Unknown, vec![]), "a segment of version 2");
    assert!(report.remarks[0].contains("version 2"), "{:?}", report.remarks);
    // A segment that cannot be read: a folder under its name.
    let (folder, _) = sample();
    fs::remove_file(segment_path(folder.path(), FIRST)).unwrap();
    fs::create_dir(segment_path(folder.path(), FIRST)).unwrap();
    let report = judges.ask(folder.path(), Some(&key(SEED)), &[]);
    assert_eq!((report.verdict, findings(&report), report.entries), (Verdict::Unknown, vec![], 5));
    assert_eq!(judges.ask(folder.path(), None, &[]).verdict, Verdict::Unknown);
}

// Beside the log.

#[test]
fn rows_of_the_lookup_tables_are_held_against_the_segments() {
    let (folder, _) = sample();
    let parts = LogParts::read(folder.path());
    let mut range = CompactRange::new();
    let mut rows = Vec::new();
    for (frame, (segment, offset)) in parts.clone().frames().zip(parts.places()) {
        frame.entries.iter().for_each(|(entry, _)| range.push(attestry::merkle::leaf_hash(entry)));
        let length = frame.encode().len() as u32;
        let (end_index, root) = (range.size(), range.root());
        rows.push(Row { first_index: frame.first_index, segment, offset, length, end_index, root });
    }
    let verify = |rows: Vec<Row>| {
        let rows: fsck::Rows = Box::new(rows.into_iter().map(Ok));
        let options = Options { ledger: folder.path().into(), rows: Some(rows), ..Options::default() };
        fsck::verify(options, |_| {})
    };
    assert_eq!(verify(rows.clone()).verdict, Verdict::Intact);
    rows[2].offset += 1;
    let report = verify(rows);
    assert_eq!(findings(&report), [finding(FaultKind::DbRow, None, 4, None)]);
    assert!(report.faults[0].message.contains("`attestry run` rebuilds"), "{}", report.faults[0]);
}

/// A writer at work: frames and zeros come while the verifier reads.
#[test]
fn a_ledger_that_grows_is_intact_at_every_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut maker = LedgerMaker::new(folder.path(), SEED);
    maker.commit(vec![maker.opened(), started()]);
    let path = folder.path().to_path_buf();
    std::thread::scope(|scope| {
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while let Err(std::sync::mpsc::TryRecvError::Empty) = is_done.try_recv() {
                let report = verify(&path, Some(&key(SEED)), &[]);
                assert_eq!(report.verdict, Verdict::Intact, "{:#?}", report.faults);
            }
        });
        for round in 0..200 {
            if round % 50 == 49 {
                maker.begin_segment();
            }
            maker.commit(vec![call(1, 1, vec![part(0, &[7; 3_000], 0, 3_000)]), goaway(b"x")]);
        }
        drop(done);
    });
    assert_eq!(verify(folder.path(), None, &[]).size, 402);
}

// The command.

fn command(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_attestry"))
        .arg("verify")
        .args(args)
        .env_remove("ATTESTRY_LEDGER_DIR")
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_command_prints_and_exits_as_documented() {
    let (folder, maker) = sample();
    let ledger = folder.path().to_str().unwrap();
    let (code, text) = command(&["--ledger", ledger]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("intact: 11 entries, 3 calls, 2 segments") && text.contains("only claimed"),
        "{text}"
    );
    let (code, text) = command(&["--ledger", ledger, "--key", &key(SEED).to_string(), "-o", "json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &answer["verdict"], &answer["key_given"], &answer["size"]),
        (Some(0), &json!("intact"), &json!(true), &json!(11))
    );

    edit(&maker.segment_path(), |bytes| bytes[100] ^= 1);
    let (code, text) = command(&["--ledger", ledger]);
    assert_eq!(code, Some(3), "{text}");
    let line = text.lines().next().unwrap();
    assert!(line.starts_with("damaged-frame in entries 6 up to but not including 8, segment 00000000000000000006.seg, offset 64: "), "{line}");
    let (_, text) = command(&["--ledger", ledger, "-o", "json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    let fault = &answer["faults"][0];
    assert_eq!(
        *fault,
        json!({
            "kind": "damaged-frame", "segment": "00000000000000000006.seg", "offset": 64, "index": 6, "end": 8, "message": fault["message"],
        })
    );
    assert_eq!(command(&["--ledger", "/nonexistent"]).0, Some(4));
    assert_eq!(command(&["--key", "nonsense"]).0, Some(2));
}
