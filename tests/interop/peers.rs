//! A server or a client of a stack: started, talked to, waited for. `stacks.rs` installs what they are made of.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::stacks::{Stack, command};
use super::support::process::Process;
use super::tonic_client::TonicClient;
use super::tonic_server::TonicServer;

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
    /// With `tls`, a folder of credentials, it speaks TLS and asks for a certificate.
    pub(super) fn start(stack: Stack, tls: Option<&Path>) -> Self {
        let Some(mut command) = command(stack, tls) else { return Self::Tonic(TonicServer::start()) };
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
    /// A client that makes its calls to `target`, and asks the server itself at `control`; with `tls` as the server.
    pub(super) fn start(stack: Stack, target: SocketAddr, control: SocketAddr, tls: Option<&Path>) -> Self {
        let Some(mut command) = command(stack, tls) else {
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
