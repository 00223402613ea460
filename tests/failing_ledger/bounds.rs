//! Peers that break a bound: a clear protocol error, an entry, a counter.

use crate::drain::request;
use crate::driver::{End, PATIENCE, Peer};
use crate::frames::{self, PREFACE, code, flag, kind};
use crate::h2_peers::{EchoServer, call, call_until_served, message, runtime};
use crate::hpack;
use crate::ledger_reading::{assert_intact, bodies_of, stops};
use crate::support::sidecar::Sidecar;
use attestry::entry::Body;
use attestry::generated::v1::connection_event::Type;
use attestry::generated::v1::{self};

struct Breach {
    name: &'static str,
    /// What is sent behind the opening, in a write of its own and in the same as the opening.
    frames: Vec<u8>,
    code: u32,
    /// What the GOAWAY and the entry must say.
    says: &'static str,
    counters: &'static [&'static str],
}

fn breaches() -> Vec<Breach> {
    let long = hpack::literal("x-long", vec![b'v'; 9_000]);
    let split = |parts: usize| {
        let parts: Vec<Vec<u8>> = (0..parts).map(|_| hpack::literal("x-part", "v")).collect();
        let (first, rest) = parts.split_first().unwrap();
        let mut bytes = frames::frame(kind::HEADERS, 0, 1, first);
        for part in rest {
            bytes.extend(frames::frame(kind::CONTINUATION, 0, 1, part));
        }
        bytes
    };
    vec![
        Breach {
            name: "a header list that is too large",
            frames: frames::headers(1, flag::NONE, &long),
            code: code::ENHANCE_YOUR_CALM,
            says: "header_list_bytes_max",
            counters: &["bounds_broken"],
        },
        Breach {
            name: "too many CONTINUATION frames",
            frames: split(5),
            code: code::ENHANCE_YOUR_CALM,
            says: "continuations_max",
            counters: &["bounds_broken"],
        },
        Breach {
            name: "a frame that is too large",
            frames: frames::data(1, flag::NONE, &vec![0; 16_385]),
            code: code::FRAME_SIZE_ERROR,
            says: "frame_bytes_max",
            counters: &["bounds_broken"],
        },
        Breach {
            name: "too many streams",
            frames: (0..4).flat_map(|number| request(2 * number + 1, flag::NONE)).collect(),
            code: code::ENHANCE_YOUR_CALM,
            says: "streams_max",
            counters: &["bounds_broken", "streams_over_bound"],
        },
    ]
}

fn sidecar(server: &EchoServer) -> Sidecar {
    let keys = [
        ("header_list_bytes_max", "8192"),
        ("frame_bytes_max", "16384"),
        ("streams_max", "3"),
        ("continuations_max", "3"),
    ];
    let builder = Sidecar::builder(server.addr).set("limits", "connections_max", "2");
    keys.into_iter().fold(builder, |builder, (key, value)| builder.set("limits", key, value)).start()
}

fn breaches_in(sidecar: &Sidecar) -> Vec<v1::ConnectionEvent> {
    let events = bodies_of(&sidecar.ledger_dir, |body| {
        if let Body::ConnectionEvents(events) = body { Some(events.events) } else { None }
    });
    events.into_iter().flatten().filter(|event| event.r#type() == Type::BoundBroken).collect()
}

fn counters(sidecar: &Sidecar) -> Vec<(String, u64)> {
    let stopped = stops(&sidecar.ledger_dir).pop().expect("a clean end");
    stopped
        .counters
        .into_iter()
        .filter(|counter| counter.value > 0)
        .map(|counter| (counter.name, counter.value))
        .collect()
}

#[test]
fn a_broken_bound_ends_the_connection_with_its_reason() {
    for breach in breaches() {
        for is_one_write in [false, true] {
            let what =
                format!("{}, {}", breach.name, if is_one_write { "with the preface" } else { "on its own" });
            let server = EchoServer::start();
            let mut sidecar = sidecar(&server);
            let mut client = Peer::connect("client", sidecar.addr, PATIENCE).unwrap();
            let opening = [PREFACE.to_vec(), frames::settings(&[])].concat();
            if is_one_write {
                client.send(&[opening, breach.frames.clone()].concat()).unwrap();
            } else {
                client.send(&opening).unwrap();
                client.frame_of(kind::SETTINGS).unwrap();
                // Where the relay is quick, the end comes before the last byte has gone out.
                let _ = client.send(&breach.frames);
            }
            let goaway = client
                .frame_of(kind::GOAWAY)
                .unwrap_or_else(|stall| panic!("{what}: {stall:?}; {}", sidecar.stderr()));
            assert_eq!(goaway.goaway().unwrap().1, breach.code, "{what}: {goaway:?}");
            let debug = String::from_utf8_lossy(&goaway.payload[8..]).into_owned();
            assert!(debug.contains(breach.says), "{what}: the GOAWAY says {debug:?}");
            let end = client.end().unwrap();
            assert!(matches!(end, End::Fin | End::Reset), "{what}: {end:?}");
            // The sidecar is there for others.
            let content = message(b"hello");
            assert!(runtime().block_on(call(sidecar.addr, &content)).is_echo_of(&content), "{what}");
            sidecar.stop();
            let found = breaches_in(&sidecar);
            assert_eq!(found.len(), 1, "{what}: {found:?}");
            assert!(
                found[0].code == breach.code && found[0].reason.contains(breach.says),
                "{what}: {found:?}"
            );
            let counters = counters(&sidecar);
            for name in breach.counters {
                assert!(counters.contains(&((*name).to_owned(), 1)), "{what}: {name} in {counters:?}");
            }
            assert_intact(&sidecar.ledger_dir, &what);
        }
    }
}

#[test]
fn a_connection_too_many_is_turned_away() {
    let server = EchoServer::start();
    let mut sidecar = sidecar(&server);
    let opening = [PREFACE.to_vec(), frames::settings(&[])].concat();
    let mut inside: Vec<Peer> = (0..2)
        .map(|_| {
            let mut client = Peer::connect("client", sidecar.addr, PATIENCE).unwrap();
            client.send(&opening).unwrap();
            client.frame_of(kind::SETTINGS).unwrap();
            client
        })
        .collect();
    let mut outside = Peer::connect("one too many", sidecar.addr, PATIENCE).unwrap();
    let _ = outside.send(&opening);
    // It asks nothing, so all that it is told is that nothing will be processed.
    let frames = outside.frames(3).unwrap();
    assert_eq!([0, 1, 2].map(|at: usize| frames[at].kind()), [kind::SETTINGS, kind::SETTINGS, kind::GOAWAY]);
    assert_eq!(frames[2].goaway(), Some((0, code::REFUSED_STREAM)));
    let debug = String::from_utf8_lossy(&frames[2].payload[8..]).into_owned();
    assert!(debug.contains("connections_max") && debug.contains('2'), "{debug}");
    outside.half_close().unwrap();
    assert_eq!(outside.end().unwrap(), End::Fin);
    // With the first that leaves there is room again.
    inside.pop().unwrap().abort().unwrap();
    runtime().block_on(call_until_served(sidecar.addr));
    drop(inside);
    sidecar.stop();
    // They are summed: one entry says how many, and when.
    let found =
        bodies_of(
            &sidecar.ledger_dir,
            |body| if let Body::Notice(notice) = body { Some(notice) } else { None },
        );
    assert!(!found.is_empty(), "nothing says that connections were turned away");
    for notice in &found {
        assert_eq!(notice.r#type(), v1::notice::Type::TurnedAway);
        assert!(
            notice.reason.contains("connections_max") && notice.from_unix_nanos <= notice.to_unix_nanos,
            "{notice:?}"
        );
    }
    let refused = counters(&sidecar).into_iter().find(|(name, _)| name == "connections_refused");
    assert_eq!(refused.map(|(_, count)| count), Some(found.iter().map(|notice| notice.count).sum()));
    assert_intact(&sidecar.ledger_dir, "turned away");
}

/// The smallest queue to the committer makes everything slow, and nothing wrong: an idle connection keeps no place in it.
#[test]
fn a_queue_of_one_serves_many_connections() {
    let server = EchoServer::start();
    let mut sidecar = Sidecar::builder(server.addr)
        .set("limits", "commit_queue_max", "1")
        .set("ledger", "commit_wait_ms_max", "3000")
        .start();
    let opening = [PREFACE.to_vec(), frames::settings(&[]), request(1, flag::NONE)].concat();
    let idle: Vec<Peer> = (0..5)
        .map(|_| {
            let mut client = Peer::connect("idle", sidecar.addr, PATIENCE).unwrap();
            client.send(&opening).unwrap();
            client.frame_of(kind::HEADERS).unwrap();
            // The beginning of a frame that does not come to its end.
            client.send(&frames::data(1, flag::NONE, &[0; 100])[..50]).unwrap();
            client
        })
        .collect();
    let content = message(&vec![b'q'; 50_000]);
    for number in 0..5 {
        let outcome = runtime().block_on(call(sidecar.addr, &content));
        assert!(outcome.is_echo_of(&content), "call {number}: {:?}", outcome.unavailable());
    }
    drop(idle);
    sidecar.stop();
    assert_intact(&sidecar.ledger_dir, "a queue of one");
}
