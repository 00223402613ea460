//! The service of the thousand: every kind on its port, in one thread, until its standard input ends or it is killed.
//!
//! It answers with what it was told, and knows nothing of sidecars, except who opens the application's TLS.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Response};
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;

use super::kinds::Kind;
use super::wire::{Stream, Tls, Wire, server_config};

/// Connections that the kernel accepts ahead.
const BACKLOG: u32 = 1_024;

/// Listens on all ports; its connections are tasks of this thread.
pub(crate) fn start(folder: &Path, opens_tls: bool) {
    let sealed = server_config(folder, false, &[]);
    let secure = opens_tls.then(|| server_config(folder, true, &["h2"]));
    for kind in Kind::all() {
        let tls = match kind {
            Kind::Sealed => Some(Arc::clone(&sealed)),
            Kind::Secure => secure.clone(),
            _ => None,
        };
        let socket = TcpSocket::new_v6().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(format!("[::]:{}", kind.port()).parse().unwrap()).unwrap();
        spawn_local(accept(socket.listen(BACKLOG).unwrap(), kind, tls));
    }
}

async fn accept(listener: TcpListener, kind: Kind, tls: Option<Arc<ServerConfig>>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        // A client that breaks off has broken its own call; it tells of it itself.
        let tls = tls.clone();
        spawn_local(async move { serve(socket, kind, tls).await });
    }
}

async fn serve(socket: TcpStream, kind: Kind, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
    match tls {
        Some(config) => talk(Tls::accept(socket, config).await?, kind).await,
        None => talk(socket, kind).await,
    }
}

async fn talk(stream: impl Stream, kind: Kind) -> io::Result<()> {
    match kind {
        Kind::Grpc | Kind::Secure | Kind::Mesh => grpc(stream).await.map_err(io::Error::other),
        Kind::Http1 => http1(Wire::new(stream)).await,
        Kind::Greeting => greeting(Wire::new(stream)).await,
        Kind::Chatter | Kind::Sealed => chatter(Wire::new(stream)).await,
    }
}

async fn grpc(stream: impl Stream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        spawn_local(async move {
            let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            echo(request.into_body(), respond.send_response(response, false)?).await
        });
    }
    Ok(())
}

async fn echo(mut body: RecvStream, mut answer: SendStream<Bytes>) -> Result<(), h2::Error> {
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        answer.send_data(piece, false)?;
    }
    answer.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]))
}

/// Answers with the target, with a length and in chunks by turns.
async fn http1(mut wire: Wire<impl Stream>) -> io::Result<()> {
    for number in 0_u32.. {
        let head = match wire.until(b"\r\n\r\n").await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !wire.has_more() => break,
            head => head?,
        };
        let target = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
        let answer = if number.is_multiple_of(2) {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len())
        } else {
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{target}\r\n0\r\n\r\n",
                target.len()
            )
        };
        wire.send(answer.as_bytes()).await?;
    }
    wire.stream.shutdown().await
}

async fn greeting(mut wire: Wire<impl Stream>) -> io::Result<()> {
    wire.send(b"220 pods\r\n").await?;
    loop {
        let line = wire.until(b"\r\n").await?;
        if line == b"QUIT\r\n" {
            wire.send(b"221 bye\r\n").await?;
            return wire.stream.shutdown().await;
        }
        wire.send(&[b"250 ", &line[..]].concat()).await?;
    }
}

/// Frames of a length and so many bytes come back as they were. When the client has ended, it is told how many there were.
async fn chatter(mut wire: Wire<impl Stream>) -> io::Result<()> {
    for number in 0_u32.. {
        let length = match wire.take(2).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !wire.has_more() => {
                wire.send(&number.to_be_bytes()).await?;
                break;
            }
            length => length?,
        };
        let text = wire.take(usize::from(u16::from_be_bytes([length[0], length[1]]))).await?;
        wire.send(&[&length[..], &text].concat()).await?;
    }
    wire.stream.shutdown().await
}
