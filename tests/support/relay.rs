//! The data path alone, in the test's own process: one fixed listener, over a commit port of the test's choice.

use attestry::capture::{Level, Limits, OnUnreadable, Policy, Redactor};
use attestry::clock::SystemClock;
use attestry::counters::Counters;
use attestry::credentials::{ClientCertificates, Expect};
use attestry::generated::v1::Traffic;
use attestry::proxy::{
    Bounds, ClientTls, CommitPort, DrainSignals, Entrance, Listeners, Options, Role, Route, TcpOptions,
    TlsTerms, TurnedAway, Upstream, UpstreamTls, bind,
};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// The longest wait of the relay for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running data path.
pub struct Relay {
    pub addr: SocketAddr,
    pub listeners: Listeners,
    pub drain: DrainSignals,
}

/// What a test decides about it.
pub struct Terms {
    pub limits: Limits,
    pub hold_bytes_max: usize,
    pub redaction_key: [u8; 32],
}

impl Relay {
    pub fn start<C: CommitPort + Send>(port: C, upstream: SocketAddr, terms: &Terms) -> Self {
        let options = Options {
            connect_timeout: PATIENCE,
            handshake_timeout: PATIENCE,
            half_close_timeout: PATIENCE,
            hold_bytes_max: terms.hold_bytes_max,
            limits: terms.limits,
            connections_max: 100,
            handshakes: Arc::new(Semaphore::new(10)),
            detect: Bounds { timeout: PATIENCE, bytes_max: 65_536 },
            on_unreadable: OnUnreadable::Forward,
            tcp: TcpOptions { keepalive: None, user_timeout: None, mark: None },
            own_addresses: Arc::new([]),
            policy: Policy { level: Level::RequestResponse, redactor: Redactor::new(&terms.redaction_key) },
            port,
            clock: Arc::new(SystemClock),
            counters: Arc::new(Counters::default()),
            turned_away: Arc::new(TurnedAway::default()),
        };
        let drain = DrainSignals::default();
        let route = Route::Fixed(Upstream::Address(upstream));
        let socket = bind("127.0.0.1:0".parse().unwrap(), &route).unwrap();
        let addr = socket.local_addr().unwrap();
        let tls = TlsTerms {
            client: ClientTls::Passthrough,
            client_certificates: ClientCertificates::None,
            upstream: UpstreamTls::None,
            upstream_name: String::new(),
            expect: Expect::Name,
            alpn: Vec::new(),
            says_scheme: false,
            credentials: None,
        };
        let role = Role {
            route,
            traffic: Traffic::Inbound,
            opaque_ports: Vec::new(),
            tls,
            drain: drain.clone(),
            open: watch::Sender::new(0),
        };
        let entrance = Entrance { socket, role: Arc::new(role) };
        let listeners = Listeners::start(vec![entrance], NonZeroUsize::MIN, &options).unwrap();
        Self { addr, listeners, drain }
    }
}
