//! A gRPC client and an echoing gRPC server on the h2 crate: real HTTP/2 with flow control, and just enough of gRPC for a status.
//!
//! Every call is answered with its own bytes, piece by piece as they come, and status 0. What stands between the two is the test's.
#![allow(dead_code, reason = "each test takes what it needs")]

use attestry::grpc::decode_grpc_message;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// The longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Where all connections live, servers' and clients'. It is never shut down: h2 insists on seeing its streams end in order.
fn connections() -> &'static Runtime {
    static CONNECTIONS: OnceLock<Runtime> = OnceLock::new();
    CONNECTIONS.get_or_init(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

/// A server until it is dropped; connections that it has by then go on.
pub struct EchoServer {
    pub addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl EchoServer {
    /// On a free port.
    pub fn start() -> Self {
        Self::on(StdListener::bind("127.0.0.1:0").unwrap())
    }

    /// On this socket.
    pub fn on(listener: StdListener) -> Self {
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let accepting = connections().spawn(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_connection(stream));
            }
        });
        Self { addr, accepting }
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve_connection(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            if let Ok(answer) = respond.send_response(response, false) {
                let _ = echo(request.into_body(), answer).await;
            }
        });
    }
}

async fn echo(mut body: RecvStream, mut answer: SendStream<Bytes>) -> Result<(), h2::Error> {
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        answer.send_data(piece, false)?;
    }
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    answer.send_trailers(trailers)
}

/// How a call ended for its client.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a status, its message, and the body that came before.
    Status { status: String, message: String, body: Vec<u8> },
    /// Without one, in h2's words.
    Broken(String),
}

impl Outcome {
    /// Everything came back, and status 0.
    pub fn is_echo_of(&self, sent: &[u8]) -> bool {
        matches!(self, Self::Status { status, body, .. } if status == "0" && body == sent)
    }

    /// The message of an UNAVAILABLE.
    pub fn unavailable(&self) -> Option<&str> {
        match self {
            Self::Status { status, message, .. } if status == "14" => Some(message),
            _ => None,
        }
    }
}

/// One connection of a client.
pub struct Client {
    requests: SendRequest<Bytes>,
}

impl Client {
    /// Connects; every step of it is bounded.
    pub async fn connect(addr: SocketAddr) -> Self {
        let connect = connections().spawn(async move {
            let stream = TcpStream::connect(addr).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (requests, connection) = h2::client::handshake(stream).await.unwrap();
            // How the connection ends shows in its calls.
            tokio::spawn(async { drop(connection.await) });
            Self { requests }
        });
        tokio::time::timeout(PATIENCE, connect).await.expect("a connection comes about").unwrap()
    }

    /// One call with one message of these bytes, length prefix and all.
    pub async fn call(&mut self, content: &[u8]) -> Outcome {
        let call = async {
            let outcome = self.try_call(content).await;
            outcome.unwrap_or_else(|error| Outcome::Broken(error.to_string()))
        };
        tokio::time::timeout(PATIENCE, call).await.expect("a call ends")
    }

    async fn try_call(&mut self, content: &[u8]) -> Result<Outcome, h2::Error> {
        let request = Request::builder().method("POST").uri("http://test/echo.Echo/Call");
        let request =
            request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap();
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut body) = requests.send_request(request, false)?;
        // Where the answer comes before the request is all sent, the answer counts.
        let _ = body.send_data(content.to_vec().into(), true);
        let response = response.await?;
        let headers = response.headers().clone();
        let mut body = response.into_body();
        let mut received = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            received.extend(piece);
        }
        let trailers = body.trailers().await?.unwrap_or(headers);
        let text =
            |name| trailers.get(name).map(|value| decode_grpc_message(value.as_bytes())).unwrap_or_default();
        Ok(Outcome::Status { status: text("grpc-status"), message: text("grpc-message"), body: received })
    }
}

/// One call on a connection of its own.
pub async fn call(addr: SocketAddr, content: &[u8]) -> Outcome {
    Client::connect(addr).await.call(content).await
}

/// A gRPC message of these bytes.
pub fn message(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[0], &length[..], content].concat()
}

/// Calls until one comes back as it was sent, which must happen in time; returns the outcomes before.
pub async fn call_until_served(addr: SocketAddr) -> Vec<Outcome> {
    let content = message(b"are you back?");
    let mut before = Vec::new();
    let calls = async {
        loop {
            let outcome = call(addr, &content).await;
            if outcome.is_echo_of(&content) {
                return;
            }
            before.push(outcome);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let result = tokio::time::timeout(PATIENCE, calls).await;
    assert!(result.is_ok(), "calls are not served again: {:?}", before.last());
    before
}

/// A runtime for one test.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}
