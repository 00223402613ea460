//! Tests of credentials: what is loaded, refused, verified and followed.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

#[path = "../../tests/tls/authority.rs"]
pub(crate) mod authority;
mod following;
mod verifying;

use super::{Credentials, CredentialsError, Files, Options, Source};
use authority::{Authority, Issued, Wanted};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Options with files of an authority.
pub(crate) fn options(authority: &Authority, issued: Option<&Issued>, revocation: Option<&Path>) -> Options {
    let files = Files {
        certificate: issued.map(|issued| issued.certificate.clone()),
        key: issued.map(|issued| issued.key.clone()),
        authorities: Some(authority.certificate.clone()),
        revocation: revocation.map(Path::to_owned),
    };
    Options { source: Source::Files(files), alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()] }
}

pub(crate) fn load(authority: &Authority, issued: Option<&Issued>, revocation: Option<&Path>) -> Credentials {
    Credentials::load(options(authority, issued, revocation)).unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Each fault is named, with the file and the key where there is one.
#[test]
fn faulty_files_are_refused_with_what_is_wrong() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "root");
    let (good, other) =
        (authority.issue_for("good", "DNS:a.example"), authority.issue_for("other", "DNS:a.example"));
    let text = folder.path().join("text.pem");
    fs::write(&text, "no certificate\n").unwrap();
    let broken = folder.path().join("broken.pem");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n").unwrap();

    let fault = |change: &dyn Fn(&mut Files)| {
        let Options { source: Source::Files(mut files), alpn } = options(&authority, Some(&good), None)
        else {
            unreachable!()
        };
        change(&mut files);
        Credentials::load(Options { source: Source::Files(files), alpn }).unwrap_err().to_string()
    };
    #[allow(clippy::type_complexity, reason = "a table of cases is read by its rows")]
    let cases: [(&dyn Fn(&mut Files), &[&str]); 8] = [
        (
            &|files| files.certificate = Some(folder.path().join("absent.pem")),
            &["absent.pem", "tls.certificate_file"],
        ),
        (
            &|files| files.certificate = Some(text.clone()),
            &["text.pem does not hold a certificate", "tls.certificate_file"],
        ),
        (&|files| files.certificate = Some(broken.clone()), &["broken.pem is not well-formed PEM"]),
        (&|files| files.key = Some(text.clone()), &["text.pem does not hold a private key", "tls.key_file"]),
        (
            &|files| files.key = Some(other.key.clone()),
            &["the private key does not belong to the certificate"],
        ),
        (&|files| files.key = None, &["set both tls.certificate_file and tls.key_file"]),
        (
            &|files| files.authorities = Some(text.clone()),
            &["text.pem does not hold a certificate", "tls.authorities_file"],
        ),
        (
            &|files| files.revocation = Some(text.clone()),
            &["does not hold a revocation list", "tls.revocation_file"],
        ),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let message = fault(change);
        assert!(expected.iter().all(|part| message.contains(part)), "case {number}: {message}");
        assert!(!message.contains("PRIVATE KEY"), "{message}");
    }
}

/// What is missing is found when it is asked for, at the start: before any connection.
#[test]
fn a_use_that_the_material_cannot_serve_is_refused() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "root");
    let issued = authority.issue_for("leaf", "DNS:a.example");
    let only =
        |files: Files| Credentials::load(Options { source: Source::Files(files), alpn: Vec::new() }).unwrap();
    let anonymous = only(Files { authorities: Some(authority.certificate.clone()), ..Files::default() });
    let trustless =
        only(Files { certificate: Some(issued.certificate), key: Some(issued.key), ..Files::default() });
    let message = |error: CredentialsError| error.to_string();

    assert!(
        message(anonymous.server(super::ClientCertificates::None).unwrap_err())
            .contains("without a certificate")
    );
    anonymous.client(super::Expect::Name).unwrap();
    trustless.server(super::ClientCertificates::None).unwrap();
    let unfit = message(trustless.server(super::ClientCertificates::Optional).unwrap_err());
    assert!(unfit.contains("tls.authorities_file"), "{unfit}");
    assert!(message(trustless.client(super::Expect::Name).unwrap_err()).contains("tls.authorities_file"));
    let id = super::Expect::SpiffeId("https://not.an/id".to_owned());
    assert!(message(anonymous.client(id).unwrap_err()).contains("no SPIFFE id"));
}

/// Sessions are never resumed and take no early data, and no version below TLS 1.2 exists in them.
#[test]
fn configurations_keep_their_promises() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "root");
    let issued = authority.issue_for("leaf", "DNS:a.example");
    let credentials = load(&authority, Some(&issued), None);
    let server = credentials.server(super::ClientCertificates::Required).unwrap().config();
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    assert_eq!(server.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    let client = credentials.client(super::Expect::Name).unwrap().config();
    assert!(!client.enable_early_data);
    let again = credentials.client(super::Expect::Name).unwrap().config();
    assert!(std::sync::Arc::ptr_eq(&client, &again), "a configuration is made once");
}

/// An expired certificate of attestry's own is used, since its peers decide; but it is reported.
#[test]
fn an_expired_certificate_is_loaded_and_reported() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "root");
    let wanted = Wanted { not_after: Some("20210101000000Z"), ..Wanted::default() };
    let credentials = load(&authority, Some(&authority.issue("old", &wanted)), None);
    let summary = credentials.shared.current.load().summary().to_owned();
    assert!(summary.contains("EXPIRED"), "{summary}");
}
