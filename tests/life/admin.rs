//! The admin endpoints and the commands that ask them: when a sidecar is ready, why it is not, and what a drain changes.

use crate::h2_peers::{Client, EchoServer, call, message, runtime};
use crate::ledger_reading::{assert_intact, segment_path, stops};
use crate::probes::{PATIENCE, admin_of, ask, ask_until, builder, exchange};
use crate::support::process::Process;
use crate::support::sidecar::{Sidecar, attestry, program};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use tempfile::tempdir;

fn ready(address: SocketAddr) -> (Option<i32>, String) {
    said(&attestry(&["ready", "--admin", &address.to_string()]))
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn a_started_sidecar_is_alive_started_and_ready() {
    let server = EchoServer::start();
    let mut sidecar = builder(server.addr).start();
    let admin = admin_of(&sidecar);
    assert_eq!(ask(admin, "GET", "/livez"), (200, "alive".into()));
    assert_eq!(ask(admin, "GET", "/startupz"), (200, "started".into()));
    assert_eq!(ask(admin, "GET", "/readyz"), (200, "ready".into()));
    assert_eq!(ask(admin, "HEAD", "/readyz"), (200, String::new()));
    assert_eq!(ready(admin), (Some(0), "ready\n".into()));
    sidecar.stop();
    assert!(TcpStream::connect(admin).is_err(), "the admin endpoints outlive the process");
    assert_intact(&sidecar.ledger_dir, "asked");
}

#[test]
fn what_is_not_there_and_what_is_not_allowed_is_said() {
    let server = EchoServer::start();
    let sidecar = builder(server.addr).start();
    let admin = admin_of(&sidecar);
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/readyz/", 404),
        ("POST", "/readyz", 405),
        ("GET", "/drain", 405),
        ("POST", "/drain?wait=1", 400),
        ("POST", "/drain?wait_ms=600001", 400),
    ] {
        assert_eq!(ask(admin, method, path).0, status, "{method} {path}");
    }
    // None of it has begun a drain.
    assert_eq!(ask(admin, "GET", "/readyz").0, 200);
}

/// Requests are bounded in bytes and in time, and connections in number: nobody keeps others from asking for longer than that.
#[test]
fn a_request_that_does_not_end_does_not_stay() {
    let server = EchoServer::start();
    let sidecar = builder(server.addr).start();
    let admin = admin_of(&sidecar);
    let long = format!("GET /readyz HTTP/1.1\r\nhost: test\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let answer = exchange(admin, long.as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(admin).unwrap();
        // Over the bound it is closed already.
        let _ = stream.write_all(b"GET /readyz HTTP/1.1\r\n");
        slow.push(stream);
    }
    for stream in &mut slow {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let ended = stream.read(&mut [0; 512]);
        let is_timeout = ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!is_timeout, "a slow request is still open");
    }
    assert_eq!(ask(admin, "GET", "/readyz"), (200, "ready".into()));
}

/// The disk fails under a sidecar that refuses: not ready, with the reason, and ready again when the ledger is.
#[test]
fn readiness_follows_the_ledger() {
    let server = EchoServer::start();
    let mut sidecar = builder(server.addr).set("ledger", "recovery_interval_ms", "3000").start();
    let admin = admin_of(&sidecar);
    fs::remove_file(segment_path(&sidecar.ledger_dir, 0)).unwrap();
    // The failure is found by the next commit, which a connection brings about.
    let _client = TcpStream::connect(sidecar.addr).unwrap();
    let why = ask_until(admin, "/readyz", 503);
    assert!(why.starts_with("not ready: the ledger cannot commit: ") && why.contains("was removed"), "{why}");
    let (code, printed) = ready(admin);
    assert!(code == Some(1) && printed.contains("was removed") || code == Some(0), "{code:?} {printed}");
    assert_eq!(ask(admin, "GET", "/livez").0, 200, "a restart would not mend the disk");
    assert_eq!(ask_until(admin, "/readyz", 200), "ready");
    sidecar.stop();
}

#[test]
fn a_sidecar_that_forwards_stays_ready_and_says_what_it_does_not_do() {
    let server = EchoServer::start();
    let sidecar = builder(server.addr)
        .set("ledger", "recovery_interval_ms", "3600000")
        .set("ledger", "on_failure", "\"forward\"")
        .start();
    let admin = admin_of(&sidecar);
    fs::remove_file(segment_path(&sidecar.ledger_dir, 0)).unwrap();
    let content = message(b"hello");
    assert!(runtime().block_on(call(sidecar.addr, &content)).is_echo_of(&content));
    let (status, body) = ask(admin, "GET", "/readyz");
    assert!(
        status == 200 && body.starts_with("ready, but nothing is recorded") && body.contains("was removed"),
        "{body}"
    );
    assert_eq!(ready(admin).0, Some(0));
}

#[test]
fn a_drain_takes_readiness_away_and_nothing_else() {
    let server = EchoServer::start();
    let mut sidecar = builder(server.addr).start();
    let admin = admin_of(&sidecar);
    let content = message(b"hello");
    let runtime = runtime();
    let mut client = runtime.block_on(Client::connect(sidecar.addr));
    assert!(runtime.block_on(client.call(&content)).is_echo_of(&content));
    let hook = attestry(&["pre-stop", "--admin", &admin.to_string(), "--wait-ms", "0"]);
    assert_eq!(said(&hook), (Some(0), "draining; 1 inbound connections are open\n".into()));
    assert_eq!(ask(admin, "GET", "/readyz"), (503, "not ready: draining".into()));
    assert_eq!(
        said(&attestry(&["ready", "--admin", &admin.to_string()])),
        (Some(1), "attestry: not ready: draining\n".into())
    );
    assert_eq!((ask(admin, "GET", "/livez").0, ask(admin, "GET", "/startupz").0), (200, 200));
    assert!(runtime.block_on(client.call(&content)).is_echo_of(&content), "the open connection goes on");
    assert!(runtime.block_on(call(sidecar.addr, &content)).is_echo_of(&content), "a late one is served");
    drop(client);
    sidecar.stop();
    assert_eq!(stops(&sidecar.ledger_dir).len(), 1);
    assert_intact(&sidecar.ledger_dir, "drained");
}

/// A preStop hook under way.
fn hook(sidecar: &Sidecar, admin: SocketAddr, wait_ms: &str) -> (Process, tempfile::TempDir) {
    let folder = tempdir().unwrap();
    let mut command = Command::new(program());
    command.args(["pre-stop", "--admin", &admin.to_string(), "--wait-ms", wait_ms, "--quiet-ms", "1"]);
    let process = Process::start("pre-stop", &mut command, folder.path());
    let why = ask_until(admin, "/readyz", 503);
    assert_eq!(why, "not ready: draining", "{}", sidecar.stderr());
    (process, folder)
}

#[test]
fn the_hook_waits_for_inbound_connections_to_end() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sidecar = builder(upstream.local_addr().unwrap()).start();
    let admin = admin_of(&sidecar);
    let client = TcpStream::connect(sidecar.addr).unwrap();
    let (server, _) = upstream.accept().unwrap();
    let (mut hook, _folder) = hook(&sidecar, admin, "600000");
    // With the connection there the hook would wait for ten minutes; without it ends.
    drop((client, server));
    assert_eq!(hook.line(PATIENCE), "draining; 0 inbound connections are open");
    assert!(hook.wait(PATIENCE).success());
    sidecar.stop();
}

#[test]
fn the_hook_waits_no_longer_than_it_may() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let sidecar = builder(upstream.local_addr().unwrap()).start();
    let admin = admin_of(&sidecar);
    let _client = TcpStream::connect(sidecar.addr).unwrap();
    let _server = upstream.accept().unwrap();
    let (mut hook, _folder) = hook(&sidecar, admin, "300");
    assert_eq!(hook.line(PATIENCE), "draining; 1 inbound connections are open");
    assert!(hook.wait(PATIENCE).success());
}

#[test]
fn the_commands_find_the_admin_in_the_configuration_and_say_where_there_is_none() {
    let server = EchoServer::start();
    let mut sidecar = builder(server.addr).start();
    let admin = admin_of(&sidecar);
    let folder = tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    let ready = |admin: &str| {
        let listeners = "[proxy]\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"\n[admin]\n";
        fs::write(&path, format!("{listeners}{admin}\n")).unwrap();
        said(&attestry(&["ready", "--config", path.to_str().unwrap()]))
    };
    assert_eq!(ready(&format!("listen = \"{admin}\"")), (Some(0), "ready\n".into()));
    assert_eq!(ready(&format!("listen = \"0.0.0.0:{}\"", admin.port())), (Some(0), "ready\n".into()));
    for (line, code, message) in [
        ("", 1, "write listen in [admin]"),
        ("listen = \"127.0.0.1:0\"", 1, "name the address with --admin"),
        ("listen = 1", 2, "admin.listen must be a string"),
    ] {
        let (found, printed) = ready(line);
        assert!(found == Some(code) && printed.contains(message), "{line}: {found:?} {printed}");
    }
    sidecar.stop();
    let (code, printed) = said(&attestry(&["ready", "--admin", &admin.to_string()]));
    assert!(code == Some(1) && printed.contains("refused"), "{code:?} {printed}");
    let (code, _) = said(&attestry(&["pre-stop", "--admin", &admin.to_string()]));
    assert_eq!(code, Some(1), "a hook that reached nobody has not done its work");
}

#[test]
fn an_admin_address_in_use_is_a_failed_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    let (dir, address) = (folder.path().join("ledger"), taken.local_addr().unwrap());
    let text = format!(
        "[proxy]\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"\n[ledger]\ndir = \"{}\"\n[admin]\nlisten = \"{address}\"\n",
        dir.display()
    );
    fs::write(&path, text).unwrap();
    let (code, printed) = said(&attestry(&["run", "--config", path.to_str().unwrap()]));
    assert!(code == Some(1) && printed.contains("([admin] listen)"), "{code:?} {printed}");
    assert!(!dir.exists(), "nothing else was started");
}
