//! The case of the whole data path: unary calls through the real relay over loopback, behind a ledger that says yes at once.
//!
//! Client, server and relay are threads of one process, and all of them count. The first two only write and read as many bytes as are due, one call after the other, so that each
//! read of the relay brings the same bytes in each run.

use super::cases::{Case, LITTLE, Work};
use super::relay::{Relay, Terms};
use super::{captures, wire};
use attestry::entry::{CommitError, Receipt, Submission};
use attestry::http2::{PREFACE, frame};
use attestry::limits;
use bytes::{Buf as _, Bytes};
use std::fs;
use std::future::{Ready, ready};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;
use tower::Service;

const CALLS: u32 = 256;
/// Made at each scale, so that what a connection costs at its beginning stands on both sides of the difference.
const CALLS_BEFORE: u32 = 64;
const MESSAGE_BYTES: usize = 100;
/// More than any request or response here.
const READ_BYTES: usize = 4_096;
/// The longest wait for anything; it bounds a failing run and decides nothing else.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const CASES: &[Case] = &[Case {
    name: "unary 100 B through the relay",
    unit: "call",
    units: CALLS as u64,
    noise: LITTLE,
    work: Work::WithThreads { prepare: write_exchanges, run: relay_exchanges },
}];

/// Puts each request and each response behind its length, so that little is counted for having them.
fn write_exchanges(folder: &Path, scale: u64) -> anyhow::Result<()> {
    let (mut wire, mut file) = (wire::Http2::default(), Vec::new());
    for _ in 0..CALLS_BEFORE + u32::try_from(scale)? * CALLS {
        let (request, response) = wire.unary(1, MESSAGE_BYTES);
        for bytes in [request, response] {
            file.extend_from_slice(&u32::try_from(bytes.len())?.to_le_bytes());
            file.extend_from_slice(&bytes);
        }
    }
    Ok(fs::write(folder.join("exchanges"), file)?)
}

fn read_exchanges(folder: &Path) -> io::Result<Vec<(Bytes, Bytes)>> {
    let mut file = Bytes::from(fs::read(folder.join("exchanges"))?);
    let mut exchanges = Vec::new();
    while !file.is_empty() {
        let [request, response] = [(); 2].map(|()| {
            let length = file.get_u32_le() as usize;
            file.split_to(length)
        });
        exchanges.push((request, response));
    }
    Ok(exchanges)
}

fn relay_exchanges(folder: &Path, _: u64) -> anyhow::Result<()> {
    let exchanges = read_exchanges(folder)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let terms =
        Terms { limits: captures::limits(), hold_bytes_max: limits::HOLD_BYTES_MAX, redaction_key: [7; 32] };
    let relay = Relay::start(YesPort, listener.local_addr()?, &terms);
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, &exchanges));
        call(TcpStream::connect(relay.addr)?, &exchanges)?;
        server.join().expect("the server does not panic")
    })?;
    Ok(())
}

fn call(stream: TcpStream, exchanges: &[(Bytes, Bytes)]) -> io::Result<()> {
    let mut peer = Peer::new(stream)?;
    peer.write(&[PREFACE, &frame::settings(&[])[..]].concat())?;
    peer.read(frame::settings(&[]).len())?;
    for (request, response) in exchanges {
        peer.write(request)?;
        peer.read(response.len())?;
    }
    Ok(())
}

fn serve(listener: &TcpListener, exchanges: &[(Bytes, Bytes)]) -> io::Result<()> {
    let mut peer = Peer::new(listener.accept()?.0)?;
    peer.read(PREFACE.len() + frame::settings(&[]).len())?;
    peer.write(&frame::settings(&[]))?;
    for (request, response) in exchanges {
        peer.read(request.len())?;
        peer.write(response)?;
    }
    Ok(())
}

/// One end of the relayed connection, with as few instructions of its own as can be.
struct Peer {
    stream: TcpStream,
    buffer: [u8; READ_BYTES],
}

impl Peer {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: [0; READ_BYTES] })
    }

    fn read(&mut self, bytes: usize) -> io::Result<()> {
        self.stream.read_exact(&mut self.buffer[..bytes])
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }
}

/// Answers each submission at once.
#[derive(Clone)]
struct YesPort;

impl Service<Submission> for YesPort {
    type Response = Receipt;
    type Error = CommitError;
    type Future = Ready<Result<Receipt, CommitError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CommitError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Submission) -> Self::Future {
        ready(Ok(Receipt::Committed { size: 1 }))
    }
}
