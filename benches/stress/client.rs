//! One client's connection, and the calls on it: real HTTP/2 with flow control, everything that comes back compared with what must come back.

use super::server::{CONNECTION_WINDOW_BYTES, HTTP1_ANSWER, STREAM_WINDOW_BYTES};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for the end of anything; past it, it counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Streams that a client may open before it has the server's SETTINGS.
const STREAMS_AT_FIRST: usize = 100_000;

/// How a call ended for its client.
#[derive(Debug)]
pub(super) enum Ended {
    /// With what must come back, and status 0.
    Answered,
    /// With status UNAVAILABLE in so many words.
    Unavailable,
    /// The connection was refused, reset or ended before anything was answered, which clients of gRPC take for UNAVAILABLE too.
    Reset,
    Failed(String),
}

/// A client of gRPC with one connection.
#[derive(Clone)]
pub(super) struct Client {
    requests: SendRequest<Bytes>,
}

/// A gRPC message with so many bytes of payload.
pub(super) fn message(payload_bytes: u32) -> Bytes {
    let payload = (0..payload_bytes).map(|at| (at.wrapping_mul(31) >> 3) as u8);
    [0].into_iter().chain(payload_bytes.to_be_bytes()).chain(payload).collect()
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self, Ended> {
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut builder = h2::client::Builder::new();
            builder
                .initial_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .initial_max_send_streams(STREAMS_AT_FIRST);
            let (requests, connection) = builder.handshake(stream).await.map_err(into_io)?;
            // How the connection ends shows in its calls.
            tokio::spawn(async { drop(connection.await) });
            Ok(Self { requests })
        };
        timeout(PATIENCE, connect)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| broken(&error))
    }

    /// A call with one message, which must come back.
    pub(super) async fn unary(&self, message: &Bytes) -> Ended {
        bounded(async {
            let (response, mut body) = self.open().await?;
            // Where the answer comes before the request is all sent, the answer counts.
            let _ = body.send_data(message.clone(), true);
            let response = response.await?;
            let (headers, body) = (response.headers().clone(), response.into_body());
            read_to_end(headers, body, message).await
        })
        .await
    }

    /// A call with so many messages, each of which must come back before the next one; ended in order, or cancelled.
    pub(super) async fn stream(
        &self,
        message: &Bytes,
        messages: u32,
        pause: Duration,
        is_cancelled: bool,
    ) -> Ended {
        bounded(async {
            let (response, mut sending) = self.open().await?;
            sending.send_data(message.clone(), false)?;
            let mut response: Response<RecvStream> = response.await?;
            for number in 1..=messages {
                if !echoed(response.body_mut(), message.len()).await? {
                    return Ok(Ended::Failed(format!("message {number} of a stream has not come back")));
                }
                tokio::time::sleep(pause).await;
                if number < messages {
                    sending.send_data(message.clone(), false)?;
                }
            }
            if is_cancelled {
                sending.send_reset(Reason::CANCEL);
                return Ok(Ended::Answered);
            }
            sending.send_data(Bytes::new(), true)?;
            let headers = response.headers().clone();
            read_to_end(headers, response.into_body(), &Bytes::new()).await
        })
        .await
    }

    async fn open(&self) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let request = Request::post("http://bench/attestry.bench.Echo/Call")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = request.body(()).expect("it is a valid request");
        self.requests.clone().ready().await?.send_request(request, false)
    }
}

async fn bounded(call: impl Future<Output = Result<Ended, h2::Error>>) -> Ended {
    match timeout(PATIENCE, call).await {
        Err(_) => Ended::Failed(format!("no end within {PATIENCE:?}")),
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) if error.is_io() => error.into_io().map_or(Ended::Reset, |error| broken(&error)),
        // All streams behind its last one were not processed (RFC 9113 section 6.8).
        Ok(Err(error)) if error.is_go_away() && error.is_remote() => Ended::Unavailable,
        Ok(Err(error)) => Ended::Failed(error.to_string()),
    }
}

/// What a broken connection is for a client of gRPC.
fn broken(error: &io::Error) -> Ended {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | UnexpectedEof => Ended::Reset,
        _ => Ended::Failed(error.to_string()),
    }
}

fn into_io(error: h2::Error) -> io::Error {
    let text = error.to_string();
    error.into_io().unwrap_or_else(|| io::Error::other(text))
}

/// The rest of a call, which must be `expected` and the trailers; a response of trailers alone has them in its headers.
async fn read_to_end(headers: HeaderMap, mut body: RecvStream, expected: &Bytes) -> Result<Ended, h2::Error> {
    let mut received = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        received.extend_from_slice(&piece);
    }
    let trailers = body.trailers().await?.unwrap_or(headers);
    let status = trailers.get("grpc-status").map_or(&b""[..], |status| status.as_bytes());
    Ok(match status {
        b"0" if received[..] == expected[..] => Ended::Answered,
        b"0" => Ended::Failed(format!(
            "{} other bytes than the {} that were sent",
            received.len(),
            expected.len()
        )),
        b"14" => Ended::Unavailable,
        other => Ended::Failed(format!("grpc-status {:?}", String::from_utf8_lossy(other))),
    })
}

/// Whether so many bytes come.
async fn echoed(body: &mut RecvStream, bytes: usize) -> Result<bool, h2::Error> {
    let mut left = bytes;
    while left > 0 {
        let Some(piece) = body.data().await.transpose()? else { return Ok(false) };
        body.flow_control().release_capacity(piece.len())?;
        left = left.saturating_sub(piece.len());
    }
    Ok(true)
}

/// One connection of another protocol, with one exchange at a time.
pub(super) struct Other {
    stream: TcpStream,
    said: Bytes,
    answer: Bytes,
}

impl Other {
    /// HTTP/1.1, kept alive.
    pub(super) async fn http1(address: SocketAddr) -> io::Result<Self> {
        let said = Bytes::from_static(b"GET /bench HTTP/1.1\r\nhost: bench\r\nuser-agent: bench\r\n\r\n");
        Self::connect(address, said, Bytes::from_static(HTTP1_ANSWER)).await
    }

    /// Bytes that nobody takes for a protocol.
    pub(super) async fn opaque(address: SocketAddr) -> io::Result<Self> {
        let said: Bytes = (0..100_u8).map(|at| at | 0x80).collect();
        Self::connect(address, said.clone(), said).await
    }

    async fn connect(address: SocketAddr, said: Bytes, answer: Bytes) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, said, answer })
    }

    pub(super) async fn exchange(&mut self) -> Ended {
        let Self { stream, said, answer } = self;
        let exchange = async {
            stream.write_all(said).await?;
            let mut received = vec![0; answer.len()];
            stream.read_exact(&mut received).await?;
            let is_right = received[..] == answer[..];
            io::Result::Ok(if is_right { Ended::Answered } else { Ended::Failed("another answer".into()) })
        };
        match timeout(PATIENCE, exchange).await {
            Err(_) => Ended::Failed(format!("no answer within {PATIENCE:?}")),
            Ok(ended) => ended.unwrap_or_else(|error| broken(&error)),
        }
    }
}
