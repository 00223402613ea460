//! OpenSSL's command as client and as server.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use super::Scene;
use super::authority::Issued;

/// Ends a program that hangs.
const LIMIT_SECONDS: &str = "30";

/// What `openssl s_client` has printed.
pub(super) struct Said {
    pub(super) out: String,
    pub(super) errors: String,
    pub(super) succeeded: bool,
}

impl Said {
    /// The protocol that ALPN chose.
    pub(super) fn alpn(&self) -> Option<&str> {
        self.out.lines().find_map(|line| line.strip_prefix("ALPN protocol: "))
    }

    /// `CN = x` of the server's certificate.
    pub(super) fn subject(&self) -> &str {
        self.out.lines().find_map(|line| line.strip_prefix("subject=")).unwrap_or_default()
    }
}

/// An `openssl s_client` that is connected, or about to be.
pub(super) struct Client {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    pub(super) fn start(scene: &Scene, address: SocketAddr, arguments: &[&str]) -> Self {
        let mut command = Command::new("timeout");
        command.args([LIMIT_SECONDS, "openssl", "s_client", "-ign_eof", "-connect", &address.to_string()]);
        command
            .args(["-CAfile", scene.authority.certificate.to_str().unwrap(), "-verify_return_error"])
            .args(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// Waits until its handshake is done, and done well.
    pub(super) fn shake_hands(&mut self) {
        let mut lines = self.stdout.by_ref().lines();
        let done = lines.any(|line| line.unwrap().contains("Verify return code: 0 (ok)"));
        assert!(done, "s_client ended without a handshake");
    }

    pub(super) fn say(&mut self, text: &str) {
        // A client that has been refused reads nothing any more; its end says so.
        let _ = self.stdin.write_all(text.as_bytes());
    }

    /// Waits until the server has ended the connection.
    pub(super) fn wait(mut self) -> Said {
        let mut stderr = self.child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).unwrap();
            text
        });
        let mut out = Vec::new();
        self.stdout.read_to_end(&mut out).unwrap();
        let status = self.child.wait().unwrap();
        assert_ne!(
            status.code(),
            Some(124),
            "s_client was not done within {LIMIT_SECONDS} s: {}",
            String::from_utf8_lossy(&out)
        );
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { out: text(out), errors: text(errors.join().unwrap()), succeeded: status.success() }
    }
}

/// Asks a server that answers in reverse (`Server`) and then closes.
pub(super) fn ask(scene: &Scene, address: SocketAddr, arguments: &[&str]) -> Said {
    let mut client = Client::start(scene, address, arguments);
    client.say("desrever\nCLOSE\n");
    client.wait()
}

/// The arguments that make a client show a certificate.
pub(super) fn showing(issued: &Issued) -> Vec<&str> {
    vec!["-cert", issued.certificate.to_str().unwrap(), "-key", issued.key.to_str().unwrap()]
}

/// `openssl s_server`, which answers each line in reverse, and closes at "CLOSE".
pub(super) struct Server {
    pub(super) addr: SocketAddr,
    child: Child,
}

impl Server {
    pub(super) fn start(folder: &Path, issued: &Issued, arguments: &[&str]) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-rev"]);
        command
            .args(["-cert", issued.certificate.to_str().unwrap(), "-key", issued.key.to_str().unwrap()])
            .args(arguments);
        let errors = File::create(folder.join("s_server.stderr")).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // "ACCEPT 127.0.0.1:41234": the port that it was given.
        let addr = lines
            .find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(|text| text.parse().unwrap()))
            .unwrap();
        thread::spawn(move || lines.for_each(drop));
        Self { addr, child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
