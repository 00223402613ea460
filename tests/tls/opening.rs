//! A client's TLS ends here: calls are recorded as in plaintext, with who made them; and whoever may not make them is refused and recorded.

use super::authority::{Authority, Wanted};
use super::peers::{self, Server, showing};
use super::support::sidecar::Sidecar;
use super::{Scene, callers, closings, events, quoted, service, sessions, sessions_with};
use attestry::generated::v1::{self, WireProtocol, connection_event::Type};
use std::net::TcpStream;
use std::time::Instant;

#[test]
fn calls_over_tls_are_recorded_with_who_made_them() {
    let scene = Scene::new();
    let mut sidecar = scene
        .sidecar(service::start())
        .set("proxy", "client_tls", "\"terminate\"")
        .set("proxy", "client_certificates", "\"optional\"")
        .start();
    service::run_bounded(async {
        let mut known = service::over_tls(&scene, sidecar.addr, &showing(&scene.client)).await;
        service::calls(&mut known).await;
        let mut unknown = service::over_tls(&scene, sidecar.addr, &["-tls1_2"]).await;
        service::calls(&mut unknown).await;
        // A client that speaks no TLS is served as well, unless it is required.
        service::calls(&mut service::plaintext(sidecar.addr).await).await;
    });
    sidecar.stop();
    sidecar.verify();
    let sessions = sessions(&sidecar.ledger_dir);
    assert_eq!(sessions.len(), 2);
    for (tls, version) in sessions.iter().zip(["TLSv1.3", "TLSv1.2"]) {
        assert_eq!((tls.side(), tls.terminated, tls.version.as_str()), (v1::Side::Client, true, version));
        assert_eq!(
            (tls.server_name.as_str(), tls.alpn.as_str(), tls.failure.as_str()),
            ("a.example", "h2", "")
        );
        assert!(tls.ja4.starts_with(if version == "TLSv1.3" { "t13d" } else { "t12d" }), "{}", tls.ja4);
    }
    let peer = sessions[0].verified_peer.as_ref().unwrap();
    assert_eq!(peer.spiffe_id, "spiffe://example.org/client");
    assert_eq!(peer.root_subject, "CN=root,O=attestry tests");
    assert_eq!(sessions[1].verified_peer, None);
    assert_eq!(callers(&sidecar.ledger_dir), ["", "spiffe://example.org/client"]);
    assert_eq!(sidecar.calls().len(), 9);
}

/// Each mode with each certificate: served or refused, as the client sees it and as the ledger has it.
#[test]
fn client_certificates_are_asked_for_and_judged() {
    let (scene, elsewhere) = (Scene::new(), tempfile::tempdir().unwrap());
    let foreign =
        Authority::new(elsewhere.path(), "foreign").issue_for("foreigner", "URI:spiffe://example.org/client");
    let expired =
        scene.authority.issue("expired", &Wanted { not_after: Some("20210101000000Z"), ..Wanted::default() });
    let twofold =
        scene.authority.issue_for("twofold", "URI:spiffe://example.org/a,URI:spiffe://example.org/b");
    let revoked = scene.authority.issue_for("revoked", "URI:spiffe://example.org/revoked");
    let list = scene.authority.revoke(&[&revoked]);
    let upstream = echo();
    for mode in ["none", "optional", "required"] {
        let mut sidecar = scene
            .sidecar(upstream)
            .set("tls", "revocation_file", &quoted(&list))
            .set("proxy", "client_tls", "\"terminate\"")
            .set("proxy", "client_certificates", &format!("{mode:?}"))
            .start();
        let cases: [(Option<_>, Result<&str, &str>); 6] = [
            (None, if mode == "required" { Err("peer sent no certificates") } else { Ok("") }),
            (Some(&scene.client), Ok("spiffe://example.org/client")),
            (Some(&twofold), Ok("")),
            (Some(&expired), Err("expired")),
            (Some(&revoked), Err("Revoked")),
            (Some(&foreign), Err("UnknownIssuer")),
        ];
        for (number, (issued, expected)) in cases.into_iter().enumerate() {
            let expected = if mode == "none" { Ok("") } else { expected };
            let shown = issued.map(showing).unwrap_or_default();
            let said =
                peers::ask(&scene, sidecar.addr, &[&["-servername", "a.example"], shown.as_slice()].concat());
            let tls = wait_for_session(&sidecar, number);
            match expected {
                Ok(id) => {
                    assert!(said.out.contains("reversed"), "{mode} {shown:?}: {} {}", said.out, said.errors);
                    assert_eq!(tls.failure, "");
                    assert_eq!(tls.verified_peer.is_some(), issued.is_some() && mode != "none");
                    assert_eq!(tls.verified_peer.unwrap_or_default().spiffe_id, id);
                }
                Err(part) => {
                    assert!(
                        !said.out.contains("reversed") && said.errors.contains("alert number"),
                        "{mode} {shown:?}: {}",
                        said.errors
                    );
                    assert!(
                        tls.failure.contains(part) && tls.verified_peer.is_none(),
                        "{mode} {shown:?}: {}",
                        tls.failure
                    );
                }
            }
        }
        sidecar.stop();
        sidecar.verify();
    }
}

/// The session with the number `number`, once its connection is closed: a client sees a refusal before the ledger has its entry.
fn wait_for_session(sidecar: &Sidecar, number: usize) -> v1::Tls {
    let end = Instant::now() + super::BOUND;
    loop {
        let (mut sessions, closed) = (sessions(&sidecar.ledger_dir), closings(&sidecar.ledger_dir));
        if sessions.len() > number && closed.len() > number {
            return sessions.swap_remove(number);
        }
        assert!(Instant::now() < end, "the ledger has {} sessions and {} ends", sessions.len(), closed.len());
        std::thread::yield_now();
    }
}

#[test]
fn a_listener_that_requires_tls_refuses_what_is_none() {
    let scene = Scene::new();
    let mut sidecar = scene.sidecar(service::start()).set("proxy", "client_tls", "\"require\"").start();
    service::run_bounded(async {
        service::calls(&mut service::over_tls(&scene, sidecar.addr, &[]).await).await;
    });
    let mut plain = TcpStream::connect(sidecar.addr).unwrap();
    std::io::Write::write_all(&mut plain, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    plain.set_read_timeout(Some(super::BOUND)).unwrap();
    assert!(!matches!(std::io::Read::read(&mut plain, &mut [0; 64]), Ok(1..)), "nothing may be answered");
    sidecar.stop();
    sidecar.verify();
    let refused =
        events(&sidecar.ledger_dir).into_iter().find(|event| event.r#type() == Type::NotReadable).unwrap();
    assert!(refused.reason.contains("does not speak TLS"), "{}", refused.reason);
}

/// What a client without the service's protocol, or without a version of ours, is told; and what a plain rubbish ClientHello leaves.
#[test]
fn clients_that_cannot_be_served_are_told_why() {
    let scene = Scene::new();
    let mut sidecar = scene.sidecar(echo()).set("proxy", "client_tls", "\"terminate\"").start();
    let cases = [
        (&["-alpn", "mqtt"][..], "alert number 120", "any known protocol"),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "alert number 70", "TLS 1.1 at the most"),
    ];
    for (number, (arguments, alert, failure)) in cases.into_iter().enumerate() {
        let said = peers::ask(&scene, sidecar.addr, arguments);
        assert!(said.errors.contains(alert) && !said.succeeded, "{}", said.errors);
        let tls = wait_for_session(&sidecar, number);
        assert!(tls.failure.contains(failure), "{}", tls.failure);
    }
    // Without ALPN there is nothing to agree upon; and what was agreed upon is not believed.
    for (arguments, alpn) in [(&[][..], None), (&["-alpn", "h2"], Some("h2"))] {
        let said = peers::ask(&scene, sidecar.addr, arguments);
        assert!(said.out.contains("reversed") && said.alpn() == alpn, "{}", said.out);
    }
    sidecar.stop();
    let events = events(&sidecar.ledger_dir);
    let found: Vec<_> = events
        .iter()
        .filter(|event| event.r#type() == Type::Protocol)
        .map(v1::ConnectionEvent::protocol)
        .collect();
    assert_eq!(found, [WireProtocol::Opaque; 2], "what is inside is found out by itself");
    assert_eq!(sessions_with(&sidecar.ledger_dir, v1::Side::Client).len(), 4);
}

#[test]
fn requests_of_http1_inside_tls_are_calls() {
    let scene = Scene::new();
    let mut sidecar = scene
        .sidecar(http1())
        .set("proxy", "client_tls", "\"require\"")
        .set("proxy", "client_certificates", "\"required\"")
        .start();
    let arguments =
        [&["-servername", "a.example", "-alpn", "http/1.1"], showing(&scene.client).as_slice()].concat();
    let mut client = peers::Client::start(&scene, sidecar.addr, &arguments);
    client.say("GET /balance?of=alice HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let said = client.wait();
    assert!(
        said.out.contains("HTTP/1.1 200 Fine") && said.alpn() == Some("http/1.1"),
        "{} {}",
        said.out,
        said.errors
    );
    sidecar.stop();
    sidecar.verify();
    assert_eq!(callers(&sidecar.ledger_dir), ["spiffe://example.org/client"]);
    let calls = sidecar.calls();
    assert!(calls.len() == 1 && calls[0].to_string().contains("/balance?of=alice"), "{calls:?}");
}

/// A server that answers one request and closes.
fn http1() -> std::net::SocketAddr {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            head.take_while(|line| !line.is_empty()).for_each(drop);
            stream.write_all(b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\n42").unwrap();
        }
    });
    address
}

/// A plaintext server that answers lines in reverse and closes at CLOSE, for connections one after the other.
pub(super) fn echo() -> std::net::SocketAddr {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                for line in BufReader::new(stream.try_clone().unwrap())
                    .lines()
                    .map_while(Result::ok)
                    .take_while(|line| line != "CLOSE")
                {
                    let answer: String = line.chars().rev().collect();
                    writeln!(stream, "{answer}").unwrap();
                }
            });
        }
    });
    address
}

/// The TLS of both legs: what the upstream chose is what the client is answered, and the name that the client asked for is what the upstream is asked for.
#[test]
fn the_upstream_chooses_for_the_client() {
    let scene = Scene::new();
    let answering = scene.authority.issue_for("upstream", "DNS:a.example,DNS:other.example");
    let authority = scene.authority.certificate.to_str().unwrap();
    let server = Server::start(
        scene.folder.path(),
        &answering,
        &["-alpn", "http/1.1", "-CAfile", authority, "-Verify", "2"],
    );
    let mut sidecar = scene
        .sidecar(server.addr)
        .set("proxy", "client_tls", "\"terminate\"")
        .set("proxy", "upstream_tls", "\"as_client\"")
        .start();
    let said = peers::ask(&scene, sidecar.addr, &["-servername", "a.example", "-alpn", "h2,http/1.1"]);
    assert!(said.out.contains("reversed"), "{} {}", said.out, said.errors);
    assert_eq!((said.alpn(), said.subject()), (Some("http/1.1"), "CN = own"));
    let said = peers::ask(&scene, sidecar.addr, &["-servername", "a.example"]);
    assert!(said.out.contains("reversed") && said.alpn().is_none(), "{}", said.out);
    // The upstream refuses what this client offers; the client sees the upstream's own alert.
    let said = peers::ask(&scene, sidecar.addr, &["-servername", "a.example", "-alpn", "mqtt"]);
    assert!(said.errors.contains("alert number 120"), "{}", said.errors);
    // The upstream is not who the client asked for.
    let said = peers::ask(&scene, sidecar.addr, &["-servername", "elsewhere.example"]);
    assert!(said.errors.contains("alert number 80") && !said.out.contains("reversed"), "{}", said.errors);
    sidecar.stop();
    sidecar.verify();

    let (clients, servers) = (
        sessions_with(&sidecar.ledger_dir, v1::Side::Client),
        sessions_with(&sidecar.ledger_dir, v1::Side::Server),
    );
    assert_eq!((clients.len(), servers.len()), (4, 4));
    assert_eq!((servers[0].server_name.as_str(), servers[0].alpn.as_str()), ("a.example", "http/1.1"));
    assert_eq!(servers[0].alpn_offered, ["h2", "http/1.1"]);
    let upstream = servers[0].verified_peer.as_ref().unwrap();
    assert_eq!(upstream.subject_alternative_names, ["DNS:a.example", "DNS:other.example"]);
    assert_eq!(servers[2].failure, "the peer sent the alert no_application_protocol(120)");
    assert!(
        clients[2].failure.starts_with("answered with the alert no_application_protocol(120)"),
        "{}",
        clients[2].failure
    );
    assert!(servers[3].failure.contains("not valid for name"), "{}", servers[3].failure);
    assert!(
        clients[3].failure.starts_with("answered with the alert internal_error(80)"),
        "{}",
        clients[3].failure
    );
}

/// Places for handshakes are for handshakes: a client that has done its own and says nothing, as pools keep some, must not take one from others.
#[test]
fn an_idle_session_takes_no_place_for_handshakes() {
    let scene = Scene::new();
    let mut sidecar = scene
        .sidecar(echo())
        .set("proxy", "client_tls", "\"terminate\"")
        .set("limits", "handshakes_max", "1")
        .start();
    let mut idle = peers::Client::start(&scene, sidecar.addr, &["-servername", "a.example"]);
    idle.shake_hands();
    let said = peers::ask(&scene, sidecar.addr, &["-servername", "a.example"]);
    assert!(said.out.contains("reversed"), "{} {}", said.out, said.errors);
    idle.say("desrever\nCLOSE\n");
    assert!(idle.wait().out.contains("reversed"));
    sidecar.stop();
    sidecar.verify();
}

const CROSSINGS: usize = 10;

/// Where TLS is required, a server's plaintext greeting decides nothing: it belongs inside. gRPC's servers greet with SETTINGS, those of mail in words.
#[test]
fn a_server_that_speaks_first_does_so_inside_the_session() {
    let scene = Scene::new();
    let mut calls = scene.sidecar(service::start()).set("proxy", "client_tls", "\"require\"").start();
    service::run_bounded(async {
        service::calls(&mut service::over_tls(&scene, calls.addr, &[]).await).await;
    });
    calls.stop();
    calls.verify();
    assert_eq!(calls.calls().len(), 3);

    let mut mail = scene.sidecar(greeting()).set("proxy", "client_tls", "\"require\"").start();
    // Greeting and ClientHello cross on the way, so once proves nothing.
    for _ in 0..CROSSINGS {
        let mut client = peers::Client::start(&scene, mail.addr, &["-servername", "a.example"]);
        client.say("QUIT\n");
        let said = client.wait();
        assert!(said.out.contains("220 hello") && said.succeeded, "{} {}", said.out, said.errors);
    }
    mail.stop();
    mail.verify();
    assert_eq!(sessions(&mail.ledger_dir).len(), CROSSINGS);
}

/// A server that greets whoever connects, and closes at the first line that it hears.
fn greeting() -> std::net::SocketAddr {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                stream.write_all(b"220 hello\r\n").unwrap();
                let _ = BufReader::new(stream).read_line(&mut String::new());
            });
        }
    });
    address
}
