//! A gigabyte through the relay does not stay in its memory: what passes is held only until it is durable.
//!
//! One client-streaming call of 1 GiB in messages of 1 MiB; the peak of the sidecar's resident memory stays within 64 MiB of what it was when
//! idle, and every byte is in the ledger. Behind a server that does not read, the client is made to wait.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use support::sidecar::Sidecar;
use traffic::{Client, PATIENCE};

const UPLOAD_BYTES: usize = 1 << 30;
const MESSAGE_BYTES: usize = 1 << 20;
/// The largest frame that every server takes (RFC 9113 section 4.2).
const FRAME_BYTES: usize = 16_384;
const GROWTH_KIB_MAX: u64 = 64 * 1024;
/// 256 MiB: more than sockets and a bound of 1 MiB take, less than one of 512 MiB does.
const DEAF_FRAMES_MAX: usize = 16_384;

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
    let stored: u64 = fs::read_dir(folder.path().join("ledger/segments"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(stored > UPLOAD_BYTES as u64, "all of it is in the ledger, which has {stored} bytes");
}

#[test]
fn a_server_that_does_not_read_stops_the_client_and_fills_no_memory() {
    let growth = growth_behind_a_deaf_server("1048576");
    assert!(growth <= GROWTH_KIB_MAX, "resident memory grew by {growth} KiB");
    // The measurement shows what it would have to: with a large bound on what is held, that much is held.
    let growth = growth_behind_a_deaf_server("536870912");
    assert!(
        growth > GROWTH_KIB_MAX,
        "half a gigabyte may be held, and resident memory grew by {growth} KiB only"
    );
}

/// By how many KiB the sidecar grows while a client sends as much as it can to a server that reads nothing.
fn growth_behind_a_deaf_server(hold_bytes_max: &str) -> u64 {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let sidecar = Sidecar::builder(server.local_addr().unwrap())
        .set("limits", "hold_bytes_max", hold_bytes_max)
        .start();
    let idle = resident_kib(&sidecar, "VmRSS:");
    let mut client = TcpStream::connect(sidecar.addr).unwrap();
    // Past it the client counts as stopped; were it too short, less would be sent, and the second measurement would fail.
    client.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
    let begin =
        [traffic::PREFACE, &traffic::greeting(), &traffic::open_call(1, "/sink.Sink/Upload", "upload")]
            .concat();
    client.write_all(&begin).unwrap();
    let frame = traffic::data(1, &vec![b'm'; FRAME_BYTES], false);
    let sent = (0..DEAF_FRAMES_MAX).take_while(|_| client.write_all(&frame).is_ok()).count();
    let growth = resident_kib(&sidecar, "VmHWM:").saturating_sub(idle);
    eprintln!(
        "hold_bytes_max {hold_bytes_max}: {} KiB were taken, {growth} KiB more are resident",
        sent * FRAME_BYTES / 1024
    );
    growth
}

/// One call with so many messages of 1 MiB.
fn upload(client: &Client, stream: u32, messages: usize) {
    assert!(client.write(&traffic::open_call(stream, "/sink.Sink/Upload", "upload")));
    let message = traffic::message(&vec![b'm'; MESSAGE_BYTES]);
    let frames: Vec<u8> =
        message.chunks(FRAME_BYTES).flat_map(|part| traffic::data(stream, part, false)).collect();
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
    traffic::read_all(
        socket,
        |_| {},
        |frame| {
            if frame.ends_stream() {
                let answer = [
                    traffic::begin_response(frame.stream, "upload"),
                    traffic::end_response(frame.stream, "upload"),
                ];
                socket.write_all(&answer.concat()).unwrap();
            }
        },
    );
}

/// A line of `/proc/PID/status`, in KiB.
fn resident_kib(sidecar: &Sidecar, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
