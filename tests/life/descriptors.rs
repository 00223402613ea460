//! The limit of file descriptors: raised to what the process may have, and told where that is not enough.

use crate::h2_peers::EchoServer;
use crate::support::sidecar::Sidecar;
use std::fs;

/// Starts a sidecar under `ulimit`; returns its soft and hard limit and its log.
fn limits_under(ulimit: &str, connections_max: &str) -> (String, String, String) {
    let server = EchoServer::start();
    let script = format!("ulimit {ulimit} && exec \"$0\" \"$@\"");
    let sidecar = Sidecar::builder(server.addr)
        .set("limits", "connections_max", connections_max)
        .wrapper(&["sh", "-c", &script])
        .start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", sidecar.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let values: Vec<&str> = line.split_whitespace().skip(3).collect();
    (values[0].to_owned(), values[1].to_owned(), sidecar.stderr())
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let (soft, hard, log) = limits_under("-Sn 256", "100");
    assert_eq!(soft, hard);
    assert_ne!(hard, "256", "the test needs a higher hard limit to show anything");
    assert!(log.contains("before=256"), "{log}");
    assert!(!log.contains("too few file descriptors"), "{log}");
}

#[test]
fn a_limit_that_is_too_low_for_the_connections_is_told() {
    let (soft, hard, log) = limits_under("-n 512", "250");
    assert_eq!((soft.as_str(), hard.as_str()), ("512", "512"));
    assert!(
        log.contains("too few file descriptors for limits.connections_max") && log.contains("needed=628"),
        "{log}"
    );
}
