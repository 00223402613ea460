//! Two sidecars with TLS between them: the services speak plaintext, and each side's ledger says whom it has spoken with.

use super::{Scene, callers, service, sessions, sessions_with};
use attestry::generated::v1::Side;

#[test]
fn calls_go_through_two_sidecars_in_mutual_tls() {
    let scene = Scene::new();
    let mut far = scene
        .sidecar(service::start())
        .set("proxy", "client_tls", "\"require\"")
        .set("proxy", "client_certificates", "\"required\"")
        .start();
    let mut near = scene
        .sidecar(far.addr)
        .set("tls", "certificate_file", &super::quoted(&scene.client.certificate))
        .set("tls", "key_file", &super::quoted(&scene.client.key))
        .set("proxy", "traffic", "\"outbound\"")
        .set("proxy", "upstream_tls", "\"originate\"")
        .set("proxy", "upstream_id", "\"spiffe://example.org/own\"")
        .start();
    service::run_bounded(async { service::calls(&mut service::plaintext(near.addr).await).await });
    near.stop();
    far.stop();
    near.verify();
    far.verify();
    let (spoken, served) = (sessions(&near.ledger_dir), sessions(&far.ledger_dir));
    assert_eq!((spoken.len(), served.len()), (1, 1));
    assert_eq!((spoken[0].side(), spoken[0].alpn.as_str()), (Side::Server, "h2"));
    assert_eq!(spoken[0].verified_peer.as_ref().unwrap().spiffe_id, "spiffe://example.org/own");
    assert_eq!((served[0].side(), served[0].alpn.as_str()), (Side::Client, "h2"));
    assert_eq!(callers(&near.ledger_dir), [""], "the near client has proved nothing");
    assert_eq!(callers(&far.ledger_dir), ["spiffe://example.org/client"]);
    assert_eq!((near.calls().len(), far.calls().len()), (3, 3));
}

/// An upstream with another id is not spoken with, whatever its name; the client's connection breaks, and the ledger says why.
#[test]
fn an_upstream_with_another_id_gets_nothing() {
    let scene = Scene::new();
    let far = scene.sidecar(service::start()).set("proxy", "client_tls", "\"require\"").start();
    let mut near = scene
        .sidecar(far.addr)
        .set("proxy", "upstream_tls", "\"originate\"")
        .set("proxy", "upstream_name", "\"a.example\"")
        .set("proxy", "upstream_id", "\"spiffe://example.org/another\"")
        .start();
    let failed = service::run_bounded(async {
        let mut client = service::plaintext(near.addr).await;
        let request = attestry::generated::demo_v1::GetBalanceRequest { account: "alice".into() };
        client.get_balance(request).await.unwrap_err()
    });
    assert_eq!(failed.code(), tonic::Code::Unavailable);
    assert!(failed.message().contains("the TLS handshake with the server failed"), "{failed:?}");
    near.stop();
    near.verify();
    let spoken = sessions_with(&near.ledger_dir, Side::Server);
    assert!(!spoken.is_empty());
    assert!(spoken[0].failure.contains("spiffe://example.org/another was expected"), "{}", spoken[0].failure);
}
