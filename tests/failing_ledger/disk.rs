//! The ledger's disk fails under a sidecar with calls on it.

use crate::faulty_disk::{Fault, Faults, FaultyDisk, Op, Plan};
use crate::h2_peers::{Client, EchoServer, Outcome, call, call_until_served, message, runtime};
use crate::ledger_reading::{assert_intact, damages, gaps, segment_path, starts, stops, verify};
use crate::relay::{Relay, Terms};
use crate::small_ledger::{options, start_with};
use crate::spoiled_disks::{Ext4, Tmpfs};
use crate::support;
use crate::support::sidecar::{Builder, Sidecar, attestry};
use attestry::capture::Limits;
use attestry::clock::SystemClock;
use attestry::generated::v1;
use attestry::http2::UnitLimits;
use attestry::ledger::fsck::{FaultKind, Verdict};
use attestry::ledger::{OnFailure, segment};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Room for the lookup tables, a few segments, and what a test writes until it is full.
const DISK_BYTES: u64 = 40 << 20;
const BALLAST_BYTES: usize = 12 << 20;
const MESSAGE_BYTES: usize = 128 * 1024;

/// More calls than fit.
const CALLS_MAX: usize = 1_000;

const MODES: [OnFailure; 2] = [OnFailure::Refuse, OnFailure::Forward];

fn sidecar(upstream: SocketAddr, mode: OnFailure) -> Builder {
    let mode = if mode == OnFailure::Refuse { "\"refuse\"" } else { "\"forward\"" };
    Sidecar::builder(upstream)
        .set("ledger", "on_failure", mode)
        .set("ledger", "recovery_interval_ms", "50")
        .set("ledger", "segment_bytes", "2097152")
}

/// A tmpfs, or the reason for going without.
fn tmpfs(test: &str) -> Option<Tmpfs> {
    Tmpfs::mount(DISK_BYTES)
        .map_err(|why| support::skip(test, &format!("no tmpfs can be mounted: {why}")))
        .ok()
}

fn assert_names_ledger(outcome: &Outcome) {
    let message = outcome.unavailable().unwrap_or_else(|| panic!("not UNAVAILABLE: {outcome:?}"));
    assert!(message.contains("the ledger cannot commit: "), "{message}");
}

/// The gap entries say what happened, as the mode has it.
fn assert_gaps(gaps: &[v1::Gap], mode: OnFailure, bytes_min: u64) {
    assert!(!gaps.is_empty(), "no gap entry");
    let forwarded: u64 = gaps.iter().map(|gap| gap.forwarded_bytes).sum();
    let refused: u64 = gaps.iter().map(|gap| gap.refused_submissions).sum();
    for gap in gaps {
        assert!(
            gap.forwarded == (mode == OnFailure::Forward) && gap.from_unix_nanos < gap.to_unix_nanos,
            "{gap:?}"
        );
    }
    match mode {
        OnFailure::Refuse => assert!(forwarded == 0 && refused > 0, "{gaps:?}"),
        OnFailure::Forward => {
            assert!(refused == 0 && forwarded >= bytes_min, "at least {bytes_min}: {gaps:?}");
        }
    }
}

#[test]
fn a_full_disk_refuses_calls_until_there_is_space_again() {
    let Some(disk) = tmpfs("a_full_disk_refuses_calls_until_there_is_space_again") else { return };
    let ballast = disk.ballast(BALLAST_BYTES);
    let server = EchoServer::start();
    let mut sidecar = sidecar(server.addr, OnFailure::Refuse).ledger_dir(&disk.path().join("ledger")).start();
    let content = message(&vec![b'f'; MESSAGE_BYTES]);
    runtime().block_on(async {
        let mut calls = 0;
        let first = loop {
            let outcome = call(sidecar.addr, &content).await;
            if !outcome.is_echo_of(&content) {
                break outcome;
            }
            calls += 1;
            assert!(calls < CALLS_MAX, "the disk is never full");
        };
        // Refused before anything was sent back, or broken off because a part of the answer had gone on already.
        if first.unavailable().is_some() {
            assert_names_ledger(&first);
        } else {
            assert!(matches!(first, Outcome::Broken(_)), "{first:?}");
        }
        // In between a recovery may find a little space and lose it again; a refusal comes all the same, and says why.
        let mut refusals = 0;
        for _ in 0..CALLS_MAX {
            let outcome = call(sidecar.addr, &content).await;
            if outcome.unavailable().is_some() {
                assert_names_ledger(&outcome);
                refusals += 1;
            }
            if refusals == 3 {
                break;
            }
        }
        assert_eq!(refusals, 3, "the sidecar does not refuse");
        fs::remove_file(ballast).unwrap();
        call_until_served(sidecar.addr).await;
        assert!(call(sidecar.addr, &content).await.is_echo_of(&content));
    });
    sidecar.stop();
    assert_gaps(&gaps(&sidecar.ledger_dir), OnFailure::Refuse, 0);
    assert!(damages(&sidecar.ledger_dir).is_empty());
    assert_intact(&sidecar.ledger_dir, "full, and well again");
    assert_eq!(stops(&sidecar.ledger_dir).len(), 1);
}

#[test]
fn a_full_disk_lets_calls_on_where_it_is_told_to_and_says_how_much() {
    let Some(disk) = tmpfs("a_full_disk_lets_calls_on_where_it_is_told_to_and_says_how_much") else { return };
    let ballast = disk.ballast(BALLAST_BYTES);
    let server = EchoServer::start();
    let mut sidecar =
        sidecar(server.addr, OnFailure::Forward).ledger_dir(&disk.path().join("ledger")).start();
    let content = message(&vec![b'f'; MESSAGE_BYTES]);
    // More than the disk holds, both ways counted.
    let calls = 2 * usize::try_from(DISK_BYTES).unwrap() / MESSAGE_BYTES / 2;
    runtime().block_on(async {
        for number in 0..calls {
            let outcome = call(sidecar.addr, &content).await;
            assert!(outcome.is_echo_of(&content), "call {number}");
        }
        fs::remove_file(ballast).unwrap();
        call_until_served(sidecar.addr).await;
    });
    // The recovery comes within its interval, and an end waits for one try more.
    sidecar.stop();
    assert_gaps(&gaps(&sidecar.ledger_dir), OnFailure::Forward, MESSAGE_BYTES as u64);
    assert_intact(&sidecar.ledger_dir, "full, and well again");
    let recorded: u64 = fs::read_dir(segment::folder(&sidecar.ledger_dir))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    let forwarded: u64 = gaps(&sidecar.ledger_dir).iter().map(|gap| gap.forwarded_bytes).sum();
    let sent = (2 * calls * content.len()) as u64;
    assert!(
        recorded + forwarded >= sent,
        "{recorded} bytes are recorded, {forwarded} told of, and {sent} were sent"
    );
}

/// A file system with an error becomes read-only under its open files; nothing but a new mount brings it back.
#[test]
fn a_read_only_disk_is_noticed_with_the_next_commit() {
    for mode in MODES {
        let disk = match Ext4::make(DISK_BYTES) {
            Ok(disk) => disk,
            Err(why) => return support::skip("a_read_only_disk_is_noticed_with_the_next_commit", &why),
        };
        let server = EchoServer::start();
        let ledger = disk.path().join("ledger");
        let mut first = sidecar(server.addr, mode).ledger_dir(&ledger).start();
        let content = message(b"hello");
        runtime().block_on(async {
            let mut client = Client::connect(first.addr).await;
            assert!(client.call(&content).await.is_echo_of(&content));
            disk.fail();
            let outcome = client.call(&content).await;
            let later = call(first.addr, &content).await;
            for outcome in [outcome, later] {
                match mode {
                    OnFailure::Refuse => assert_names_ledger(&outcome),
                    OnFailure::Forward => assert!(outcome.is_echo_of(&content), "{outcome:?}"),
                }
            }
        });
        // The last entry cannot be written, and an end without it is no clean one.
        first.signal("TERM");
        assert_eq!(first.wait().code(), Some(1), "{}", first.stderr());
        disk.heal();
        assert_intact(&ledger, "read-only at its end");
        let mut second = sidecar(server.addr, mode).ledger_dir(&ledger).start();
        assert!(runtime().block_on(call(second.addr, &content)).is_echo_of(&content));
        second.stop();
        let starts = starts(&ledger);
        assert!(starts.len() == 2 && !starts[1].previous_stop_was_clean, "{starts:?}");
        assert_intact(&ledger, "started again");
    }
}

type Attack = fn(&Path);

#[test]
fn a_segment_that_is_taken_away_is_noticed_with_the_next_commit() {
    let remove: Attack = |path| fs::remove_file(path).unwrap();
    let truncate: Attack = |path| File::options().write(true).open(path).unwrap().set_len(2_000).unwrap();
    let replace: Attack = |path| {
        let other = path.with_extension("other");
        fs::write(&other, vec![0; 2 << 20]).unwrap();
        fs::rename(other, path).unwrap();
    };
    for (name, attack) in [("removed", remove), ("truncated", truncate), ("replaced", replace)] {
        for mode in MODES {
            let server = EchoServer::start();
            let mut sidecar = sidecar(server.addr, mode).start();
            let content = message(&[b's'; 5_000]);
            runtime().block_on(async {
                let mut client = Client::connect(sidecar.addr).await;
                assert!(client.call(&content).await.is_echo_of(&content), "{name}");
                attack(&segment_path(&sidecar.ledger_dir, 0));
                // On the connection that is there already: its next frame is the next commit.
                let outcome = client.call(&content).await;
                match mode {
                    OnFailure::Refuse => assert_names_ledger(&outcome),
                    OnFailure::Forward => assert!(outcome.is_echo_of(&content), "{name}: {outcome:?}"),
                }
                call_until_served(sidecar.addr).await;
            });
            sidecar.stop();
            assert_lost(&sidecar, &format!("{name} {mode:?}"));
            assert_gaps(&gaps(&sidecar.ledger_dir), mode, 0);
        }
    }
}

/// The log says what it lost, and the verifier says so too, with the exit code for it.
fn assert_lost(sidecar: &Sidecar, what: &str) {
    let damages = damages(&sidecar.ledger_dir);
    assert!(damages.len() == 1 && damages[0].segment == segment::file_name(0), "{what}: {damages:?}");
    let report = verify(&sidecar.ledger_dir);
    assert_eq!(report.verdict, Verdict::Damaged, "{what}");
    let lost = [FaultKind::MissingEntries, FaultKind::DamagedFrame];
    let named = report
        .faults
        .iter()
        .any(|fault| lost.contains(&fault.kind) && fault.place.end == Some(damages[0].end_index));
    assert!(named, "{what}: {:#?}", report.faults);
    let output = attestry(&["verify", "--ledger", sidecar.ledger_dir.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{what}");
}

/// The relay over a real ledger on a disk that hangs: the data path goes on, refusing or forwarding, and the ledger comes back with the disk.
#[test]
fn a_disk_that_hangs_is_a_disk_that_fails() {
    for mode in MODES {
        let folder = tempfile::tempdir().unwrap();
        let (faults, server) = (Faults::default(), EchoServer::start());
        let mut options = options(folder.path(), mode);
        options.commit_wait_max = Duration::from_millis(300);
        let disk = FaultyDisk::new(folder.path(), options.location.segment_bytes, &faults);
        let ledger = start_with(&options, Arc::new(SystemClock), Some(Box::new(disk))).unwrap();
        let terms = Terms {
            limits: Limits {
                units: UnitLimits {
                    frame_bytes_max: 1 << 20,
                    header_list_bytes_max: 1 << 20,
                    continuations_max: 100,
                },
                streams_max: 100,
            },
            hold_bytes_max: 1 << 20,
            redaction_key: *ledger.redaction_key(),
        };
        let Relay { addr, listeners, drain } = Relay::start(ledger.handle(), server.addr, &terms);
        let content = message(b"hello");
        runtime().block_on(async {
            assert!(call(addr, &content).await.is_echo_of(&content));
            faults.plan(Plan { op: Op::Sync, fault: Fault::Hangs, occurrence: 1, stays: true });
            for _ in 0..3 {
                let outcome = call(addr, &content).await;
                match mode {
                    OnFailure::Refuse => assert_names_ledger(&outcome),
                    OnFailure::Forward => assert!(outcome.is_echo_of(&content), "{outcome:?}"),
                }
            }
            faults.clear();
            call_until_served(addr).await;
        });
        drain.started.cancel();
        drain.expired.cancel();
        // The end of a ledger waits for the last of its ports, and the relay's are gone with its threads.
        listeners.join();
        ledger.stop("end").unwrap();
        assert_gaps(&gaps(folder.path()), mode, 0);
        assert_intact(folder.path(), "hung for a while");
    }
}
