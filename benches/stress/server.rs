//! The server behind the sidecar: it echoes in whatever the client speaks, HTTP/2 with gRPC's trailers, HTTP/1.1, or bytes.

use attestry::http2::PREFACE;
use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Response};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The answer to every request of HTTP/1.1.
pub(super) const HTTP1_ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";

/// Windows large enough that no load waits for them.
pub(super) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;

const READ_BYTES: usize = 64 * 1024;

/// Serves for as long as its runtime runs.
pub(super) struct Server {
    pub(super) address: SocketAddr,
}

impl Server {
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Ok(Self { address })
    }
}

/// How it ends is seen by the client.
async fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    stream.peek(&mut first).await?;
    match first {
        [first] if first == PREFACE[0] => http2(stream).await.map_err(io::Error::other),
        [b'G'] => http1(stream).await,
        _ => echo(stream).await,
    }
}

async fn http2(stream: TcpStream) -> Result<(), h2::Error> {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(STREAM_WINDOW_BYTES).initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        tokio::spawn(async move {
            let mut response = Response::new(());
            let grpc = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert("content-type", grpc);
            let answer = respond.send_response(response, false)?;
            answer_call(request.into_body(), answer).await
        });
    }
    Ok(())
}

async fn answer_call(mut body: RecvStream, mut answer: SendStream<Bytes>) -> Result<(), h2::Error> {
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        // The client's end may be an empty frame, and h2 takes a hundred empty ones of a server for an attack.
        if !piece.is_empty() {
            answer.send_data(piece, false)?;
        }
    }
    answer.send_trailers(HeaderMap::from_iter([(
        "grpc-status".parse().expect("a name"),
        HeaderValue::from_static("0"),
    )]))
}

/// Requests without bodies, which end with an empty line.
async fn http1(mut stream: TcpStream) -> io::Result<()> {
    let mut asked = Vec::new();
    loop {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).await?;
        if read == 0 {
            return Ok(());
        }
        asked.extend_from_slice(&part[..read]);
        while let Some(end) = asked.windows(4).position(|four| four == b"\r\n\r\n") {
            asked.drain(..end + 4);
            stream.write_all(HTTP1_ANSWER).await?;
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
}
