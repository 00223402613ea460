//! A probe as a test makes it: one request to the admin endpoints, and the address that they were given.

use crate::support::sidecar::{Builder, Sidecar};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A sidecar in front of `upstream` with admin endpoints on a free port.
pub fn builder(upstream: SocketAddr) -> Builder {
    Sidecar::builder(upstream).set("admin", "listen", "\"127.0.0.1:0\"")
}

/// Where the sidecar answers: it says so in its log before it serves.
pub fn admin_of(sidecar: &Sidecar) -> SocketAddr {
    let log = sidecar.stderr();
    let line = log.lines().find(|line| line.contains("admin endpoints")).unwrap_or_else(|| panic!("{log}"));
    let address = line.rsplit("address=").next().unwrap();
    address.trim().parse().unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

/// Sends these bytes and returns what comes back until the end.
pub fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(request);
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    // A refused request may end in a reset behind its answer.
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..length]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status and the body of one answer.
pub fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let answer = exchange(address, format!("{method} {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes());
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or_else(|| panic!("{method} {path}: {answer:?}")), body.trim_end().to_owned())
}

/// Asks until the answer has this status, which must happen in time.
pub fn ask_until(address: SocketAddr, path: &str, status: u16) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let (found, body) = ask(address, "GET", path);
        if found == status {
            return body;
        }
        assert!(Instant::now() < end, "{path} is still {found}: {body}");
    }
}
