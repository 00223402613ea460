//! `attestry tail`, and a reader that goes on while a writer appends.

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use attestry::entry::Body;
use attestry::generated::v1::{self, Direction, EventType, Side, WireProtocol};
use attestry::query::{CallFold, Item, Reader};
use serde_json::Value;

use crate::ledger_maker::LedgerMaker;
use crate::scenes::*;
use crate::support::process::Process;
use crate::support::sidecar::program;
use crate::{ledger, ledger_of};

const PATIENCE: Duration = Duration::from_secs(30);

/// The indexes of the entries that can be read now.
fn indexes(reader: &mut Reader) -> Vec<u64> {
    reader
        .map(|item| match item.unwrap() {
            Item::Record(record) => record.index,
            Item::Damaged(damaged) => panic!("{damaged}"),
        })
        .collect()
}

#[test]
fn a_reader_goes_on_over_new_frames_and_segments() {
    let (_folder, mut maker) = ledger();
    let mut reader = Reader::open(&maker.folder).unwrap();
    assert_eq!(indexes(&mut reader), [0, 1, 2]);
    assert!(indexes(&mut reader).is_empty(), "nothing new");
    maker.commit(unary(1, "/a/B"));
    assert!(indexes(&mut reader).is_empty(), "nothing before it looks again");
    reader.refresh().unwrap();
    assert_eq!(indexes(&mut reader), [3, 4]);
    // A segment that is there and has no frame yet, then two at once.
    maker.begin_segment();
    reader.refresh().unwrap();
    assert!(indexes(&mut reader).is_empty());
    maker.commit(unary(2, "/a/B"));
    maker.begin_segment();
    maker.commit(unary(3, "/a/B"));
    reader.refresh().unwrap();
    assert_eq!(indexes(&mut reader), [5, 6, 7, 8]);
}

/// The writer has written and synced a frame, and not yet published it; the space behind it is prepared with zeros.
#[test]
fn a_reader_waits_for_the_head_beside_a_live_segment() {
    let (_folder, mut maker) = ledger_of(unary(1, "/a/B"));
    let mut reader = Reader::open(&maker.folder).unwrap();
    assert_eq!(indexes(&mut reader).len(), 5);
    let before = fs::read(attestry::ledger::head::path(&maker.folder)).unwrap();
    maker.commit(unary(2, "/a/B"));
    let after = fs::read(attestry::ledger::head::path(&maker.folder)).unwrap();
    let mut bytes = fs::read(maker.segment_path()).unwrap();
    bytes.resize(bytes.len() + 100_000, 0);
    fs::write(maker.segment_path(), bytes).unwrap();
    fs::write(attestry::ledger::head::path(&maker.folder), before).unwrap();
    reader.refresh().unwrap();
    assert!(indexes(&mut reader).is_empty());
    fs::write(attestry::ledger::head::path(&maker.folder), after).unwrap();
    reader.refresh().unwrap();
    assert_eq!(indexes(&mut reader), [5, 6]);
}

#[test]
fn reading_can_begin_near_the_end() {
    let (_folder, mut maker) = ledger_of(unary(1, "/a/B"));
    for number in 2..=4 {
        maker.begin_segment();
        maker.commit(unary(number, "/a/B"));
    }
    let first = |mut reader: Reader| indexes(&mut reader)[0];
    assert_eq!(first(Reader::open_newest(&maker.folder, 2).unwrap()), 7);
    assert_eq!(first(Reader::open_newest(&maker.folder, 9).unwrap()), 0);
    for (index, expected) in [(0, 0), (4, 0), (5, 5), (6, 5), (10, 9), (99, 9)] {
        assert_eq!(first(Reader::open_at(&maker.folder, index).unwrap()), expected, "{index}");
    }
}

/// A call is told when it ends, once, and what crosses its end afterwards makes no call of its own.
#[test]
fn a_call_closes_once() {
    let (_folder, mut maker) = ledger();
    let mut call = Call::grpc(1);
    maker.commit(vec![call.up(0, vec![request("/a/B")])]);
    maker.commit(vec![call.up(1, vec![reset(EventType::Cancel, 8, attestry::generated::v1::Side::Client)])]);
    maker.commit(vec![call.down(2, vec![answered(0, b"late"), trailers("0", "")])]);
    let mut fold = CallFold::new();
    let mut closed = Vec::new();
    for item in Reader::open(&maker.folder).unwrap() {
        if let Item::Record(record) = item.unwrap() {
            fold.push(&record);
            closed.extend(fold.take_closed());
        }
    }
    assert_eq!(closed.len(), 1);
    assert_eq!((closed[0].bytes, closed[0].last_index), ([0, 0], 4));
    let finished = fold.finish();
    assert_eq!(finished.len(), 1);
    assert_eq!((finished[0].bytes, finished[0].last_index), ([0, 4], 5), "the late frames are counted");
}

/// Starts `attestry tail` and waits until it follows: it says so on standard error.
fn tail(maker: &LedgerMaker, arguments: &[&str]) -> Process {
    let folder = maker.folder.parent().unwrap();
    let mut command = Command::new("sh");
    // Both streams come as one, so that the start can be waited for.
    let script = "exec 2>&1; exec \"$0\" \"$@\"";
    command.args(["-c", script, program(), "tail", "--ledger"]).arg(&maker.folder).args(arguments);
    let process = Process::start("tail", &mut command, folder);
    process.line_after("following ", PATIENCE);
    process
}

#[test]
fn tail_tells_of_calls_as_they_end() {
    let (_folder, mut maker) = ledger_of(unary(1, "/a/Before"));
    let mut running = Call::grpc(2);
    maker.commit(vec![running.up(0, vec![request("/a/Running"), plain(EventType::ClientHalfClose)])]);
    let tail = tail(&maker, &["-o", "jsonl"]);
    let next = || serde_json::from_str::<Value>(&tail.line(PATIENCE)).unwrap();
    maker.commit(unary(3, "/a/New"));
    assert_eq!(next()["method"], "/a/New");
    maker.begin_segment();
    maker.commit(vec![running.down(9, vec![trailers("5", "")])]);
    let ended = next();
    assert_eq!((&ended["method"], &ended["status"]), (&"/a/Running".into(), &"NOT_FOUND".into()));
    assert_eq!(ended["peer"], crate::CLIENT, "its connection was opened before the start");
    maker.begin_segment();
    maker.commit(unary(4, "/a/Last"));
    assert_eq!(next()["method"], "/a/Last");
}

#[test]
fn tail_prints_a_table_by_default() {
    let (_folder, mut maker) = ledger();
    let tail = tail(&maker, &[]);
    maker.commit(unary(3, "/a/New"));
    let (header, row) = (tail.line(PATIENCE), tail.line(PATIENCE));
    assert!(header.starts_with("TIME ") && row.contains("/a/New"), "{header}\n{row}");
    assert_eq!(header.find("STATUS"), row.find("OK"));
}

#[test]
fn tail_prints_events() {
    let (_folder, mut maker) = ledger();
    let tail = tail(&maker, &["--events"]);
    maker.commit(unary(3, "/a/New"));
    let lines: Vec<String> = (0..6).map(|_| tail.line(PATIENCE)).collect();
    assert_eq!(lines[0], "2023-11-14T22:13:20.000Z  037777777777  → CLIENT_HEADER /a/New");
    assert_eq!(lines[5], "2023-11-14T22:13:20.005Z  037777777777  ← SERVER_TRAILER OK");
    maker.commit(vec![connection_closed(CONNECTION)]);
    assert!(
        tail.line(PATIENCE)
            .ends_with("00c0ffee0000  · CONNECTION_CLOSED by unknown side: client closed (0/0 bytes)")
    );
}

#[test]
fn tail_puts_connections_and_notices_in_words() {
    let (_folder, mut maker) = ledger();
    let tail = tail(&maker, &["--events"]);
    let peer = "spiffe://shop.test/cart";
    let refused =
        v1::Tls { failure: "certificate expired".into(), side: Side::Server.into(), ..v1::Tls::default() };
    let hello = v1::Tls {
        side: Side::Client.into(),
        server_name: "db.test\u{1b}".into(),
        alpn_offered: vec!["postgresql".into()],
        ja4: "t13d1516h2_8daaf6152771_e5627efa2ab1".into(),
        ..v1::Tls::default()
    };
    let up = Direction::ClientToServer;
    let mut unreadable = connection_event(v1::connection_event::Type::NotReadable, "no HTTP");
    unreadable.count = 3;
    let notice = v1::Notice {
        r#type: v1::notice::Type::TurnedAway.into(),
        reason: "too many connections".into(),
        count: 7,
        from_unix_nanos: START,
        to_unix_nanos: START + 2_000_000_000,
    };
    maker.commit(vec![
        redirected(9, "10.1.1.1:5", "10.9.9.9:5432", 0),
        happened(9, up, vec![tls(mutual_tls(peer)), tls(refused), tls(hello)]),
        happened(
            9,
            up,
            vec![found(WireProtocol::Opaque, "its port is opaque"), first_bytes(b"hello"), unreadable],
        ),
        ended(9, "client closed", Side::Client, [5, 12], 1_500),
        (Body::Notice(notice), vec![]),
    ]);
    let id = "000000000000";
    let fingerprint = "ab".repeat(32);
    let expected = [
        format!(
            "{id}  · CONNECTION_OPENED outbound 10.1.1.1:5 to 10.9.9.9:5432 (redirect, dialled 10.9.9.9:5432)"
        ),
        format!(
            "{id}  → TLS with the client: TLSv1.3, TLS13_AES_128_GCM_SHA256, server name shop.test, ALPN h2, \
             verified {peer} (certificate {fingerprint})"
        ),
        format!("{id}  → TLS with the server: failed: certificate expired"),
        format!(
            "{id}  → TLS passed on unopened: server name db.test\\u{{1b}}, offered postgresql, JA4 \
             t13d1516h2_8daaf6152771_e5627efa2ab1"
        ),
        format!("{id}  → PROTOCOL opaque: its port is opaque"),
        format!(
            "{id}  → FIRST_BYTES 5 bytes, sha256 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        ),
        format!("{id}  → NOT_READABLE NO_ERROR: no HTTP (3 times)"),
        format!("{id}  · CONNECTION_CLOSED by client after 1.50s: client closed (5/12 bytes)"),
        "ledger        · NOTICE TURNED_AWAY: too many connections (7 times), 2023-11-14T22:13:20.000Z to \
         2023-11-14T22:13:22.000Z"
            .to_owned(),
    ];
    for line in expected {
        let printed = tail.line(PATIENCE);
        assert_eq!(printed.split_once("Z  ").unwrap().1, line);
    }
}

/// `attestry calls | head -1` and the like: the reader of the pipe goes away first.
#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let (_folder, mut maker) = ledger();
    // More than a pipe holds.
    let contents = (0..2_000_u32).map(|number| {
        let (mut body, payload) = Call::grpc(1).up(0, vec![request("/a/B")]);
        if let attestry::entry::Body::CallEvents(events) = &mut body {
            events.call = [&number.to_be_bytes()[..], &[0; 12]].concat().into();
        }
        (body, payload)
    });
    maker.commit(contents.collect());
    let commands: [&[&str]; 3] = [&["calls"], &["calls", "-o", "jsonl"], &["show", "000000ff", "-o", "json"]];
    for arguments in commands {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .arg("--ledger")
            .arg(&maker.folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!((child.wait().unwrap().code(), errors.as_str()), (Some(0), ""), "{arguments:?}");
    }
}
