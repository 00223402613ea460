//! What entries say of connections and of the peers of calls: a ledger with all of it, and each lie that the log's key may have signed.

use crate::ledger_maker::*;
use crate::{Judges, SEED, chain_again, finding, key, rework, sign_again, verify};
use attestry::entry::Body;
use attestry::generated::v1::{self, connection_event::Type};
use attestry::ledger::fsck::{FaultKind, Verdict};
use prost::Message as _;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Connections: of mutual TLS, of HTTP/1 in the clear, and opaque.
const MUTUAL: u64 = 5;
const CLEAR: u64 = 6;
const OPAQUE: u64 = 7;

const ID: &str = "spiffe://example.org/client";

fn events(connection: u64, events: Vec<v1::ConnectionEvent>) -> Content {
    let body = v1::ConnectionEvents { connection, events, ..Default::default() };
    (Body::ConnectionEvents(body), vec![])
}

fn opened(connection: u64) -> Content {
    let traffic = v1::Traffic::Inbound.into();
    (Body::ConnectionOpened(v1::ConnectionOpened { connection, traffic, ..Default::default() }), vec![])
}

fn closed(connection: u64) -> Content {
    (Body::ConnectionClosed(v1::ConnectionClosed { connection, ..Default::default() }), vec![])
}

fn protocol(protocol: v1::WireProtocol) -> v1::ConnectionEvent {
    v1::ConnectionEvent {
        r#type: Type::Protocol.into(),
        protocol: protocol.into(),
        reason: "made up".into(),
        ..Default::default()
    }
}

fn tls(side: v1::Side, spiffe_id: &str) -> v1::ConnectionEvent {
    let peer = v1::VerifiedPeer {
        spiffe_id: spiffe_id.into(),
        certificate_sha256: vec![0xab; 32].into(),
        ..Default::default()
    };
    let tls = v1::Tls {
        side: side.into(),
        terminated: true,
        alpn_offered: vec!["h2".into(), "http/1.1".into()],
        verified_peer: Some(peer),
        ..Default::default()
    };
    v1::ConnectionEvent { r#type: Type::Tls.into(), tls: Some(tls), ..Default::default() }
}

fn first_bytes() -> v1::ConnectionEvent {
    v1::ConnectionEvent {
        r#type: Type::FirstBytes.into(),
        payload_length: 99,
        payload_sha256: vec![1; 32].into(),
        ..Default::default()
    }
}

/// An entry of call number `number` on a connection, with its verified peer.
fn call_of(connection: u64, number: u8, protocol: v1::Protocol, peer: &str) -> Content {
    let whole = |message| part(message, b"message", 0, 7);
    let parts = if protocol == v1::Protocol::Http { vec![whole(0)] } else { vec![whole(0), whole(1)] };
    let (mut body, payload) = call(number, 1, parts);
    let Body::CallEvents(events) = &mut body else { unreachable!() };
    (events.connection, events.protocol, events.verified_peer) = (connection, protocol.into(), peer.into());
    if protocol != v1::Protocol::Http {
        for (event, flag) in events.events.iter_mut().zip([0, 0x80]) {
            event.message.as_mut().unwrap().prefix = vec![flag, 0, 0, 0, 7].into();
        }
    }
    (body, payload)
}

/// Entries [0, 2) [2, 6) [6, 13), and in another segment [13, 17).
pub fn connections() -> (TempDir, LedgerMaker) {
    let folder = tempfile::tempdir().unwrap();
    let mut maker = LedgerMaker::new(folder.path(), SEED);
    maker.commit(vec![maker.opened(), started()]);
    maker.commit(vec![
        opened(MUTUAL),
        events(MUTUAL, vec![tls(v1::Side::Server, "spiffe://example.org/server"), tls(v1::Side::Client, ID)]),
        events(MUTUAL, vec![protocol(v1::WireProtocol::Http2)]),
        call_of(MUTUAL, 1, v1::Protocol::Grpc, ID),
    ]);
    maker.commit(vec![
        opened(CLEAR),
        events(CLEAR, vec![protocol(v1::WireProtocol::Http1)]),
        call_of(CLEAR, 2, v1::Protocol::Http, ""),
        call_of(CLEAR, 3, v1::Protocol::GrpcWeb, ""),
        opened(OPAQUE),
        events(OPAQUE, vec![protocol(v1::WireProtocol::Opaque), first_bytes()]),
        (Body::Notice(v1::Notice { reason: "made up".into(), count: 2, ..Default::default() }), vec![]),
    ]);
    maker.begin_segment();
    // The writer died: nothing is known of its connections.
    maker.commit(vec![
        started(),
        call_of(MUTUAL, 4, v1::Protocol::Grpc, "another"),
        closed(OPAQUE),
        stopped(),
    ]);
    (folder, maker)
}

#[test]
fn a_ledger_with_all_kinds_of_connections_is_intact() {
    let (folder, _) = connections();
    assert_eq!(Judges::new().judge(folder.path()), (Verdict::Intact, vec![]));
}

/// Changes the body of an entry of frame `frame` and signs everything anew.
fn with(frame: usize, position: usize, change: impl FnOnce(&mut Body)) -> TempDir {
    let (folder, _) = connections();
    fs::remove_file(folder.path().join("head")).unwrap();
    rework(folder.path(), |parts| {
        let bytes = &mut parts.frame(frame).entries[position].0;
        let mut entry = v1::Entry::decode(&bytes[..]).unwrap();
        change(entry.body.as_mut().unwrap());
        *bytes = entry.encode_to_vec();
        chain_again(parts, frame, position);
        sign_again(parts, SEED, frame);
    });
    folder
}

fn event(body: &mut Body, number: usize) -> &mut v1::ConnectionEvent {
    match body {
        Body::ConnectionEvents(body) => &mut body.events[number],
        other => panic!("{other:?}"),
    }
}

fn events_of_call(body: &mut Body) -> &mut v1::CallEvents {
    match body {
        Body::CallEvents(body) => body,
        other => panic!("{other:?}"),
    }
}

fn message_of(body: &mut Body, number: usize) -> &mut v1::MessageSegment {
    events_of_call(body).events[number].message.as_mut().unwrap()
}

type Change = fn(&mut Body);

#[test]
fn what_an_entry_may_not_say_is_named() {
    // Frame, position, entry, the lie, and how many faults it makes.
    let lies: [(usize, usize, u64, Change, usize); 13] = [
        (1, 2, 4, |body| event(body, 0).protocol = 0, 1),
        (1, 1, 3, |body| event(body, 0).tls = None, 1),
        (1, 1, 3, |body| event(body, 0).tls.as_mut().unwrap().side = v1::Side::Attestry.into(), 1),
        (1, 1, 3, |body| event(body, 0).tls.as_mut().unwrap().side = 77, 1),
        (1, 1, 3, |body| event(body, 0).tls.as_mut().unwrap().terminated = false, 1),
        (1, 1, 3, |body| peer(body, 0).certificate_sha256 = vec![1; 20].into(), 1),
        (2, 5, 11, |body| event(body, 1).payload_length = 0, 1),
        (2, 5, 11, |body| event(body, 1).payload_sha256.clear(), 1),
        (2, 2, 8, |body| message_of(body, 0).prefix = vec![0; 5].into(), 1),
        (2, 2, 8, |body| message_of(body, 0).message = 1, 1),
        (2, 3, 9, |body| message_of(body, 1).prefix = vec![0; 6].into(), 1),
        (1, 3, 5, |body| message_of(body, 0).prefix = vec![0; 6].into(), 1),
        (2, 5, 11, |body| (event(body, 0).protocol, event(body, 1).payload_length) = (0, 0), 2),
    ];
    let judges = &mut Judges::new();
    let (intact, _) = connections();
    let places = LogParts::read(intact.path()).places();
    for (number, (frame, position, index, lie, faults)) in lies.into_iter().enumerate() {
        let folder = with(frame, position, lie);
        let expected = vec![finding(FaultKind::EntryContent, places[frame], index, None); faults];
        assert_eq!(judges.judge(folder.path()), (Verdict::Damaged, expected), "lie {number}");
    }
    // What is said to be stored is looked for in the payload, and is not there.
    let folder = with(2, 5, |body| event(body, 1).payload_stored = true);
    let kinds: Vec<String> = judges.judge(folder.path()).1.into_iter().map(|finding| finding.0).collect();
    assert_eq!(kinds, ["payload-length", "entry-content"]);
}

fn peer(body: &mut Body, number: usize) -> &mut v1::VerifiedPeer {
    event(body, number).tls.as_mut().unwrap().verified_peer.as_mut().unwrap()
}

/// Values of a later schema are none of this version's business.
#[test]
fn values_that_are_not_known_are_no_fault() {
    let judges = &mut Judges::new();
    let (intact, _) = connections();
    let changes: [(usize, usize, Change); 4] = [
        (1, 2, |body| event(body, 0).protocol = 1_000),
        (1, 2, |body| event(body, 0).r#type = 1_000),
        (2, 2, |body| events_of_call(body).protocol = 1_000),
        (2, 2, |body| events_of_call(body).protocol = -1),
    ];
    for (frame, position, change) in changes {
        let folder = with(frame, position, change);
        assert_eq!(judges.judge(folder.path()), (Verdict::Intact, vec![]));
    }
    assert_eq!(judges.judge(intact.path()).0, Verdict::Intact);
}

#[test]
fn a_call_must_name_the_peer_of_its_connection() {
    let judges = &mut Judges::new();
    let (intact, _) = connections();
    let places = LogParts::read(intact.path()).places();
    let here = |frame: usize, index| vec![finding(FaultKind::VerifiedPeer, places[frame], index, None)];
    let name = |name: &'static str| move |body: &mut Body| events_of_call(body).verified_peer = name.into();
    let found = |judges: &mut Judges, folder: &Path| judges.judge(folder).1;
    assert_eq!(found(judges, with(1, 3, name("")).path()), here(1, 5), "left out");
    assert_eq!(
        found(judges, with(1, 3, name("spiffe://example.org/server")).path()),
        here(1, 5),
        "the server's"
    );
    assert_eq!(found(judges, with(2, 2, name(ID)).path()), here(2, 8), "of another connection");
    // The id gone, the fingerprint is the name; and what the TLS event says is what counts.
    let folder = with(1, 1, |body| peer(body, 1).spiffe_id.clear());
    assert_eq!(found(judges, folder.path()), here(1, 5));
    let folder = with(1, 1, |body| event(body, 1).tls.as_mut().unwrap().verified_peer = None);
    assert_eq!(found(judges, folder.path()), here(1, 5));
    let folder = with(1, 1, |body| event(body, 1).r#type = Type::Goaway.into());
    assert_eq!(found(judges, folder.path()), here(1, 5), "TLS beside an event that is none");
}

#[test]
fn a_peer_without_an_id_is_named_by_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let mut maker = LedgerMaker::new(folder.path(), SEED);
    let fingerprint = format!("sha256:{}", "ab".repeat(32));
    maker.commit(vec![
        maker.opened(),
        opened(MUTUAL),
        events(MUTUAL, vec![tls(v1::Side::Client, "")]),
        call_of(MUTUAL, 1, v1::Protocol::Grpc, &fingerprint),
        closed(MUTUAL),
        call_of(MUTUAL, 2, v1::Protocol::Grpc, "closed: not checked any more"),
        stopped(),
    ]);
    assert_eq!(Judges::new().judge(folder.path()), (Verdict::Intact, vec![]));
}

/// The TLS event itself may have gone by unrecorded, or be lost.
#[test]
fn behind_a_gap_or_damage_peers_are_not_known() {
    let judges = &mut Judges::new();
    let ledger = |between: Vec<Content>| {
        let folder = tempfile::tempdir().unwrap();
        let mut maker = LedgerMaker::new(folder.path(), SEED);
        maker.commit(vec![maker.opened(), opened(MUTUAL)]);
        maker.commit(between);
        maker.commit(vec![call_of(MUTUAL, 1, v1::Protocol::Grpc, ID), stopped()]);
        folder
    };
    assert_eq!(judges.judge(ledger(vec![gap()]).path()), (Verdict::Intact, vec![]));
    let refused = (Body::Gap(v1::Gap { forwarded: false, ..Default::default() }), vec![]);
    let found = judges.judge(ledger(vec![refused]).path());
    assert_eq!((found.0, found.1[0].0.as_str()), (Verdict::Damaged, "verified-peer"), "nothing passed then");
    let damaged = ledger(vec![goaway(b"x")]);
    rework(damaged.path(), |parts| parts.frame(1).entries[0].0 = vec![0xff; 9]);
    let kinds: Vec<String> = judges.judge(damaged.path()).1.into_iter().map(|finding| finding.0).collect();
    assert!(
        kinds.contains(&"entry-encoding".to_owned()) && !kinds.contains(&"verified-peer".to_owned()),
        "{kinds:?}"
    );
    let report = verify(damaged.path(), Some(&key(SEED)), &[]);
    assert_eq!(report.verdict, Verdict::Damaged);
}
