//! Who stands between h2load and the backend: nobody, attestry, or nghttpx; started for one run and gone after it.
//!
//! Who runs on which core is `machine`'s.

use super::machine::Cores;
use super::support::process::Process;
use super::support::sidecar::Sidecar;
use super::usage::Meter;
use anyhow::ensure;
use std::fmt;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const START_BOUND: Duration = Duration::from_secs(10);
const POLL_PAUSE: Duration = Duration::from_millis(10);

/// attestry's own default, where tests have far smaller segments.
const SEGMENT_BYTES: u64 = attestry::limits::SEGMENT_BYTES;

/// What the calls go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    Direct,
    Attestry,
    Nghttpx,
}

impl fmt::Display for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Attestry => "attestry",
            Self::Nghttpx => "nghttpx",
        })
    }
}

/// The echo server.
pub(super) struct Backend {
    process: Process,
    pub(super) address: SocketAddr,
}

impl Backend {
    /// Starts this very binary as the backend.
    pub(super) fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let process = Process::start("backend", command.arg("--backend"), folder);
        let address = process.line_after("listening on ", START_BOUND).parse()?;
        Ok(Self { process, address })
    }

    /// Calls answered so far.
    pub(super) fn calls(&mut self) -> anyhow::Result<u64> {
        self.process.say("calls?");
        Ok(self.process.line(START_BOUND).parse()?)
    }
}

/// A started run.
pub(super) struct Running {
    /// Where to call.
    pub(super) address: SocketAddr,
    /// Nothing to measure where the calls go directly.
    pub(super) meter: Option<Meter>,
    proxy: Option<Proxy>,
}

enum Proxy {
    Attestry(Sidecar),
    Nghttpx(#[expect(dead_code, reason = "held for its end: dropping it kills the process")] Process),
}

impl Running {
    /// Starts what the calls go through; a ledger stands in `folder`.
    pub(super) fn start(
        through: Through,
        backend: SocketAddr,
        cores: Cores,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        match through {
            Through::Direct => Ok(Self { address: backend, meter: None, proxy: None }),
            Through::Attestry => Ok(Self::attestry(backend, cores, folder.join("ledger"))),
            Through::Nghttpx => Self::nghttpx(backend, cores, folder),
        }
    }

    fn attestry(backend: SocketAddr, cores: Cores, ledger: PathBuf) -> Self {
        let sidecar = Sidecar::builder(backend)
            .set("proxy", "workers", "1")
            .set("ledger", "segment_bytes", &SEGMENT_BYTES.to_string())
            .set("log", "filter", "\"warn\"")
            .ledger_dir(&ledger)
            .wrapper(cores.wrapper())
            .start();
        let meter = Some(Meter { pid: sidecar.pid(), ledger: Some(ledger) });
        Self { address: sidecar.addr, meter, proxy: Some(Proxy::Attestry(sidecar)) }
    }

    fn nghttpx(backend: SocketAddr, cores: Cores, folder: &Path) -> anyhow::Result<Self> {
        // nghttpx cannot choose a port and say which; this one was free a moment ago.
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let program: Vec<&str> = cores.wrapper().iter().copied().chain(["nghttpx"]).collect();
        let mut command = Command::new(program[0]);
        command
            .args(&program[1..])
            .arg(format!("--frontend=127.0.0.1,{};no-tls", address.port()))
            .arg(format!("--backend=127.0.0.1,{};;proto=h2", backend.port()))
            // One process, so that its id is that of the process which does the work.
            .args(["--single-process", "--workers=1", "--conf=/dev/null", "--accesslog-file=/dev/null"])
            .args(["--frontend-http2-max-concurrent-streams=1000", "--frontend-http2-window-size=1048576"])
            .args([
                "--frontend-http2-connection-window-size=1073741824",
                "--backend-http2-window-size=1048576",
            ])
            .args(["--backend-http2-connection-window-size=1073741824"]);
        let process = Process::start("nghttpx", &mut command, folder);
        let end = Instant::now() + START_BOUND;
        while TcpStream::connect(address).is_err() {
            ensure!(
                Instant::now() < end,
                "nghttpx does not listen on {address}; it said:\n{}",
                process.stderr()
            );
            thread::sleep(POLL_PAUSE);
        }
        let meter = Some(Meter { pid: process.pid(), ledger: None });
        Ok(Self { address, meter, proxy: Some(Proxy::Nghttpx(process)) })
    }

    /// Ends it; attestry in order, which must succeed, and its ledger goes too.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        if let Some(Proxy::Attestry(mut sidecar)) = self.proxy {
            sidecar.stop();
            std::fs::remove_dir_all(&sidecar.ledger_dir)?;
        }
        Ok(())
    }

    /// Ends it as `stop` does, and has the ledger verified before it goes.
    pub(super) fn stop_and_verify(mut self) -> anyhow::Result<()> {
        if let Some(Proxy::Attestry(sidecar)) = &mut self.proxy {
            sidecar.stop();
            sidecar.verify();
        }
        if let Some(Proxy::Attestry(sidecar)) = &self.proxy {
            std::fs::remove_dir_all(&sidecar.ledger_dir)?;
        }
        Ok(())
    }
}
