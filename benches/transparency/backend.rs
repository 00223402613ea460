//! The servers behind it all: each service on a port of its own, as it is and behind TLS that demands a certificate.
//!
//! They run as one process (the benchmark's binary, told so by a flag), a blocking thread for each connection. Whatever they are sent that their clients here would not
//! send ends the connection with a message.

use super::cases::{Service, alpn};
use super::conversation::Conversation;
use super::secrets::Secrets;
use super::support::process::Process;
use super::talks::{Wire, bulk_pattern, http1_request, http1_response};
use anyhow::ensure;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What a client of `Service::Greeting` is told before it has said anything.
pub(super) const GREETING: &[u8] = b"220 service.example ready\r\n";

const START_BOUND: Duration = Duration::from_secs(10);

/// The running servers.
pub(super) struct Backend {
    process: Process,
    /// Of each service, without and with TLS.
    addresses: Vec<SocketAddr>,
}

impl Backend {
    /// Starts this very binary as the backend.
    pub(super) fn start(secrets: &Secrets, folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let process = Process::start("backend", command.arg("--backend").arg(&secrets.folder), folder);
        let line = process.line_after("listening on ", START_BOUND);
        let addresses = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { process, addresses })
    }

    pub(super) fn address(&self, service: Service, has_tls: bool) -> SocketAddr {
        let place = Service::ALL.iter().position(|&other| other == service);
        self.addresses[2 * place.expect("ALL has all") + usize::from(has_tls)]
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Serves until standard input ends.
pub(super) fn serve(secrets: &Secrets) -> anyhow::Result<()> {
    let mut addresses = Vec::new();
    for service in Service::ALL {
        for tls in [None, Some(secrets.server(alpn(service)))] {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            addresses.push(listener.local_addr()?.to_string());
            thread::spawn(move || accept(&listener, service, tls.as_ref()));
        }
    }
    println!("listening on {}", addresses.join(" "));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn accept(listener: &TcpListener, service: Service, tls: Option<&Arc<ServerConfig>>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let tls = tls.cloned();
        thread::spawn(move || {
            let served = wire(stream, tls).and_then(|wire| answer(service, wire));
            // A client that stops may leave its connection in the middle of anything.
            served.map_err(|error| eprintln!("{service:?}: {error:#}"))
        });
    }
}

fn wire(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> anyhow::Result<Box<dyn Wire>> {
    stream.set_nodelay(true)?;
    Ok(match tls {
        Some(tls) => Box::new(StreamOwned::new(ServerConnection::new(tls)?, stream)),
        None => Box::new(stream),
    })
}

fn answer(service: Service, mut wire: Box<dyn Wire>) -> anyhow::Result<()> {
    match service {
        Service::Echo => echo(&mut *wire),
        Service::Greeting => {
            wire.write_all(GREETING)?;
            ensure!(wire.read(&mut [0; 1])? == 0, "a client that was greeted has said something");
            Ok(())
        }
        Service::Bulk => bulk(&mut *wire),
        Service::Http1 => http1(&mut *wire),
        Service::Grpc => Conversation::new(wire).run(),
    }
}

fn echo(wire: &mut dyn Wire) -> anyhow::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let read = wire.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        wire.write_all(&buffer[..read])?;
    }
}

fn bulk(wire: &mut dyn Wire) -> anyhow::Result<()> {
    let pattern = bulk_pattern();
    loop {
        let mut wanted = [0; 8];
        wire.read_exact(&mut wanted)?;
        let mut left = u64::from_be_bytes(wanted);
        while left > 0 {
            let part = left.min(pattern.len() as u64);
            wire.write_all(&pattern[..part as usize])?;
            left -= part;
        }
    }
}

fn http1(wire: &mut dyn Wire) -> anyhow::Result<()> {
    let (request, response) = (http1_request(), http1_response());
    let mut asked = vec![0; request.len()];
    loop {
        let first = wire.read(&mut asked)?;
        if first == 0 {
            return Ok(());
        }
        wire.read_exact(&mut asked[first..])?;
        ensure!(asked == request, "another request than the one that the benchmark sends");
        wire.write_all(&response)?;
    }
}
