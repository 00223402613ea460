//! The two sides of TLS: rustls' configurations for each use of the material, and the verification of SPIFFE ids.
//!
//! Invariants: TLS 1.2 and 1.3 only; no session is resumed, so each peer is verified in each session, by the authorities and revocation lists of its day;
//! no early data (RFC 8446 section 8), which could be replayed. A SPIFFE id counts only where the certificate has exactly one URI name
//! (X509-SVID section 2), and with authorities by trust domain only if its own domain's vouch for it.

use super::CredentialsError;
use super::chain::{Authorities, Role};
use super::material::{Material, Trusted};
use super::peer;
use crate::generated::v1;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoClientAuth, NoServerSessionStorage};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    SignatureScheme,
};
use std::sync::Arc;

/// What a server asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientCertificates {
    /// No certificate is asked for.
    None,
    /// One that is shown must be good.
    Optional,
    /// One must be shown.
    Required,
}

/// Whom a client expects to find.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// The name that is asked for, by WebPKI (RFC 9525).
    Name,
    /// Exactly this SPIFFE id.
    SpiffeId(String),
}

/// attestry as a server: of one material, for as long as it is kept.
#[derive(Clone, Debug)]
pub struct ServerSide {
    config: Arc<ServerConfig>,
    trusted: Arc<Trusted>,
}

/// attestry as a client: of one material, for as long as it is kept.
#[derive(Clone, Debug)]
pub struct ClientSide {
    config: Arc<ClientConfig>,
    trusted: Arc<Trusted>,
}

impl ServerSide {
    /// The configuration.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Who the client has proved to be with a chain that a session of this configuration has accepted.
    pub fn verified_peer(&self, chain: &[CertificateDer<'_>]) -> Option<v1::VerifiedPeer> {
        peer::describe(chain, &self.trusted, Role::Client)
    }
}

impl ClientSide {
    /// The configuration.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// Who the server has proved to be with a chain that a session of this configuration has accepted.
    pub fn verified_peer(&self, chain: &[CertificateDer<'_>]) -> Option<v1::VerifiedPeer> {
        peer::describe(chain, &self.trusted, Role::Server)
    }
}

pub(super) fn server(material: &Material, asked: ClientCertificates) -> Result<ServerSide, CredentialsError> {
    let Some(identity) = &material.identity else {
        let reason = "TLS cannot be served without a certificate. Set tls.certificate_file and tls.key_file";
        return Err(CredentialsError::Unfit(reason.to_owned()));
    };
    let is_optional = asked == ClientCertificates::Optional;
    let verifier: Arc<dyn ClientCertVerifier> = match (asked, &*material.trusted) {
        (ClientCertificates::None, _) => Arc::new(NoClientAuth),
        (_, Trusted::Any(None)) => return Err(no_authorities()),
        (_, Trusted::Any(Some(authorities))) => Arc::clone(authorities.client_verifier(is_optional)),
        (_, Trusted::Spiffe { .. }) => Arc::new(SpiffeClients {
            trusted: Arc::clone(&material.trusted),
            provider: Arc::clone(&material.provider),
            is_optional,
        }),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&material.provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(identity) as _);
    config.alpn_protocols.clone_from(&material.alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(ServerSide { config: Arc::new(config), trusted: Arc::clone(&material.trusted) })
}

pub(super) fn client(material: &Material, expect: &Expect) -> Result<ClientSide, CredentialsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match expect {
        Expect::Name => match &*material.trusted {
            Trusted::Any(authorities) => {
                Arc::clone(authorities.as_ref().ok_or_else(no_authorities)?.server_verifier()) as _
            }
            Trusted::Spiffe { own, bundles } => {
                Arc::clone(bundles.get(own).ok_or_else(|| no_bundle(own))?.server_verifier()) as _
            }
        },
        Expect::SpiffeId(id) => {
            let id = peer::spiffe_id(id).ok_or_else(|| {
                CredentialsError::Unfit(format!(
                    "{id:?} is no SPIFFE id. Set upstream_id to spiffe://DOMAIN/PATH"
                ))
            })?;
            material.trusted.vouching_for(&id).ok_or_else(|| match &*material.trusted {
                Trusted::Any(_) => no_authorities(),
                Trusted::Spiffe { .. } => no_bundle(id.trust_domain_name()),
            })?;
            let (trusted, provider) = (Arc::clone(&material.trusted), Arc::clone(&material.provider));
            Arc::new(SpiffeServer { id, trusted, provider })
        }
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&material.provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .dangerous()
        // "Dangerous" are verifiers of one's own: these two verify the chain by rustls' own, and then the identity.
        .with_custom_certificate_verifier(verifier);
    let mut config = match &material.identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::clone(identity) as _),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols.clone_from(&material.alpn);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(ClientSide { config: Arc::new(config), trusted: Arc::clone(&material.trusted) })
}

fn no_authorities() -> CredentialsError {
    CredentialsError::Unfit("there is no authority to verify peers by. Set tls.authorities_file".to_owned())
}

fn no_bundle(domain: &str) -> CredentialsError {
    CredentialsError::Unfit(format!(
        "the Workload API has brought no authorities of the trust domain {domain}. Federate with it, or correct upstream_id"
    ))
}

fn unusable(error: &rustls::Error) -> CredentialsError {
    CredentialsError::Unfit(format!("the TLS provider cannot be used: {error}"))
}

impl Trusted {
    /// The authorities that may vouch for an id.
    pub(super) fn vouching_for(&self, id: &spiffe::SpiffeId) -> Option<&Authorities> {
        match self {
            Self::Any(authorities) => authorities.as_ref(),
            Self::Spiffe { bundles, .. } => bundles.get(id.trust_domain_name()),
        }
    }
}

/// Clients with a SPIFFE id, each by the authorities of its trust domain.
#[derive(Debug)]
struct SpiffeClients {
    trusted: Arc<Trusted>,
    provider: Arc<CryptoProvider>,
    is_optional: bool,
}

impl ClientCertVerifier for SpiffeClients {
    fn client_auth_mandatory(&self) -> bool {
        !self.is_optional
    }

    /// None: a client with an SVID has only that one, and a federation's authorities would be a long list.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let id = peer::svid_of(leaf).map_err(refused)?;
        let authorities = self.trusted.vouching_for(&id).ok_or(CertificateError::UnknownIssuer)?;
        authorities.client_verifier(false).verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The server with one SPIFFE id.
#[derive(Debug)]
struct SpiffeServer {
    id: spiffe::SpiffeId,
    trusted: Arc<Trusted>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for SpiffeServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _asked: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = peer::svid_of(leaf).map_err(refused)?;
        let authorities = self.trusted.vouching_for(&found).ok_or(CertificateError::UnknownIssuer)?;
        authorities.verify_server_chain(leaf, intermediates, now)?;
        if found != self.id {
            return Err(refused(peer::NotAnSvid(format!("it is of {found}, and {} was expected", self.id))));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn refused(why: peer::NotAnSvid) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(why))).into()
}
