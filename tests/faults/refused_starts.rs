//! Starts that must not go on: another's ledger, another's key, a key that others can read, a format of the future, a second writer.
//! Nothing is written by any of them.

use crate::ledger_reading::{assert_intact, segment_path, snapshot, starts};
use crate::small_ledger::{location, options, runtime, start, submit_all};
use crate::support::process::Process;
use crate::support::sidecar::{Sidecar, program};
use attestry::ledger::key::{self, KeyError};
use attestry::ledger::open::{Location, OpenError};
use attestry::ledger::segment::{self, HeaderError};
use attestry::ledger::{OnFailure, Options};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A ledger that has been stopped, lookup tables and all.
fn sample() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let ledger = start(&options(folder.path(), OnFailure::Refuse)).unwrap();
    runtime().block_on(submit_all(&mut ledger.handle(), 0..4));
    ledger.stop("end").unwrap();
    folder
}

fn newest(dir: &Path) -> u64 {
    *segment::list(dir).unwrap().last().unwrap()
}

fn with(dir: &Path, change: impl FnOnce(&mut Location)) -> Options {
    let mut options = options(dir, OnFailure::Refuse);
    change(&mut options.location);
    options
}

/// The start fails, and every file in the folder is as it was; the lock alone may have been touched. Once with lookup tables and once without.
fn assert_refused(folder: &TempDir, options: &Options, expected: impl Fn(&OpenError) -> bool) {
    let dir = folder.path();
    for round in ["with lookup tables", "without"] {
        let before = snapshot(dir);
        let Err(error) = start(options) else { panic!("{round}: the start went on") };
        assert!(expected(&error), "{round}: {error:?}");
        let after = snapshot(dir);
        let names = |files: &[(std::path::PathBuf, Vec<u8>)]| {
            files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&before), names(&after), "{round}: files came or went; {error}");
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after, "{round}: {} was written; {error}", before.0.display());
        }
        let _ = fs::remove_dir_all(dir.join("db"));
    }
}

#[test]
fn another_key_is_refused_before_anything_is_written() {
    let (folder, other) = (sample(), tempfile::tempdir().unwrap());
    let key_file = other.path().join("key");
    key::create(&key_file).unwrap();
    let options = with(folder.path(), |location| location.key_file.clone_from(&key_file));
    assert_refused(
        &folder,
        &options,
        |error| matches!(error, OpenError::OtherKey { key_file: named, .. } if *named == key_file),
    );
}

/// Also where entry 0 cannot say whose the ledger is: the last frame can.
#[test]
fn another_key_is_refused_where_entry_0_is_gone() {
    let (folder, other) = (sample(), tempfile::tempdir().unwrap());
    let key_file = other.path().join("key");
    key::create(&key_file).unwrap();
    fs::remove_file(segment_path(folder.path(), 0)).unwrap();
    let options = with(folder.path(), |location| location.key_file.clone_from(&key_file));
    assert_refused(&folder, &options, |error| matches!(error, OpenError::OtherKey { .. }));
}

#[test]
fn another_origin_is_refused_before_anything_is_written() {
    let folder = sample();
    let options = with(folder.path(), |location| location.origin = Some("test.example/other".into()));
    assert_refused(
        &folder,
        &options,
        |error| matches!(error, OpenError::OtherOrigin { configured, .. } if configured == "test.example/other"),
    );
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let folder = sample();
    for mode in [0o644, 0o640, 0o604, 0o606] {
        fs::set_permissions(folder.path().join("key"), Permissions::from_mode(mode)).unwrap();
        assert_refused(
            &folder,
            &options(folder.path(), OnFailure::Refuse),
            |error| matches!(error, OpenError::Key(KeyError::Mode { mode: named, .. }) if *named == mode),
        );
    }
    fs::set_permissions(folder.path().join("key"), Permissions::from_mode(0o400)).unwrap();
    start(&options(folder.path(), OnFailure::Refuse)).unwrap().stop("end").unwrap();
    assert_intact(folder.path(), "a stricter mode is taken");
}

/// A key is made for a new ledger alone: for an old one, another key would be the wrong one.
#[test]
fn a_missing_or_broken_key_of_an_old_ledger_is_not_made_anew() {
    let folder = sample();
    let key_file = location(folder.path()).key_file;
    fs::write(&key_file, "no key\n").unwrap();
    let options = options(folder.path(), OnFailure::Refuse);
    assert_refused(&folder, &options, |error| matches!(error, OpenError::Key(KeyError::Content { .. })));
    fs::remove_file(&key_file).unwrap();
    assert_refused(&folder, &options, |error| matches!(error, OpenError::Key(KeyError::Io { .. })));
}

#[test]
fn a_format_of_the_future_is_refused() {
    let folder = sample();
    let path = segment_path(folder.path(), newest(folder.path()));
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let checksum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    assert_refused(&folder, &options(folder.path(), OnFailure::Refuse), |error| {
        matches!(error, OpenError::Format { source: HeaderError::Version(2), .. })
    });
}

/// The segments of another ledger put into this one: entry 0 is ours, the last frame is not.
#[test]
fn a_last_segment_of_another_ledger_is_refused() {
    let (folder, other) = (sample(), sample());
    let (ours, theirs) = (newest(folder.path()), newest(other.path()));
    fs::copy(segment_path(other.path(), theirs), segment_path(folder.path(), ours)).unwrap();
    assert!(ours > 0, "the sample has more than one segment");
    assert_refused(&folder, &options(folder.path(), OnFailure::Refuse), |error| {
        matches!(error, OpenError::OtherKey { .. })
    });
}

#[test]
fn a_second_process_on_one_ledger_ends_with_a_clear_error() {
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut first = Sidecar::start(upstream.local_addr().unwrap());
    let before = fs::read(first.ledger_dir.join("head")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(program());
    command.args(["run", "--config"]).arg(&first.config);
    let mut second = Process::start("second", &mut command, folder.path());
    let status = second.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(1), "{}", second.stderr());
    let said = second.stderr();
    let dir = first.ledger_dir.to_str().unwrap().to_owned();
    assert!(said.contains("in use by another attestry process") && said.contains(&dir), "{said}");
    assert_eq!(
        fs::read(first.ledger_dir.join("head")).unwrap(),
        before,
        "the first one's ledger was touched"
    );
    first.stop();
    assert_intact(&first.ledger_dir, "the first one's ledger");
}

/// The lock goes with its process, however it ended.
#[test]
fn a_killed_process_leaves_no_lock() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut first = Sidecar::builder(upstream).ledger_dir(folder.path()).start();
    first.kill();
    let mut second = Sidecar::builder(upstream).ledger_dir(folder.path()).start();
    second.stop();
    assert_intact(folder.path(), "killed and started again");
    assert!(!starts(folder.path())[1].previous_stop_was_clean);
}
