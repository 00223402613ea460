//! TLS that is not opened: the peers' own session, unchanged, and what its first message says.

use super::peers::{self, Server};
use super::support::sidecar::Sidecar;
use super::{Scene, closings, events, sessions};
use attestry::generated::v1::{ConnectionEvent, Side, WireProtocol, connection_event::Type};

#[test]
fn tls_that_is_passed_on_is_the_peers_own() {
    let scene = Scene::new();
    let service = scene.authority.issue_for("service", "DNS:a.example");
    let server = Server::start(scene.folder.path(), &service, &["-alpn", "h2"]);
    let mut sidecar = Sidecar::start(server.addr);
    let arguments = ["-servername", "a.example", "-alpn", "h2,http/1.1"];
    let (through, direct) =
        (peers::ask(&scene, sidecar.addr, &arguments), peers::ask(&scene, server.addr, &arguments));
    for said in [&through, &direct] {
        assert!(said.out.contains("reversed") && said.succeeded, "{} {}", said.out, said.errors);
        assert_eq!((said.alpn(), said.subject()), (Some("h2"), "CN = service"));
    }
    sidecar.stop();
    sidecar.verify();
    let tls = sessions(&sidecar.ledger_dir);
    assert_eq!(tls.len(), 1);
    assert_eq!((tls[0].side(), tls[0].terminated, tls[0].version.as_str()), (Side::Client, false, ""));
    assert_eq!(
        (tls[0].server_name.as_str(), tls[0].alpn_offered.join(",")),
        ("a.example", "h2,http/1.1".to_owned())
    );
    assert!(tls[0].ja4.starts_with("t13d") && tls[0].ja4.len() == 36, "{}", tls[0].ja4);
    let protocols: Vec<_> = events(&sidecar.ledger_dir)
        .iter()
        .filter(|event| event.r#type() == Type::Protocol)
        .map(ConnectionEvent::protocol)
        .collect();
    assert_eq!(protocols, [WireProtocol::TlsPassthrough]);
    let closed = closings(&sidecar.ledger_dir);
    assert!(
        closed.len() == 1 && closed[0].bytes_to_server > 300 && closed[0].bytes_to_client > 500,
        "{closed:?}"
    );
}

/// Resumption is the peers' affair too: attestry keeps it out of its own sessions, and leaves theirs alone.
#[test]
fn a_session_of_the_peers_is_resumed_through_attestry() {
    let scene = Scene::new();
    let service = scene.authority.issue_for("service", "DNS:a.example");
    let server = Server::start(scene.folder.path(), &service, &[]);
    let mut sidecar = Sidecar::start(server.addr);
    let ticket = scene.folder.path().join("session");
    let ticket = ticket.to_str().unwrap();
    let first =
        peers::ask(&scene, sidecar.addr, &["-servername", "a.example", "-tls1_2", "-sess_out", ticket]);
    let second =
        peers::ask(&scene, sidecar.addr, &["-servername", "a.example", "-tls1_2", "-sess_in", ticket]);
    assert!(
        first.out.contains("New, TLSv1.2") && second.out.contains("Reused, TLSv1.2"),
        "{} {}",
        first.out,
        second.out
    );
    sidecar.stop();
    sidecar.verify();
}
