//! The upstream: where a connection goes, and the attempt to get there.

use super::link::{TcpOptions, make_transparent};
use super::route::Way;
use socket2::SockRef;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

/// An upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// By address.
    Address(SocketAddr),
    /// By name, resolved anew for each connection.
    Name(String, u16),
}

impl Upstream {
    /// The host, as a certificate would name it.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Address(address) => address.ip().to_string(),
            Self::Name(host, _) => host.clone(),
        }
    }

    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(out),
            Self::Name(host, port) => write!(out, "{host}:{port}"),
        }
    }
}

/// Why there is no connection, as the client is told it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("attestry: upstream {upstream} did not answer within {} ms", .timeout.as_millis())]
    TimedOut { upstream: Upstream, timeout: Duration },
    #[error("attestry: upstream {upstream}: {source}")]
    Failed { upstream: Upstream, source: io::Error },
}

/// Connects, trying each address of a name in turn, in `limit` altogether.
pub(super) async fn connect(way: &Way, tcp: TcpOptions, limit: Duration) -> Result<TcpStream, ConnectError> {
    let attempt = async {
        match &way.upstream {
            Upstream::Address(address) => dial(*address, way.source, tcp).await,
            Upstream::Name(host, port) => {
                let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in lookup_host((host.as_str(), *port)).await? {
                    match dial(address, way.source, tcp).await {
                        Ok(stream) => return Ok(stream),
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
        }
    };
    let upstream = way.upstream.clone();
    match timeout(limit, attempt).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(ConnectError::Failed { upstream, source }),
        Err(_) => Err(ConnectError::TimedOut { upstream, timeout: limit }),
    }
}

async fn dial(address: SocketAddr, source: Option<IpAddr>, tcp: TcpOptions) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let raw = SockRef::from(&socket);
    if let Some(mark) = tcp.mark {
        raw.set_mark(mark)?;
    }
    if let Some(source) = source {
        make_transparent(&raw, source)?;
        // Another port than the client's own: that pair of addresses is the connection which was accepted here.
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(address).await?;
    tcp.apply(&stream)?;
    Ok(stream)
}
