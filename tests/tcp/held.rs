//! A relay over a commit port that holds its receipts, and two bare sockets: nothing reaches a peer before the evidence of it is durable.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::{TcpListener, TcpStream};

use attestry::capture::Limits;
use attestry::entry::{Body, CommitError};
use attestry::generated::v1::{EventType, WireProtocol, connection_event};
use attestry::http2::UnitLimits;

use crate::driver::PATIENCE;
use crate::duet::{addr_of, bind};
use crate::holding_port::{Held, HoldingPort};
use crate::relay::{Relay, Terms};
use crate::socket::{accept, connect, is_silent, pass};

/// A relay with one connection through it.
pub(crate) struct Scene {
    pub(crate) port: HoldingPort,
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
    /// The connection's id.
    id: u64,
    relay: Relay,
    upstream: TcpListener,
}

impl Scene {
    pub(crate) fn start() -> Self {
        let (upstream, port) = (bind(), HoldingPort::default());
        let units =
            UnitLimits { frame_bytes_max: 16_384, header_list_bytes_max: 65_536, continuations_max: 8 };
        let terms = Terms {
            limits: Limits { units, streams_max: 100 },
            hold_bytes_max: 1 << 20,
            redaction_key: [1; 32],
        };
        let relay = Relay::start(port.clone(), addr_of(&upstream), &terms);
        let client = connect(relay.addr);
        let server = accept(&upstream);
        assert!(port.wait(PATIENCE, |held| !held.is_empty()), "the connection's beginning is not submitted");
        let id = connection_of(&port.held()[0]);
        Self { port, client, server, id, relay, upstream }
    }

    /// Waits for a submission of the connection that nobody has answered; returns its number, and what is in it. `behind` so many others of this kind.
    fn next(&self, behind: usize) -> (usize, Vec<String>) {
        let number = self.wait_for(behind, |held| connection_of(held) == self.id);
        let held = self.port.held();
        (number, held[number].entries.iter().flat_map(|(body, _)| in_words(body)).collect())
    }

    fn wait_for(&self, behind: usize, wanted: impl Fn(&Held) -> bool) -> usize {
        let next = |held: &[Held]| {
            let mut open = held.iter().enumerate().filter(|(_, held)| !held.is_answered() && wanted(held));
            open.nth(behind).map(|(number, _)| number)
        };
        assert!(self.port.wait(PATIENCE, |held| next(held).is_some()), "no submission comes");
        next(&self.port.held()).expect("it does not go away")
    }

    /// The next submission is this, and until it is committed `to` sees nothing.
    pub(crate) fn holds(&self, expected: &[&str], to: &TcpStream) {
        self.holds_behind(0, expected, to);
    }

    /// So does one that stands behind others, which are committed later.
    pub(crate) fn holds_behind(&self, behind: usize, expected: &[&str], to: &TcpStream) {
        let (number, found) = self.next(behind);
        assert_eq!(found, expected);
        self.another_connection_is_served();
        assert!(is_silent(to), "bytes have come before {expected:?} was durable");
        self.port.commit(number);
    }

    /// The next submission fails.
    pub(crate) fn refuses(&self, reason: &str) -> Vec<String> {
        let (number, found) = self.next(0);
        self.port.answer(number, Err(CommitError::Refusing(reason.into())), |_| {});
        found
    }

    /// A whole connection beside, over the same worker thread: if anything was to be sent on the first one, it has been.
    fn another_connection_is_served(&self) {
        let mut client = connect(self.relay.addr);
        let mut server = accept(&self.upstream);
        let pump = |count: usize| {
            (0..count)
                .for_each(|_| self.port.commit(self.wait_for(0, |held| connection_of(held) != self.id)));
        };
        std::thread::scope(|scope| {
            // Its beginning, its first bytes each way, and its end.
            scope.spawn(|| pump(4));
            pass(&mut client, &mut server, b"\x01");
            pass(&mut server, &mut client, b"\x02");
            drop((client, server));
        });
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // The threads end with the test's process; what they still do, nobody waits for.
        self.relay.drain.started.cancel();
        self.relay.drain.expired.cancel();
    }
}

fn connection_of(held: &Held) -> u64 {
    match held.entries.first() {
        Some((Body::ConnectionOpened(body), _)) => body.connection,
        Some((Body::ConnectionClosed(body), _)) => body.connection,
        Some((Body::ConnectionEvents(body), _)) => body.connection,
        Some((Body::CallEvents(body), _)) => body.connection,
        _ => 0,
    }
}

fn in_words(body: &Body) -> Vec<String> {
    match body {
        Body::ConnectionOpened(_) => vec!["opened".into()],
        Body::ConnectionClosed(_) => vec!["closed".into()],
        Body::ConnectionEvents(events) => events
            .events
            .iter()
            .map(|event| match event.r#type() {
                connection_event::Type::Protocol => match event.protocol() {
                    WireProtocol::Http1 => "speaks HTTP/1".into(),
                    _ => "is opaque".into(),
                },
                connection_event::Type::FirstBytes => format!("first {} bytes", event.payload_length),
                kind => kind.as_str_name().to_owned(),
            })
            .collect(),
        Body::CallEvents(call) => call
            .events
            .iter()
            .map(|event| match (event.r#type(), &event.message) {
                (kind @ (EventType::ClientMessage | EventType::ServerMessage), Some(segment)) => {
                    format!("{} of {} bytes", kind.as_str_name(), segment.length)
                }
                (kind, _) => kind.as_str_name().to_owned(),
            })
            .collect(),
        _ => vec!["something else".into()],
    }
}
