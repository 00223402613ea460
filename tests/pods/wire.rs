//! Streams of the two ends: a socket that counts its bytes, TLS on it by rustls, and reading by lines and lengths.
//!
//! Nothing here knows a conversation. TLS gives what its peer sent and says how it ended; that is all that these ends need of it.

use std::cell::Cell;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

/// What both ends need of a stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Stream for S {}

/// Bytes sent and received on a socket.
pub(crate) type Count = Rc<[Cell<u64>; 2]>;

/// A socket that counts.
pub(crate) struct Counted {
    socket: TcpStream,
    count: Count,
}

impl Counted {
    pub(crate) fn new(socket: TcpStream) -> (Self, Count) {
        let count = Count::default();
        (Self { socket, count: Rc::clone(&count) }, count)
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        self.count[1].set(self.count[1].get() + (buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, bytes))?;
        self.count[0].set(self.count[0].get() + written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// TLS over a stream.
pub(crate) struct Tls<S> {
    session: Connection,
    stream: S,
}

/// A stream as rustls wants it: what would wait says so, and is woken by the context.
struct Waking<'a, 'b, S> {
    stream: &'a mut S,
    cx: &'a mut Context<'b>,
}

impl<S: Stream> io::Read for Waking<'_, '_, S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(bytes);
        match Pin::new(&mut *self.stream).poll_read(self.cx, &mut buffer) {
            Poll::Ready(result) => result.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: Stream> io::Write for Waking<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.stream).poll_write(self.cx, bytes) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Stream> Tls<S> {
    /// The client's end, with the handshake done.
    pub(crate) async fn connect(
        stream: S,
        config: Arc<ClientConfig>,
        name: &'static str,
    ) -> io::Result<Self> {
        let session = ClientConnection::new(config, name.try_into().unwrap()).map_err(io::Error::other)?;
        Self::shake_hands(session.into(), stream).await
    }

    /// The server's end, with the handshake done.
    pub(crate) async fn accept(stream: S, config: Arc<ServerConfig>) -> io::Result<Self> {
        Self::shake_hands(ServerConnection::new(config).map_err(io::Error::other)?.into(), stream).await
    }

    async fn shake_hands(session: Connection, stream: S) -> io::Result<Self> {
        let mut tls = Self { session, stream };
        std::future::poll_fn(|cx| {
            while tls.session.is_handshaking() {
                // What cannot be written now wakes us when it can; so does what is read.
                let _ = tls.poll_send(cx)?;
                ready!(tls.poll_receive(cx))?;
            }
            tls.poll_send(cx)
        })
        .await?;
        Ok(tls)
    }

    /// The peer's certificate.
    pub(crate) fn peer(&self) -> Option<&CertificateDer<'static>> {
        self.session.peer_certificates().and_then(<[_]>::first)
    }

    /// Reads from the stream once; an end in the middle of a handshake is an error.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let read = match self.session.read_tls(&mut Waking { stream: &mut self.stream, cx }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            read => read?,
        };
        if read == 0 && self.session.is_handshaking() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let processed = self.session.process_new_packets().map(drop).map_err(io::Error::other);
        // An alert, if there is one to tell.
        let _ = self.poll_send(cx)?;
        Poll::Ready(processed)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Waking { stream: &mut self.stream, cx }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                written => drop(written?),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncRead for Tls<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.session.reader().read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_receive(cx))?,
                read => {
                    buffer.advance(read?);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<S: Stream> AsyncWrite for Tls<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let taken = self.session.writer().write(bytes)?;
        let _ = self.poll_send(cx)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.send_close_notify();
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a client believes and shows, from `root.pem`, `client.pem` and `client.key`.
pub(crate) fn client_config(folder: &Path, alpn: &[&str]) -> Arc<ClientConfig> {
    let (chain, key) = identity(folder, "client");
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder =
        builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots(folder));
    let mut config = builder.with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// What a server shows, from `server.pem` and `server.key`, and whether it wants to see a client's.
pub(crate) fn server_config(folder: &Path, asks: bool, alpn: &[&str]) -> Arc<ServerConfig> {
    let (chain, key) = identity(folder, "server");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if asks {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(folder), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn identity(folder: &Path, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain =
        CertificateDer::pem_file_iter(folder.join(format!("{name}.pem"))).unwrap().map(Result::unwrap);
    (chain.collect(), PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).unwrap())
}

fn roots(folder: &Path) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("root.pem")).unwrap()).unwrap();
    Arc::new(roots)
}

/// A stream read by lines and lengths.
pub(crate) struct Wire<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
    /// Bytes received in all.
    pub(crate) received: u64,
}

impl<S: Stream> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), received: 0 }
    }

    /// Bytes that were received and not taken.
    pub(crate) fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Everything up to the first `end`, and with it.
    pub(crate) async fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return self.take(at + end.len()).await;
            }
            self.fill().await?;
        }
    }

    pub(crate) async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill().await?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Nothing more may come but the end.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        let ended = self.buffer.is_empty() && self.stream.read_buf(&mut self.buffer).await? == 0;
        if ended { Ok(()) } else { Err(io::Error::other(format!("{:?} came behind the end", self.buffer))) }
    }

    async fn fill(&mut self) -> io::Result<()> {
        let read = self.stream.read_buf(&mut self.buffer).await?;
        self.received += read as u64;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}
