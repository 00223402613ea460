//! The connection stack, in one function, and the service at its end: what happens to an accepted connection, from the top.

use super::CommitPort;
use super::connect::connect;
use super::detect::{Bounds, Early, Found, ServerFirst, detect};
use super::link::{Link, TcpOptions};
use super::local;
use super::relay::{End, Goodbye, Relay};
use super::route::{Role, Way, way};
use super::secure::{ClientTls, Handshakes, Insecure, Secured, UpstreamTls, note_passthrough, secure};
use super::session::{Opening, Session};
use super::turned_away::{Terms, TurnedAway, Why, tell};
use crate::capture::{Limits, OnUnreadable, Policy, Side};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::entry::CommitError;
use crate::generated::v1::{Traffic, WireProtocol};
use crate::http2::Scheme;
use crate::limits::LOCAL_ANSWERS_MS;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{Service, ServiceBuilder, service_fn};

/// A connection as it was accepted.
pub struct Accepted {
    /// The socket.
    pub client: TcpStream,
    /// Its far end.
    pub client_address: SocketAddr,
    /// Its near end.
    pub listener_address: SocketAddr,
    /// What its listener is for.
    pub role: Arc<Role>,
}

/// The two steps of a drain.
#[derive(Clone, Debug, Default)]
pub struct DrainSignals {
    /// Nothing new is accepted; open calls go on.
    pub started: CancellationToken,
    /// The time for open calls is over.
    pub expired: CancellationToken,
}

/// What the data path is told, whatever listener a connection came by.
#[derive(Clone)]
pub struct Options<C> {
    /// Longest wait for a connection to an upstream.
    pub connect_timeout: Duration,
    /// Longest time for one TLS handshake.
    pub handshake_timeout: Duration,
    /// Silence after which a half-closed connection is given up.
    pub half_close_timeout: Duration,
    /// Bytes held in one direction of one connection.
    pub hold_bytes_max: usize,
    /// What a connection may make attestry remember.
    pub limits: Limits,
    /// Connections at a time, in all workers.
    pub connections_max: usize,
    /// Places for TLS handshakes, in all workers.
    pub handshakes: Arc<Semaphore>,
    /// How long an undecided connection is asked what it speaks.
    pub detect: Bounds,
    /// What happens to what cannot be read.
    pub on_unreadable: OnUnreadable,
    /// For every socket.
    pub tcp: TcpOptions,
    /// The listeners of this process, to which nothing may be forwarded.
    pub own_addresses: Arc<[SocketAddr]>,
    /// What is kept of a call.
    pub policy: Policy,
    /// The ledger.
    pub port: C,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Totals.
    pub counters: Arc<Counters>,
    /// Connections turned away since that was last said in the ledger.
    pub turned_away: Arc<TurnedAway>,
}

impl<C> Options<C> {
    /// One connection more for which there is no room.
    pub(super) fn count_turned_away(&self) {
        self.counters.connections_refused.add(1);
        self.turned_away.add(Why::Connections, || self.no_room(), self.clock.unix_nanos());
    }

    fn no_room(&self) -> String {
        format!("attestry: all {} connections are in use (limits.connections_max)", self.connections_max)
    }
}

type Served = Pin<Box<dyn Future<Output = Result<(), Infallible>>>>;

/// Everything that stands between accept and the peers, outermost first.
pub(super) fn stack<C: CommitPort>(
    options: Rc<Options<C>>,
    places: Arc<Semaphore>,
) -> impl Service<Accepted, Response = (), Error = Infallible, Future = Served> {
    let relay = Rc::clone(&options);
    ServiceBuilder::new()
        // Over the limit a connection is told so and closed: waiting in the backlog, it would find out by its deadline.
        .layer_fn(move |inner| TurnAway { inner, options: Rc::clone(&options), has_room: false })
        .map_future(|served| Box::pin(served) as Served)
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(places))
        .service(service_fn(move |accepted| serve(Rc::clone(&relay), accepted)))
}

/// Serves one connection to its end.
async fn serve<C: CommitPort>(options: Rc<Options<C>>, accepted: Accepted) -> Result<(), Infallible> {
    let (counters, role) = (Arc::clone(&options.counters), Arc::clone(&accepted.role));
    counters.connections_accepted.add(1);
    counters.connections_open.enter();
    role.open.send_modify(|open| *open += 1);
    serve_connection(options, accepted).await;
    role.open.send_modify(|open| *open -= 1);
    counters.connections_open.leave();
    Ok(())
}

/// The steps of one connection: where to, is it there, is it in the ledger, what does it speak, what of that is TLS; then it is relayed.
async fn serve_connection<C: CommitPort>(options: Rc<Options<C>>, accepted: Accepted) {
    let Accepted { client, client_address, listener_address, role } = accepted;
    // First, because a connection that leads back to attestry may not open another.
    let way = match way(&role, &client, client_address, listener_address, &options.own_addresses) {
        Ok(way) => way,
        Err(no_way) => {
            options.turned_away.add(Why::Way, || no_way.to_string(), options.clock.unix_nanos());
            return drop(client.set_zero_linger());
        }
    };
    // At once, without a byte of the client's: the server may be the one that speaks first.
    let session = &mut Session::new(Rc::clone(&options), Arc::clone(&role));
    let connecting = connect(&way, options.tcp, options.connect_timeout);
    // A drain does not wait for an upstream that does not answer: its client has not been promised anything yet.
    let Some(upstream) = role.drain.expired.run_until_cancelled(connecting).await else { return };
    let opening = Opening {
        client: client_address,
        listener: listener_address,
        original: way.original,
        upstream: way.upstream.to_string(),
        connected: upstream.as_ref().ok().and_then(|upstream| upstream.peer_addr().ok()),
        local_reason: upstream.as_ref().err().map(ToString::to_string).unwrap_or_default(),
    };
    let upstream = match upstream {
        Ok(upstream) => upstream,
        Err(error) => {
            options.counters.upstream_connect_failures.add(1);
            tracing::warn!(%error, "a connection cannot be forwarded");
            drop(session.opened(opening).await);
            let (client, early) = (Link::Plain(client), Early::default());
            return tell_unreachable(session, client, &way, None, early, &error.to_string()).await;
        }
    };
    // The connection is in the ledger before the first byte of it goes on; meanwhile whoever speaks shows what is spoken.
    let opened = session.opened(opening).await;
    let (mut early, client, upstream) = (Early::default(), Link::Plain(client), Link::Plain(upstream));
    let found = find(&options, &role, &way, &client, &upstream, &mut early).await;
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => return answer_here(session, client, found, early, &refusal(&error)).await,
    };
    let (Link::Plain(client), Link::Plain(upstream)) = (client, upstream) else { return };
    let opened = if Handshakes::of(&role.tls, &found).any() {
        // A ClientHello of attestry's own repeats what the client's says: it waits as any other byte does.
        if let Err(error) = opened.await {
            return answer_here(session, Link::Plain(client), found, early, &refusal(&error)).await;
        }
        None
    } else {
        Some(opened)
    };
    let secured = secure(session, client, upstream, &way.upstream.host(), found, &mut early).await;
    match secured {
        Ok(secured) => relay(session, &way, secured, early, opened).await,
        Err(Insecure::Failed(reason)) => session.closed(reason, Side::Attestry, 0, 0).await,
        Err(Insecure::Unreachable { reason, client, found }) => {
            tell_unreachable(session, Link::Plain(client), &way, Some(found), early, &reason).await;
        }
        Err(Insecure::NoPlace) => {
            let reason = || "all places for TLS handshakes are in use (limits.handshakes_max)".to_owned();
            options.turned_away.add(Why::Handshakes, reason, options.clock.unix_nanos());
            session.closed(reason(), Side::Attestry, 0, 0).await;
        }
    }
}

/// Finds out what is spoken, unless the configuration says that nobody should ask.
async fn find<C: CommitPort>(
    options: &Options<C>,
    role: &Role,
    way: &Way,
    client: &Link,
    upstream: &Link,
    early: &mut Early,
) -> Found {
    if role.opaque_ports.contains(&way.upstream.port()) {
        return Found::Opaque(OPAQUE_PORT.into());
    }
    // A server that waits for a handshake says nothing before it, whatever its protocol.
    let speaks = role.tls.upstream != UpstreamTls::Originate;
    let server_first = match role.tls.client {
        ClientTls::Passthrough => ServerFirst::Decides,
        ClientTls::Terminate => ServerFirst::AfterTimeout,
        ClientTls::Require => ServerFirst::Never,
    };
    detect(client, speaks.then_some(upstream), server_first, early, options.detect, &role.drain).await
}

const OPAQUE_PORT: &str = "the destination's port is in opaque_ports";

/// The upstream is not there. A client whose own call this would have been learns it as it would have: its connection breaks, before anything of it was read.
/// One that dialled attestry is answered in its protocol.
async fn tell_unreachable<C: CommitPort>(
    session: &mut Session<C>,
    client: Link,
    way: &Way,
    found: Option<Found>,
    mut early: Early,
    reason: &str,
) {
    if way.original.is_some() {
        client.reset();
        return session.closed(reason.to_owned(), Side::Attestry, 0, 0).await;
    }
    let found = if let Some(found) = found {
        found
    } else {
        let limit = Bounds { timeout: Duration::from_millis(LOCAL_ANSWERS_MS), ..session.options.detect };
        let drain = session.role.drain.clone();
        detect(&client, None, ServerFirst::Decides, &mut early, limit, &drain).await
    };
    answer_here(session, client, found, early, reason).await;
}

/// Answers the calls of a connection of which nothing goes upstream.
async fn answer_here<C: CommitPort>(
    session: &mut Session<C>,
    client: Link,
    found: Found,
    early: Early,
    reason: &str,
) {
    let protocol = match &found {
        Found::Http2 { .. } => WireProtocol::Http2,
        Found::Http1 => WireProtocol::Http1,
        Found::Tls(_) | Found::Opaque(_) | Found::Drained | Found::Broken { .. } => {
            client.reset();
            return session.closed(reason.to_owned(), Side::Attestry, 0, 0).await;
        }
    };
    session.begin(protocol, how(&found), None);
    let written = local::answer_new(session, &client, early.client, reason).await;
    session.closed(reason.to_owned(), Side::Attestry, 0, written).await;
    local::linger(client.tcp()).await;
}

fn how(found: &Found) -> String {
    match found {
        Found::Http2 { by } => (*by).to_owned(),
        Found::Http1 => "a request line".into(),
        Found::Tls(_) => "a ClientHello, passed on unopened".into(),
        Found::Opaque(reason) => reason.clone(),
        Found::Drained => "nothing was said before the end".into(),
        Found::Broken { error, .. } => error.to_string(),
    }
}

/// Begins the capture of what was found; or says why it must not go on.
fn begin<C: CommitPort>(
    session: &mut Session<C>,
    found: &Found,
    client: &Link,
    upstream: &Link,
) -> Result<(), String> {
    let is_tls = client.is_tls();
    let (requires_tls, refuses) = (
        session.role.tls.client == ClientTls::Require,
        session.options.on_unreadable == OnUnreadable::Refuse,
    );
    let unreadable = match found {
        _ if requires_tls && !is_tls => {
            Some("the client does not speak TLS, and client_tls is \"require\"".to_owned())
        }
        Found::Opaque(reason) if refuses && reason != OPAQUE_PORT => Some(format!("not readable: {reason}")),
        Found::Tls(_) if refuses => Some("not readable: TLS that is passed on unopened".to_owned()),
        _ => None,
    };
    if let Found::Tls(hello) = found {
        note_passthrough(session, hello);
    }
    if let Some(reason) = unreadable {
        session.note_unreadable(reason.clone());
        return Err(reason);
    }
    let protocol = match found {
        Found::Http2 { .. } => WireProtocol::Http2,
        Found::Http1 => WireProtocol::Http1,
        Found::Tls(_) => WireProtocol::TlsPassthrough,
        Found::Opaque(_) | Found::Drained | Found::Broken { .. } => WireProtocol::Opaque,
    };
    let scheme =
        session.role.tls.says_scheme.then(|| if upstream.is_tls() { Scheme::Https } else { Scheme::Http });
    let mut reason = how(found);
    if let Some(scheme) = scheme.filter(|_| protocol == WireProtocol::Http2) {
        let _ = write!(reason, "; each request's :scheme goes on as {} (scheme)", scheme.as_str());
    }
    session.begin(protocol, reason, scheme);
    Ok(())
}

async fn relay<C: CommitPort>(
    session: &mut Session<C>,
    way: &Way,
    secured: Secured,
    early: Early,
    opened: Option<C::Future>,
) {
    let Secured { client, upstream, found } = secured;
    if matches!(found, Found::Drained) {
        return session.closed("drained".into(), Side::Attestry, 0, 0).await;
    }
    if let Found::Broken { by_client, error } = &found {
        let side = if *by_client { Side::Client } else { Side::Server };
        let reason = format!("{} by the {}", error.kind(), if *by_client { "client" } else { "server" });
        client.reset();
        upstream.reset();
        return session.closed(reason, side, 0, 0).await;
    }
    if let Err(reason) = begin(session, &found, &client, &upstream) {
        tracing::warn!(upstream = %way.upstream, reason, "a connection is refused");
        client.reset();
        upstream.reset();
        return session.closed(reason, Side::Attestry, 0, 0).await;
    }
    let (end, up, mut down) = Relay::new(session, &client, &upstream, early, opened).run().await;
    let (reason, side, how) = match end {
        End::Closed { reason, side, how } => (reason, side, how),
        End::Refused(reason) => {
            let reason = refusal(&CommitError::Refusing(reason));
            let to_server = up.written;
            let is_cut = session.answers.is_in_response() || session.speaks_opaque();
            down.continue_locally(up);
            if is_cut {
                client.reset();
                upstream.reset();
                return session.closed(reason, Side::Attestry, to_server, down.written).await;
            }
            // Nothing more goes upstream; that the connection ends is all that the server learns.
            drop(upstream);
            let written = local::answer_rest(session, &client, down, &reason).await;
            session.closed(reason, Side::Attestry, to_server, written).await;
            return local::linger(client.tcp()).await;
        }
    };
    if how == Goodbye::Reset {
        client.reset();
        upstream.reset();
        return session.closed(reason, side, up.written, down.written).await;
    }
    session.closed(reason, side, up.written, down.written).await;
    if how == Goodbye::Spoken {
        local::linger(client.tcp()).await;
    }
    if way.original.is_some() && session.role.traffic == Traffic::Outbound {
        drop(client);
        upstream.close_acknowledged().await;
    }
}

fn refusal(error: &CommitError) -> String {
    format!("attestry: {error}")
}

/// Turns connections away while the service below has no room.
struct TurnAway<S, C> {
    inner: S,
    options: Rc<Options<C>>,
    has_room: bool,
}

impl<S, C> Service<Accepted> for TurnAway<S, C>
where
    S: Service<Accepted, Response = (), Error = Infallible, Future = Served>,
    C: CommitPort,
{
    type Response = ();
    type Error = Infallible;
    type Future = Served;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.has_room = self.inner.poll_ready(cx)?.is_ready();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, accepted: Accepted) -> Served {
        if std::mem::take(&mut self.has_room) {
            return self.inner.call(accepted);
        }
        Box::pin(turn_away(Rc::clone(&self.options), accepted))
    }
}

/// Tells a client that there is no room, if not too many are told already.
async fn turn_away<C: CommitPort>(options: Rc<Options<C>>, accepted: Accepted) -> Result<(), Infallible> {
    options.count_turned_away();
    let client = Link::Plain(accepted.client);
    let Some(_place) = options.turned_away.place() else {
        client.reset();
        return Ok(());
    };
    let drain = &accepted.role.drain;
    let terms = Terms { detect: options.detect, units: options.limits.units, drain };
    tell(client, &terms, &options.no_room()).await;
    Ok(())
}
