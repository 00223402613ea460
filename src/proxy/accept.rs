//! Accepting: the listeners, and a worker thread per core, each with a runtime of its own, that its connections never leave.
//!
//! Connections are dealt to the workers in turn. (One listening socket per worker would let the kernel choose by a hash, which leaves workers idle where there are few connections,
//! and a sidecar has few.) The threads are named, counted, and joined by whoever stops the data path.

use super::CommitPort;
use super::link::{TcpOptions, make_transparent};
use super::route::{Role, Route};
use super::stack::{Accepted, Options, stack};
use crate::entry::Submission;
use crate::generated::v1::Traffic;
use crate::limits::TURNED_AWAY_INTERVAL_MS;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tower::{Service as _, ServiceExt as _};

/// Connections on their way from the listeners to a worker. A worker takes them at once.
const HANDOFF_MAX: usize = 128;

/// Connections that the kernel accepts ahead of us.
const BACKLOG: i32 = 1_024;

/// Pause after an accept that failed for want of descriptors or memory, so that others can finish and free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket, and what it is for.
pub struct Entrance {
    /// From [`bind`].
    pub socket: StdListener,
    /// Where its connections go.
    pub role: Arc<Role>,
}

/// The data path's threads.
pub struct Listeners {
    closing: [CancellationToken; 2],
    accept: Vec<(Traffic, JoinHandle<()>)>,
    teller: JoinHandle<()>,
    workers: Vec<JoinHandle<()>>,
}

/// A listening socket; separate from the threads, so that an address in use is known before anything else is started.
pub fn bind(address: SocketAddr, route: &Route) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if *route == Route::Tproxy {
        make_transparent(&socket, address.ip())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

type Hand = Sender<(StdStream, Arc<Role>)>;

impl Listeners {
    /// Starts `workers` threads that serve what the entrances accept until they are closed, and then what they have until it has ended.
    pub fn start<C>(entrances: Vec<Entrance>, workers: NonZeroUsize, options: &Options<C>) -> io::Result<Self>
    where
        C: CommitPort + Send,
    {
        let places = Arc::new(Semaphore::new(options.connections_max));
        let (mut threads, mut hands) = (Vec::new(), Vec::new());
        for number in 0..workers.get() {
            let (hand, connections) = channel(HANDOFF_MAX);
            let (options, places) = (options.clone(), Arc::clone(&places));
            hands.push(hand);
            threads.push(spawn(format!("proxy-{number}"), move || work(options, places, connections))?);
        }
        let closing = [CancellationToken::new(), CancellationToken::new()];
        let mut accepting = Vec::new();
        for Entrance { socket, role } in entrances {
            let (hands, closed) = (hands.clone(), closing[place_of(role.traffic)].clone());
            let (name, traffic) = (format!("accept-{}", accepting.len()), role.traffic);
            let door = Door { options: options.clone(), places: Arc::clone(&places) };
            accepting.push((traffic, spawn(name, move || accept(socket, role, hands, door, closed))?));
        }
        let (options, all_closed) = (options.clone(), closing.clone());
        let teller = spawn("turned-away".into(), move || tell(options, all_closed))?;
        Ok(Self { closing, accept: accepting, teller, workers: threads })
    }

    /// Closes the listeners of one kind of traffic: when this returns, its connections are refused. Those that are there go on.
    pub fn close(&mut self, traffic: Traffic) {
        self.closing[place_of(traffic)].cancel();
        let (closing, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.accept)
            .into_iter()
            .partition(|(other, _)| place_of(*other) == place_of(traffic));
        self.accept = others;
        for (_, thread) in closing {
            let _ = thread.join();
        }
    }

    /// Closes what is still open, and waits until every connection has ended; drain must have been asked for.
    pub fn join(mut self) {
        self.close(Traffic::Inbound);
        self.close(Traffic::Outbound);
        for thread in self.workers.into_iter().chain([self.teller]) {
            let _ = thread.join();
        }
    }
}

/// Traffic of no stated kind is the workload's own service.
fn place_of(traffic: Traffic) -> usize {
    usize::from(traffic == Traffic::Outbound)
}

fn spawn<F: std::future::Future<Output = ()> + 'static>(
    name: String,
    run: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    thread::Builder::new().name(name).spawn(move || LocalSet::new().block_on(&runtime, run()))
}

/// Where a flood ends: with neither a place for a connection nor one for being told so, it is reset here, and costs the workers nothing.
struct Door<C> {
    options: Options<C>,
    places: Arc<Semaphore>,
}

impl<C> Door<C> {
    fn admits(&self) -> bool {
        self.places.available_permits() > 0 || self.options.turned_away.has_place()
    }

    fn shut(&self, stream: &StdStream) {
        self.options.count_turned_away();
        // Closed with this it is reset; a client that is gone needs nothing.
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}

async fn accept<C>(
    listener: StdListener,
    role: Arc<Role>,
    hands: Vec<Hand>,
    door: Door<C>,
    closing: CancellationToken,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the listener cannot be used"),
    };
    let mut turn = hands.iter().cycle();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => return,
        };
        let handed = accepted.and_then(|(stream, _)| stream.into_std());
        match (handed, turn.next()) {
            (Ok(stream), _) if !door.admits() => door.shut(&stream),
            (Ok(stream), Some(hand)) => drop(hand.send((stream, Arc::clone(&role))).await),
            (Err(error), _) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Ok(_), None) => {}
        }
    }
}

/// Puts what was turned away into the ledger from time to time, until all listeners are closed.
async fn tell<C: CommitPort>(options: Options<C>, closing: [CancellationToken; 2]) {
    let [inbound, outbound] = closing;
    let all_closed = async {
        inbound.cancelled().await;
        outbound.cancelled().await;
    };
    tokio::pin!(all_closed);
    loop {
        let pause = tokio::time::sleep(Duration::from_millis(TURNED_AWAY_INTERVAL_MS));
        let is_last = tokio::select! {
            () = pause => false,
            () = &mut all_closed => true,
        };
        if let Some(submission) = options.turned_away.take() {
            say(options.port.clone(), submission).await;
        }
        if is_last {
            return;
        }
    }
}

async fn say<C: CommitPort>(mut port: C, submission: Submission) {
    let said = match poll_fn(|cx| port.poll_ready(cx)).await {
        Ok(()) => port.call(submission).await,
        Err(error) => Err(error),
    };
    if let Err(error) = said {
        tracing::warn!(%error, "connections were turned away, and the ledger does not have it");
    }
}

/// One worker: a task for each connection, until the listener's end is gone and the last task has ended.
async fn work<C: CommitPort>(
    options: Options<C>,
    places: Arc<Semaphore>,
    mut connections: Receiver<(StdStream, Arc<Role>)>,
) {
    let tcp = options.tcp;
    let mut stack = stack(Rc::new(options), places);
    let tasks = tokio_util::task::TaskTracker::new();
    while let Some((stream, role)) = connections.recv().await {
        match accepted(stream, tcp, role) {
            Ok(accepted) => {
                let Ok(stack) = stack.ready().await;
                tasks.spawn_local(stack.call(accepted));
            }
            // The client is gone already.
            Err(error) => tracing::debug!(%error, "a connection ended before it was served"),
        }
    }
    tasks.close();
    tasks.wait().await;
}

fn accepted(stream: StdStream, tcp: TcpOptions, role: Arc<Role>) -> io::Result<Accepted> {
    let client = TcpStream::from_std(stream)?;
    tcp.apply(&client)?;
    // A listener for both families knows IPv4 peers under mapped addresses, by which nobody would look for them.
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (client_address, listener_address) =
        (canonical(client.peer_addr()?), canonical(client.local_addr()?));
    Ok(Accepted { client, client_address, listener_address, role })
}
