//! The stacks and their peers: installs what Python and Node need, starts a server or a client of a stack, talks to it.
//!
//! Packages are installed once, below the target folder, with versions pinned here. A stack that cannot be installed is
//! told as such, and its tests skip (or fail, see `support::skip`).

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::Stack;
use super::support::process::Process;
use super::tonic_client::TonicClient;
use super::tonic_server::TonicServer;

const PYTHON_PACKAGES: [&str; 3] = ["grpcio==1.85.1", "grpcio-tools==1.85.1", "protobuf==7.36.2"];
const NODE_PACKAGES: [&str; 2] = ["@grpc/grpc-js@1.14.7", "@grpc/proto-loader@0.8.1"];
/// Written when all packages are there, with their names: another list is another installation.
const COMPLETE: &str = "installed-packages";
const START_BOUND: Duration = Duration::from_secs(30);
/// A call's bound: many times what the slowest case takes, and over the ten seconds of the side channel.
const CALL_BOUND: Duration = Duration::from_secs(90);
const END_BOUND: Duration = Duration::from_mins(1);

/// A server of one stack.
pub(super) enum Server {
    Tonic(TonicServer),
    Process { process: Process, addr: SocketAddr, _folder: TempDir },
}

/// A client of one stack.
pub(super) enum Client {
    Tonic(TonicClient),
    Process { process: Process, _folder: TempDir },
}

impl Server {
    pub(super) fn start(stack: Stack) -> Self {
        let Some(mut command) = command(stack) else { return Self::Tonic(TonicServer::start()) };
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start("server", command.arg("server"), folder.path());
        let port: u16 = process.line_after("LISTENING ", START_BOUND).parse().unwrap();
        Self::Process { process, addr: SocketAddr::from(([127, 0, 0, 1], port)), _folder: folder }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        match self {
            Self::Tonic(server) => server.addr,
            Self::Process { addr, .. } => *addr,
        }
    }

    /// Waits until its graceful shutdown is done.
    pub(super) fn wait(&mut self) {
        match self {
            Self::Tonic(server) => server.wait(END_BOUND),
            Self::Process { process, .. } => {
                let status = process.wait(END_BOUND);
                assert!(status.success(), "the server ended with {status}:\n{}", process.stderr());
            }
        }
    }
}

impl Client {
    /// A client that makes its calls to `target`, and asks the server itself at `control`.
    pub(super) fn start(stack: Stack, target: SocketAddr, control: SocketAddr) -> Self {
        let Some(mut command) = command(stack) else {
            return Self::Tonic(TonicClient::start(target, control));
        };
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["client".to_owned(), target.to_string(), control.to_string()];
        let process = Process::start("client", command.args(arguments), folder.path());
        Self::Process { process, _folder: folder }
    }

    /// Makes the call or calls of one case.
    pub(super) fn run(&mut self, spec: &Value) -> Value {
        match self {
            Self::Tonic(client) => client.run(spec, CALL_BOUND),
            Self::Process { process, .. } => {
                process.say(&spec.to_string());
                let line = process.line(CALL_BOUND);
                serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("the client said {line:?}: {error}"))
            }
        }
    }
}

/// Why a stack is not to be had here, if so. The first caller installs, the others wait for it.
pub(super) fn missing(stack: Stack) -> Option<String> {
    static PYTHON: OnceLock<Result<(), String>> = OnceLock::new();
    static NODE: OnceLock<Result<(), String>> = OnceLock::new();
    let installed = match stack {
        Stack::Python => PYTHON.get_or_init(install_python),
        Stack::Node => NODE.get_or_init(install_node),
        Stack::Tonic => &Ok(()),
    };
    installed.clone().err()
}

/// The program and first arguments of a peer; none for tonic, which runs in this process.
fn command(stack: Stack) -> Option<Command> {
    let sources = sources();
    let mut command = match stack {
        Stack::Tonic => return None,
        Stack::Python => {
            let mut command = Command::new(python_folder().join("bin/python"));
            command.arg(sources.join("peer.py")).env("PYTHONPATH", python_folder().join("generated"));
            command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(python_folder());
            command
        }
        Stack::Node => {
            let mut command = Command::new("node");
            command.arg(sources.join("peer.js")).current_dir(node_folder());
            command
        }
    };
    // A proxy that the environment names is not meant for the loopback, but grpcio and grpc-js would take it.
    for name in ["http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        command.env_remove(name);
    }
    Some(command)
}

fn install_python() -> Result<(), String> {
    let folder = python_folder();
    let python = folder.join("bin/python");
    if !is_complete(&folder, &PYTHON_PACKAGES) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYTHON_PACKAGES))?;
    }
    // The messages are generated each time, as nobody could tell stale ones.
    let generated = folder.join("generated");
    fs::create_dir_all(&generated)
        .map_err(|error| format!("cannot make {}: {error}", generated.display()))?;
    let mut generate = Command::new(&python);
    generate.args(["-m", "grpc_tools.protoc", "-I"]).arg(sources()).arg("--python_out").arg(&generated);
    run(generate.arg(sources().join("interop.proto")))?;
    complete(&folder, &PYTHON_PACKAGES)
}

fn install_node() -> Result<(), String> {
    let folder = node_folder();
    if is_complete(&folder, &NODE_PACKAGES) {
        return run(Command::new("node").arg("--version"));
    }
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let package = folder.join("package.json");
    fs::write(&package, "{\"private\": true}\n")
        .map_err(|error| format!("cannot write {}: {error}", package.display()))?;
    let mut install = Command::new("npm");
    install.args(["install", "--no-audit", "--no-fund", "--silent"]).args(NODE_PACKAGES).current_dir(&folder);
    run(&mut install)?;
    complete(&folder, &NODE_PACKAGES)
}

fn is_complete(folder: &Path, packages: &[&str]) -> bool {
    fs::read_to_string(folder.join(COMPLETE)).is_ok_and(|installed| installed == packages.join("\n"))
}

fn complete(folder: &Path, packages: &[&str]) -> Result<(), String> {
    let mark = folder.join(COMPLETE);
    fs::write(&mark, packages.join("\n")).map_err(|error| format!("cannot write {}: {error}", mark.display()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

fn python_folder() -> PathBuf {
    target().join("interop-venv")
}

fn node_folder() -> PathBuf {
    target().join("interop-node")
}

/// The target folder, which holds the folder that cargo gives to integration tests.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("cargo's folder for tests lies in the target folder")
}
