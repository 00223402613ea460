//! TLS that is passed on unopened, between OpenSSL's own client and server: their session, whole, and what its first message says.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sha2::{Digest as _, Sha256};

use crate::support::sidecar::Sidecar;
use crate::support::skip;
use crate::told::{connections, found, hex};

/// Many records, and many reads.
const FILE_BYTES: usize = 1 << 20;

/// Ends a program that hangs.
const LIMIT_SECONDS: &str = "30";

#[test]
fn a_session_of_openssl_passes_unopened() {
    if Command::new("openssl").arg("version").output().is_err() {
        return skip("a_session_of_openssl_passes_unopened", "no openssl");
    }
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> =
        (0..FILE_BYTES / 4).flat_map(|at| Sha256::digest(at.to_le_bytes())[..4].to_vec()).collect();
    fs::write(folder.path().join("blob"), &content).unwrap();
    let server = Server::start(folder.path());
    let mut sidecar = Sidecar::builder(server.addr).set("detect", "timeout_ms", "60000").start();
    for version in ["-tls1_3", "-tls1_2"] {
        for addr in [server.addr, sidecar.addr] {
            let received = fetch(folder.path(), addr, version);
            let begin = received.len().checked_sub(content.len()).expect("all of the file");
            assert_eq!(hex(&Sha256::digest(&received[begin..])), hex(&Sha256::digest(&content)), "{version}");
        }
    }
    sidecar.stop();
    sidecar.verify();
    let connections = connections(&sidecar);
    assert_eq!(connections.len(), 2);
    for (connection, version) in connections.iter().zip(["t13d", "t12d"]) {
        let tls = &connection["tls_client"];
        assert_eq!(found(connection), ["tls_passthrough: a ClientHello, passed on unopened"]);
        assert_eq!((&tls["server_name"], &tls["terminated"]), (&"b.example".into(), &false.into()));
        assert_eq!(tls["alpn_offered"], serde_json::json!(["x/1", "http/1.1"]));
        assert!(tls["ja4"].as_str().is_some_and(|ja4| ja4.starts_with(version) && ja4.len() == 36), "{tls}");
        assert!(tls["version"].is_null() && connection["tls_server"].is_null(), "nobody has looked inside");
        assert!(connection["bytes_to_client"].as_u64().unwrap() > FILE_BYTES as u64);
        assert_eq!(connection["state"], "closed");
    }
}

/// A file of the server's, with the head of its response before it; the client must find the server's certificate and every record genuine.
fn fetch(folder: &Path, addr: SocketAddr, version: &str) -> Vec<u8> {
    let certificate = folder.join("certificate.pem");
    let mut command = Command::new("timeout");
    command.args([LIMIT_SECONDS, "openssl", "s_client", "-quiet", "-verify_return_error", version]);
    command.args([
        "-connect",
        &addr.to_string(),
        "-servername",
        "b.example",
        "-alpn",
        "x/1,http/1.1",
        "-CAfile",
    ]);
    let mut child = command
        .arg(certificate)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"GET /blob HTTP/1.0\r\n\r\n").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// `openssl s_server`, which serves the files of a folder.
struct Server {
    addr: SocketAddr,
    child: Child,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                "/CN=b.example",
            ])
            .args(["-keyout", "key.pem", "-out", "certificate.pem"])
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut child = Command::new("openssl")
            .args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-WWW",
                "-cert",
                "certificate.pem",
                "-key",
                "key.pem",
            ])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // "ACCEPT 127.0.0.1:41234": the port that it was given.
        let addr =
            lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(|text| text.parse().unwrap()));
        std::thread::spawn(move || lines.for_each(drop));
        Self { addr: addr.expect("s_server says where it listens"), child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
