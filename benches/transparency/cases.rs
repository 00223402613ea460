//! What is measured: each kind of traffic, how much of it at a time, and the ways that it goes.

use super::ways::Way;
use std::fmt::Write as _;

/// What a backend answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// Every byte, as it came.
    Echo,
    /// A greeting at once, then nothing until the client has ended.
    Greeting,
    /// As many bytes as asked for.
    Bulk,
    /// HTTP/1.1.
    Http1,
    /// gRPC over HTTP/2.
    Grpc,
}

impl Service {
    /// In the order in which the backend says their addresses.
    pub(super) const ALL: [Self; 5] = [Self::Echo, Self::Greeting, Self::Bulk, Self::Http1, Self::Grpc];
}

/// What a client does on each of its connections, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// Sends 100 bytes and waits until they are back.
    PingPong,
    /// Connects, reads the greeting, and closes: each time a new connection.
    Greeted,
    /// Has 1 GiB sent at a time. An exchange is 1 MiB of it.
    Bulk,
    /// GETs 1 KiB.
    Get,
    /// So many unary calls of 100 bytes at a time.
    Calls { streams: usize },
    /// Connects, makes one unary call, and closes: each time a new connection.
    CallOnce,
}

/// One kind of traffic.
pub(super) struct Case {
    name: &'static str,
    pub(super) service: Service,
    pub(super) doing: Doing,
    pub(super) connections: usize,
    /// The client speaks TLS and shows its certificate.
    pub(super) speaks_tls: bool,
    pub(super) ways: &'static [Way],
    /// What attestry is to find, as `attestry connections --protocol` names it.
    pub(super) found: &'static str,
}

const AS_IT_IS: &[Way] = &[Way::Direct, Way::Bare, Way::Sidecar];

static CASES: [Case; 13] = [
    opaque("opaque TCP, 100 B there and back", Service::Echo, Doing::PingPong, 1),
    opaque("opaque TCP, 100 B there and back", Service::Echo, Doing::PingPong, 32),
    opaque("opaque TCP, connection, greeting, close", Service::Greeting, Doing::Greeted, 1),
    opaque("opaque TCP, connection, greeting, close", Service::Greeting, Doing::Greeted, 8),
    opaque("opaque TCP, bulk to the client", Service::Bulk, Doing::Bulk, 1),
    http1(1),
    http1(32),
    h2c(1, 1),
    h2c(8, 32),
    mutual_tls("gRPC over mTLS, 100 B unary", Doing::Calls { streams: 1 }, 1),
    mutual_tls("gRPC over mTLS, 100 B unary", Doing::Calls { streams: 32 }, 8),
    mutual_tls("gRPC over mTLS, connection, one call, close", Doing::CallOnce, 1),
    Case {
        name: "TLS, unopened, bulk to the client",
        speaks_tls: true,
        found: "tls_passthrough",
        ..opaque("", Service::Bulk, Doing::Bulk, 1)
    },
];

const fn opaque(name: &'static str, service: Service, doing: Doing, connections: usize) -> Case {
    Case { name, service, doing, connections, speaks_tls: false, ways: AS_IT_IS, found: "opaque" }
}

const fn http1(connections: usize) -> Case {
    let name = "HTTP/1.1 keep-alive, GET 1 KiB";
    Case { found: "http1", ..opaque(name, Service::Http1, Doing::Get, connections) }
}

const fn h2c(connections: usize, streams: usize) -> Case {
    let ways = &[Way::Direct, Way::Bare, Way::Sidecar, Way::Mesh];
    let doing = Doing::Calls { streams };
    Case { ways, found: "http2", ..opaque("gRPC over h2c, 100 B unary", Service::Grpc, doing, connections) }
}

const fn mutual_tls(name: &'static str, doing: Doing, connections: usize) -> Case {
    let ways = &[Way::Direct, Way::Opened];
    Case { ways, found: "http2", speaks_tls: true, ..opaque(name, Service::Grpc, doing, connections) }
}

/// The cases that have one of `words` in their names; all where there are none.
pub(super) fn named(words: &[String]) -> Vec<&'static Case> {
    let is_meant = |case: &&Case| words.is_empty() || words.iter().any(|word| case.name().contains(word));
    CASES.iter().filter(is_meant).collect()
}

impl Case {
    pub(super) fn name(&self) -> String {
        let mut name = self.name.to_owned();
        match self.doing {
            Doing::Calls { streams } => {
                let _ = write!(name, ", {} x {streams}", self.connections);
            }
            Doing::Bulk => {}
            _ => {
                let _ = write!(name, ", {} at a time", self.connections);
            }
        }
        name
    }

    pub(super) fn name_through(&self, way: Way) -> String {
        format!("{}, {way}", self.name())
    }

    /// What the client and a server of its own TLS agree on.
    pub(super) fn alpn(&self) -> &'static [&'static [u8]] {
        alpn(self.service)
    }
}

/// What a service's TLS is spoken for.
pub(super) fn alpn(service: Service) -> &'static [&'static [u8]] {
    if service == Service::Grpc { &[b"h2"] } else { &[] }
}
