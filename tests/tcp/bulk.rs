//! Long streams: whole, both ways at once, and in a bounded memory whether or not the receiver reads.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crate::duet::{addr_of, bind};
use crate::socket::{accept, connect, drink, growth_kib, pass, pour};
use crate::support::sidecar::Sidecar;
use crate::told::{connections, end};

const LONG_BYTES: u64 = 64 << 20;
const GROWTH_KIB_MAX: u64 = 24 * 1024;

#[test]
fn long_streams_pass_both_ways_at_once_in_a_bounded_memory() {
    let upstream = bind();
    let mut sidecar = Sidecar::start(addr_of(&upstream));
    let (mut client, mut server) = (connect(sidecar.addr), accept(&upstream));
    // Nothing that HTTP, HTTP/2 or TLS begins with.
    pass(&mut client, &mut server, b"\x01");
    let (growth, ()) = growth_kib(&sidecar, || both_ways(&client, &server));
    eprintln!("resident memory grew by {growth} KiB");
    assert!(growth <= GROWTH_KIB_MAX, "resident memory grew by {growth} KiB");
    drop((client, server));
    sidecar.stop();
    sidecar.verify();
    let connection = &connections(&sidecar)[0];
    assert_eq!(
        (&connection["bytes_to_server"], &connection["bytes_to_client"]),
        (&(LONG_BYTES + 1).into(), &LONG_BYTES.into())
    );
}

/// Each side sends all and then its FIN, and receives what the other has sent.
fn both_ways(client: &TcpStream, server: &TcpStream) {
    thread::scope(|scope| {
        let sends = |stream: &TcpStream, seed| {
            let mut own = stream.try_clone().unwrap();
            scope.spawn(move || {
                let digest = pour(&mut own, LONG_BYTES, seed);
                own.shutdown(Shutdown::Write).unwrap();
                digest
            })
        };
        let (asked, answered) = (sends(client, 1), sends(server, 2));
        let receives = |stream: &TcpStream| {
            let mut own = stream.try_clone().unwrap();
            scope.spawn(move || {
                let digest = drink(&mut own, LONG_BYTES);
                assert_eq!(own.read(&mut [0]).unwrap(), 0, "the end comes behind the last byte");
                digest
            })
        };
        let (heard, read) = (receives(server), receives(client));
        assert_eq!(
            (asked.join().unwrap(), answered.join().unwrap()),
            (heard.join().unwrap(), read.join().unwrap())
        );
    });
}

/// Either way, a receiver that does not read stops the sender; once it reads, it has every byte.
#[test]
fn a_receiver_that_does_not_read_stops_the_sender_and_fills_no_memory() {
    for to_server in [true, false] {
        let growth = growth_behind_a_deaf_receiver("1048576", to_server);
        assert!(growth <= GROWTH_KIB_MAX, "to the server {to_server}: resident memory grew by {growth} KiB");
    }
    // The measurement shows what it would have to: with a large bound on what is held, that much is held.
    let growth = growth_behind_a_deaf_receiver("268435456", true);
    assert!(growth > GROWTH_KIB_MAX, "256 MiB may be held, and resident memory grew by {growth} KiB only");
}

/// Twice what sockets and 1 MiB take, and less than the large bound.
const SENT_BYTES: usize = 48 << 20;

fn growth_behind_a_deaf_receiver(hold_bytes_max: &str, to_server: bool) -> u64 {
    let upstream = bind();
    let mut sidecar =
        Sidecar::builder(addr_of(&upstream)).set("limits", "hold_bytes_max", hold_bytes_max).start();
    let (mut client, mut server) = (connect(sidecar.addr), accept(&upstream));
    pass(&mut client, &mut server, b"\x01");
    let (mut sender, mut receiver) = if to_server { (client, server) } else { (server, client) };
    // Past it the sender counts as stopped; were it too short, less would be sent, and the measurement with the large bound would fail.
    sender.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let (growth, sent) = growth_kib(&sidecar, || {
        let (mut sent, piece) = (0, vec![0x77; 64 * 1024]);
        while sent < SENT_BYTES {
            match sender.write(&piece) {
                Ok(count) => sent += count,
                Err(_) => break,
            }
        }
        sent
    });
    eprintln!(
        "hold_bytes_max {hold_bytes_max}: {} KiB were taken, {growth} KiB more are resident",
        sent / 1024
    );
    sender.shutdown(Shutdown::Write).unwrap();
    let (mut arrived, mut piece) = (0, vec![0; 64 * 1024]);
    while let Ok(count @ 1..) = receiver.read(&mut piece) {
        arrived += count;
    }
    assert_eq!(arrived, sent, "every byte that was taken arrives");
    drop((sender, receiver));
    sidecar.stop();
    sidecar.verify();
    let side = if to_server { "client" } else { "server" };
    assert_eq!(end(&connections(&sidecar)[0]), format!("{side}: closed by the {side}"));
    growth
}
