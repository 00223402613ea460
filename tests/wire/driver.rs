//! A raw HTTP/2 peer for tests: it writes exact bytes, keeps every byte that it receives, and knows how its
//! connection ended. Nothing here follows HTTP/2's rules; a script decides each byte, each wait and each end.
//!
//! Invariants: a thread per peer drains its socket all the time, so a script never blocks the other side by not
//! reading; every wait is bounded by the peer's patience and fails as a [`Stall`] that says who waited for what.
//! Not here: frames as bytes (`frames.rs`), header blocks (`hpack.rs`), cases and the comparison of traces (`script.rs`).
#![allow(dead_code)] // Each test binary that takes this module in uses its own part of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::frames::{Frame, PREFACE};

/// The longest wait for one thing that a script expects, where nothing else was said. It bounds a failing test and
/// decides nothing else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const READ_BYTES: usize = 256 * 1024;

/// How a peer's incoming direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The other side closed or half-closed its connection in order.
    Fin,
    /// The other side reset the connection.
    Reset,
    /// This side reset the connection itself, so that what the other side did afterwards is not known.
    AbortedHere,
    /// The read failed otherwise.
    Failed(ErrorKind),
}

/// Everything that came in on one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: Option<End>,
}

impl Received {
    /// The frames from `at` on, and the bytes behind the last whole frame.
    pub(crate) fn frames(&self, at: usize) -> (Vec<Frame>, &[u8]) {
        let mut rest = self.bytes.get(at..).unwrap_or_default();
        let mut frames = Vec::new();
        while let Some(frame) = Frame::parse(rest) {
            rest = &rest[frame.wire_len()..];
            frames.push(frame);
        }
        (frames, rest)
    }
}

/// A script's wait that was not fulfilled: a fault of the case, or of what stands between the peers.
#[derive(Debug)]
pub(crate) struct Stall(pub String);

/// The result of one step of a script.
pub(crate) type Step<T = ()> = Result<T, Stall>;

/// One end of a connection under a script's control.
pub(crate) struct Peer {
    name: &'static str,
    socket: Socket,
    inbox: Arc<Inbox>,
    reader: Option<JoinHandle<()>>,
    taken: usize,
    sent_bytes: usize,
    closed: bool,
    patience: Duration,
}

enum Socket {
    /// The server side before the connection is accepted, which its first use does.
    Awaited(TcpListener),
    Open(Arc<TcpStream>),
    Gone,
}

#[derive(Default)]
struct Inbox {
    received: Mutex<Received>,
    changed: Condvar,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// A peer that has connected to `target`.
    pub(crate) fn connect(name: &'static str, target: SocketAddr, patience: Duration) -> Step<Self> {
        let stream = TcpStream::connect_timeout(&target, patience)
            .map_err(|error| Stall(format!("{name} could not connect to {target}: {error}")))?;
        let mut peer = Self::new(name, Socket::Gone, patience);
        peer.open(stream)?;
        Ok(peer)
    }

    /// A peer that accepts the next connection of `listener` when the script first uses it.
    pub(crate) fn awaiting(name: &'static str, listener: &TcpListener, patience: Duration) -> Step<Self> {
        let listener =
            listener.try_clone().map_err(|error| Stall(format!("{name} has no listener: {error}")))?;
        SockRef::from(&listener)
            .set_read_timeout(Some(patience))
            .map_err(|error| Stall(format!("{name} cannot bound its accept: {error}")))?;
        Ok(Self::new(name, Socket::Awaited(listener), patience))
    }

    fn new(name: &'static str, socket: Socket, patience: Duration) -> Self {
        let inbox = Arc::new(Inbox::default());
        Self { name, socket, inbox, reader: None, taken: 0, sent_bytes: 0, closed: false, patience }
    }

    /// Waits until the connection is there. Only needed where a script accepts before it does anything else.
    pub(crate) fn accept(&mut self) -> Step {
        self.stream().map(drop)
    }

    /// Writes the bytes at once.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Step {
        self.send_pieces(bytes, bytes.len().max(1))
    }

    /// Writes the bytes in pieces, each by a write of its own on a socket without Nagle's delay.
    pub(crate) fn send_pieces(&mut self, bytes: &[u8], piece_bytes: usize) -> Step {
        let stream = self.stream()?;
        for piece in bytes.chunks(piece_bytes) {
            let written = (&*stream).write_all(piece);
            written.map_err(|error| self.stall(&format!("to write {} bytes ({error})", piece.len())))?;
            self.sent_bytes += piece.len();
        }
        Ok(())
    }

    /// Takes the client's preface.
    pub(crate) fn preface(&mut self) -> Step {
        let start = self.taken;
        let bytes = self.wait("the client's preface", |received| {
            received.bytes.get(start..start + PREFACE.len()).map(<[u8]>::to_vec)
        })?;
        self.taken += bytes.len();
        (bytes == PREFACE).then_some(()).ok_or_else(|| self.stall("the client's preface, other bytes came"))
    }

    /// Takes the next frame.
    pub(crate) fn frame(&mut self) -> Step<Frame> {
        let start = self.taken;
        let frame = self.wait("a frame", |received| Frame::parse(&received.bytes[start..]))?;
        self.taken += frame.wire_len();
        Ok(frame)
    }

    /// Takes the next `count` frames.
    pub(crate) fn frames(&mut self, count: usize) -> Step<Vec<Frame>> {
        (0..count).map(|_| self.frame()).collect()
    }

    /// Takes frames up to the first of this type, which it returns.
    pub(crate) fn frame_of(&mut self, kind: u8) -> Step<Frame> {
        loop {
            let frame = self.frame()?;
            if frame.kind() == kind {
                return Ok(frame);
            }
        }
    }

    /// Waits until `count` bytes behind the frames taken so far have come, and does not take them.
    pub(crate) fn bytes_waiting(&mut self, count: usize) -> Step {
        let wanted = self.taken + count;
        self.wait(&format!("{count} more bytes"), |received| (received.bytes.len() >= wanted).then_some(()))
    }

    /// Waits for the end of the incoming direction, whatever comes before it.
    pub(crate) fn end(&mut self) -> Step<End> {
        self.stream()?;
        self.wait_on("the end of the connection", |received| received.end)
    }

    /// How many bytes have come in until now.
    pub(crate) fn received_len(&self) -> usize {
        self.inbox.lock().bytes.len()
    }

    /// Ends the outgoing direction with a FIN; what comes in is still received.
    pub(crate) fn half_close(&mut self) -> Step {
        let stream = self.stream()?;
        self.closed = true;
        match stream.shutdown(Shutdown::Write) {
            // The other side may have reset the connection already: then there is nothing left to close.
            Err(error) if error.kind() != ErrorKind::NotConnected => {
                Err(self.stall(&format!("to close ({error})")))
            }
            _ => Ok(()),
        }
    }

    /// Resets the connection (RST): nothing more is sent or received.
    pub(crate) fn abort(&mut self) -> Step {
        let stream = self.stream()?;
        self.closed = true;
        self.socket = Socket::Gone;
        SockRef::from(&*stream)
            .set_linger(Some(Duration::ZERO))
            .map_err(|error| self.stall(&format!("to set SO_LINGER ({error})")))?;
        // The reset leaves with the last handle, so the reader has to let go of its own first. A shutdown of the
        // reading half wakes it and puts nothing on the wire.
        let _ = stream.shutdown(Shutdown::Read);
        self.join();
        self.inbox.lock().end = Some(End::AbortedHere);
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// All that this peer has received until now.
    pub(crate) fn received(&self) -> Received {
        self.inbox.lock().clone()
    }

    fn stream(&mut self) -> Step<Arc<TcpStream>> {
        if let Socket::Awaited(listener) = &self.socket {
            let accepted = listener.accept();
            let (stream, _) = accepted.map_err(|error| self.stall(&format!("for a connection ({error})")))?;
            self.open(stream)?;
        }
        match &self.socket {
            Socket::Open(stream) => Ok(Arc::clone(stream)),
            _ => Err(self.stall("to use a connection that its script has ended")),
        }
    }

    fn open(&mut self, stream: TcpStream) -> Step {
        let ready = stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(self.patience)));
        ready.map_err(|error| self.stall(&format!("to prepare its socket ({error})")))?;
        let stream = Arc::new(stream);
        let (source, inbox) = (Arc::clone(&stream), Arc::clone(&self.inbox));
        self.reader = Some(thread::spawn(move || drain(&source, &inbox)));
        self.socket = Socket::Open(stream);
        Ok(())
    }

    /// Waits for `ready`; the connection's end before it is a stall, since then it can no longer come.
    fn wait<T>(&mut self, what: &str, ready: impl Fn(&Received) -> Option<T>) -> Step<T> {
        self.stream()?;
        let found = self.wait_on(what, |received| {
            let found = ready(received);
            (found.is_some() || received.end.is_some()).then_some(found)
        })?;
        found.ok_or_else(|| self.stall(&format!("{what}, but the connection ended")))
    }

    fn wait_on<T>(&self, what: &str, ready: impl Fn(&Received) -> Option<T>) -> Step<T> {
        let until = Instant::now() + self.patience;
        let mut received = self.inbox.lock();
        loop {
            if let Some(found) = ready(&received) {
                return Ok(found);
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                drop(received);
                return Err(self.stall(what));
            };
            received =
                self.inbox.changed.wait_timeout(received, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn stall(&self, wanted: &str) -> Stall {
        let received = self.inbox.lock();
        let (untaken, partial) = received.frames(self.taken);
        let (end, sent) = (received.end, self.sent_bytes);
        Stall(format!(
            "{} waited in vain {wanted}; sent {sent} bytes, end {end:?}, frames not yet taken {:?}, then {} bytes",
            self.name,
            &untaken[..untaken.len().min(8)],
            partial.len()
        ))
    }

    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Socket::Open(stream) = &self.socket {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.socket = Socket::Gone;
        self.join();
    }
}

fn drain(mut source: &TcpStream, inbox: &Inbox) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let end = match source.read(&mut buffer) {
            Ok(0) => Some(End::Fin),
            Ok(count) => {
                inbox.lock().bytes.extend(&buffer[..count]);
                None
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(End::Reset),
            Err(error) => Some(End::Failed(error.kind())),
        };
        if end.is_some() {
            inbox.lock().end = end;
        }
        inbox.changed.notify_all();
        if end.is_some() {
            return;
        }
    }
}
