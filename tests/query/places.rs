//! Where reading stops and what it leaves out: the published head, damaged places, frames that only look like the log's.

use std::fs;

use attestry::entry::Body;
use attestry::ledger::{head, segment};
use serde_json::Value;

use crate::ledger_maker::{FrameParts, LedgerMaker, LogParts, goaway, signer};
use crate::scenes::*;
use crate::{attestry, calls, each, ledger, ledger_of, text};

/// Six calls, a frame for each, two in each of three segments.
fn six_calls() -> (tempfile::TempDir, LedgerMaker) {
    let (folder, mut maker) = ledger();
    for number in 1..=6 {
        if number % 2 == 1 && number > 1 {
            maker.begin_segment();
        }
        maker.commit(unary(number, "/a/B"));
    }
    (folder, maker)
}

/// The first digits of the calls listed, and what was said on standard error.
fn listed(maker: &LedgerMaker) -> (String, String) {
    let output = attestry(&maker.folder, &["calls", "-o", "jsonl"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let id = |line: &str| {
        serde_json::from_str::<Value>(line).unwrap()["call_id"].as_str().unwrap()[..2].to_owned()
    };
    let ids: Vec<String> = text(&output.stdout).lines().map(id).collect();
    (ids.join(" "), text(&output.stderr))
}

/// Changes the bytes of the segment that begins with entry `first_index`.
fn change(maker: &LedgerMaker, first_index: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let path = segment::folder(&maker.folder).join(segment::file_name(first_index));
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_not_published_is_not_shown() {
    let (_folder, mut maker) = ledger_of(unary(1, "/a/B"));
    let published = fs::read(head::path(&maker.folder)).unwrap();
    maker.commit(unary(2, "/a/B"));
    maker.begin_segment();
    maker.commit(unary(3, "/a/B"));
    assert_eq!(listed(&maker), ("01 02 03".into(), String::new()));
    fs::write(head::path(&maker.folder), published).unwrap();
    assert_eq!(listed(&maker), ("01".into(), String::new()));
}

#[test]
fn without_a_head_the_last_good_frame_is_the_end() {
    let (_folder, maker) = six_calls();
    fs::remove_file(head::path(&maker.folder)).unwrap();
    assert_eq!(listed(&maker), ("01 02 03 04 05 06".into(), String::new()));
    // An unfinished commit at the end is no damage.
    change(&maker, 11, |bytes| bytes.truncate(bytes.len() - 10));
    assert_eq!(listed(&maker), ("01 02 03 04 05".into(), String::new()));
}

#[test]
fn a_damaged_head_is_reported_and_done_without() {
    let (_folder, maker) = six_calls();
    let mut bytes = fs::read(head::path(&maker.folder)).unwrap();
    bytes[20] ^= 1;
    fs::write(head::path(&maker.folder), bytes).unwrap();
    let (ids, errors) = listed(&maker);
    assert_eq!(ids, "01 02 03 04 05 06");
    assert!(
        errors.contains("the head file is damaged") && errors.contains("run `attestry verify`"),
        "{errors}"
    );
}

/// One bit in each frame in turn: the call of that frame is lost, and no other.
#[test]
fn a_damaged_place_costs_its_own_frame_alone() {
    let (_folder, maker) = six_calls();
    let mut log = LogParts::read(&maker.folder);
    let places = log.places();
    let lengths: Vec<usize> = log.frames().map(|frame| frame.encode().len()).collect();
    for (number, ((first_index, offset), length)) in places.into_iter().zip(lengths).enumerate().skip(1) {
        let at = usize::try_from(offset).unwrap() + length / 2;
        change(&maker, first_index, |bytes| bytes[at] ^= 1);
        let (ids, errors) = listed(&maker);
        let expected: Vec<String> =
            (1..=6).filter(|&call| call != number).map(|call| format!("0{call}")).collect();
        assert_eq!(ids, expected.join(" "), "frame {number}: {errors}");
        let first = 2 * number + 1;
        let entries = format!("entries {first} to {} cannot be read (frame checksum", first + 1);
        let place =
            format!("damaged place in segments/{} at offset {offset}", segment::file_name(first_index));
        assert!(errors.contains(&entries) && errors.contains(&place), "frame {number}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        change(&maker, first_index, |bytes| bytes[at] ^= 1);
    }
    assert_eq!(listed(&maker), ("01 02 03 04 05 06".into(), String::new()));
}

#[test]
fn a_removed_segment_is_reported() {
    let (_folder, maker) = six_calls();
    fs::remove_file(segment::folder(&maker.folder).join(segment::file_name(7))).unwrap();
    let (ids, errors) = listed(&maker);
    assert_eq!(ids, "01 02 05 06");
    assert!(errors.contains("entries 7 to 10 cannot be read (not there)"), "{errors}");
    fs::remove_file(segment::folder(&maker.folder).join(segment::file_name(11))).unwrap();
    let (ids, errors) = listed(&maker);
    assert_eq!(ids, "01 02");
    assert!(errors.contains("entries 7 to 14 cannot be read (not there)"), "{errors}");
}

#[test]
fn frames_put_in_twice_are_read_once() {
    let (_folder, maker) = six_calls();
    let mut log = LogParts::read(&maker.folder);
    let again = log.frame(1).clone();
    log.segments[0].1.insert(2, again);
    log.write(&maker.folder);
    let (ids, errors) = listed(&maker);
    assert_eq!(ids, "01 02 03 04 05 06");
    assert!(errors.contains("entries from 3 on stand here a second time"), "{errors}");
}

/// Whoever sends bytes may send frames, even true ones of another key: behind damage they are not taken for the log's.
#[test]
fn a_frame_inside_a_payload_is_not_believed() {
    let forged = |seed: u8| {
        let folder = tempfile::tempdir().unwrap();
        let mut other = LedgerMaker::new(&folder.path().join("other"), seed);
        let (opened, call) = (other.opened(), unary(0xee, "/forged/Call"));
        other.commit(vec![opened, goaway(b""), goaway(b""), goaway(b"")]);
        other.commit(call);
        let frame: FrameParts = LogParts::read(&other.folder).frame(1).clone();
        assert_eq!(frame.first_index, 4);
        frame.encode()
    };
    // With another key, and with entries under a true signature of another tree of the same size.
    let mut resigned = forged(2);
    let payloads = {
        let (_folder, mut maker) = ledger_of(unary(1, "/a/B"));
        let true_note = maker.checkpoint();
        let entries = vec![(vec![8, 1], vec![])];
        let crafted =
            FrameParts { first_index: 4, range: vec![[0; 32]], entries, checkpoint: true_note.into_bytes() };
        maker.commit(vec![goaway(b"x")]);
        [std::mem::take(&mut resigned), crafted.encode()]
    };
    for payload in payloads {
        let (_folder, mut maker) = ledger();
        maker.commit(vec![goaway(&payload)]);
        maker.commit(unary(2, "/a/B"));
        let start = LogParts::read(&maker.folder).places()[1].1;
        change(&maker, 0, |bytes| bytes[usize::try_from(start).unwrap()] ^= 1);
        let (ids, errors) = listed(&maker);
        assert_eq!(ids, "02", "{errors}");
        assert!(errors.contains("entry 3 cannot be read"), "{errors}");
    }
    assert_ne!(signer(1).verifier_key(), signer(2).verifier_key());
}

/// A body of a later version is no damage.
#[test]
fn entries_of_an_unknown_kind_are_passed_over() {
    let (_folder, mut maker) = ledger_of(unary(1, "/a/B"));
    let mut log = LogParts::read(&maker.folder);
    // Field 100, length-delimited, 0 bytes, instead of the body.
    log.frame(1).entries[0] = (vec![0x08, 3, 0xa2, 0x06, 0], vec![]);
    log.write(&maker.folder);
    maker.commit(unary(2, "/a/B"));
    let listed = calls(&maker.folder, &["--call", "02"]);
    assert_eq!(each(&listed, "status"), ["OK"]);
}

#[test]
fn a_later_format_is_refused() {
    let (_folder, maker) = ledger_of(unary(1, "/a/B"));
    change(&maker, 0, |bytes| {
        bytes[8] = 2;
        let checksum = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    });
    let refused = crate::refusal(&maker.folder, &["calls"]);
    assert!(refused.contains("ledger format version 2 is not known"), "{refused}");
}

/// What is read is entries, whatever stands in them: a call id of the wrong length, a payload that is too short.
#[test]
fn crooked_entries_do_not_stop_the_reading() {
    let mut short_id = Call::grpc(1).up(0, vec![request("/a/B")]);
    if let Body::CallEvents(events) = &mut short_id.0 {
        events.call = vec![1, 2, 3].into();
    }
    let (body, mut payload) =
        Call::grpc(2).up(0, vec![request("/a/B"), asked(0, b"12345"), asked(1, b"678")]);
    payload.truncate(4);
    let mut contents = vec![short_id, (body, payload)];
    contents.extend(unary(3, "/a/B"));
    let (_folder, maker) = ledger_of(contents);
    assert_eq!(listed(&maker).0, "02 03");
    let shown = crate::printed(&maker.folder, &["show", "02"]);
    assert!(shown.contains("not all of its bytes can be read"), "{shown}");
}
