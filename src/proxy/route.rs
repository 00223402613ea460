//! Where a connection goes: to the listener's fixed upstream, or to the address that its client dialled.
//!
//! The kernel tells the latter: by SO_ORIGINAL_DST behind a REDIRECT rule, by the socket's own address behind TPROXY. A connection that would come back to attestry
//! itself is refused here, whatever the rules say: it would open the next one, and so on.

use super::connect::Upstream;
use super::secure::TlsTerms;
use super::stack::DrainSignals;
use crate::generated::v1::Traffic;
use crate::generated::v1::connection_opened::Interception;
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What a listener is for.
pub struct Role {
    /// Where its connections go.
    pub route: Route,
    /// To the workload, or from it.
    pub traffic: Traffic,
    /// Ports of destinations whose protocol is not asked for.
    pub opaque_ports: Vec<u16>,
    /// What is done with TLS.
    pub tls: TlsTerms,
    /// Its end: the directions of traffic end at different times.
    pub drain: DrainSignals,
    /// How many connections it has.
    pub open: watch::Sender<usize>,
}

/// How a listener knows where its connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// It has one upstream.
    Fixed(Upstream),
    /// REDIRECT rules bring connections here.
    Redirect,
    /// TPROXY rules do, and the client's address is kept towards the server.
    Tproxy,
}

impl Route {
    pub(super) fn interception(&self) -> Interception {
        match self {
            Self::Fixed(_) => Interception::Fixed,
            Self::Redirect => Interception::Redirect,
            Self::Tproxy => Interception::Tproxy,
        }
    }
}

/// Where one connection goes.
pub(super) struct Way {
    pub(super) upstream: Upstream,
    /// What the client dialled, if the kernel told.
    pub(super) original: Option<SocketAddr>,
    /// The address to come from.
    pub(super) source: Option<IpAddr>,
}

/// Why a connection goes nowhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoWay {
    #[error(
        "not redirected: {0} dialled this listener itself; it serves connections that `attestry redirect` rules bring"
    )]
    Direct(SocketAddr),
    #[error("it would come back to attestry: its destination {0} is a listener of this process")]
    Loop(SocketAddr),
    #[error("the original destination cannot be told: {0}")]
    Unknown(io::Error),
}

/// Finds the way of a connection that `role`'s listener accepted. `own`: the addresses of all listeners of this process.
pub(super) fn way(
    role: &Role,
    socket: &TcpStream,
    client: SocketAddr,
    listener: SocketAddr,
    own: &[SocketAddr],
) -> Result<Way, NoWay> {
    let original = match &role.route {
        Route::Fixed(upstream) => {
            return Ok(Way { upstream: upstream.clone(), original: None, source: None });
        }
        Route::Redirect => original_destination(socket, listener).map_err(NoWay::Unknown)?,
        Route::Tproxy => Some(listener),
    };
    let original = original.map(canonical).ok_or(NoWay::Direct(client))?;
    if original == canonical(listener) && matches!(role.route, Route::Redirect) {
        return Err(NoWay::Direct(client));
    }
    if own.iter().any(|own| leads_to(original, *own, listener)) {
        return Err(NoWay::Loop(original));
    }
    let source = matches!(role.route, Route::Tproxy).then(|| canonical(client).ip());
    Ok(Way { upstream: Upstream::Address(original), original: Some(original), source })
}

/// What the client dialled before NAT; `None` where there was no NAT.
fn original_destination(socket: &TcpStream, listener: SocketAddr) -> io::Result<Option<SocketAddr>> {
    let socket = SockRef::from(socket);
    // A dual-stack socket has IPv4 clients under mapped addresses, and their NAT entries under IPv4.
    let told =
        if canonical(listener).is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match told {
        Ok(address) => Ok(address.as_socket()),
        // No entry, or no NAT at all on this machine.
        Err(error) if matches!(error.raw_os_error(), Some(ENOENT | ENOPROTOOPT)) => Ok(None),
        Err(error) => Err(error),
    }
}

const ENOENT: i32 = 2;
const ENOPROTOOPT: i32 = 92;

/// Whether a connection to `destination` reaches the listener bound to `own`, as far as addresses tell: this host's are those bound to, and those it was reached at.
fn leads_to(destination: SocketAddr, own: SocketAddr, reached_at: SocketAddr) -> bool {
    let own = canonical(own);
    let is_here = destination.ip().is_loopback() || destination.ip() == canonical(reached_at).ip();
    destination.port() == own.port()
        && (destination.ip() == own.ip() || (own.ip().is_unspecified() && is_here))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_is_a_listener_of_our_own_is_a_loop() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let everywhere = at("[::]:15001");
        for (destination, own, expected) in [
            ("127.0.0.1:15001", everywhere, true),
            ("10.0.0.5:15001", everywhere, true),
            ("10.0.0.6:15001", everywhere, false),
            ("10.0.0.5:15002", everywhere, false),
            ("10.0.0.5:15001", at("127.0.0.1:15001"), false),
            ("127.0.0.1:15001", at("127.0.0.1:15001"), true),
            ("[::1]:15001", everywhere, true),
        ] {
            let reached_at = at("[::ffff:10.0.0.5]:15001");
            assert_eq!(leads_to(at(destination), own, reached_at), expected, "{destination} at {own}");
        }
    }
}
