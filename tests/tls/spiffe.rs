//! Certificates and authorities of the SPIFFE Workload API: two sidecars of two trust domains, and rotation.

use super::authority::Authority;
use super::rotation::wait_for;
use super::support::sidecar::Sidecar;
use super::workload_api::{Agent, svid, with_key_of};
use super::{callers, notices, quoted, service, sessions};
use attestry::credentials::{Credentials, CredentialsError, Options, Source};
use attestry::generated::v1::notice::Type;
use std::time::Duration;

#[test]
fn sidecars_of_two_trust_domains_speak_with_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let [near_folder, far_folder] = ["near", "far"].map(|name| folder.path().join(name));
    let (near_root, far_root) = (Authority::new(&near_folder, "near"), Authority::new(&far_folder, "far"));
    let (near_id, far_id) = ("spiffe://near.org/client", "spiffe://far.org/server");
    let client = near_root.issue_for("client", &format!("URI:{near_id}"));
    let server = far_root.issue_for("server", &format!("URI:{far_id}"));
    let (near_agent, far_agent) =
        (Agent::start(&folder.path().join("near.sock")), Agent::start(&folder.path().join("far.sock")));
    near_agent.answer(svid(near_id, &client, &near_root, &[("spiffe://far.org", &far_root)]));
    // Not registered yet when its sidecar starts: that is waited for.
    let given = svid(far_id, &server, &far_root, &[("spiffe://near.org", &near_root)]);
    let later = std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            Sidecar::builder(service::start())
                .set("tls", "spiffe_socket", &quoted(&far_agent.socket))
                .set("proxy", "client_tls", "\"require\"")
                .set("proxy", "client_certificates", "\"required\"")
                .start()
        });
        far_agent.answer(given.clone());
        starting.join().unwrap()
    });
    let mut far = later;
    let near = |id: &str| {
        Sidecar::builder(far.addr)
            .set("tls", "spiffe_socket", &format!("\"unix://{}\"", near_agent.socket.display()))
            .set("proxy", "upstream_tls", "\"originate\"")
            .set("proxy", "upstream_id", &format!("{id:?}"))
            .start()
    };
    let mut right = near(far_id);
    let wrong = near("spiffe://near.org/server");
    service::run_bounded(async {
        service::calls(&mut service::plaintext(right.addr).await).await;
        let request = attestry::generated::demo_v1::GetBalanceRequest { account: "alice".into() };
        service::plaintext(wrong.addr).await.get_balance(request).await.unwrap_err();
    });

    // The far side's certificate is renewed; then an answer comes that is none; then the near domain is not federated with any more.
    let renewed = far_root.issue_for("renewed", &format!("URI:{far_id}"));
    let ledger = far.ledger_dir.clone();
    far_agent.answer(svid(far_id, &renewed, &far_root, &[("spiffe://near.org", &near_root)]));
    wait_for(&ledger, &[Type::CredentialsLoaded]);
    service::run_bounded(async { service::calls(&mut service::plaintext(right.addr).await).await });
    far_agent.answer(with_key_of(given, &renewed));
    wait_for(&ledger, &[Type::CredentialsLoaded, Type::CredentialsRefused]);
    service::run_bounded(async { service::calls(&mut service::plaintext(right.addr).await).await });
    far_agent.answer(svid(far_id, &renewed, &far_root, &[]));
    wait_for(&ledger, &[Type::CredentialsLoaded, Type::CredentialsRefused, Type::CredentialsLoaded]);
    service::run_bounded(async {
        let request = attestry::generated::demo_v1::GetBalanceRequest { account: "alice".into() };
        service::plaintext(right.addr).await.get_balance(request).await.unwrap_err();
    });
    right.stop();
    far.stop();
    far.verify();
    right.verify();
    assert_eq!(callers(&far.ledger_dir), [near_id]);
    let accepted = sessions(&far.ledger_dir);
    let failures: Vec<&str> =
        accepted.iter().map(|tls| tls.failure.as_str()).filter(|failure| !failure.is_empty()).collect();
    assert!(failures.iter().any(|failure| failure.contains("UnknownIssuer")), "{failures:?}");
    assert_eq!(accepted[0].verified_peer.as_ref().unwrap().root_subject, "CN=near,O=attestry tests");
    let told = notices(&far.ledger_dir);
    assert!(told[1].reason.contains("does not belong to the certificate"), "{}", told[1].reason);
}

/// An agent that is not there: half a minute of patience, then an error that names the socket.
#[test]
fn an_absent_agent_is_waited_for_and_then_named() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nobody.sock");
    let begin = std::time::Instant::now();
    let error =
        Credentials::load(Options { source: Source::Spiffe { socket: socket.clone() }, alpn: Vec::new() })
            .unwrap_err();
    assert!(
        matches!(&error, CredentialsError::WorkloadApi { socket: named, .. } if *named == socket.display().to_string()),
        "{error}"
    );
    assert!(begin.elapsed() < Duration::from_mins(1));
}
