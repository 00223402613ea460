//! One side of a connection as the data path sees it: TCP, or TLS over it.
//!
//! Both directions of a connection use both links, from one task, so everything works through `&self`: what is ready is polled, what is done never waits. The
//! TLS session itself, and how it comes about, is `tls`'s.

use super::tls::TlsLink;
use crate::limits::CLOSE_ACKNOWLEDGED_MS;
use bytes::BytesMut;
use socket2::{SockRef, Socket};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Shutdown};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// A connected peer.
pub(super) enum Link {
    /// Its bytes as they are.
    Plain(TcpStream),
    /// Its bytes in TLS records, which end here.
    Tls(Box<TlsLink>),
}

/// What every socket of the data path is given.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions {
    /// Silence after which the peer is asked whether it is still there; `None`: never.
    pub keepalive: Option<Duration>,
    /// Longest wait for an acknowledgement of sent bytes; `None`: what the kernel does by itself.
    pub user_timeout: Option<Duration>,
    /// SO_MARK of connections to upstreams, by which rules tell them from the workload's own.
    pub mark: Option<u32>,
}

/// Unanswered probes after which a silent peer counts as gone.
const KEEPALIVE_PROBES: u32 = 9;

impl TcpOptions {
    /// Sets them, and sends small segments at once: a proxy that waits for more to send adds 40 ms to each call.
    pub(super) fn apply(&self, socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let socket = SockRef::from(socket);
        // An urgent byte is a byte like any other here: out of line it would not be read at all.
        socket.set_out_of_band_inline(true)?;
        if let Some(silence) = self.keepalive {
            let (time, interval) = (whole_seconds(silence), whole_seconds(silence / 4));
            let probes = socket2::TcpKeepalive::new().with_time(time).with_interval(interval);
            socket.set_tcp_keepalive(&probes.with_retries(KEEPALIVE_PROBES))?;
        }
        socket.set_tcp_user_timeout(self.user_timeout)
    }
}

/// The kernel counts these waits in seconds, and takes no zero.
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

/// Lets a socket have an address that is not this host's (TPROXY).
pub(super) fn make_transparent(socket: &Socket, address: IpAddr) -> io::Result<()> {
    if address.is_ipv4() { socket.set_ip_transparent_v4(true) } else { socket.set_ip_transparent_v6(true) }
}

impl Link {
    /// The socket underneath.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.tcp(),
        }
    }

    /// Whether TLS is spoken.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether a read may bring something.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(tcp) => tcp.poll_read_ready(cx).map(|_| ()),
            Self::Tls(tls) => tls.poll_read_ready(cx),
        }
    }

    /// Whether a write may take something.
    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(tcp) => tcp.poll_write_ready(cx).map(|_| ()),
            Self::Tls(tls) => tls.poll_write_ready(cx),
        }
    }

    /// Reads once into the spare capacity of `buffer`; `Ok(0)` is the peer's end.
    pub(super) fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => {
                let room = buffer.capacity() - buffer.len();
                let read = tcp.try_read_buf(buffer)?;
                if 0 < read && read < room {
                    // A short read has emptied the socket: saying so here saves a read that would only find that out. What comes later makes an event of its own.
                    let empty = || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into());
                    let _ = tcp.try_io(Interest::READABLE, empty);
                }
                Ok(read)
            }
            Self::Tls(tls) => tls.try_read(buffer),
        }
    }

    /// Writes once; returns the bytes taken.
    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write_vectored(slices),
            Self::Tls(tls) => tls.try_write_vectored(slices),
        }
    }

    /// Gives the socket what a TLS session still has to send; ready when that is nothing.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Whether a TLS session has nothing left to send.
    pub(super) fn is_flushed(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => tls.is_flushed(),
        }
    }

    /// Whether the peer's end is its own: TLS has a word for it, without which anybody on the way may have cut the connection (RFC 8446 section 6.1).
    pub(super) fn has_ended_in_good_order(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => !tls.ended_without_close_notify(),
        }
    }

    /// Ends this side's sending behind everything written, as the other side's sending ended.
    pub(super) fn shutdown_write(&self, in_good_order: bool) {
        match self {
            // The peer may be gone already, and then knows.
            Self::Plain(tcp) => drop(SockRef::from(tcp).shutdown(Shutdown::Write)),
            Self::Tls(tls) if in_good_order => tls.shutdown_write(),
            Self::Tls(tls) => tls.cut_write(),
        }
    }

    /// Ends the connection so that the peer sees a reset.
    pub(super) fn reset(self) {
        let _ = self.tcp().set_zero_linger();
    }

    /// Closes the socket when the peer has acknowledged everything, or the time for that is over. A socket that was closed before belongs to no user any more, and redirect
    /// rules that know the sidecar by its user would take what it still sends for the workload's.
    pub(super) async fn close_acknowledged(self) {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.into_tcp(),
        };
        let Ok(socket) = tcp.into_std() else { return };
        let limit = Duration::from_millis(CLOSE_ACKNOWLEDGED_MS);
        if SockRef::from(&socket).set_linger(Some(limit)).is_ok() {
            // Such a close waits in the kernel, so not on this thread.
            let _ = tokio::task::spawn_blocking(move || drop(socket)).await;
        }
    }

    /// Resolves when the kernel knows that the connection is broken, whether or not anything is read or written.
    pub(super) async fn broken(&self) {
        let _ = self.tcp().ready(Interest::ERROR).await;
    }
}
