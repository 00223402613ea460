//! The upstream: where a connection goes, and the attempt to get there.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// A fixed upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// By address.
    Address(SocketAddr),
    /// By name, resolved anew for each connection.
    Name(String, u16),
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
pub(super) async fn connect(upstream: &Upstream, limit: Duration) -> Result<TcpStream, ConnectError> {
    let attempt = async {
        match upstream {
            Upstream::Address(address) => TcpStream::connect(address).await,
            Upstream::Name(host, port) => {
                let addresses: Vec<SocketAddr> = lookup_host((host.as_str(), *port)).await?.collect();
                TcpStream::connect(addresses.as_slice()).await
            }
        }
    };
    let upstream = upstream.clone();
    match timeout(limit, attempt).await {
        Ok(Ok(stream)) => stream
            .set_nodelay(true)
            .map(|()| stream)
            .map_err(|source| ConnectError::Failed { upstream, source }),
        Ok(Err(source)) => Err(ConnectError::Failed { upstream, source }),
        Err(_) => Err(ConnectError::TimedOut { upstream, timeout: limit }),
    }
}
