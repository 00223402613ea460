//! From frames to evidence: what one read of one direction of a connection says about its calls.
//!
//! Invariants: every byte of DATA that may go on is in the returned submission, or left out by the capture level on purpose; nothing that could not be read goes
//! on as if it had been; memory is bounded by `streams_max` and by the caller's chunk. No I/O and no waiting: bytes in, a [`Submission`] out. It knows the commit port's types,
//! not the ledger; the pipe that waits for the commit is `crate::proxy::relay`. Parts: `stream` (one call's state), `draft` (entries being made), `evidence` (what all captures
//! share), `policy` (levels, secrets); and one file for each protocol: `connection` (HTTP/2), `http1`, `opaque`.

mod connection;
mod draft;
mod evidence;
mod http1;
mod ids;
mod observed;
mod opaque;
mod policy;
mod stream;

pub use connection::Connection;
pub use evidence::{Ending, Failure};
pub use http1::{Http1, OnUnreadable};
pub use ids::Ids;
pub use observed::{Milestone, Observed};
pub use opaque::Opaque;
pub use policy::{Policy, Redactor};

pub use crate::generated::v1::{Direction, Level, Side};

/// The bounds of what a connection may make attestry remember.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Frames and header blocks.
    pub units: crate::http2::UnitLimits,
    /// Streams tracked at a time.
    pub streams_max: usize,
}

/// Whose evidence it is: this stands in every entry of a connection.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The connection's id in the ledger.
    pub connection: u64,
    /// The client as TLS has verified it, as `CallEvents.verified_peer` has it; empty where it has proved nothing.
    pub verified_peer: String,
}

/// The side that sends in `direction`.
pub fn sender(direction: Direction) -> Side {
    match direction {
        Direction::ClientToServer => Side::Client,
        Direction::ServerToClient => Side::Server,
        Direction::Unspecified => Side::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Counters;
    use crate::entry::{self, Body};
    use crate::http2::{FrameHeader, UnitLimits, frame};
    use bytes::Bytes;
    use sha2::{Digest as _, Sha256};
    use std::sync::Arc;

    fn connection(level: Level) -> Connection {
        let units =
            UnitLimits { frame_bytes_max: 1 << 20, header_list_bytes_max: 65_536, continuations_max: 8 };
        let policy = Policy { level, redactor: Redactor::new(&[0; 32]) };
        let mut next = 0_u8;
        let ids = Ids::from_source(move |bytes| {
            next = next.wrapping_add(1);
            bytes.fill(next);
        });
        let subject = Subject { connection: 1, verified_peer: String::new() };
        Connection::new(
            subject,
            policy,
            Limits { units, streams_max: 100 },
            ids,
            Arc::new(Counters::default()),
        )
    }

    fn data(payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        let header = FrameHeader { length, kind: frame::kind::DATA, flags: 0, stream: 1 };
        [&header.encode(), payload].concat()
    }

    /// However many entries the events of one read fill, and wherever the border between two of them falls.
    #[test]
    fn a_message_at_the_border_of_two_entries_has_the_right_digest() {
        let mut numbers = std::collections::BTreeSet::new();
        for empty_messages in 1_050..1_200 {
            let fields = [(":method", "POST"), (":path", "/a.B/C"), ("content-type", "application/grpc")];
            let mut chunk = frame::headers_literal(1, false, &fields, 16_384);
            chunk.extend(data(&[[0; 5].repeat(empty_messages), b"\0\0\0\0\x02a".to_vec()].concat()));
            chunk.extend(data(b"b"));
            let observed =
                connection(Level::RequestResponse).observe(Direction::ClientToServer, &Bytes::from(chunk), 1);
            let mut digests = Vec::new();
            numbers.insert(observed.submission.entries.len());
            for pending in observed.submission.entries {
                let Some(Body::CallEvents(call)) = entry::decode(pending.body.into()).unwrap().body else {
                    continue;
                };
                let last = call.events.into_iter().filter_map(|event| event.message);
                digests.extend(last.filter(|segment| segment.message == empty_messages as u64));
            }
            let end = digests.last().map(|segment| segment.offset + segment.length);
            assert_eq!(end, Some(2), "the message is whole");
            for segment in digests {
                let seen = &b"ab"[..usize::try_from(segment.offset + segment.length).unwrap()];
                assert_eq!(
                    segment.sha256[..],
                    Sha256::digest(seen)[..],
                    "behind {empty_messages} empty messages"
                );
            }
        }
        assert_eq!(numbers.into_iter().collect::<Vec<_>>(), [1, 2], "the border falls into this range");
    }

    #[test]
    fn of_a_promised_call_the_lowest_level_keeps_the_method_alone() {
        let fields = [(":method", "POST"), (":path", "/a.B/C"), ("content-type", "application/grpc")];
        let request = Bytes::from(frame::headers_literal(1, true, &fields, 16_384));
        let mut connection = connection(Level::None);
        connection.observe(Direction::ClientToServer, &request, 1);
        // The promise of stream 2: the same fields, in a PUSH_PROMISE on stream 1.
        let fields = [(":method", "GET"), (":path", "/pushed"), ("x-private", "nobody")];
        let block = frame::headers_literal(1, false, &fields, 16_384).split_off(frame::HEADER_LEN);
        let payload = [&2_u32.to_be_bytes()[..], &block].concat();
        let length = u32::try_from(payload.len()).unwrap();
        let (kind, flags) = (frame::kind::PUSH_PROMISE, frame::flag::END_HEADERS);
        let header = FrameHeader { length, kind, flags, stream: 1 };
        let promise = Bytes::from([&header.encode()[..], &payload].concat());
        let entries = connection.observe(Direction::ServerToClient, &promise, 2).submission.entries;
        let bodies = entries.iter().map(|pending| String::from_utf8_lossy(&pending.body).into_owned());
        let bodies = bodies.collect::<String>();
        assert!(bodies.contains("/pushed") && !bodies.contains("x-private"), "{bodies:?}");
    }

    #[test]
    fn a_long_frame_is_read_once_its_receiver_has_announced_that_it_takes_it() {
        let long = data(&vec![0; 70_000]);
        let settings = Bytes::from(frame::settings(&[(0x5, 100_000)]));
        let mut connection = connection(Level::RequestResponse);
        let prefix = |connection: &Connection| {
            connection.reader(Direction::ClientToServer).prefix(&long, 10).map(|prefix| prefix.len)
        };
        // The sender's own announcement is about what it takes itself.
        connection.observe(Direction::ClientToServer, &settings, 1);
        assert!(prefix(&connection).is_err());
        connection.observe(Direction::ServerToClient, &settings, 2);
        assert_eq!(prefix(&connection), Ok(long.len()));
        // What is announced later may cross frames that are on their way.
        connection.observe(Direction::ServerToClient, &frame::settings(&[(0x5, 16_384)]).into(), 3);
        assert_eq!(prefix(&connection), Ok(long.len()));
    }
}
