//! Attacks by connections: more of them than there is room for, and beginnings that do not go on.

use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use attestry::entry::Body;
use attestry::generated::v1::{ConnectionEvent, WireProtocol, connection_event::Type, notice};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::authority::Authority;
use crate::frames::{self, PREFACE};
use crate::siege::{Aftermath, Attack, Bounds, besiege, builder};
use crate::support::sidecar::Builder;
use crate::upstream::Upstream;

/// Connections of one attacker at a time.
const CONNECTIONS: usize = 50;

/// Connections that all send `beginning` and then wait.
fn begin(attack: &Arc<Attack>, beginning: &[u8]) {
    let connections: Vec<TcpStream> = (0..CONNECTIONS).map_while(|_| attack.connect()).collect();
    if connections.iter().all(|socket| attack.send(socket, beginning)) {
        attack.hold();
    }
}

#[test]
fn half_prefaces_and_silence() {
    let beginnings: [(&str, &[u8]); 4] = [
        ("silence", b""),
        ("half prefaces", &PREFACE[..12]),
        ("half requests", b"GET /attack HTT"),
        ("half ClientHellos", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ];
    for (name, beginning) in beginnings {
        let upstream = Upstream::start();
        // Three or four entries a connection.
        let bounds = Bounds { attackers: 4, ledger_bytes_per_byte: 400.0, ..Bounds::ONE };
        besiege(name, builder(upstream.addr), &bounds, move |attack| {
            attack.allow_for(CONNECTIONS * 100);
            begin(attack, beginning);
        });
    }
}

/// What is undecided is held: up to `detect.bytes_max` of each connection.
#[test]
fn oversized_client_hellos() {
    let upstream = Upstream::start();
    let bounds = Bounds { attackers: 4, memory_kib: 64 * 1024, ..Bounds::ONE };
    let after = besiege("oversized ClientHellos", builder(upstream.addr), &bounds, |attack| {
        begin(attack, &client_hello_without_end(16_384)[..65_000]);
    });
    assert!(
        after.connection_events().iter().all(|event| event.r#type() != Type::Tls),
        "nobody finished a ClientHello"
    );
    let after = besiege("too large ClientHellos", builder(upstream.addr), &bounds, |attack| {
        begin(attack, &client_hello_without_end(16_384));
    });
    must_be_opaque(&after, "detect.bytes_max");
}

/// The same in records of one byte, which cost the most to put together.
#[test]
fn shredded_client_hellos() {
    let upstream = Upstream::start();
    let bounds = Bounds { attackers: 2, ..Bounds::ONE };
    let after = besiege("shredded ClientHellos", builder(upstream.addr), &bounds, |attack| {
        let Some(socket) = attack.connect() else { return };
        for record in client_hello_without_end(1).chunks(6) {
            if !attack.send(&socket, record) {
                return;
            }
        }
    });
    must_be_opaque(&after, "detect.");
}

fn must_be_opaque(after: &Aftermath, why: &str) {
    let events = after.connection_events();
    let opaque: Vec<_> = events.iter().filter(|event| event.protocol() == WireProtocol::Opaque).collect();
    // The last of them may end in the middle, with the attack.
    let is_told = |event: &&&ConnectionEvent| event.reason.contains(why);
    let is_cut = |event: &&&ConnectionEvent| event.reason.contains("ended before a protocol showed");
    assert!(opaque.iter().any(|event| is_told(&event)), "{opaque:?}");
    assert!(opaque.iter().all(|event| is_told(&event) || is_cut(&event)), "{opaque:?}");
}

/// A ClientHello of 16 MiB by its own word, of which more than `detect.bytes_max` is there, in records of so many bytes.
fn client_hello_without_end(record_bytes: usize) -> Vec<u8> {
    let message = [&[1, 0xff, 0xff, 0xff, 3, 3][..], &[7; 100].repeat(700)].concat();
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[0x16, 3, 1], &length[..], part].concat()
    };
    message.chunks(record_bytes).flat_map(record).collect()
}

#[test]
fn connections_that_come_and_go() {
    let upstream = Upstream::start();
    // Two entries for nine bytes, and less than 100 KiB for a connection. Those who come too fast are turned away.
    let bounds = Bounds {
        attackers: 2,
        bytes: 64 * 1024,
        memory_kib: 64 * 1024,
        ledger_bytes_per_byte: 60.0,
        ..Bounds::ONE
    };
    let builder = builder(upstream.addr).set("limits", "connections_max", "500");
    besiege("connections that come and go", builder, &bounds, |attack| {
        if let Some(socket) = attack.connect_http2() {
            attack.send(&socket, &frames::settings_ack());
        }
        attack.forget();
    });
}

#[test]
fn more_connections_than_there_is_room_for() {
    let upstream = Upstream::start();
    let builder = builder(upstream.addr).set("limits", "connections_max", "10");
    let bounds = Bounds { attackers: 2, bytes: 1 << 20, ..Bounds::ONE };
    let after = besiege("too many connections", builder, &bounds, |attack| {
        // Some are inside, all others are turned away.
        let inside: Vec<_> = (0..20).map_while(|_| attack.connect_http2()).collect();
        for _ in 0..500 {
            let Some(socket) = attack.connect_http2() else { return };
            attack.send(&socket, &[0; 100]);
        }
        drop(inside);
        attack.forget();
    });
    let notices: Vec<_> = after
        .bodies
        .iter()
        .filter_map(|body| if let Body::Notice(notice) = body { Some(notice) } else { None })
        .collect();
    assert!(notices.iter().all(|notice| notice.r#type() == notice::Type::TurnedAway), "{notices:?}");
    let turned_away: u64 = notices.iter().map(|notice| notice.count).sum();
    assert!(turned_away > 50 * notices.len() as u64, "{turned_away} told in {} entries", notices.len());
}

/// Handshakes that stop behind the ClientHello: they hold all places for handshakes, and none of those who need no handshake.
#[test]
fn handshakes_that_stop() {
    let (upstream, folder) = (Upstream::start(), tempfile::tempdir().unwrap());
    let builder = with_tls(builder(upstream.addr), folder.path()).set("limits", "handshakes_max", "8");
    let bounds = Bounds { attackers: 2, ledger_bytes_per_byte: 20.0, ..Bounds::ONE };
    let hello = client_hello();
    let after = besiege("handshakes that stop", builder, &bounds, move |attack| begin(attack, &hello));
    let notices = after.bodies.iter().filter_map(|body| match body {
        Body::Notice(notice) if notice.reason.contains("handshakes_max") => Some(notice.count),
        _ => None,
    });
    assert!(notices.sum::<u64>() >= 2 * CONNECTIONS as u64 - 2 * 8, "they were not turned away");
}

/// Records that carry almost nothing, and requests for new keys, which the sidecar has to follow.
#[test]
fn records_of_one_byte_and_new_keys() {
    for (name, new_keys) in [("records of one byte", false), ("new keys", true)] {
        let (upstream, folder) = (Upstream::start(), tempfile::tempdir().unwrap());
        let authority = Authority::new(folder.path(), "root");
        let bounds = Bounds { bytes: 4 << 20, memory_kib: 48 * 1024, ..Bounds::ONE };
        let trust = trust_in(&authority);
        let builder = with_tls_of(builder(upstream.addr), &authority);
        besiege(name, builder, &bounds, move |attack| {
            let Some(mut socket) = attack.connect_deaf() else { return };
            let name = ServerName::try_from("a.example").unwrap();
            let mut client = ClientConnection::new(Arc::clone(&trust), name).unwrap();
            while client.is_handshaking() {
                if client.complete_io(&mut socket).is_err() {
                    return;
                }
            }
            let opening = [&PREFACE[..], &frames::settings(&[])].concat();
            io::Write::write_all(&mut client.writer(), &opening).unwrap();
            loop {
                for byte in frames::ping(frames::flag::ACK, [0; 8]).repeat(20) {
                    io::Write::write_all(&mut client.writer(), &[byte]).unwrap();
                    if new_keys {
                        client.refresh_traffic_keys().unwrap();
                    }
                }
                let mut records = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut records).unwrap();
                }
                if !attack.send(&socket, &records) {
                    return;
                }
            }
        });
    }
}

fn with_tls(builder: Builder, folder: &Path) -> Builder {
    with_tls_of(builder, &Authority::new(folder, "root"))
}

fn with_tls_of(builder: Builder, authority: &Authority) -> Builder {
    let own = authority.issue_for("own", "DNS:a.example");
    let quoted = |path: &Path| format!("{:?}", path.to_str().unwrap());
    builder
        .set("proxy", "client_tls", "\"terminate\"")
        .set("tls", "certificate_file", &quoted(&own.certificate))
        .set("tls", "key_file", &quoted(&own.key))
}

fn trust_in(authority: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&authority.certificate).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn client_hello() -> Vec<u8> {
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from("a.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}
