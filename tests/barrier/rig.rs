//! The relay between two sockets of the test, its commit port held: what goes in at one end, what has come out at the other, and when.

use crate::frames::Frame;
use crate::holding_port::{Answer, HoldingPort};
use crate::relay::{Relay, Terms};
use attestry::capture::Limits;
use attestry::entry::{CommitError, Receipt};
use attestry::http2::UnitLimits;
use attestry::proxy::{DrainSignals, Listeners};
use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A direction of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// And back.
    Down,
}

impl Way {
    pub fn back(self) -> Self {
        if self == Self::Up { Self::Down } else { Self::Up }
    }
}

/// Looks at each arrival: the direction, and how many bytes have come in it altogether.
pub type Watch = Arc<dyn Fn(Way, &[u8]) + Send + Sync>;

/// A relay with one connection through it.
pub struct Rig {
    pub port: HoldingPort,
    client: End,
    server: End,
    /// What was sent and must arrive.
    sent: [Vec<u8>; 2],
    /// How much of it had arrived when that was last waited for.
    arrived: [Cell<usize>; 2],
    listeners: Option<Listeners>,
    drain: DrainSignals,
    /// The thread that answers whatever still comes, once the test does not care any more.
    answering: Option<JoinHandle<()>>,
    is_over: Arc<Mutex<bool>>,
}

impl Rig {
    /// A relay that holds at most `hold_bytes_max` in each direction, and a connection through it.
    pub fn start(hold_bytes_max: usize) -> Self {
        let nobody: Watch = Arc::new(|_, _| {});
        Self::watched(hold_bytes_max, &nobody)
    }

    /// The same, with an eye on everything that arrives.
    pub fn watched(hold_bytes_max: usize, watch: &Watch) -> Self {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = HoldingPort::default();
        let terms = Terms { limits: limits(), hold_bytes_max, redaction_key: [1; 32] };
        let relay = Relay::start(port.clone(), upstream.local_addr().unwrap(), &terms);
        let client = TcpStream::connect(relay.addr).unwrap();
        let (server, _) = upstream.accept().unwrap();
        Self {
            port,
            client: End::new(client, Way::Down, watch),
            server: End::new(server, Way::Up, watch),
            sent: [Vec::new(), Vec::new()],
            arrived: [Cell::new(0), Cell::new(0)],
            listeners: Some(relay.listeners),
            drain: relay.drain,
            answering: None,
            is_over: Arc::default(),
        }
    }

    /// Sends bytes that must arrive.
    pub fn send(&mut self, way: Way, bytes: &[u8]) {
        self.sent[way as usize].extend(bytes);
        self.send_only(way, bytes);
    }

    /// Sends bytes that need not. A socket that the relay has closed takes none, and that is all right too.
    pub fn send_only(&mut self, way: Way, bytes: &[u8]) {
        let end = if way == Way::Up { &self.client } else { &self.server };
        let mut stream = end.stream.try_clone().unwrap();
        let bytes = bytes.to_vec();
        // A flood does not fit into the sockets, and its writer must not be what everything waits for.
        let mut write = move || drop(stream.write_all(&bytes));
        if self.sent[way as usize].len() > 100_000 { drop(thread::spawn(write)) } else { write() }
    }

    /// A handle for writing from another thread.
    pub fn writer(&self, way: Way) -> TcpStream {
        let end = if way == Way::Up { &self.client } else { &self.server };
        end.stream.try_clone().unwrap()
    }

    /// Waits for the next submission that nobody has answered, and answers it.
    pub fn commit_next(&self) {
        let next = |held: &[crate::holding_port::Held]| held.iter().position(|held| !held.is_answered());
        assert!(self.port.wait(PATIENCE, |held| next(held).is_some()), "no submission comes");
        let number = next(&self.port.held()).unwrap();
        self.port.commit(number);
    }

    /// From here on, every submission is committed at once.
    pub fn commit_all(&mut self) {
        self.answer_all(Ok(Receipt::Committed { size: 1 }));
    }

    /// From here on, every submission is refused.
    pub fn refuse_the_rest(&mut self, reason: &str) {
        self.answer_all(Err(CommitError::Refusing(reason.to_owned())));
    }

    fn answer_all(&mut self, answer: Answer) {
        let (port, is_over) = (self.port.clone(), Arc::clone(&self.is_over));
        self.answering.get_or_insert_with(|| {
            thread::spawn(move || {
                while !*is_over.lock().unwrap() {
                    let mut open = None;
                    port.wait(Duration::from_millis(20), |held| {
                        open = held.iter().position(|held| !held.is_answered());
                        open.is_some()
                    });
                    if let Some(number) = open {
                        port.answer(number, answer.clone(), |_| {});
                    }
                }
            })
        });
    }

    /// Waits until all that was sent has arrived, verbatim, and nothing more has.
    pub fn arrives(&self, way: Way) {
        let sent = &self.sent[way as usize];
        let received = self.wait_for(way, |bytes| bytes.len() >= sent.len());
        assert!(received == *sent, "{way:?}: other bytes came out, or more");
        self.arrived[way as usize].set(received.len());
    }

    /// Waits until what has arrived is `enough`.
    pub fn wait_for(&self, way: Way, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let end = self.end_of(way);
        let inbox = end.inbox.wait(PATIENCE, |inbox| enough(&inbox.bytes));
        assert!(
            enough(&inbox.bytes),
            "{way:?}: only {} bytes arrived, ended: {}",
            inbox.bytes.len(),
            inbox.has_ended
        );
        inbox.bytes.clone()
    }

    /// Waits until the direction has ended; returns all that came.
    pub fn wait_for_end(&self, way: Way) -> Vec<u8> {
        let inbox = self.end_of(way).inbox.wait(PATIENCE, |inbox| inbox.has_ended);
        assert!(inbox.has_ended, "{way:?}: the connection stays open");
        inbox.bytes.clone()
    }

    /// What has arrived so far.
    pub fn received(&self, way: Way) -> Vec<u8> {
        self.end_of(way).inbox.lock().bytes.clone()
    }

    /// For so long, nothing more arrives than what had arrived when the last [`Rig::arrives`] of this direction returned.
    pub fn is_silent(&self, way: Way, bound: Duration) {
        let before = self.arrived[way as usize].get();
        assert!(before < self.sent[way as usize].len(), "there is something that could come");
        let inbox = self.end_of(way).inbox.wait(bound, |inbox| inbox.bytes.len() > before);
        let early = inbox.bytes.len() - before;
        assert!(early == 0, "{way:?}: {early} bytes came early");
    }

    fn end_of(&self, way: Way) -> &End {
        if way == Way::Up { &self.server } else { &self.client }
    }

    /// Ends the connection and the relay.
    pub fn end(mut self) {
        self.close();
    }

    fn close(&mut self) {
        for end in [&self.client, &self.server] {
            let _ = end.stream.shutdown(Shutdown::Both);
        }
        self.commit_all();
        self.drain.started.cancel();
        self.drain.expired.cancel();
        if let Some(listeners) = self.listeners.take() {
            listeners.join();
        }
        *self.is_over.lock().unwrap() = true;
        if let Some(answering) = self.answering.take() {
            answering.join().unwrap();
        }
        let failed = [&mut self.client, &mut self.server].map(|end| end.reader.take().map(JoinHandle::join));
        let failed = failed.into_iter().flatten().any(|reader| reader.is_err());
        assert!(!failed || thread::panicking(), "a watch has failed");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.listeners.is_some() {
            self.close();
        }
    }
}

/// The frames in `bytes`, as far as they are whole.
pub fn frames_of(bytes: &[u8]) -> Vec<Frame> {
    let mut rest = bytes;
    let mut frames = Vec::new();
    while let Some(frame) = Frame::parse(rest) {
        rest = &rest[frame.wire_len()..];
        frames.push(frame);
    }
    frames
}

fn limits() -> Limits {
    let units =
        UnitLimits { frame_bytes_max: 1 << 20, header_list_bytes_max: 1 << 20, continuations_max: 1_000 };
    Limits { units, streams_max: 1_000 }
}

/// One socket of the test, drained all the time.
struct End {
    stream: TcpStream,
    inbox: Arc<Inbox>,
    reader: Option<JoinHandle<()>>,
}

impl End {
    fn new(stream: TcpStream, way: Way, watch: &Watch) -> Self {
        stream.set_nodelay(true).unwrap();
        let inbox = Arc::new(Inbox::default());
        let (mut source, target, watch) =
            (stream.try_clone().unwrap(), Arc::clone(&inbox), Arc::clone(watch));
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            let _end = Ending(Arc::clone(&target));
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                let mut content = target.lock();
                content.bytes.extend(&buffer[..count]);
                watch(way, &content.bytes);
                target.changed.notify_all();
            }
        });
        Self { stream, inbox, reader: Some(reader) }
    }
}

/// Says that nothing more comes, also where a watch has failed.
struct Ending(Arc<Inbox>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().has_ended = true;
        self.0.changed.notify_all();
    }
}

#[derive(Default)]
struct Inbox {
    content: Mutex<Content>,
    changed: Condvar,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    has_ended: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, bound: Duration, enough: impl Fn(&Content) -> bool) -> MutexGuard<'_, Content> {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), bound, |content| !enough(content) && !content.has_ended);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
