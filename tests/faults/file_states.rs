//! What a start makes of each state in which it may find the ledger's files: torn, damaged, removed, replaced, rebuilt.

use crate::faulty_disk::Faults;
use crate::ledger_reading::{
    Placed, assert_intact, crash, damages, entries, frames, gaps, segment_path, starts, verify,
};
use crate::small_ledger::{
    PATIENCE, answer_to, location, numbers, options, runtime, short_submission, start, start_faulty,
    start_with, submission, submit, submit_all,
};
use attestry::clock::{ManualClock, SystemClock};
use attestry::entry::{self, Body, PendingEntry, Receipt};
use attestry::generated::v1;
use attestry::ledger::OnFailure;
use attestry::ledger::disk::FsDisk;
use attestry::ledger::fsck::{Fault, FaultKind, Verdict};
use attestry::ledger::index::Store as _;
use attestry::ledger::open::{self, OpenError};
use attestry::ledger::row::{Row, is_due};
use attestry::ledger::segment;
use attestry::ledger::store::SledStore;
use attestry::note::{Checkpoint, Note};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Submissions of the sample: they fill two segments and begin a third, whose last frame is a short one.
const SUBMISSIONS: u64 = 9;

/// A ledger as a crash left it, and the head as it was one commit earlier.
struct Sample {
    folder: TempDir,
    earlier_head: Vec<u8>,
}

impl Sample {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let running = folder.path().join("running");
        let ledger = start(&options(&running, OnFailure::Refuse)).unwrap();
        let mut port = ledger.handle();
        let earlier_head = runtime().block_on(async {
            submit_all(&mut port, 0..SUBMISSIONS - 1).await;
            let head = fs::read(running.join("head")).unwrap();
            let last = answer_to(&mut port, short_submission(SUBMISSIONS - 1)).await;
            assert!(matches!(last, Ok(Receipt::Committed { .. })));
            head
        });
        let sample = Self { folder, earlier_head };
        crash(&running, &sample.dir());
        drop(port);
        ledger.stop("end").unwrap();
        let segments: BTreeSet<u64> = frames(&sample.dir()).iter().map(|placed| placed.segment).collect();
        assert!(segments.len() >= 3 && sample.last().segment + 2 < sample.last().frame.header().first_index);
        sample
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("crashed")
    }

    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.folder.path().join(name);
        crash(&self.dir(), &copy);
        copy
    }

    fn last(&self) -> Placed {
        frames(&self.dir()).pop().unwrap()
    }
}

/// A start without the lookup tables, of which it is independent: the first entries that it commits. It ends without a last entry.
fn restart(dir: &Path) -> Result<Vec<Body>, OpenError> {
    let location = location(dir);
    let disk = Box::new(FsDisk::new(dir, location.segment_bytes));
    let examined = open::examine(&location)?;
    let mut opened =
        open::open(examined, disk, &location, Arc::new(SystemClock), v1::Started::default(), None)?;
    opened.writer.commit(opened.first_entries.iter()).unwrap();
    opened.writer.finish().unwrap();
    Ok(opened.first_entries.iter().map(body).collect())
}

fn body(pending: &PendingEntry) -> Body {
    entry::decode(pending.body.clone().into()).unwrap().body.unwrap()
}

fn started(bodies: &[Body]) -> v1::Started {
    let started =
        bodies.iter().find_map(|body| if let Body::Started(started) = body { Some(started) } else { None });
    started.unwrap().clone()
}

fn damage_in(bodies: &[Body]) -> Vec<v1::Damage> {
    bodies
        .iter()
        .filter_map(|body| if let Body::Damage(damage) = body { Some(damage.clone()) } else { None })
        .collect()
}

/// Kind, segment, offset, index and end of a fault.
type Finding = (FaultKind, Option<u64>, Option<u64>, Option<u64>, Option<u64>);

/// The faults that the verifier finds.
fn faults(dir: &Path) -> Vec<Finding> {
    let place = |fault: &Fault| {
        let place = fault.place;
        (fault.kind, place.segment, place.offset, place.index, place.end)
    };
    verify(dir).faults.iter().map(place).collect()
}

fn cut(dir: &Path, segment: u64, length: u64) {
    let file = File::options().write(true).open(segment_path(dir, segment)).unwrap();
    file.set_len(length).unwrap();
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_torn_last_frame_is_cut_off_at_every_length() {
    let sample = Sample::new();
    let last = sample.last();
    for torn in 0..last.end() - last.offset {
        let dir = sample.copy(&format!("torn{torn}"));
        cut(&dir, last.segment, last.offset + torn);
        fs::write(dir.join("head"), &sample.earlier_head).unwrap();
        let bodies = restart(&dir).unwrap();
        assert!(damage_in(&bodies).is_empty(), "torn after {torn}: {bodies:?}");
        let started = started(&bodies);
        assert!(!started.previous_stop_was_clean, "torn after {torn}");
        // Zeros at its end cannot be told from prepared space.
        let left = &last.frame.bytes()[..usize::try_from(torn).unwrap()];
        let expected = left.iter().rposition(|&byte| byte != 0).map_or(0, |at| at as u64 + 1);
        assert_eq!(started.torn_bytes_cut, expected, "torn after {torn}");
        assert_intact(&dir, &format!("torn after {torn}"));
        assert_eq!(numbers(&entries(&dir)), (0..SUBMISSIONS - 1).collect(), "torn after {torn}");
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// As a power cut leaves it in prepared space: zeros stand behind, and they are no bytes of a commit.
#[test]
fn a_torn_last_frame_in_prepared_space_is_cut_off() {
    let sample = Sample::new();
    let last = sample.last();
    for torn in (1..last.end() - last.offset).step_by(37) {
        let dir = sample.copy(&format!("torn{torn}"));
        change(&segment_path(&dir, last.segment), |bytes| {
            let at = usize::try_from(last.offset + torn).unwrap();
            bytes[at..].fill(0);
        });
        fs::write(dir.join("head"), &sample.earlier_head).unwrap();
        let bodies = restart(&dir).unwrap();
        assert!(damage_in(&bodies).is_empty(), "torn after {torn}: {bodies:?}");
        assert_intact(&dir, &format!("torn after {torn}"));
        assert_eq!(numbers(&entries(&dir)), (0..SUBMISSIONS - 1).collect(), "torn after {torn}");
        let cut = started(&bodies).torn_bytes_cut;
        assert!(
            (1..=torn).contains(&cut),
            "torn after {torn}: the log says that {cut} bytes of a commit were cut"
        );
    }
}

/// What the head has published was not torn by a crash: it is reported, and stays where it is.
#[test]
fn a_published_frame_that_is_cut_is_damage_at_every_length() {
    let sample = Sample::new();
    let last = sample.last();
    let header = *last.frame.header();
    for torn in (0..last.end() - last.offset).step_by(7) {
        let dir = sample.copy(&format!("torn{torn}"));
        cut(&dir, last.segment, last.offset + torn);
        let bodies = restart(&dir).unwrap();
        let found: Vec<_> =
            damage_in(&bodies).iter().map(|damage| (damage.first_index, damage.end_index)).collect();
        assert_eq!(found, [(header.first_index, header.end_index())], "torn after {torn}");
        let started = started(&bodies);
        assert_eq!(
            (started.previous_stop_was_clean, started.torn_bytes_cut),
            (false, 0),
            "torn after {torn}"
        );
        let length = fs::metadata(segment_path(&dir, last.segment)).unwrap().len();
        assert_eq!(length, last.offset + torn, "torn after {torn}: what is left is evidence");
        let (kind, place) = if torn == 0 {
            (FaultKind::MissingEntries, (header.end_index(), 0))
        } else {
            (FaultKind::DamagedFrame, (last.segment, last.offset))
        };
        let expected =
            (kind, Some(place.0), Some(place.1), Some(header.first_index), Some(header.end_index()));
        assert_eq!(faults(&dir), [expected], "torn after {torn}");
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn a_damaged_frame_in_the_middle_is_named_and_survived() {
    let sample = Sample::new();
    let dir = sample.dir();
    let (all, last) = (frames(&dir), sample.last());
    let broken = all.iter().rfind(|placed| placed.end() == last.offset).unwrap();
    change(&segment_path(&dir, broken.segment), |bytes| {
        bytes[usize::try_from(broken.end() - 20).unwrap()] ^= 1;
    });
    let header = *broken.frame.header();
    let ledger = start(&options(&dir, OnFailure::Refuse)).unwrap();
    runtime().block_on(submit_all(&mut ledger.handle(), 100..101));
    ledger.stop("end").unwrap();
    let found = damages(&dir);
    assert_eq!(found.len(), 1, "{found:?}");
    let place = (found[0].segment.clone(), found[0].offset, found[0].first_index, found[0].end_index);
    let expected =
        (segment::file_name(broken.segment), broken.offset, header.first_index, header.end_index());
    assert_eq!(place, expected);
    let expected = (
        FaultKind::DamagedFrame,
        Some(broken.segment),
        Some(broken.offset),
        Some(header.first_index),
        Some(header.end_index()),
    );
    assert_eq!(faults(&dir), [expected]);
    let absent = SUBMISSIONS - 2;
    let expected =
        (0..SUBMISSIONS).chain(100..101).filter(|&number| number != absent).collect::<BTreeSet<_>>();
    assert_eq!(numbers(&entries(&dir)), expected);
    let again = start(&options(&dir, OnFailure::Refuse)).unwrap();
    again.stop("end").unwrap();
    assert_eq!(damages(&dir).len(), 1, "told once");
}

/// Somebody takes a frame out and closes up behind it, and nothing else knows of the frames behind: they are signed, so they are no torn tail.
#[test]
fn a_signed_frame_behind_a_removed_one_is_not_cut_off() {
    let sample = Sample::new();
    let dir = sample.dir();
    let (all, last) = (frames(&dir), sample.last());
    let removed = all.iter().rfind(|placed| placed.end() == last.offset).unwrap();
    change(&segment_path(&dir, removed.segment), |bytes| {
        bytes.drain(usize::try_from(removed.offset).unwrap()..usize::try_from(removed.end()).unwrap());
    });
    fs::remove_file(dir.join("head")).unwrap();
    let bodies = restart(&dir).unwrap();
    let numbers = numbers(&entries(&dir));
    assert!(numbers.contains(&(SUBMISSIONS - 1)), "the start destroyed a signed frame: {bodies:?}");
    let found: Vec<_> =
        damage_in(&bodies).iter().map(|damage| (damage.first_index, damage.end_index)).collect();
    assert_eq!(found, [(removed.frame.header().first_index, removed.frame.header().end_index())]);
    assert_eq!(verify(&dir).verdict, Verdict::Damaged);
}

#[test]
fn a_removed_last_segment_is_damage_that_the_head_knows_of() {
    let sample = Sample::new();
    let (dir, last) = (sample.dir(), sample.last());
    fs::remove_file(segment_path(&dir, last.segment)).unwrap();
    let bodies = restart(&dir).unwrap();
    let end = last.frame.header().end_index();
    let found: Vec<_> =
        damage_in(&bodies).iter().map(|damage| (damage.first_index, damage.end_index)).collect();
    assert_eq!(found, [(last.segment, end)]);
    assert!(!started(&bodies).previous_stop_was_clean);
    let expected = (FaultKind::MissingEntries, Some(end), Some(0), Some(last.segment), Some(end));
    assert_eq!(faults(&dir), [expected]);
}

/// Segments gone altogether: the log does not begin anew under the same name, and the key is not made anew.
#[test]
fn removed_segments_are_not_a_new_ledger() {
    let sample = Sample::new();
    let (dir, end) = (sample.dir(), sample.last().frame.header().end_index());
    for first_index in segment::list(&dir).unwrap() {
        fs::remove_file(segment_path(&dir, first_index)).unwrap();
    }
    let bodies = restart(&dir).unwrap();
    let found: Vec<_> =
        damage_in(&bodies).iter().map(|damage| (damage.first_index, damage.end_index)).collect();
    assert_eq!(found, [(0, end)]);
    assert!(!bodies.iter().any(|body| matches!(body, Body::Opened(_))));
    assert_eq!(verify(&dir).verdict, Verdict::Damaged);
}

#[test]
fn a_head_that_is_missing_or_garbage_is_made_anew() {
    let sample = Sample::new();
    for (name, content) in [("missing", None), ("empty", Some(vec![])), ("garbage", Some(vec![0x55; 300]))] {
        let dir = sample.copy(name);
        match &content {
            None => fs::remove_file(dir.join("head")).unwrap(),
            Some(content) => fs::write(dir.join("head"), content).unwrap(),
        }
        let expected = if content.is_some() { vec![FaultKind::Head] } else { vec![] };
        let found: Vec<_> = verify(&dir).faults.iter().map(|fault| fault.kind).collect();
        assert_eq!(found, expected, "{name}, before the start");
        let bodies = restart(&dir).unwrap();
        assert!(damage_in(&bodies).is_empty(), "{name}: {bodies:?}");
        assert_intact(&dir, name);
        assert_eq!(numbers(&entries(&dir)), (0..SUBMISSIONS).collect(), "{name}");
    }
}

/// What a start that came to nothing left: a header and zeros, or the first bytes of a first frame.
#[test]
fn a_segment_without_frames_is_replaced() {
    let sample = Sample::new();
    let end = sample.last().frame.header().end_index();
    for (name, torn) in [("empty", 0), ("torn", 100)] {
        let dir = sample.copy(name);
        let header = segment::encode_header(end, crate::small_ledger::ORIGIN);
        let content = [header.to_vec(), vec![0x8a; torn], vec![0; 1000]].concat();
        fs::write(segment_path(&dir, end), content).unwrap();
        let bodies = restart(&dir).unwrap();
        assert!(damage_in(&bodies).is_empty(), "{name}: {bodies:?}");
        assert_intact(&dir, name);
        assert_eq!(frames(&dir).last().unwrap().segment, end, "{name}");
        assert_eq!(numbers(&entries(&dir)), (0..SUBMISSIONS).collect(), "{name}");
    }
}

/// A writer that was started after a clean end and crashed within its first commit did not end cleanly.
#[test]
fn a_crash_within_the_first_commit_is_no_clean_end() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ledger");
    start(&options(&dir, OnFailure::Refuse)).unwrap().stop("end").unwrap();
    let size = frames(&dir).last().unwrap().frame.header().end_index();
    let torn = [segment::encode_header(size, crate::small_ledger::ORIGIN).to_vec(), vec![0x8a; 100]].concat();
    fs::write(segment_path(&dir, size), torn).unwrap();
    let started = started(&restart(&dir).unwrap());
    assert_eq!((started.previous_stop_was_clean, started.torn_bytes_cut), (false, 100));
}

/// A power cut in the first moments of a new ledger leaves an `origin` without its content.
#[test]
fn an_empty_origin_file_does_not_stop_a_start() {
    for configured in [None, Some(crate::small_ledger::ORIGIN.to_owned())] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("origin"), "").unwrap();
        let mut options = options(folder.path(), OnFailure::Refuse);
        options.location.origin.clone_from(&configured);
        let ledger = start(&options).unwrap_or_else(|error| panic!("configured {configured:?}: {error}"));
        ledger.stop("end").unwrap();
        assert_intact(folder.path(), "with an empty origin");
    }
}

/// The rows of the lookup tables must be those of the frames.
fn assert_rows(dir: &Path, what: &str) {
    let store = SledStore::open(&dir.join("db"), 1 << 20).unwrap();
    let mut rows = Vec::new();
    store
        .scan(&mut |row| {
            rows.push(row);
            true
        })
        .unwrap();
    let frames: Vec<Row> = frames(dir).iter().map(row_of).collect();
    let before = |number: usize| number.checked_sub(1).map(|number| frames[number].position());
    let due = frames.iter().enumerate().filter(|(number, row)| is_due(before(*number), row.position()));
    let expected: Vec<Row> = due.map(|(_, row)| *row).collect();
    assert_eq!(rows, expected, "{what}");
    assert_eq!(store.head().unwrap().unwrap().range.size(), frames.last().unwrap().end_index, "{what}");
}

fn row_of(placed: &Placed) -> Row {
    let header = placed.frame.header();
    let note = Note::parse(std::str::from_utf8(placed.frame.checkpoint()).unwrap()).unwrap();
    Row {
        first_index: header.first_index,
        segment: placed.segment,
        offset: placed.offset,
        length: header.length,
        end_index: header.end_index(),
        root: Checkpoint::parse(&note.text).unwrap().root,
    }
}

/// Waits until the index has made up for everything, which it does behind a start.
fn stop_when_indexed(ledger: attestry::ledger::Ledger, dir: &Path, what: &str) {
    let mut port = ledger.handle();
    runtime().block_on(async {
        // A flush of the tables comes each second, and each finds all that was committed before it.
        submit_all(&mut port, 500..501).await;
        tokio::time::sleep(Duration::from_millis(2 * attestry::limits::INDEX_FLUSH_INTERVAL_MS)).await;
    });
    drop(port);
    ledger.stop("end").unwrap();
    assert_intact(dir, what);
    assert_rows(dir, what);
}

#[test]
fn lookup_tables_that_are_removed_are_rebuilt() {
    let sample = Sample::new();
    let dir = sample.dir();
    let ledger = start(&options(&dir, OnFailure::Refuse)).unwrap();
    stop_when_indexed(ledger, &dir, "made for the first time");
    fs::remove_dir_all(dir.join("db")).unwrap();
    let ledger = start(&options(&dir, OnFailure::Refuse)).unwrap();
    stop_when_indexed(ledger, &dir, "made anew");
    assert!(!dir.join("db.damaged").exists(), "nothing was damaged");
}

#[test]
fn lookup_tables_that_are_garbage_are_set_aside_and_rebuilt() {
    let sample = Sample::new();
    let dir = sample.dir();
    let ledger = start(&options(&dir, OnFailure::Refuse)).unwrap();
    stop_when_indexed(ledger, &dir, "made for the first time");
    for round in [1, 2] {
        let garbage = vec![0x50 + round; 40_000];
        for file in fs::read_dir(dir.join("db"))
            .unwrap()
            .map(|file| file.unwrap().path())
            .filter(|path| path.is_file())
        {
            fs::write(file, &garbage).unwrap();
        }
        let ledger = start(&options(&dir, OnFailure::Refuse)).unwrap();
        stop_when_indexed(ledger, &dir, &format!("garbage, round {round}"));
        let aside = fs::read(dir.join("db.damaged").join("db")).unwrap();
        assert_eq!(
            aside, garbage,
            "round {round}: the newest damaged tables are kept, an older copy makes room"
        );
    }
}

#[test]
fn committed_times_never_decrease_when_the_clock_does() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let noon = 1_700_000_000_000_000_000;
    for (time, expected) in [(noon, noon), (noon - 5_000, noon), (noon + 7, noon + 7), (0, noon + 7)] {
        let clock = Arc::new(ManualClock::at(time));
        let ledger = start_with(&options(dir, OnFailure::Refuse), Arc::clone(&clock) as _, None).unwrap();
        runtime().block_on(async {
            let mut port = ledger.handle();
            submit_all(&mut port, 0..1).await;
            clock.set(time.saturating_sub(1_000));
            submit_all(&mut port, 1..2).await;
        });
        ledger.stop("end").unwrap();
        let last = entries(dir).pop().unwrap().committed_unix_nanos;
        assert_eq!(last, expected, "the clock was at {time}");
    }
    let times: Vec<u64> = entries(dir).iter().map(|entry| entry.committed_unix_nanos).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_intact(dir, "the clock went back");
}

/// What happens to the newest segment while it is in use.
fn while_it_runs(
    what: &str,
    mode: OnFailure,
    attack: impl Fn(&Path) -> io::Result<()>,
) -> (TempDir, Vec<v1::Damage>) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let ledger = start_faulty(&options(dir, mode), &Faults::default()).unwrap();
    let mut port = ledger.handle();
    runtime().block_on(async {
        submit_all(&mut port, 0..2).await;
        let newest = segment::list(dir).unwrap().pop().unwrap();
        attack(&segment_path(dir, newest)).unwrap();
        let answer = submit(&mut port, 2).await;
        let told = !matches!(answer, Ok(Receipt::Committed { .. }));
        assert!(told, "{what}: committed into a segment that is not there any more");
        let recovery = async {
            while !matches!(submit(&mut port, 3).await, Ok(Receipt::Committed { .. })) {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        tokio::time::timeout(PATIENCE, recovery).await.expect("the ledger recovers");
    });
    drop(port);
    ledger.stop("end").unwrap();
    assert_eq!(gaps(dir).len(), 1, "{what}");
    let damages = damages(dir);
    (folder, damages)
}

#[test]
fn a_segment_that_is_taken_away_while_it_is_in_use_is_noticed_at_once() {
    let replace = |path: &Path| {
        fs::copy(path, path.with_extension("x")).and_then(|_| fs::rename(path.with_extension("x"), path))
    };
    let shorten = |path: &Path| File::options().write(true).open(path)?.set_len(3_000);
    for mode in [OnFailure::Refuse, OnFailure::Forward] {
        let (folder, damages) = while_it_runs("removed", mode, |path| fs::remove_file(path));
        // Opened, started, and two submissions of two entries.
        assert_eq!((damages.len(), damages[0].first_index, damages[0].end_index), (1, 0, 6));
        let expected = (FaultKind::MissingEntries, Some(6), Some(0), Some(0), Some(6));
        assert_eq!(faults(folder.path())[0], expected);
        let (folder, damages) = while_it_runs("replaced", mode, replace);
        assert_eq!(damages.len(), 1);
        assert_intact(folder.path(), "the copy that took its place holds all that was committed");
        let (folder, damages) = while_it_runs("truncated", mode, shorten);
        assert_eq!(damages.len(), 1);
        let found = faults(folder.path());
        assert_eq!((found.len(), found[0].0, found[0].3), (1, FaultKind::DamagedFrame, Some(4)), "{found:?}");
        assert_eq!(starts(folder.path()).len(), 1);
    }
}

/// The commit that would begin a new segment looks at the old one first: what is gone must be told.
#[test]
fn a_segment_that_is_removed_when_it_is_full_is_noticed_too() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let ledger = start(&options(dir, OnFailure::Refuse)).unwrap();
    let mut port = ledger.handle();
    let removed = runtime().block_on(async {
        // The first submission of another segment shows how many fill one.
        let mut number = 0;
        while segment::list(dir).unwrap().len() < 2 {
            submit_all(&mut port, number..=number).await;
            number += 1;
        }
        let second = segment::list(dir).unwrap()[1];
        // As many again, with which this segment is as full as the first was: the next does not fit.
        let per_segment = (frames(dir).iter().filter(|placed| placed.segment == 0).count() - 1) as u64;
        submit_all(&mut port, number..number + per_segment - 1).await;
        fs::remove_file(segment_path(dir, second)).unwrap();
        let mut large = submission(900);
        large.entries.extend(submission(901).entries);
        large.entries.extend(submission(902).entries);
        let answer = answer_to(&mut port, large).await;
        assert!(answer.is_err(), "nobody noticed that a segment is gone: {answer:?}");
        second
    });
    drop(port);
    ledger.stop("end").unwrap();
    assert_eq!(damages(dir)[0].first_index, removed);
}
