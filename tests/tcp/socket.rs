//! Bare sockets of a test: each wait bounded, what came and how it ended, and streams of bytes that are too long to be kept.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use sha2::{Digest as _, Sha256};
use socket2::SockRef;

use crate::driver::{End, PATIENCE};
use crate::support::sidecar::Sidecar;

const PIECE_BYTES: usize = 64 * 1024;

pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    bounded(TcpStream::connect_timeout(&addr, PATIENCE).unwrap())
}

/// The next connection.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    SockRef::from(listener).set_read_timeout(Some(PATIENCE)).unwrap();
    bounded(listener.accept().expect("a connection comes").0)
}

fn bounded(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends bytes that the other side must receive.
pub(crate) fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).unwrap();
    receive(to, bytes);
}

/// These bytes must come.
pub(crate) fn receive(stream: &mut TcpStream, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    stream
        .read_exact(&mut received)
        .unwrap_or_else(|error| panic!("\"{}\": {error}", expected.escape_ascii()));
    assert!(
        received == expected,
        "\"{}\" came, not \"{}\"",
        received.escape_ascii(),
        expected.escape_ascii()
    );
}

/// All that comes, and its end.
pub(crate) fn to_the_end(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (all, End::Fin),
            Ok(count) => all.extend(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (all, End::Reset),
            Err(error) => return (all, End::Failed(error.kind())),
        }
    }
}

/// Nothing has come, and nothing has ended.
pub(crate) fn is_silent(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Sends so many bytes that no two places of which are alike; returns their SHA-256.
pub(crate) fn pour(stream: &mut TcpStream, bytes: u64, seed: u64) -> [u8; 32] {
    let (mut digest, mut piece, mut left, mut noise) = (Sha256::new(), vec![0; PIECE_BYTES], bytes, seed | 1);
    while left > 0 {
        for word in piece.chunks_exact_mut(8) {
            // Xorshift (Marsaglia 2003): quick, and without a short period.
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            word.copy_from_slice(&noise.to_le_bytes());
        }
        let length = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        stream.write_all(&piece[..length]).unwrap();
        digest.update(&piece[..length]);
        left -= length as u64;
    }
    digest.finalize().into()
}

/// Receives so many bytes, and returns their SHA-256.
pub(crate) fn drink(stream: &mut TcpStream, bytes: u64) -> [u8; 32] {
    let (mut digest, mut piece, mut left) = (Sha256::new(), vec![0; PIECE_BYTES], bytes);
    while left > 0 {
        let room = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let count = stream.read(&mut piece[..room]).unwrap();
        assert!(count > 0, "{left} bytes are missing");
        digest.update(&piece[..count]);
        left -= count as u64;
    }
    digest.finalize().into()
}

/// A line of `/proc/PID/status`, in KiB.
pub(crate) fn resident_kib(sidecar: &Sidecar, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// By how many KiB the sidecar grows at its peak while `busy` runs.
pub(crate) fn growth_kib<T>(sidecar: &Sidecar, busy: impl FnOnce() -> T) -> (u64, T) {
    let before = resident_kib(sidecar, "VmRSS:");
    // 5 sets the peak back to what is resident now (proc_pid_clear_refs(5)).
    fs::write(format!("/proc/{}/clear_refs", sidecar.pid()), "5").unwrap();
    let done = busy();
    (resident_kib(sidecar, "VmHWM:").saturating_sub(before), done)
}
