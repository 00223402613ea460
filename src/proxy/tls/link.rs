//! A live TLS session over a socket, in the shape in which the relay uses a socket: readiness is polled, and nothing waits.
//!
//! Invariants: `try_write_vectored` claims only what the session has taken, and the session holds a bounded amount; what was decrypted before an
//! error or an end is given out before it. One task uses a link, both directions through `&self`, so the session stands in a `RefCell` that no borrow leaves.
//! The handshake is driven by `super`, through `take_in` and `poll_flush`.

use crate::generated::v1;
use bytes::{Buf as _, BytesMut};
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, Connection, ProtocolVersion};
use socket2::SockRef;
use std::cell::RefCell;
use std::io::{self, BufRead as _, IoSlice, Write};
use std::net::Shutdown;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Ciphertext taken from the socket at a time. The session itself would read 4 KiB at a time, four reads for each record.
const READ_BYTES: usize = 64 * 1024;

/// Plaintext that the session takes while the socket takes no ciphertext.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// A connected peer that speaks TLS with attestry.
pub(in crate::proxy) struct TlsLink {
    tcp: TcpStream,
    session: RefCell<Session>,
}

struct Session {
    tls: Connection,
    /// Ciphertext that was read and not yet taken by `tls`.
    input: BytesMut,
    /// The socket has come to its end.
    has_ended: bool,
    /// Why the session cannot be read any more, once that is so.
    broken: Option<rustls::Error>,
    closing: Closing,
}

/// How far this side's end has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    /// The socket's sending side is to be shut behind what `tls` still has to write.
    Asked,
    Done,
}

impl TlsLink {
    /// `early` is what was read from the socket before.
    pub(super) fn new(tcp: TcpStream, mut tls: Connection, early: &[u8]) -> Self {
        tls.set_buffer_limit(Some(WRITE_BYTES_MAX));
        let input = BytesMut::from(early);
        let session = Session { tls, input, has_ended: false, broken: None, closing: Closing::No };
        Self { tcp, session: RefCell::new(session) }
    }

    /// The socket underneath.
    pub(in crate::proxy) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The socket, without the session.
    pub(in crate::proxy) fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    /// Whether a read may bring something. What the session holds counts, not only what the socket has.
    pub(in crate::proxy) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let session = &mut *self.session.borrow_mut();
        let is_ready = session.has_ended
            || session.broken.is_some()
            || !session.input.is_empty()
            || !would_block(&session.tls.reader().fill_buf());
        if is_ready { Poll::Ready(()) } else { self.tcp.poll_read_ready(cx).map(|_| ()) }
    }

    /// Whether a write may take something: all that was taken before is with the socket.
    pub(in crate::proxy) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is the next write's to report.
        self.poll_flush(cx).map(|_| ())
    }

    /// Reads plaintext into the spare capacity of `buffer`. `Ok(0)` is the peer's end: its close_notify, or the socket's end without one, see `ended_without_close_notify`.
    pub(in crate::proxy) fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        if buffer.len() == buffer.capacity() {
            buffer.reserve(READ_BYTES);
        }
        let (before, mut has_read) = (buffer.len(), false);
        loop {
            let ended = self.session.borrow_mut().give_out(buffer);
            let given = buffer.len() - before;
            if given > 0 && (buffer.len() == buffer.capacity() || self.session.borrow().input.is_empty()) {
                return Ok(given);
            }
            match ended {
                Ok(false) => {}
                Ok(true) | Err(_) if given > 0 => return Ok(given),
                Ok(true) => return Ok(0),
                Err(error) => return Err(error),
            }
            if self.session.borrow().input.is_empty() && std::mem::replace(&mut has_read, true) {
                // What the socket had was no plaintext. There may be more of it without end, and others on this thread wait.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            match self.take_in() {
                Ok(_) => {}
                // What was decrypted before the damage comes first, then `give_out` reports it.
                Err(_) if self.session.borrow().broken.is_some() => {}
                Err(_) if given > 0 => return Ok(given),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the peer's side has ended at the socket alone. The peer may have meant it so, as many do; but anybody on the way could have cut the connection there.
    pub(in crate::proxy) fn ended_without_close_notify(&self) -> bool {
        let session = &mut *self.session.borrow_mut();
        session.has_ended && !matches!(session.tls.reader().fill_buf(), Ok([]))
    }

    /// Writes once; returns the bytes that the session has taken. Some of them may still be on their way to the socket: `poll_flush`.
    pub(in crate::proxy) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let session = &mut *self.session.borrow_mut();
        if session.closing != Closing::No {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        session.write_out(&self.tcp)?;
        let taken = session.tls.writer().write_vectored(slices)?;
        // A socket that is broken by now has taken nothing of this; the next write or flush reports it.
        let _ = session.write_out(&self.tcp);
        if taken == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(taken)
    }

    /// Gives the socket what the session has to send, answers to the peer's own messages included; then what `shutdown_write` has asked for.
    pub(in crate::proxy) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let session = &mut *self.session.borrow_mut();
        loop {
            match session.write_out(&self.tcp) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.tcp.poll_write_ready(cx)?.is_pending() {
                        return Poll::Pending;
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        session.finish_closing(&self.tcp);
        Poll::Ready(Ok(()))
    }

    /// Whether the socket has all that the session has to send.
    pub(in crate::proxy) fn is_flushed(&self) -> bool {
        let session = self.session.borrow();
        !session.tls.wants_write() && session.closing != Closing::Asked
    }

    /// Ends this side's sending with a close_notify (RFC 8446 section 6.1) behind everything written, then at the socket. `poll_flush` completes it.
    pub(in crate::proxy) fn shutdown_write(&self) {
        self.session.borrow_mut().tls.send_close_notify();
        self.cut_write();
    }

    /// Ends this side's sending at the socket alone: for an end that nobody has vouched for, see `ended_without_close_notify`.
    pub(in crate::proxy) fn cut_write(&self) {
        let session = &mut *self.session.borrow_mut();
        if session.closing == Closing::No {
            session.closing = Closing::Asked;
        }
        if session.write_out(&self.tcp).is_ok() {
            session.finish_closing(&self.tcp);
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.session.borrow().tls.is_handshaking()
    }

    /// Lets the session have more ciphertext, of the socket if none is left here. False at the socket's end.
    pub(super) fn take_in(&self) -> io::Result<bool> {
        let session = &mut *self.session.borrow_mut();
        if session.input.is_empty() && !session.has_ended {
            session.has_ended = !read_some(&self.tcp, &mut session.input)?;
        }
        let decrypted = session.decrypt();
        if decrypted.is_err() {
            // The alert that says why. It is a few bytes, which a socket that has room takes whole; the relay may not come round to flushing again.
            let _ = session.write_out(&self.tcp);
        }
        decrypted.map(|()| !session.has_ended)
    }

    /// Says what the handshake has settled.
    pub(super) fn describe(&self, tls: &mut v1::Tls) {
        let session = &self.session.borrow().tls;
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        tls.alpn = session.alpn_protocol().map(text).unwrap_or_default();
        tls.version = session.protocol_version().map(version_name).unwrap_or_default();
        tls.cipher_suite =
            session.negotiated_cipher_suite().map(|suite| suite_name(suite.suite())).unwrap_or_default();
    }

    /// Looks at the chain that the peer has shown; `None` where it has shown none.
    pub(super) fn with_peer_certificates<T>(
        &self,
        look: impl Fn(&[CertificateDer<'static>]) -> Option<T>,
    ) -> Option<T> {
        self.session.borrow().tls.peer_certificates().and_then(look)
    }
}

impl Session {
    /// Moves plaintext into the spare capacity. True at the peer's end.
    fn give_out(&mut self, buffer: &mut BytesMut) -> io::Result<bool> {
        let mut reader = self.tls.reader();
        loop {
            let room = buffer.capacity() - buffer.len();
            match reader.fill_buf() {
                Ok([]) => return Ok(true),
                _ if room == 0 => return Ok(false),
                Ok(chunk) => {
                    let length = chunk.len().min(room);
                    buffer.extend_from_slice(&chunk[..length]);
                    reader.consume(length);
                }
                Err(_) => break,
            }
        }
        match &self.broken {
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.clone())),
            // Ciphertext that is left may still bring the close_notify.
            None => Ok(self.has_ended && self.input.is_empty()),
        }
    }

    /// Lets the session have a part of the input: as much as it takes before its plaintext must be given out.
    fn decrypt(&mut self) -> io::Result<()> {
        while !self.input.is_empty() && would_block(&self.tls.reader().fill_buf()) {
            let mut rest: &[u8] = &self.input;
            let taken = self.tls.read_tls(&mut rest);
            match taken {
                // Behind a close_notify nothing is read (RFC 8446 section 6.1).
                Ok(0) => self.input.clear(),
                Ok(taken) => self.input.advance(taken),
                Err(error) => {
                    self.input.clear();
                    return Err(self.fail(rustls::Error::General(error.to_string())));
                }
            }
            if let Err(error) = self.tls.process_new_packets() {
                self.input.clear();
                return Err(self.fail(error));
            }
        }
        if self.input.is_empty() {
            // An idle connection keeps no buffer.
            self.input = BytesMut::new();
        }
        Ok(())
    }

    fn fail(&mut self, error: rustls::Error) -> io::Error {
        self.broken = Some(error.clone());
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    fn write_out(&mut self, tcp: &TcpStream) -> io::Result<()> {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut Socket(tcp))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    fn finish_closing(&mut self, tcp: &TcpStream) {
        if self.closing == Closing::Asked {
            // The peer may be gone already, and then knows.
            let _ = SockRef::from(tcp).shutdown(Shutdown::Write);
            self.closing = Closing::Done;
        }
    }
}

/// False at the socket's end.
fn read_some(tcp: &TcpStream, input: &mut BytesMut) -> io::Result<bool> {
    input.reserve(READ_BYTES);
    let room = input.capacity() - input.len();
    let read = tcp.try_read_buf(input)?;
    if 0 < read && read < room {
        // A short read has emptied the socket: saying so here saves a read that would only find that out.
        let _ = tcp.try_io(Interest::READABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
    }
    Ok(read > 0)
}

fn would_block(plaintext: &io::Result<&[u8]>) -> bool {
    plaintext.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// The socket as the session writes to it.
struct Socket<'a>(&'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn version_name(version: ProtocolVersion) -> String {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2".into(),
        ProtocolVersion::TLSv1_3 => "TLSv1.3".into(),
        other => format!("{other:?}"),
    }
}

/// The IANA name; rustls writes those of TLS 1.3 as `TLS13_...`.
fn suite_name(suite: CipherSuite) -> String {
    format!("{suite:?}").replacen("TLS13_", "TLS_", 1)
}
