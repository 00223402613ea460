//! TLS on either side of a connection: handshakes, and what the ledger is told of them.
//!
//! Invariants: a session's peer was verified with the credentials that the session was begun with; a handshake that fails ends in a TLS alert wherever
//! one can be sent, and always in a record that says why; each handshake is bounded in time. Sessions are never resumed and early data is never
//! taken, so each session has a verification of its own. The live session is `link`'s, certificates are `crate::credentials`', and which side speaks TLS at all is decided in `stack`.

mod link;
#[cfg(test)]
mod tests;

pub(super) use link::TlsLink;

use super::local::linger;
use crate::credentials::{ClientSide, ServerSide};
use crate::generated::v1;
use crate::tls::ClientHello;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConnection, Connection, ServerConnection};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Names of protocols that an entry repeats of a ClientHello, which could carry thousands.
const ALPN_RECORDED_MAX: usize = 32;

/// TLS 1.2, as a ClientHello writes it.
const VERSION_MIN: u16 = 0x0303;

/// A handshake that came to nothing. The socket is closed, its peer has been told.
#[derive(Debug, thiserror::Error)]
#[error("{}", .tls.failure)]
pub(super) struct TlsFailed {
    /// What was learnt, with the reason in `failure`.
    pub(super) tls: Box<v1::Tls>,
    /// The alert for the other side of the connection, if that one is still waiting for its own handshake: what this peer has sent, else `internal_error`.
    pub(super) alert: AlertDescription,
}

/// Serves TLS to a client whose first bytes, `early`, have been read and are `hello`. Of `alpn` the first that the client offers is chosen; an empty list answers without ALPN.
pub(super) async fn accept(
    tcp: TcpStream,
    early: &[u8],
    side: &ServerSide,
    alpn: &[Vec<u8>],
    hello: &ClientHello,
    limit: Duration,
) -> Result<(TlsLink, v1::Tls), TlsFailed> {
    if hello.versions.iter().all(|&version| version < VERSION_MIN) {
        // rustls would complain of what such a client does not say; this is what it can understand.
        return Err(refuse(
            tcp,
            hello,
            AlertDescription::ProtocolVersion,
            "the client offers TLS 1.1 at the most",
        )
        .await);
    }
    let mut tls = described(hello);
    tls.terminated = true;
    let mut config = side.config();
    if config.alpn_protocols != alpn {
        Arc::make_mut(&mut config).alpn_protocols = alpn.to_vec();
    }
    let link = match ServerConnection::new(config) {
        Ok(session) => TlsLink::new(tcp, Connection::Server(session), early),
        Err(error) => return Err(failed(tls, &io::Error::other(error))),
    };
    let ended = shake_hands(&link, limit).await;
    finish(link, tls, ended, |chain| side.verified_peer(chain)).await
}

/// Speaks TLS to a server as `name`, offering `alpn`.
pub(super) async fn originate(
    tcp: TcpStream,
    side: &ClientSide,
    name: &str,
    alpn: Vec<Vec<u8>>,
    limit: Duration,
) -> Result<(TlsLink, v1::Tls), TlsFailed> {
    let tls = v1::Tls {
        side: v1::Side::Server.into(),
        terminated: true,
        alpn_offered: texts(&alpn),
        ..Default::default()
    };
    let session = match server_name(name) {
        Ok(asked) => {
            let mut config = side.config();
            if config.alpn_protocols != alpn {
                Arc::make_mut(&mut config).alpn_protocols = alpn;
            }
            ClientConnection::new(config, asked).map_err(io::Error::other)
        }
        Err(error) => Err(error),
    };
    let link = match session {
        Ok(session) => TlsLink::new(tcp, Connection::Client(session), &[]),
        Err(error) => return Err(failed(tls, &error)),
    };
    let tls = v1::Tls { server_name: name.to_owned(), ..tls };
    let ended = shake_hands(&link, limit).await;
    finish(link, tls, ended, |chain| side.verified_peer(chain)).await
}

/// Ends a client's handshake before its answer, with `alert` (RFC 8446 section 6.2), because `reason`.
pub(super) async fn refuse(
    tcp: TcpStream,
    hello: &ClientHello,
    alert: AlertDescription,
    reason: &str,
) -> TlsFailed {
    // Before any keys an alert is a plaintext record: alert, TLS 1.2, two bytes, fatal, code. A fresh socket takes it whole.
    let record = [0x15, 3, 3, 0, 2, 2, u8::from(alert)];
    if tcp.writable().await.is_ok() {
        let _ = tcp.try_write(&record);
    }
    linger(&tcp).await;
    let failure = format!("answered with the alert {}: {reason}", alert_name(alert));
    let tls = v1::Tls { terminated: true, failure, ..described(hello) };
    TlsFailed { tls: Box::new(tls), alert }
}

/// What a ClientHello says, for TLS that is passed on unopened as well.
pub(super) fn described(hello: &ClientHello) -> v1::Tls {
    v1::Tls {
        side: v1::Side::Client.into(),
        server_name: hello.server_name.clone().unwrap_or_default(),
        alpn_offered: texts(&hello.alpn),
        ja4: hello.ja4.clone(),
        ..Default::default()
    }
}

fn texts(names: &[Vec<u8>]) -> Vec<String> {
    names.iter().take(ALPN_RECORDED_MAX).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        let reason =
            format!("{name:?} is neither a host name nor an address that TLS can ask for: set upstream_name");
        io::Error::new(io::ErrorKind::InvalidInput, reason)
    })
}

async fn shake_hands(link: &TlsLink, limit: Duration) -> io::Result<()> {
    let whole = poll_fn(|cx| poll_handshake(link, cx));
    timeout(limit, whole).await.unwrap_or_else(|_| {
        let reason = format!("not finished within {} ms (tls.handshake_timeout_ms)", limit.as_millis());
        Err(io::Error::new(io::ErrorKind::TimedOut, reason))
    })
}

fn poll_handshake(link: &TlsLink, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    loop {
        // An answer that is written may be all that the peer waits for; and it needs no more of the peer once the last one is out.
        ready!(link.poll_flush(cx))?;
        if !link.is_handshaking() {
            return Poll::Ready(Ok(()));
        }
        ready!(link.poll_read_ready(cx));
        match link.take_in() {
            Ok(true) => {}
            Ok(false) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

async fn finish(
    link: TlsLink,
    mut tls: v1::Tls,
    ended: io::Result<()>,
    verified_peer: impl Fn(&[rustls::pki_types::CertificateDer<'static>]) -> Option<v1::VerifiedPeer>,
) -> Result<(TlsLink, v1::Tls), TlsFailed> {
    if let Err(error) = ended {
        linger(link.tcp()).await;
        return Err(failed(tls, &error));
    }
    link.describe(&mut tls);
    tls.verified_peer = link.with_peer_certificates(verified_peer);
    Ok((link, tls))
}

fn failed(mut tls: v1::Tls, error: &io::Error) -> TlsFailed {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let (failure, alert) = match cause {
        Some(rustls::Error::AlertReceived(alert)) => {
            (format!("the peer sent the alert {}", alert_name(*alert)), *alert)
        }
        Some(cause) => (cause.to_string(), AlertDescription::InternalError),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            ("the peer ended the connection".to_owned(), AlertDescription::InternalError)
        }
        None => (error.to_string(), AlertDescription::InternalError),
    };
    tls.failure = failure;
    TlsFailed { tls: Box::new(tls), alert }
}

/// As the IANA registry "TLS Alerts" writes it, with its number: `unknown_ca(48)`.
fn alert_name(alert: AlertDescription) -> String {
    let mut name = String::new();
    for letter in format!("{alert:?}").chars() {
        if letter.is_ascii_uppercase()
            && !name.is_empty()
            && !name.ends_with(|c: char| c.is_ascii_uppercase())
        {
            name.push('_');
        }
        name.push(letter);
    }
    format!("{}({})", name.to_ascii_lowercase(), u8::from(alert))
}
