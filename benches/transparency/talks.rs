//! The clients' side: what is said on one connection, and that what comes back is what must come back.

use super::backend::GREETING;
use super::calls::{CallOnce, Calls};
use super::cases::{Case, Doing};
use super::load::Tally;
use super::secrets::SERVICE_NAME;
use anyhow::{Context as _, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Ends a run that hangs.
const WAIT_MAX: Duration = Duration::from_secs(10);

const PING_BYTES: usize = 100;
const BULK_BYTES: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// Bytes after which the pattern of a bulk transfer begins again, and those that are read at a time.
const PATTERN_BYTES: usize = 256 * 1024;
const CONTENT_BYTES: usize = 1024;

/// A connection to talk on.
pub(super) trait Wire: Read + Write + Send {}

impl<T: Read + Write + Send> Wire for T {}

/// Where, and how, a client connects.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Dial {
    /// A new connection. A TLS handshake is made with the first bytes.
    pub(super) fn connect(&self) -> anyhow::Result<Box<dyn Wire>> {
        let tcp = self.tcp()?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let session = ClientConnection::new(Arc::clone(tls), ServerName::try_from(SERVICE_NAME)?)?;
        Ok(Box::new(StreamOwned::new(session, tcp)))
    }

    fn tcp(&self) -> anyhow::Result<TcpStream> {
        let tcp = TcpStream::connect(self.address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(WAIT_MAX))?;
        tcp.set_write_timeout(Some(WAIT_MAX))?;
        Ok(tcp)
    }
}

/// One client.
pub(super) trait Talk: Send {
    /// Goes on for one exchange, or for as many as one read brings to their end.
    fn turn(&mut self, tally: &mut Tally) -> anyhow::Result<()>;
}

/// A client that does what the case says.
pub(super) fn begin(case: &Case, dial: &Dial) -> anyhow::Result<Box<dyn Talk>> {
    Ok(match case.doing {
        Doing::PingPong => Box::new(PingPong { wire: dial.connect()?, number: 0 }),
        Doing::Greeted => Box::new(Greeted { dial: dial.clone() }),
        Doing::Bulk => Box::new(Bulk {
            wire: dial.connect()?,
            pattern: bulk_pattern(),
            buffer: vec![0; PATTERN_BYTES],
            received: 0,
        }),
        Doing::Get => {
            let (request, response) = (http1_request(), http1_response());
            let buffer = vec![0; response.len()];
            Box::new(Get { wire: dial.connect()?, request, response, buffer })
        }
        Doing::Calls { streams } => Box::new(Calls::new(dial.connect()?, streams)?),
        Doing::CallOnce => Box::new(CallOnce { dial: dial.clone() }),
    })
}

/// Bytes that nobody takes for a protocol, another number in each message.
struct PingPong {
    wire: Box<dyn Wire>,
    number: u64,
}

impl Talk for PingPong {
    fn turn(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        let begun = Instant::now();
        let (mut ping, mut back) = ([0; PING_BYTES], [0; PING_BYTES]);
        self.number += 1;
        ping[PING_BYTES - 8..].copy_from_slice(&self.number.to_be_bytes());
        self.wire.write_all(&ping)?;
        self.wire.read_exact(&mut back)?;
        ensure!(ping == back, "message {} came back as another one", self.number);
        tally.done(begun, 1);
        Ok(())
    }
}

struct Greeted {
    dial: Dial,
}

impl Talk for Greeted {
    fn turn(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut tcp = self.dial.tcp().context("a new connection")?;
        let mut greeting = [0; GREETING.len()];
        tcp.read_exact(&mut greeting).context("the greeting")?;
        ensure!(greeting == GREETING, "another greeting than the server's");
        tcp.shutdown(Shutdown::Write)?;
        ensure!(tcp.read(&mut greeting).context("the end")? == 0, "more than the greeting");
        tally.done(begun, 1);
        Ok(())
    }
}

struct Bulk {
    wire: Box<dyn Wire>,
    pattern: Vec<u8>,
    buffer: Vec<u8>,
    received: u64,
}

impl Talk for Bulk {
    fn turn(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        let begun = Instant::now();
        if self.received.is_multiple_of(BULK_BYTES) {
            self.wire.write_all(&BULK_BYTES.to_be_bytes())?;
        }
        let at = (self.received % PATTERN_BYTES as u64) as usize;
        let read = self.wire.read(&mut self.buffer[at..])?;
        ensure!(read > 0, "the server has ended a bulk transfer");
        ensure!(self.buffer[at..at + read] == self.pattern[at..at + read], "other bytes than the server's");
        let before = self.received / MIB;
        self.received += read as u64;
        if self.received / MIB > before {
            tally.done(begun, self.received / MIB - before);
        }
        Ok(())
    }
}

struct Get {
    wire: Box<dyn Wire>,
    request: Vec<u8>,
    response: Vec<u8>,
    buffer: Vec<u8>,
}

impl Talk for Get {
    fn turn(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        let begun = Instant::now();
        self.wire.write_all(&self.request)?;
        self.wire.read_exact(&mut self.buffer)?;
        ensure!(self.buffer == self.response, "another response than the server's");
        tally.done(begun, 1);
        Ok(())
    }
}

/// What a bulk transfer consists of, again and again.
pub(super) fn bulk_pattern() -> Vec<u8> {
    // The step is prime to 256, so that a shift by less than that is seen.
    (0..PATTERN_BYTES).map(|at| (at.wrapping_mul(167) ^ (at >> 8)) as u8).collect()
}

/// The one request.
pub(super) fn http1_request() -> Vec<u8> {
    b"GET /1KiB HTTP/1.1\r\nhost: service.example\r\nuser-agent: bench\r\naccept: */*\r\n\r\n".to_vec()
}

/// Its response, whole.
pub(super) fn http1_response() -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {CONTENT_BYTES}\r\n\r\n"
    );
    head.into_bytes().into_iter().chain(bulk_pattern().into_iter().take(CONTENT_BYTES)).collect()
}
