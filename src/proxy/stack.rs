//! The connection stack, in one function, and the service at its end: what happens to an accepted connection, from the top.

use super::CommitPort;
use super::connect::{Upstream, connect};
use super::local;
use super::relay::{End, Goodbye, Relay};
use super::session::{Opening, Session};
use crate::capture::{Limits, Policy, Side};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::entry::{Body, CommitError, PendingEntry, Submission};
use crate::generated::v1;
use std::convert::Infallible;
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
}

/// The two steps of a drain.
#[derive(Clone, Debug, Default)]
pub struct DrainSignals {
    /// Nothing new is accepted; open calls go on.
    pub started: CancellationToken,
    /// The time for open calls is over.
    pub expired: CancellationToken,
}

/// What the data path is told.
#[derive(Clone)]
pub struct Options<C> {
    /// Where every connection goes.
    pub upstream: Upstream,
    /// Longest wait for a connection to it.
    pub connect_timeout: Duration,
    /// Bytes held in one direction of one connection.
    pub hold_bytes_max: usize,
    /// What a connection may make attestry remember.
    pub limits: Limits,
    /// Connections at a time, in all workers.
    pub connections_max: usize,
    /// What is kept of a call.
    pub policy: Policy,
    /// The ledger.
    pub port: C,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Totals.
    pub counters: Arc<Counters>,
    /// The end.
    pub drain: DrainSignals,
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
        // Detection of protocols, TLS and original destinations belong here, between the limit and the relay.
        .service(service_fn(move |accepted| serve(Rc::clone(&relay), accepted)))
}

/// Serves one connection to its end.
async fn serve<C: CommitPort>(options: Rc<Options<C>>, accepted: Accepted) -> Result<(), Infallible> {
    options.counters.connections_accepted.add(1);
    options.counters.connections_open.enter();
    let counters = Arc::clone(&options.counters);
    let mut session = Session::new(options);
    serve_session(&mut session, accepted).await;
    counters.connections_open.leave();
    Ok(())
}

async fn serve_session<C: CommitPort>(session: &mut Session<C>, accepted: Accepted) {
    let Accepted { client, client_address, listener_address } = accepted;
    let options = Rc::clone(&session.options);
    let connecting = connect(&options.upstream, options.connect_timeout);
    // A drain does not wait for an upstream that does not answer: its client has not been promised anything yet.
    let Some(upstream) = options.drain.expired.run_until_cancelled(connecting).await else { return };
    let upstream = upstream.inspect_err(|error| {
        options.counters.upstream_connect_failures.add(1);
        tracing::warn!(%error, "calls are answered UNAVAILABLE");
    });
    let opening = Opening {
        client: client_address,
        listener: listener_address,
        upstream: upstream.as_ref().ok().and_then(|upstream| upstream.peer_addr().ok()),
        local_reason: upstream.as_ref().err().map(ToString::to_string).unwrap_or_default(),
    };
    // The connection is in the ledger before the first byte of it goes on.
    let opened = session.opened(opening).await;
    match (upstream, opened) {
        (Ok(upstream), Ok(_)) => relay(session, client, upstream).await,
        (Err(error), _) => answer_here(session, &client, &error.to_string()).await,
        (Ok(_), Err(error)) => answer_here(session, &client, &refusal(&error)).await,
    }
}

async fn answer_here<C: CommitPort>(session: &mut Session<C>, client: &TcpStream, reason: &str) {
    let written = local::answer_new(session, client, reason).await;
    session.closed(reason.to_owned(), Side::Attestry, 0, written).await;
    local::linger(client).await;
}

async fn relay<C: CommitPort>(session: &mut Session<C>, client: TcpStream, upstream: TcpStream) {
    let (end, up, mut down) = Relay::new(session, &client, &upstream).run().await;
    let (reason, side, how) = match end {
        End::Closed { reason, side, how } => (reason, side, how),
        End::Refused(reason) => {
            let reason = refusal(&CommitError::Refusing(reason));
            let to_server = up.written;
            down.continue_locally(up);
            // Nothing more goes upstream; that the connection ends is all that the server learns.
            drop(upstream);
            let written = local::answer_rest(session, &client, down, &reason).await;
            session.closed(reason, Side::Attestry, to_server, written).await;
            return local::linger(&client).await;
        }
    };
    if how == Goodbye::Reset {
        let _ = client.set_zero_linger();
        let _ = upstream.set_zero_linger();
        drop((client, upstream));
        return session.closed(reason, side, up.written, down.written).await;
    }
    session.closed(reason, side, up.written, down.written).await;
    if how == Goodbye::Spoken {
        local::linger(&client).await;
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

async fn turn_away<C: CommitPort>(options: Rc<Options<C>>, accepted: Accepted) -> Result<(), Infallible> {
    options.counters.connections_refused.add(1);
    let reason =
        format!("attestry: all {} connections are in use (limits.connections_max)", options.connections_max);
    let mut session = Session::new(options);
    let event = v1::ConnectionEvent {
        r#type: v1::connection_event::Type::BoundBroken.into(),
        code: crate::http2::code::ENHANCE_YOUR_CALM,
        reason: format!("{reason}; turned away {}", accepted.client_address),
        ..Default::default()
    };
    let body = v1::ConnectionEvents {
        connection: session.capture.id(),
        captured_unix_nanos: session.now(),
        events: vec![event],
        ..Default::default()
    };
    let entries = vec![PendingEntry::new(&Body::ConnectionEvents(body))];
    let _ = session.commit(Submission { entries, wire_bytes: 0 }).await;
    local::turn_away(&accepted.client, &reason).await;
    Ok(())
}
