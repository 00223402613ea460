//! Authorities: the verification of a chain by them (RFC 5280 section 6, as rustls-webpki does it), and which of them it ended in.
//!
//! Revocation: a certificate that a list names is refused, anywhere in the chain. A certificate whose issuer has published no list here is not: otherwise the
//! first list of one authority would lock out the peers of all others. A list past its next update still counts, and is reported when it is loaded.

use super::CredentialsError;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore};
use std::sync::Arc;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Authorities that vouch for the same peers.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) roots: Vec<CertificateDer<'static>>,
    store: Arc<RootCertStore>,
    server: Arc<WebPkiServerVerifier>,
    client: Arc<dyn ClientCertVerifier>,
    optional_client: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
}

/// What the peer is: that decides which use its certificate must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

impl Authorities {
    pub(super) fn new(
        roots: Vec<CertificateDer<'static>>,
        revocation: Vec<CertificateRevocationListDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, CredentialsError> {
        let store = Arc::new(store(&roots)?);
        let unfit = |error| CredentialsError::Unfit(format!("peers cannot be verified: {error}"));
        let client = |optional: bool| {
            let mut builder =
                WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(provider))
                    .with_crls(revocation.clone())
                    .allow_unknown_revocation_status();
            if optional {
                builder = builder.allow_unauthenticated();
            }
            builder.build().map_err(unfit)
        };
        let (required, optional_client) = (client(false)?, client(true)?);
        let server = WebPkiServerVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(provider))
            .with_crls(revocation)
            .allow_unknown_revocation_status()
            .build()
            .map_err(unfit)?;
        Ok(Self { roots, store, server, client: required, optional_client, provider: Arc::clone(provider) })
    }

    /// Verifies clients' chains; `optional`: and takes those who show none.
    pub(super) fn client_verifier(&self, optional: bool) -> &Arc<dyn ClientCertVerifier> {
        if optional { &self.optional_client } else { &self.client }
    }

    /// Verifies servers' chains, and that they are for the name asked for.
    pub(super) fn server_verifier(&self) -> &Arc<WebPkiServerVerifier> {
        &self.server
    }

    /// Verifies a server's chain, whatever names it is for.
    pub(super) fn verify_server_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.store, intermediates, now, algorithms)?;
        // The function above knows no revocation lists. The verifier does, but asks for a name too; that the name is another is no matter here.
        let any_name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
        match self.server.verify_server_cert(leaf, intermediates, &any_name, &[], now) {
            Ok(_)
            | Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The authority that a chain, which has been verified, ends in.
    pub(super) fn root_of(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
    ) -> Option<&CertificateDer<'static>> {
        let issuers: Vec<Vec<u8>> = chain
            .iter()
            .filter_map(|certificate| X509Certificate::from_der(certificate).ok())
            .map(|(_, certificate)| certificate.issuer().as_raw().to_vec())
            .collect();
        let mut candidates = self.roots.iter().filter(|root| {
            X509Certificate::from_der(root)
                .is_ok_and(|(_, root)| issuers.iter().any(|issuer| issuer == root.subject().as_raw()))
        });
        let first = candidates.next()?;
        let Some(second) = candidates.next() else { return Some(first) };
        // Several of one name, as during a rotation: it is the one by which alone the chain still verifies.
        [first, second].into_iter().chain(candidates).find(|root| self.verifies_alone(root, chain, role))
    }

    fn verifies_alone(
        &self,
        root: &CertificateDer<'static>,
        chain: &[CertificateDer<'_>],
        role: Role,
    ) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        let Ok(alone) = Self::new(vec![root.clone()], Vec::new(), &self.provider) else { return false };
        let now = UnixTime::now();
        match role {
            Role::Client => alone.client.verify_client_cert(leaf, intermediates, now).is_ok(),
            Role::Server => alone.verify_server_chain(leaf, intermediates, now).is_ok(),
        }
    }
}

fn store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, CredentialsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        let unfit =
            |error| CredentialsError::Unfit(format!("an authority's certificate cannot be used: {error}"));
        store.add(root.clone()).map_err(unfit)?;
    }
    if store.is_empty() {
        let reason =
            "there is no authority to verify peers by. Set tls.authorities_file to a file with at least one";
        return Err(CredentialsError::Unfit(reason.to_owned()));
    }
    Ok(store)
}
