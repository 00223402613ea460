//! What every socket of the data path is given, to clients and to upstreams, as strace sees it.

use crate::probes::PATIENCE;
use crate::support;
use crate::support::sidecar::Sidecar;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

/// Relays one connection with these keys of `[tcp]`, and returns the options that were set on sockets.
fn options_with(keys: &[(&str, &str)]) -> Option<String> {
    Command::new("strace").arg("-V").stdout(Stdio::null()).status().ok()?;
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut builder = Sidecar::builder(upstream.local_addr().unwrap());
    for (key, value) in keys {
        builder = builder.set("tcp", key, value);
    }
    let strace = ["strace", "-f", "-qq", "-e", "trace=setsockopt", "-o", trace.to_str().unwrap()];
    let mut sidecar = builder.wrapper(&strace).start();
    let client = TcpStream::connect(sidecar.addr).unwrap();
    let (mut server, _) = upstream.accept().unwrap();
    server.write_all(b"hello").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (&client).read_exact(&mut [0; 5]).unwrap();
    drop((client, server));
    // strace, whose child the sidecar is, ends with it.
    let strace = sidecar.pid();
    let child = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).unwrap();
    assert!(Command::new("kill").args(["-TERM", child.trim()]).status().unwrap().success());
    assert!(sidecar.wait().success(), "{}", sidecar.stderr());
    Some(fs::read_to_string(&trace).unwrap())
}

/// How often an option was set to a value without a complaint.
fn count(trace: &str, option: &str, value: &str) -> usize {
    let set =
        |line: &&str| line.contains(&format!("{option}, [{value}]")) && line.trim_end().ends_with("= 0");
    trace.lines().filter(set).count()
}

#[test]
fn both_sides_are_given_the_same() {
    let Some(trace) = options_with(&[]) else {
        return support::skip("both_sides_are_given_the_same", "there is no strace");
    };
    for (option, value) in [
        ("TCP_NODELAY", "1"),
        ("SO_KEEPALIVE", "1"),
        ("TCP_KEEPIDLE", "30"),
        ("TCP_KEEPINTVL", "8"),
        ("TCP_USER_TIMEOUT", "900000"),
    ] {
        assert_eq!(count(&trace, option, value), 2, "{option} {value}\n{trace}");
    }
}

/// The least that the configuration takes is a second for the kernel, and off is off.
#[test]
fn the_ends_of_the_ranges_are_taken_by_the_kernel() {
    let Some(trace) = options_with(&[("keepalive_ms", "1"), ("user_timeout_ms", "1000")]) else {
        return support::skip("the_ends_of_the_ranges_are_taken_by_the_kernel", "there is no strace");
    };
    for (option, value) in [("TCP_KEEPIDLE", "1"), ("TCP_KEEPINTVL", "1"), ("TCP_USER_TIMEOUT", "1000")] {
        assert_eq!(count(&trace, option, value), 2, "{option} {value}\n{trace}");
    }
    let trace = options_with(&[("keepalive_ms", "32767000"), ("user_timeout_ms", "86400000")]).unwrap();
    for (option, value) in [("TCP_KEEPIDLE", "32767"), ("TCP_USER_TIMEOUT", "86400000")] {
        assert_eq!(count(&trace, option, value), 2, "{option} {value}\n{trace}");
    }
    let trace = options_with(&[("keepalive_ms", "0"), ("user_timeout_ms", "0")]).unwrap();
    assert!(!trace.contains("SO_KEEPALIVE"), "{trace}");
    assert_eq!(
        (count(&trace, "TCP_USER_TIMEOUT", "0"), count(&trace, "TCP_NODELAY", "1")),
        (2, 2),
        "{trace}"
    );
}
