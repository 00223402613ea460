//! What stands between the load and the backend, and the backend itself: started for one run and gone after it.
//!
//! Who runs on which core is `machine`'s; how the peers are configured, `settings`'.

use super::backend::Service;
use super::install::Programs;
use super::machine::Cores;
use super::peer::Peer;
use super::settings::{self, Route};
use super::support::process::Process;
use super::support::sidecar::Sidecar;
use super::usage::Meter;
use anyhow::{Context as _, ensure};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const START_BOUND: Duration = Duration::from_secs(10);
const POLL_PAUSE: Duration = Duration::from_millis(10);

/// attestry's own default, where tests have far smaller segments.
const SEGMENT_BYTES: u64 = attestry::limits::SEGMENT_BYTES;

/// The servers behind it all.
pub(super) struct Backend {
    process: Process,
    addresses: Vec<SocketAddr>,
}

impl Backend {
    /// Starts this very binary as the backend.
    pub(super) fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let process = Process::start("backend", command.arg("--backend"), folder);
        let line = process.line_after("listening on ", START_BOUND);
        let addresses = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { process, addresses })
    }

    pub(super) fn address(&self, service: Service) -> SocketAddr {
        self.addresses[service as usize]
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Unary calls answered so far.
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
    Other(#[expect(dead_code, reason = "held for its end: dropping it kills the process")] Process),
}

impl Running {
    /// Starts what the calls go through; what it writes stands in `folder`, which is its own.
    pub(super) fn start(
        peer: Peer,
        backend: SocketAddr,
        programs: &Programs,
        cores: Cores,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        match peer {
            Peer::Direct => return Ok(Self { address: backend, meter: None, proxy: None }),
            Peer::Attestry => return Ok(Self::attestry(backend, 1, cores.wrapper(), folder)),
            Peer::AttestryTwo => return Ok(Self::attestry(backend, 2, cores.wrapper_of_two(), folder)),
            _ => {}
        }
        let program = programs.of(peer).with_context(|| format!("{peer} is not installed"))?;
        // The others cannot choose a port and say which; this one was free a moment ago.
        let listen = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let arguments = arguments(peer, Route { listen, backend }, folder)?;
        let wrapper = cores.wrapper();
        let mut command = wrapper.first().map_or_else(|| Command::new(&program), Command::new);
        if !wrapper.is_empty() {
            command.args(&wrapper[1..]).arg(&program);
        }
        let process = Process::start(&format!("{peer:?}"), command.args(arguments), folder);
        wait_for(listen, peer, &process)?;
        let meter = Some(Meter { pid: process.pid(), ledger: None });
        Ok(Self { address: listen, meter, proxy: Some(Proxy::Other(process)) })
    }

    fn attestry(backend: SocketAddr, workers: u32, wrapper: &[&str], folder: &Path) -> Self {
        let ledger = folder.join("ledger");
        let sidecar = Sidecar::builder(backend)
            .set("proxy", "workers", &workers.to_string())
            .set("ledger", "segment_bytes", &SEGMENT_BYTES.to_string())
            .set("log", "filter", "\"warn\"")
            .ledger_dir(&ledger)
            .wrapper(wrapper)
            .start();
        let meter = Some(Meter { pid: sidecar.pid(), ledger: Some(ledger) });
        Self { address: sidecar.addr, meter, proxy: Some(Proxy::Attestry(sidecar)) }
    }

    /// Ends it; attestry in order, which must succeed. Its ledger stays, and is told where.
    pub(super) fn stop(self) -> Option<PathBuf> {
        let Some(Proxy::Attestry(mut sidecar)) = self.proxy else { return None };
        sidecar.stop();
        Some(sidecar.ledger_dir.clone())
    }
}

fn arguments(peer: Peer, route: Route, folder: &Path) -> anyhow::Result<Vec<String>> {
    let file = folder.join("settings");
    let path = file.to_str().context("the benchmark's folder is not UTF-8")?.to_owned();
    let with = |before: &[&str], behind: &[&str]| -> Vec<String> {
        let parts = before.iter().copied().chain([path.as_str()]).chain(behind.iter().copied());
        parts.map(str::to_owned).collect()
    };
    Ok(match peer {
        Peer::Haproxy => {
            fs::write(&file, settings::haproxy(route))?;
            with(&["-db", "-f"], &[])
        }
        Peer::Nginx => {
            fs::write(&file, settings::nginx(route, folder))?;
            with(&["-e", "stderr", "-c"], &[])
        }
        Peer::Envoy | Peer::EnvoyLog | Peer::EnvoyTap => {
            fs::create_dir(folder.join("tap"))?;
            let settings = settings::envoy(peer, route, folder);
            let path = folder.join("settings.json");
            fs::write(&path, settings.to_string())?;
            let fixed =
                ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--config-path"];
            fixed.into_iter().map(str::to_owned).chain([path.display().to_string()]).collect()
        }
        _ => settings::nghttpx(route),
    })
}

fn wait_for(listen: SocketAddr, peer: Peer, process: &Process) -> anyhow::Result<()> {
    let end = Instant::now() + START_BOUND;
    while TcpStream::connect(listen).is_err() {
        ensure!(
            Instant::now() < end,
            "{peer} does not listen on {listen} after {START_BOUND:?}; it said:\n{}",
            process.stderr()
        );
        thread::sleep(POLL_PAUSE);
    }
    Ok(())
}
