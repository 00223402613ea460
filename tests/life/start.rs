//! A start that takes its time, because what it needs does not answer: it is told to probes, and a signal ends it.

use crate::probes::{PATIENCE, ask};
use crate::support::process::Process;
use crate::support::sidecar::program;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Instant;
use tempfile::{TempDir, tempdir};

/// A process that waits for certificates from a socket on which nobody answers: its folder, and where its admin is.
fn starting() -> (Process, SocketAddr, UnixListener, TempDir) {
    let folder = tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let deaf = UnixListener::bind(&socket).unwrap();
    let path = folder.path().join("proxy.toml");
    let listeners =
        "[proxy]\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"\nclient_tls = \"terminate\"\n";
    let dir = folder.path().join("ledger");
    let text = format!(
        "{listeners}[tls]\nspiffe_socket = \"{}\"\n[ledger]\ndir = \"{}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n",
        socket.display(),
        dir.display()
    );
    fs::write(&path, text).unwrap();
    let mut command = Command::new(program());
    command.args(["run", "--config"]).arg(&path);
    let process = Process::start("starting", &mut command, folder.path());
    let end = Instant::now() + PATIENCE;
    let admin = loop {
        let log = process.stderr();
        // The line is there as a whole once another one follows it, or its end does.
        if let Some((_, rest)) = log.split_once("admin endpoints address=")
            && let Some((address, _)) = rest.split_once('\n')
        {
            break address.trim().parse().unwrap();
        }
        assert!(Instant::now() < end, "{log}");
    };
    (process, admin, deaf, folder)
}

#[test]
fn a_start_under_way_is_alive_and_neither_started_nor_ready() {
    let (_process, admin, _deaf, _folder) = starting();
    assert_eq!(ask(admin, "GET", "/livez"), (200, "alive".into()));
    assert_eq!(ask(admin, "GET", "/startupz"), (503, "starting".into()));
    assert_eq!(ask(admin, "GET", "/readyz"), (503, "not ready: starting".into()));
}

#[test]
fn a_signal_ends_a_start_that_goes_nowhere() {
    let (mut process, _admin, _deaf, folder) = starting();
    process.signal("TERM");
    let status = process.wait(std::time::Duration::from_secs(10));
    assert_eq!(status.code(), Some(1), "{}", process.stderr());
    assert!(process.stderr().contains("SIGTERM during the start"), "{}", process.stderr());
    assert!(!folder.path().join("ledger").exists());
}
