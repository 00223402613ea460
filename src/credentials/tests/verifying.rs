//! Tests of who is believed, and of what is said of them: by whole handshakes in memory, and by OpenSSL's reading of the same certificates.

use super::authority::{Authority, Issued, Wanted, der_of_certificate, der_of_key, der_of_public_key};
use super::{folder, load};
use crate::credentials::material::{Material, Parts, Trust};
use crate::credentials::{ClientCertificates, ClientSide, Expect, ServerSide};
use crate::generated::v1;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConnection, Connection, ServerConnection};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// What came of a handshake: who the client is to the server, and the server to the client; else who refused and why.
type Outcome = Result<(Option<v1::VerifiedPeer>, Option<v1::VerifiedPeer>), String>;

fn shake_hands(server_side: &ServerSide, client_side: &ClientSide, name: &str) -> Outcome {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = Connection::from(ClientConnection::new(client_side.config(), name).unwrap());
    let mut server = Connection::from(ServerConnection::new(server_side.config()).unwrap());
    for _ in 0..8 {
        pass(&mut client, &mut server).map_err(|error| format!("server: {error}"))?;
        pass(&mut server, &mut client).map_err(|error| format!("client: {error}"))?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let seen = server.peer_certificates().and_then(|chain| server_side.verified_peer(chain));
    Ok((seen, client.peer_certificates().and_then(|chain| client_side.verified_peer(chain))))
}

fn pass(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// Material as the Workload API brings it: one identity, and authorities by trust domain.
fn spiffe(own: &str, issued: &Issued, bundles: &[(&str, &Authority)]) -> Material {
    let roots = bundles.iter().map(|(domain, authority)| {
        ((*domain).to_owned(), vec![CertificateDer::from(der_of_certificate(&authority.certificate))])
    });
    let chain = vec![CertificateDer::from(der_of_certificate(&issued.certificate))];
    let key = PrivateKeyDer::try_from(der_of_key(&issued.key)).unwrap();
    let trust = Trust::Spiffe { own: own.to_owned(), bundles: roots.collect::<BTreeMap<_, _>>() };
    Material::check(Parts { identity: Some((chain, key)), trust, revocation: Vec::new() }, &[]).unwrap()
}

fn expect(id: &str) -> Expect {
    Expect::SpiffeId(id.to_owned())
}

#[test]
fn a_client_is_described_as_its_certificate_says() {
    let folder = folder();
    let root = Authority::new(folder.path(), "root");
    let intermediate = root.intermediate("between");
    let wanted = Wanted {
        subject: "/O=Peers, Inc./OU=#1/CN=peer",
        names: "DNS:peer.example,URI:spiffe://example.org/ns/a/sa/b,IP:10.0.0.1,IP:fd00::1,email:a@b.example",
        not_after: Some("20991231235959Z"),
        ..Wanted::default()
    };
    let issued = intermediate.issue("peer", &wanted);
    intermediate.append_to(&issued);
    let credentials = load(&root, Some(&issued), None);
    let server = credentials.server(ClientCertificates::Required).unwrap();
    let client = credentials.client(Expect::Name).unwrap();
    let (Some(peer), Some(host)) = shake_hands(&server, &client, "peer.example").unwrap() else {
        panic!("both have certificates")
    };
    assert_eq!(peer, host, "the same certificate says the same on both sides");
    assert_eq!(peer.spiffe_id, "spiffe://example.org/ns/a/sa/b");
    assert_eq!(
        peer.subject_alternative_names,
        [
            "DNS:peer.example",
            "URI:spiffe://example.org/ns/a/sa/b",
            "IP:10.0.0.1",
            "IP:fd00::1",
            "email:a@b.example",
        ]
    );
    assert_eq!(peer.subject, "CN=peer,OU=\\#1,O=Peers\\, Inc.");
    assert_eq!(peer.certificate_sha256, Sha256::digest(der_of_certificate(&issued.certificate)).to_vec());
    assert_eq!(peer.root_subject, "CN=root,O=attestry tests");
    assert_eq!(peer.root_key_sha256, Sha256::digest(der_of_public_key(&root.certificate)).to_vec());
    assert_eq!(peer.not_after_unix_seconds, 4_102_444_799);
}

/// Two authorities of one name, as in the middle of a rotation: the key tells which it was.
#[test]
fn the_root_is_the_one_that_the_chain_ends_in() {
    let (before, after) = (folder(), folder());
    let (old, new) = (Authority::new(before.path(), "root"), Authority::new(after.path(), "root"));
    let both = [&old, &new].map(|authority| std::fs::read(&authority.certificate).unwrap()).concat();
    for authority in [&old, &new] {
        let issued = authority.issue_for("leaf", "DNS:a.example");
        let own_key = Sha256::digest(der_of_public_key(&authority.certificate)).to_vec();
        std::fs::write(before.path().join("both.pem"), &both).unwrap();
        let trusting = crate::credentials::Files {
            certificate: Some(issued.certificate.clone()),
            key: Some(issued.key.clone()),
            authorities: Some(before.path().join("both.pem")),
            revocation: None,
        };
        let options = crate::credentials::Options {
            source: crate::credentials::Source::Files(trusting),
            alpn: Vec::new(),
        };
        let credentials = crate::credentials::Credentials::load(options).unwrap();
        let server = credentials.server(ClientCertificates::Required).unwrap();
        let outcome = shake_hands(&server, &credentials.client(Expect::Name).unwrap(), "a.example").unwrap();
        for peer in [outcome.0.unwrap(), outcome.1.unwrap()] {
            assert_eq!(peer.root_key_sha256, own_key);
        }
    }
}

#[test]
fn clients_are_taken_or_refused_as_the_listener_asks() {
    let (folder, elsewhere) = (folder(), folder());
    let (root, foreign) =
        (Authority::new(folder.path(), "root"), Authority::new(elsewhere.path(), "foreign"));
    let own = root.issue_for("own", "DNS:a.example");
    let expired = root.issue("expired", &Wanted { not_after: Some("20210101000000Z"), ..Wanted::default() });
    let revoked = root.issue_for("revoked", "DNS:r.example");
    let list = root.revoke(&[&revoked]);
    let servers = load(&root, Some(&own), Some(&list));
    let from = |issued: Option<&Issued>| load(&root, issued, None).client(Expect::Name).unwrap();
    let foreigner = foreign.issue_for("foreigner", "DNS:f.example");
    #[allow(clippy::type_complexity, reason = "a table of cases is read by its rows")]
    let cases: [(&str, Option<&Issued>, [Result<bool, &str>; 3]); 5] = [
        ("nobody", None, [Ok(false), Ok(false), Err("peer sent no certificates")]),
        ("own", Some(&own), [Ok(false), Ok(true), Ok(true)]),
        ("expired", Some(&expired), [Ok(false), Err("expired"), Err("expired")]),
        ("revoked", Some(&revoked), [Ok(false), Err("Revoked"), Err("Revoked")]),
        ("foreign", Some(&foreigner), [Ok(false), Err("UnknownIssuer"), Err("UnknownIssuer")]),
    ];
    let modes = [ClientCertificates::None, ClientCertificates::Optional, ClientCertificates::Required];
    for (who, issued, expected) in cases {
        for (mode, expected) in modes.into_iter().zip(expected) {
            let outcome = shake_hands(&servers.server(mode).unwrap(), &from(issued), "a.example");
            match (outcome, expected) {
                (Ok((peer, _)), Ok(is_known)) => assert_eq!(peer.is_some(), is_known, "{who}, {mode:?}"),
                (Err(reason), Err(part)) => {
                    assert!(
                        reason.starts_with("server: ") && reason.contains(part),
                        "{who}, {mode:?}: {reason}"
                    );
                }
                (outcome, expected) => panic!("{who}, {mode:?}: {outcome:?}, not {expected:?}"),
            }
        }
    }
}

/// A list covers its own issuer alone: the peers of another authority are not locked out by it, and a revoked intermediate takes its leaves along.
#[test]
fn revocation_reaches_as_far_as_its_list() {
    let (folder, elsewhere) = (folder(), folder());
    let (root, second) = (Authority::new(folder.path(), "root"), Authority::new(elsewhere.path(), "second"));
    let (own, other) = (root.issue_for("own", "DNS:a.example"), second.issue_for("other", "DNS:b.example"));
    let intermediate = root.intermediate("between");
    let below = intermediate.issue_for("below", "DNS:c.example");
    intermediate.append_to(&below);
    let both = folder.path().join("both.pem");
    std::fs::write(
        &both,
        [&root, &second].map(|authority| std::fs::read(&authority.certificate).unwrap()).concat(),
    )
    .unwrap();
    let between = Issued { certificate: intermediate.certificate.clone(), key: below.key.clone() };
    let list = root.revoke(&[&between]);
    let with = |issued: &Issued, revocation: Option<std::path::PathBuf>| {
        let (certificate, key) = (Some(issued.certificate.clone()), Some(issued.key.clone()));
        let files =
            crate::credentials::Files { certificate, key, authorities: Some(both.clone()), revocation };
        let options = crate::credentials::Options {
            source: crate::credentials::Source::Files(files),
            alpn: Vec::new(),
        };
        crate::credentials::Credentials::load(options).unwrap()
    };
    let server = with(&own, Some(list.clone())).server(ClientCertificates::Required).unwrap();
    let client = |issued: &Issued| with(issued, None).client(Expect::Name).unwrap();
    shake_hands(&server, &client(&other), "a.example").unwrap();
    let reason = shake_hands(&server, &client(&below), "a.example").unwrap_err();
    assert!(reason.contains("Revoked"), "{reason}");

    // A client that checks its servers, by name and by id.
    let id = root.issue_for("id", "URI:spiffe://example.org/gone");
    let list = root.revoke(&[&id]);
    let server = with(&id, None).server(ClientCertificates::None).unwrap();
    let careful = with(&own, Some(list)).client(expect("spiffe://example.org/gone")).unwrap();
    let careless = with(&own, None).client(expect("spiffe://example.org/gone")).unwrap();
    shake_hands(&server, &careless, "a.example").unwrap();
    let reason = shake_hands(&server, &careful, "a.example").unwrap_err();
    assert!(reason.starts_with("client: ") && reason.contains("Revoked"), "{reason}");
}

#[test]
fn a_server_must_be_who_was_asked_for() {
    let (folder, elsewhere) = (folder(), folder());
    let (root, foreign) =
        (Authority::new(folder.path(), "root"), Authority::new(elsewhere.path(), "foreign"));
    let id = "spiffe://example.org/server";
    let good = root.issue_for("good", &format!("DNS:a.example,IP:127.0.0.1,URI:{id}"));
    let twofold =
        root.issue_for("twofold", &format!("DNS:a.example,URI:{id},URI:spiffe://example.org/other"));
    let foreigner = foreign.issue_for("foreigner", &format!("DNS:a.example,URI:{id}"));
    let expired = root.issue(
        "expired",
        &Wanted { names: &format!("URI:{id}"), not_after: Some("20210101000000Z"), ..Wanted::default() },
    );
    let trusting = load(&root, None, None);
    let outcome = |issued: &Issued, whom: &Expect, name: &str| {
        let server = load(&root, Some(issued), None).server(ClientCertificates::None).unwrap();
        shake_hands(&server, &trusting.client(whom.clone()).unwrap(), name)
            .map(|(_, server)| server.unwrap().spiffe_id)
    };
    assert_eq!(outcome(&good, &Expect::Name, "a.example").as_deref(), Ok(id));
    assert_eq!(outcome(&good, &Expect::Name, "127.0.0.1").as_deref(), Ok(id));
    assert_eq!(outcome(&good, &expect(id), "whatever.example").as_deref(), Ok(id));
    assert_eq!(
        outcome(&twofold, &Expect::Name, "a.example").as_deref(),
        Ok(""),
        "two URI names are no SPIFFE id"
    );
    for (issued, whom, name, part) in [
        (&good, Expect::Name, "b.example", "not valid for name"),
        (&good, expect("spiffe://example.org/another"), "a.example", "was expected"),
        (&good, expect("spiffe://elsewhere.org/server"), "a.example", "was expected"),
        (&twofold, expect(id), "a.example", "more than one URI name"),
        (&foreigner, Expect::Name, "a.example", "UnknownIssuer"),
        // Neither the id nor the name is what fails here: an order of checks that stopped at the name would let this chain through.
        (&foreigner, expect(id), "b.example", "UnknownIssuer"),
        (&expired, expect(id), "b.example", "expired"),
    ] {
        let reason = outcome(issued, &whom, name).unwrap_err();
        assert!(reason.starts_with("client: ") && reason.contains(part), "{whom:?} at {name}: {reason}");
    }
}

/// With the Workload API's authorities each trust domain vouches for its own ids alone.
#[test]
fn a_trust_domain_vouches_for_its_own() {
    let (here, there) = (folder(), folder());
    let (own, federated) = (Authority::new(here.path(), "own"), Authority::new(there.path(), "federated"));
    let us = own.issue_for("us", "URI:spiffe://own.org/us,DNS:us.example");
    let bundles = [("own.org", &own), ("federated.org", &federated)];
    let material = spiffe("own.org", &us, &bundles);
    let server = material.server(ClientCertificates::Required).unwrap();
    let outcome = |domain: &str, authority: &Authority, names: &str| {
        let issued = authority.issue_for("peer", names);
        let client = spiffe(domain, &issued, &bundles).client(expect("spiffe://own.org/us")).unwrap();
        shake_hands(&server, &client, "us.example").map(|(client, _)| {
            let client = client.unwrap();
            (client.spiffe_id, client.root_subject)
        })
    };
    let ours = ("spiffe://own.org/peer".to_owned(), "CN=own,O=attestry tests".to_owned());
    assert_eq!(outcome("own.org", &own, "URI:spiffe://own.org/peer"), Ok(ours));
    let theirs = ("spiffe://federated.org/peer".to_owned(), "CN=federated,O=attestry tests".to_owned());
    assert_eq!(outcome("federated.org", &federated, "URI:spiffe://federated.org/peer"), Ok(theirs));
    for (domain, authority, names, part) in [
        ("federated.org", &federated, "URI:spiffe://own.org/us", "BadSignature"),
        ("own.org", &own, "URI:spiffe://federated.org/peer", "UnknownIssuer"),
        ("own.org", &own, "URI:spiffe://nowhere.org/peer", "UnknownIssuer"),
        ("own.org", &own, "DNS:peer.example", "no URI name"),
        ("own.org", &own, "URI:spiffe://own.org/a,URI:https://own.org/a", "more than one URI name"),
        ("own.org", &own, "URI:spiffe://own.org", "no SPIFFE id"),
    ] {
        let reason = outcome(domain, authority, names).unwrap_err();
        let is_refused =
            reason.contains(part) || (part == "BadSignature" && reason.contains("UnknownIssuer"));
        assert!(reason.starts_with("server: ") && is_refused, "{names}: {reason}");
    }
    let unknown = material.client(expect("spiffe://nowhere.org/x")).unwrap_err().to_string();
    assert!(unknown.contains("no authorities of the trust domain nowhere.org"), "{unknown}");
    // By name, it is attestry's own domain that vouches.
    let named = material.client(Expect::Name).unwrap();
    shake_hands(&material.server(ClientCertificates::None).unwrap(), &named, "us.example").unwrap();
}

/// A certificate that may sign others is no identity (X509-SVID section 5.2).
#[test]
fn a_signing_certificate_is_no_svid() {
    let folder = folder();
    let root = Authority::new(folder.path(), "root");
    let signing = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyCertSign\n";
    let wanted = Wanted { names: "URI:spiffe://own.org/signer", extensions: signing, ..Wanted::default() };
    let us = root.issue_for("us", "URI:spiffe://own.org/us");
    let bundles = [("own.org", &root)];
    let server = spiffe("own.org", &us, &bundles).server(ClientCertificates::Required).unwrap();
    let client = spiffe("own.org", &root.issue("signer", &wanted), &bundles)
        .client(expect("spiffe://own.org/us"))
        .unwrap();
    let reason = shake_hands(&server, &client, "us.example").unwrap_err();
    assert!(reason.contains("may sign"), "{reason}");
}

/// However many names a certificate has, what an entry says of them is bounded.
#[test]
fn the_description_of_a_peer_fits_an_entry() {
    let folder = folder();
    let root = Authority::new(folder.path(), "root");
    let long = format!("URI:https://{}.example/{}", "a".repeat(60), "b".repeat(3_000));
    let names: Vec<String> =
        (0..200).map(|number| format!("DNS:{number}.{}.example", "c".repeat(60))).collect();
    let issued = root.issue_for("leaf", &format!("{long},{}", names.join(",")));
    let credentials = load(&root, Some(&issued), None);
    let server = credentials.server(ClientCertificates::Required).unwrap();
    let name = format!("7.{}.example", "c".repeat(60));
    let (peer, _) = shake_hands(&server, &credentials.client(Expect::Name).unwrap(), &name).unwrap();
    let peer = peer.unwrap();
    assert_eq!(peer.subject_alternative_names.len(), 64);
    assert!(
        peer.subject_alternative_names[0].len() <= 2_048 && peer.subject_alternative_names[0].ends_with('…')
    );
    assert!(prost::Message::encoded_len(&peer) < 32 * 1024);
}
