//! Tests of handshakes and live sessions: between two links of ours, and with OpenSSL's command at the other end.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

mod openssl;
mod sessions;

use super::{TlsFailed, TlsLink, accept, originate};
use crate::credentials::tests::authority::{Authority, Issued};
use crate::credentials::tests::load;
use crate::credentials::{ClientCertificates, ClientSide, Expect, ServerSide};
use crate::generated::v1;
use crate::tls::{ClientHello, Read, client_hello};
use bytes::BytesMut;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Ends a test that hangs.
const BOUND: Duration = Duration::from_mins(1);
/// Far beyond what a handshake takes.
const LIMIT: Duration = Duration::from_secs(20);

/// An authority, and a server and a client that it knows.
struct Scene {
    folder: TempDir,
    authority: Authority,
    server: Issued,
    client: Issued,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "root");
        let server = authority.issue_for("server", "DNS:a.example,URI:spiffe://example.org/server");
        let client = authority.issue_for("client", "URI:spiffe://example.org/client");
        Self { folder, authority, server, client }
    }

    fn server_side(&self, certificates: ClientCertificates) -> ServerSide {
        load(&self.authority, Some(&self.server), None).server(certificates).unwrap()
    }

    fn client_side(&self, expect: Expect) -> ClientSide {
        load(&self.authority, Some(&self.client), None).client(expect).unwrap()
    }
}

/// Runs a test on a runtime of the kind that the workers have, bounded.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(BOUND, test).await.expect("the test must end by itself") })
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// Reads a ClientHello as detection does, and returns all bytes that came with it.
async fn read_hello(tcp: &TcpStream) -> (Vec<u8>, ClientHello) {
    let mut early = Vec::new();
    loop {
        tcp.readable().await.unwrap();
        match tcp.try_read_buf(&mut early) {
            Ok(0) => panic!("the client ended before its hello"),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => panic!("{error}"),
        }
        match client_hello(&early) {
            Read::Hello(hello) => return (early, hello),
            Read::Incomplete => {}
            Read::NotTls => panic!("{early:02x?}"),
        }
    }
}

type Shaken = Result<(TlsLink, v1::Tls), TlsFailed>;

/// Both sides' handshakes: the server's outcome, then the client's.
async fn shake_hands(
    server: &ServerSide,
    client: &ClientSide,
    offered: &[&[u8]],
    spoken: &[&[u8]],
) -> (Shaken, Shaken) {
    let names = |names: &[&[u8]]| names.iter().map(|name| name.to_vec()).collect::<Vec<_>>();
    let (near, far) = sockets().await;
    let spoken = names(spoken);
    let accepting = async {
        let (early, hello) = read_hello(&far).await;
        accept(far, &early, server, &spoken, &hello, LIMIT).await
    };
    tokio::join!(accepting, originate(near, client, "a.example", names(offered), LIMIT))
}

/// Two links that speak with each other: the server's, the client's.
async fn links(scene: &Scene) -> (TlsLink, TlsLink) {
    let (server, client) = (scene.server_side(ClientCertificates::None), scene.client_side(Expect::Name));
    let (server, client) = shake_hands(&server, &client, &[], &[]).await;
    (server.unwrap().0, client.unwrap().0)
}

/// Writes everything, as the relay would, and flushes it.
async fn write_all(link: &TlsLink, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        poll_fn(|cx| link.poll_write_ready(cx)).await;
        match link.try_write_vectored(&[IoSlice::new(bytes)]) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    poll_fn(|cx| link.poll_flush(cx)).await
}

/// Reads once: what came, or nothing at the end.
async fn read_some(link: &TlsLink, buffer: &mut BytesMut) -> io::Result<usize> {
    loop {
        poll_fn(|cx| link.poll_read_ready(cx)).await;
        buffer.reserve(64 * 1024);
        match link.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

async fn read_to_end(link: &TlsLink) -> io::Result<Vec<u8>> {
    let mut buffer = BytesMut::new();
    while read_some(link, &mut buffer).await? > 0 {}
    Ok(buffer.to_vec())
}
