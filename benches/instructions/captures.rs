//! Cases of reading: from the bytes of a connection to the evidence that is to be committed, as `proxy::talk` drives it.

use super::cases::{Case, LITTLE, Ready, Work};
use super::wire;
use attestry::capture::{
    Connection, Direction, Ending, Http1, Ids, Level, Limits, OnUnreadable, Opaque, Policy, Redactor, Side,
    Subject,
};
use attestry::counters::Counters;
use attestry::entry::PendingEntry;
use attestry::http2::{UnitLimits, UnitReader};
use attestry::limits;
use bytes::Bytes;
use std::hint::black_box;
use std::sync::Arc;

use Direction::{ClientToServer, ServerToClient};

/// Calls of each case of unary calls; a multiple of all that stand in one chunk.
const CALLS: u32 = 64;
const CALLS_OF_A_BURST: u32 = 32;
const CHUNKS_OF_A_STREAM: usize = 8;
const MESSAGES_OF_A_CHUNK: usize = 32;
const EXCHANGES: usize = 64;
const CONNECTIONS: usize = 64;
const OPAQUE_CHUNKS: usize = 10;

const NOW_UNIX_NANOS: u64 = 1_700_000_000_000_000_000;

pub(crate) const CASES: &[Case] = &[
    unary("unary 100 B", || unary_calls(1, 100)),
    unary("unary 100 B, 32 to a read", || unary_calls(CALLS_OF_A_BURST, 100)),
    unary("unary 1 KiB", || unary_calls(1, 1_024)),
    unary("unary 1 KiB, 32 to a read", || unary_calls(CALLS_OF_A_BURST, 1_024)),
    unary("unary 16 KiB", || unary_calls(1, 16_384)),
    unary("HTTP/2 units and header blocks alone", units_alone),
    Case {
        name: "server streaming 1 KiB, 32 to a read",
        unit: "message",
        units: (CHUNKS_OF_A_STREAM * MESSAGES_OF_A_CHUNK) as u64,
        noise: LITTLE,
        work: Work::Alone(streaming),
    },
    Case {
        name: "HTTP/1.1 exchange 100 B",
        unit: "exchange",
        units: EXCHANGES as u64,
        noise: LITTLE,
        work: Work::Alone(http1_exchanges),
    },
    Case {
        name: "opaque connection",
        unit: "connection",
        units: CONNECTIONS as u64,
        noise: LITTLE,
        work: Work::Alone(opaque_connections),
    },
];

const fn unary(name: &'static str, work: fn() -> Ready) -> Case {
    Case { name, unit: "call", units: CALLS as u64, noise: LITTLE, work: Work::Alone(work) }
}

/// What capture makes of the next unary calls of a connection: the entries of each read.
pub(crate) fn entries_of_unary_calls(calls: u32, message_bytes: usize) -> Vec<PendingEntry> {
    let (mut connection, mut wire) = warm_connection(message_bytes);
    let mut entries = Vec::new();
    for _ in 0..calls {
        let (request, response) = wire.unary(1, message_bytes);
        for (direction, chunk) in [(ClientToServer, request), (ServerToClient, response)] {
            entries.extend(connection.observe(direction, &chunk, NOW_UNIX_NANOS).submission.entries);
        }
    }
    entries
}

fn unary_calls(calls_of_a_read: u32, message_bytes: usize) -> Ready {
    let (mut connection, mut wire) = warm_connection(message_bytes);
    let reads: Vec<(Bytes, Bytes)> =
        (0..CALLS / calls_of_a_read).map(|_| wire.unary(calls_of_a_read, message_bytes)).collect();
    Box::new(move || {
        for (requests, responses) in &reads {
            observe(&mut connection, ClientToServer, requests);
            observe(&mut connection, ServerToClient, responses);
        }
    })
}

fn streaming() -> Ready {
    let (mut connection, mut wire) = warm_connection(1_024);
    let (request, response, chunks) = wire.stream(CHUNKS_OF_A_STREAM, MESSAGES_OF_A_CHUNK, 1_024);
    observe(&mut connection, ClientToServer, &request);
    observe(&mut connection, ServerToClient, &response);
    Box::new(move || {
        for chunk in &chunks {
            observe(&mut connection, ServerToClient, chunk);
        }
    })
}

/// A connection on which as many calls as any read has were made already: its header tables are filled, and its buffers have grown.
fn warm_connection(message_bytes: usize) -> (Connection, wire::Http2) {
    let mut wire = wire::Http2::default();
    let mut connection =
        Connection::new(subject(), policy(), limits(), fixed_ids(), Arc::new(Counters::default()));
    let (requests, responses) = wire.unary(CALLS_OF_A_BURST, message_bytes);
    observe(&mut connection, ClientToServer, &requests);
    observe(&mut connection, ServerToClient, &responses);
    assert_eq!(connection.open_streams(), 0, "each call was read to its end");
    (connection, wire)
}

fn observe(connection: &mut Connection, direction: Direction, chunk: &Bytes) {
    let prefix = connection.reader(direction).prefix(chunk, usize::MAX).expect("the bytes are sound");
    assert_eq!(prefix.len, chunk.len(), "a chunk consists of whole frames");
    let observed = connection.observe(direction, chunk, NOW_UNIX_NANOS);
    assert!(observed.failure.is_none() && observed.forward == chunk.len(), "a sound chunk goes on");
    assert!(!observed.submission.entries.is_empty(), "there is evidence of each chunk here");
    black_box(observed);
}

fn units_alone() -> Ready {
    let mut wire = wire::Http2::default();
    let mut reader = UnitReader::new(limits().units);
    read_units(&mut reader, &wire.unary(CALLS_OF_A_BURST, 100).0);
    let chunks: Vec<Bytes> =
        (0..CALLS / CALLS_OF_A_BURST).map(|_| wire.unary(CALLS_OF_A_BURST, 100).0).collect();
    Box::new(move || {
        for chunk in &chunks {
            read_units(&mut reader, chunk);
        }
    })
}

fn read_units(reader: &mut UnitReader, chunk: &Bytes) {
    assert_eq!(reader.complete_len(chunk), Ok(chunk.len()), "a chunk consists of whole frames");
    let mut at = 0;
    while let Some(unit) = reader.next(chunk, &mut at).expect("the bytes are sound") {
        black_box(unit);
    }
    assert_eq!(at, chunk.len(), "all of them are read");
}

fn http1_exchanges() -> Ready {
    let counters = Arc::new(Counters::default());
    let refuse = OnUnreadable::Refuse;
    let mut capture = Http1::new(subject(), policy(), limits(), fixed_ids(), counters, refuse);
    let (request, response) = wire::http1(100);
    let mut exchange = move || {
        for (direction, chunk) in [(ClientToServer, &request), (ServerToClient, &response)] {
            assert_eq!(capture.prefix(direction, chunk), chunk.len(), "head and content are there");
            let observed = capture.observe(direction, chunk, NOW_UNIX_NANOS);
            assert!(observed.failure.is_none() && observed.forward == chunk.len(), "a sound chunk goes on");
            black_box(observed);
        }
    };
    exchange();
    Box::new(move || (0..EXCHANGES).for_each(|_| exchange()))
}

fn opaque_connections() -> Ready {
    let counters = Arc::new(Counters::default());
    let policy = policy();
    let chunk: Bytes = wire::content(512).collect();
    Box::new(move || {
        for _ in 0..CONNECTIONS {
            let mut capture = Opaque::new(subject(), policy.clone(), Arc::clone(&counters));
            for _ in 0..OPAQUE_CHUNKS {
                black_box(capture.observe(ClientToServer, &chunk, NOW_UNIX_NANOS));
                black_box(capture.observe(ServerToClient, &chunk, NOW_UNIX_NANOS));
            }
            black_box(capture.close(ending(), NOW_UNIX_NANOS));
        }
    })
}

fn ending() -> Ending {
    Ending {
        reason: "closed by the client".into(),
        side: Side::Client,
        bytes_to_server: 5_120,
        bytes_to_client: 5_120,
        duration_nanos: 1_000_000,
    }
}

fn subject() -> Subject {
    Subject { connection: 0x0123_4567_89ab_cdef, verified_peer: String::new() }
}

fn policy() -> Policy {
    Policy { level: Level::RequestResponse, redactor: Redactor::new(&[7; 32]) }
}

/// The bounds of a connection, as the product has them where nothing is configured.
pub(crate) fn limits() -> Limits {
    let units = UnitLimits {
        frame_bytes_max: limits::FRAME_BYTES_MAX,
        header_list_bytes_max: limits::HEADER_LIST_BYTES_MAX,
        continuations_max: limits::CONTINUATIONS_MAX,
    };
    Limits { units, streams_max: limits::STREAMS_MAX.get() }
}

fn fixed_ids() -> Ids {
    let mut next = 0_u8;
    Ids::from_source(move |bytes| {
        for byte in bytes {
            next = next.wrapping_add(37);
            *byte = next;
        }
    })
}
