//! Accepting: one listener, and a worker thread per core, each with a runtime of its own, that its connections never leave.
//!
//! Connections are dealt to the workers in turn. (One listening socket per worker would let the kernel choose by a hash, which leaves workers idle where there are few connections,
//! and a sidecar has few.) The threads are named, counted, and joined by whoever stops the data path.

use super::CommitPort;
use super::stack::{Accepted, Options, stack};
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

/// Connections on their way from the listener to a worker. A worker takes them at once.
const HANDOFF_MAX: usize = 128;

/// Pause after an accept that failed for want of descriptors or memory, so that others can finish and free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The data path's threads.
pub struct Listeners {
    address: SocketAddr,
    closing: CancellationToken,
    accept: JoinHandle<()>,
    workers: Vec<JoinHandle<()>>,
}

/// A listening socket; separate from the threads, so that an address in use is known before anything else is started.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Listeners {
    /// Starts `workers` threads that serve what `listener` accepts until it is closed, and then what they have until it has ended.
    pub fn start<C>(listener: StdListener, workers: NonZeroUsize, options: &Options<C>) -> io::Result<Self>
    where
        C: CommitPort + Send,
    {
        let address = listener.local_addr()?;
        let places = Arc::new(Semaphore::new(options.connections_max));
        let (mut threads, mut hands) = (Vec::new(), Vec::new());
        for number in 0..workers.get() {
            let (hand, connections) = channel(HANDOFF_MAX);
            let (options, places) = (options.clone(), Arc::clone(&places));
            hands.push(hand);
            threads.push(spawn(format!("proxy-{number}"), move || work(options, places, connections))?);
        }
        let closing = CancellationToken::new();
        let closed = closing.clone();
        let accept = spawn("accept".into(), move || accept(listener, hands, closed))?;
        Ok(Self { address, closing, accept, workers: threads })
    }

    /// The address that connections are accepted on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener: when this returns, connections are refused. Those that are there go on.
    pub fn close(self) -> Closed {
        self.closing.cancel();
        let _ = self.accept.join();
        Closed { workers: self.workers }
    }
}

/// The data path without its listener.
pub struct Closed {
    workers: Vec<JoinHandle<()>>,
}

impl Closed {
    /// Waits until every connection has ended; drain must have been asked for.
    pub fn join(self) {
        for thread in self.workers {
            let _ = thread.join();
        }
    }
}

fn spawn<F: std::future::Future<Output = ()> + 'static>(
    name: String,
    run: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    thread::Builder::new().name(name).spawn(move || LocalSet::new().block_on(&runtime, run()))
}

async fn accept(listener: StdListener, hands: Vec<Sender<StdStream>>, closing: CancellationToken) {
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
            (Ok(stream), Some(hand)) => drop(hand.send(stream).await),
            (Err(error), _) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Ok(_), None) => {}
        }
    }
}

/// One worker: a task for each connection, until the listener's end is gone and the last task has ended.
async fn work<C: CommitPort>(
    options: Options<C>,
    places: Arc<Semaphore>,
    mut connections: Receiver<StdStream>,
) {
    let mut stack = stack(Rc::new(options), places);
    let tasks = tokio_util::task::TaskTracker::new();
    while let Some(stream) = connections.recv().await {
        match accepted(stream) {
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

fn accepted(stream: StdStream) -> io::Result<Accepted> {
    let client = TcpStream::from_std(stream)?;
    client.set_nodelay(true)?;
    let (client_address, listener_address) = (client.peer_addr()?, client.local_addr()?);
    Ok(Accepted { client, client_address, listener_address })
}
