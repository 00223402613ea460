//! A relay that records nothing: what there is to pay for any proxy of user space, before the first byte of evidence.
//!
//! One thread, tokio's `copy_bidirectional` for each connection, with buffers as large as attestry's. It runs as a process of its own (the benchmark's binary, told so by a flag).

use super::machine::Cores;
use super::support::process::Process;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

const BUFFER_BYTES: usize = 64 * 1024;
const START_BOUND: Duration = Duration::from_secs(10);

/// The running relay.
pub(super) struct Bare {
    process: Process,
    pub(super) address: SocketAddr,
}

impl Bare {
    /// Starts this very binary as a relay to `upstream`, on the sidecars' core.
    pub(super) fn start(upstream: SocketAddr, cores: Cores, folder: &Path) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let mut program: Vec<_> = cores.wrapper().iter().map(Path::new).collect();
        program.push(&own);
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg("--relay").arg(upstream.to_string());
        let process = Process::start("bare", &mut command, folder);
        let address = process.line_after("listening on ", START_BOUND).parse()?;
        Ok(Self { process, address })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Relays until it is killed.
pub(super) fn relay(upstream: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            let (mut client, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut server = TcpStream::connect(upstream).await?;
                client.set_nodelay(true)?;
                server.set_nodelay(true)?;
                copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER_BYTES, BUFFER_BYTES).await
            });
        }
    })
}
