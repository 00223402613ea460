//! Tests of following changes of files: as Kubernetes, editors and scripts make them.

use super::authority::{Authority, Issued, der_of_certificate};
use super::{folder, options};
use crate::credentials::{ClientCertificates, Credentials, Files, Options, Source, Watch};
use crate::generated::v1;
use rustls::pki_types::CertificateDer;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Far beyond what a change takes; below the interval of looking without a sign, so that this is not what finds it.
const BOUND: Duration = Duration::from_secs(20);

/// A volume as Kubernetes makes it: the files are links through `..data`, which is replaced as a whole.
struct Volume {
    folder: PathBuf,
    version: u32,
}

impl Volume {
    fn new(folder: &Path, issued: &Issued, authority: &Authority) -> Self {
        fs::create_dir(folder).unwrap();
        let mut volume = Self { folder: folder.to_owned(), version: 0 };
        volume.swap(&fs::read(&issued.certificate).unwrap(), &fs::read(&issued.key).unwrap());
        fs::copy(&authority.certificate, folder.join("ca.crt")).unwrap();
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
        }
        volume
    }

    fn swap(&mut self, certificate: &[u8], key: &[u8]) {
        self.version += 1;
        let version = format!("..version_{}", self.version);
        fs::create_dir(self.folder.join(&version)).unwrap();
        fs::write(self.folder.join(&version).join("tls.crt"), certificate).unwrap();
        fs::write(self.folder.join(&version).join("tls.key"), key).unwrap();
        symlink(&version, self.folder.join("..data_tmp")).unwrap();
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).unwrap();
    }

    fn replace(&mut self, issued: &Issued) {
        self.swap(&fs::read(&issued.certificate).unwrap(), &fs::read(&issued.key).unwrap());
    }

    fn options(&self) -> Options {
        let at = |name: &str| Some(self.folder.join(name));
        let files = Files {
            certificate: at("tls.crt"),
            key: at("tls.key"),
            authorities: at("ca.crt"),
            revocation: None,
        };
        Options { source: Source::Files(files), alpn: Vec::new() }
    }
}

fn watch(credentials: &Credentials) -> (Watch, Receiver<v1::Notice>) {
    let (sender, notices) = channel();
    let watch = credentials.watch(move |notice| drop(sender.send(notice))).unwrap();
    (watch, notices)
}

/// The certificate that a new session would show.
fn shown(credentials: &Credentials) -> Vec<u8> {
    let side = credentials.server(ClientCertificates::None).unwrap();
    let config = side.config();
    // The resolver asks nothing of the client, so a session in memory is enough.
    let client =
        rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(std::sync::Arc::new(Anybody))
            .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(client.into(), "a.example".try_into().unwrap()).unwrap();
    let mut server = rustls::ServerConnection::new(config).unwrap();
    for _ in 0..4 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    client.peer_certificates().unwrap()[0].to_vec()
}

/// A client that takes any certificate: what is asked here is which one it is.
#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn a_swapped_volume_is_taken_into_use_and_a_bad_one_is_not() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "root");
    let [first, second, third] =
        ["first", "second", "third"].map(|name| authority.issue_for(name, "DNS:a.example"));
    let mut volume = Volume::new(&folder.path().join("volume"), &first, &authority);
    let credentials = Credentials::load(volume.options()).unwrap();
    let (watch, notices) = watch(&credentials);
    assert_eq!(shown(&credentials), der_of_certificate(&first.certificate));

    volume.replace(&second);
    let notice = notices.recv_timeout(BOUND).unwrap();
    assert_eq!(notice.r#type(), v1::notice::Type::CredentialsLoaded);
    assert!(notice.from_unix_nanos > 0 && notice.reason.contains("valid until"), "{}", notice.reason);
    assert_eq!(shown(&credentials), der_of_certificate(&second.certificate));

    // A key of another certificate, then nothing readable at all: each is told of, and the second set stays.
    let wrong = (fs::read(&third.certificate).unwrap(), fs::read(&first.key).unwrap());
    for (certificate, part) in
        [(&wrong.0, "does not belong"), (&b"rubbish".to_vec(), "does not hold a certificate")]
    {
        volume.swap(certificate, &wrong.1);
        let notice = notices.recv_timeout(BOUND).unwrap();
        assert_eq!(notice.r#type(), v1::notice::Type::CredentialsRefused);
        assert!(notice.reason.contains(part), "{}", notice.reason);
        assert_eq!(shown(&credentials), der_of_certificate(&second.certificate));
    }

    volume.replace(&third);
    assert_eq!(notices.recv_timeout(BOUND).unwrap().r#type(), v1::notice::Type::CredentialsLoaded);
    assert_eq!(shown(&credentials), der_of_certificate(&third.certificate));
    drop(watch);
    assert!(
        notices.recv_timeout(BOUND).is_err(),
        "the sender goes with the watch, and has nothing more to say"
    );
}

/// What is in use must still be served: a set without the authorities that a listener needs is refused, although it is well-formed.
#[test]
fn a_set_that_cannot_do_what_the_current_one_does_is_refused() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "root");
    let issued = authority.issue_for("leaf", "DNS:a.example");
    let credentials = Credentials::load(options(&authority, Some(&issued), None)).unwrap();
    credentials.server(ClientCertificates::Required).unwrap();
    let trustless = Files {
        certificate: Some(issued.certificate.clone()),
        key: Some(issued.key.clone()),
        ..Files::default()
    };
    let material = crate::credentials::files::load(&trustless, &[]).unwrap();
    let refused = credentials.replace(material).unwrap_err().to_string();
    assert!(refused.contains("tls.authorities_file"), "{refused}");
    credentials.server(ClientCertificates::Required).unwrap();
}

/// Files that are written in place, one after the other, are one change: the pair is never seen half.
#[test]
fn files_that_are_replaced_one_by_one_are_one_set() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "root");
    let (first, second) =
        (authority.issue_for("first", "DNS:a.example"), authority.issue_for("second", "DNS:a.example"));
    let place = folder.path().join("place");
    fs::create_dir(&place).unwrap();
    let at = |name: &str| place.join(name);
    let put = |issued: &Issued| {
        fs::copy(&issued.certificate, at("c")).unwrap();
        fs::copy(&issued.key, at("k")).unwrap();
    };
    put(&first);
    let files = Files { certificate: Some(at("c")), key: Some(at("k")), ..Files::default() };
    let credentials = Credentials::load(Options { source: Source::Files(files), alpn: Vec::new() }).unwrap();
    let (_watch, notices) = watch(&credentials);
    put(&second);
    let notice = notices.recv_timeout(BOUND).unwrap();
    assert_eq!(notice.r#type(), v1::notice::Type::CredentialsLoaded, "{}", notice.reason);
    assert_eq!(shown(&credentials), der_of_certificate(&second.certificate));
}

/// Whoever serves with the old material goes on with it.
#[test]
fn what_was_taken_before_a_change_stays_as_it_was() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "root");
    let (first, second) =
        (authority.issue_for("first", "DNS:a.example"), authority.issue_for("second", "DNS:a.example"));
    let credentials = Credentials::load(options(&authority, Some(&first), None)).unwrap();
    let before = credentials.server(ClientCertificates::Required).unwrap();
    let Source::Files(files) = options(&authority, Some(&second), None).source else { unreachable!() };
    assert!(credentials.replace(crate::credentials::files::load(&files, &[]).unwrap()).unwrap());
    assert!(
        !credentials.replace(crate::credentials::files::load(&files, &[]).unwrap()).unwrap(),
        "the same is no change"
    );
    let after = credentials.server(ClientCertificates::Required).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&before.config(), &after.config()));
    let chain = [CertificateDer::from(der_of_certificate(&first.certificate))];
    assert!(before.verified_peer(&chain).is_some());
}
