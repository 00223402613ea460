//! A gigabyte through the relay does not stay in its memory: what passes is held only until it is durable.
//!
//! One client-streaming call of 1 GiB in messages of 1 MiB; the peak of the sidecar's resident memory stays within 64 MiB of what it was when
//! idle, and every byte is in the ledger.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use support::sidecar::Sidecar;
use traffic::{Client, PATIENCE};

const UPLOAD_BYTES: usize = 1 << 30;
const MESSAGE_BYTES: usize = 1 << 20;
/// The largest frame that every server takes (RFC 9113 section 4.2).
const FRAME_BYTES: usize = 16_384;
const GROWTH_KIB_MAX: u64 = 64 * 1024;

#[test]
fn an_upload_of_a_gigabyte_stays_within_64_mib_of_idle() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let server = discarding_server();
    let mut sidecar = Sidecar::builder(server)
        .ledger_dir(&folder.path().join("ledger"))
        .set("ledger", "segment_bytes", "67108864")
        .start();
    let client = Client::connect(sidecar.addr).unwrap();
    upload(&client, 1, 1);
    assert!(client.wait_for_ended_calls(1));
    let idle = resident_kib(&sidecar, "VmRSS:");
    // 5 sets the peak back to what is resident now (proc_pid_clear_refs(5)).
    fs::write(format!("/proc/{}/clear_refs", sidecar.pid()), "5").unwrap();

    upload(&client, 3, UPLOAD_BYTES / MESSAGE_BYTES);
    assert!(client.wait_for_ended_calls(2));
    let peak = resident_kib(&sidecar, "VmHWM:");
    let growth = peak.saturating_sub(idle);
    eprintln!("idle {idle} KiB, peak {peak} KiB: {growth} KiB more");
    client.close();
    assert_eq!(client.finish().refusals, Vec::<String>::new());
    sidecar.stop();
    assert!(growth <= GROWTH_KIB_MAX, "resident memory grew by {growth} KiB, from {idle} to {peak}");
    let stored: u64 = fs::read_dir(folder.path().join("ledger/segments")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(stored > UPLOAD_BYTES as u64, "all of it is in the ledger, which has {stored} bytes");
}

/// One call with so many messages of 1 MiB.
fn upload(client: &Client, stream: u32, messages: usize) {
    assert!(client.write(&traffic::open_call(stream, "/sink.Sink/Upload", "upload")));
    let message = traffic::message(&vec![b'm'; MESSAGE_BYTES]);
    let frames: Vec<u8> = message.chunks(FRAME_BYTES).flat_map(|part| traffic::data(stream, part, false)).collect();
    for _ in 0..messages {
        assert!(client.write(&frames), "the connection takes no more");
    }
    assert!(client.write(&traffic::data(stream, &[], true)));
}

/// A server that reads everything, keeps nothing, and answers each call at its end.
fn discarding_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let socket = socket.unwrap();
            thread::spawn(move || discard(&socket));
        }
    });
    addr
}

fn discard(mut socket: &TcpStream) {
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(&traffic::greeting()).unwrap();
    traffic::read_all(socket, |_| {}, |frame| {
        if frame.ends_stream() {
            let answer = [traffic::begin_response(frame.stream, "upload"), traffic::end_response(frame.stream, "upload")];
            socket.write_all(&answer.concat()).unwrap();
        }
    });
}

/// A line of `/proc/PID/status`, in KiB.
fn resident_kib(sidecar: &Sidecar, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
