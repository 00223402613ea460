//! Certificates of a run: one authority, a service's and a client's, and TLS with them. Sessions are not resumed, as attestry resumes none.

use super::authority::Authority;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name in the service's certificate.
pub(super) const SERVICE_NAME: &str = "service.example";
/// Its SPIFFE id.
pub(super) const SERVICE_ID: &str = "spiffe://example.org/service";

/// A folder of certificates and keys.
pub(super) struct Secrets {
    pub(super) folder: PathBuf,
}

impl Secrets {
    /// Makes them.
    pub(super) fn make(folder: &Path) -> Self {
        let authority = Authority::new(folder, "authority");
        authority.issue_for("service", &format!("DNS:{SERVICE_NAME},URI:{SERVICE_ID}"));
        authority.issue_for("client", "URI:spiffe://example.org/client");
        Self { folder: folder.join("authority") }
    }

    /// Those that are in `folder` already.
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(super) fn authorities(&self) -> PathBuf {
        self.folder.join("root.pem")
    }

    /// Certificate and key of `who`.
    pub(super) fn pair(&self, who: &str) -> [PathBuf; 2] {
        ["pem", "key"].map(|kind| self.folder.join(format!("{who}.{kind}")))
    }

    /// A client that shows its certificate.
    pub(super) fn client(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let (chain, key) = self.load("client");
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.2 and 1.3");
        let builder = builder.with_root_certificates(self.roots());
        let mut config = builder.with_client_auth_cert(chain, key).expect("a key and its certificate");
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    /// A server that demands a certificate.
    pub(super) fn server(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let (chain, key) = self.load("service");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider());
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.2 and 1.3");
        let builder =
            builder.with_client_cert_verifier(verifier.build().expect("the authority is one root at least"));
        let mut config = builder.with_single_cert(chain, key).expect("a key and its certificate");
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    fn load(&self, who: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let [chain, key] = self.pair(who);
        (certificates(&chain), PrivateKeyDer::from_pem_file(key).expect("openssl has made this key"))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&self.authorities()));
        roots
    }
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    let certificates = CertificateDer::pem_file_iter(file).expect("openssl has made this file");
    certificates.map(|certificate| certificate.expect("openssl has made this certificate")).collect()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
