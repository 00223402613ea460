//! Section `[tls]`: whose certificates are shown and whose are believed, and what the listeners need of it.
//!
//! Invariants: credentials come from files or from a SPIFFE socket, never from both; a certificate has its key; a
//! listener that terminates TLS has a certificate, and one that verifies a peer has authorities to verify it by.
//! The files are opened and watched in `credentials`, not here.

use super::fault::Problem;
use super::listeners::{
    CLIENT_CERTIFICATES, CLIENT_TLS, ClientCertificates, ClientTls, Rules, UPSTREAM_TLS, UpstreamTls,
};
use super::settings::{KnownKey, Settings};
use super::values::{millis, parse_alpn, parse_optional_path, parse_socket, unfit};
use crate::limits;
use std::path::PathBuf;
use std::time::Duration;

/// Section `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Where certificates and authorities come from.
    pub credentials: Credentials,
    /// What a terminating listener offers where the upstream does not choose, the most wanted first (RFC 7301).
    pub alpn: Vec<String>,
    /// Wait for one handshake.
    pub handshake_timeout: Duration,
}

/// Where certificates and authorities come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// PEM files.
    Files(CredentialFiles),
    /// The SPIFFE Workload API on this Unix socket.
    Spiffe(PathBuf),
}

/// Credentials in PEM files; all are absent where TLS is only passed through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CredentialFiles {
    /// What is shown to peers.
    pub certificate: Option<CertificateFiles>,
    /// Whose certificates are believed.
    pub authorities: Option<PathBuf>,
    /// Which of them no longer.
    pub revocation: Option<PathBuf>,
}

/// A certificate's chain and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Credentials {
    fn has_certificate(&self) -> bool {
        matches!(self, Self::Spiffe(_) | Self::Files(CredentialFiles { certificate: Some(_), .. }))
    }

    fn has_authorities(&self) -> bool {
        matches!(self, Self::Spiffe(_) | Self::Files(CredentialFiles { authorities: Some(_), .. }))
    }
}

const CERTIFICATE: KnownKey = ("tls", "certificate_file");
const KEY: KnownKey = ("tls", "key_file");
const AUTHORITIES: KnownKey = ("tls", "authorities_file");
const REVOCATION: KnownKey = ("tls", "revocation_file");
const SPIFFE: KnownKey = ("tls", "spiffe_socket");

pub(super) fn tls(s: &mut Settings) -> Option<Tls> {
    let mut path = |key| s.optional(key, None, parse_optional_path);
    let (certificate, key) = (path(CERTIFICATE), path(KEY));
    let (authorities, revocation) = (path(AUTHORITIES), path(REVOCATION));
    let socket = s.optional(SPIFFE, None, parse_socket);
    let alpn = s.optional(("tls", "alpn"), vec!["h2".to_owned(), "http/1.1".to_owned()], parse_alpn);
    let handshake_timeout = millis(
        s,
        ("tls", "handshake_timeout_ms"),
        limits::HANDSHAKE_TIMEOUT_MS,
        limits::HANDSHAKE_TIMEOUT_MS_RANGE,
    );
    let files = files(s, certificate?, key?, authorities?, revocation?);
    let credentials = match socket? {
        Some(socket) => one_source(s, socket, &files?),
        None => Some(Credentials::Files(files?)),
    };
    Some(Tls { credentials: credentials?, alpn: alpn?, handshake_timeout: handshake_timeout? })
}

fn files(
    s: &mut Settings,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    authorities: Option<PathBuf>,
    revocation: Option<PathBuf>,
) -> Option<CredentialFiles> {
    let lists_without_authorities = revocation.is_some() && authorities.is_none();
    if lists_without_authorities {
        s.missing(AUTHORITIES, "is needed beside tls.revocation_file", "\"authorities.pem\"");
    }
    let certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            s.missing(KEY, "is needed beside tls.certificate_file", "\"key.pem\"");
            return None;
        }
        (None, Some(_)) => {
            s.missing(CERTIFICATE, "is needed beside tls.key_file", "\"certificate.pem\"");
            return None;
        }
    };
    (!lists_without_authorities).then_some(CredentialFiles { certificate, authorities, revocation })
}

/// Files beside a socket would leave open which of the two is shown and believed.
fn one_source(s: &mut Settings, socket: PathBuf, files: &CredentialFiles) -> Option<Credentials> {
    if *files == CredentialFiles::default() {
        return Some(Credentials::Spiffe(socket));
    }
    let reason = "which is a second source beside the files of [tls]";
    s.fault_in(
        SPIFFE,
        unfit(&socket.display().to_string(), reason, "keep the files or the socket, not both"),
    );
    None
}

const GIVE_AUTHORITIES: &str = "write authorities_file in [tls], or spiffe_socket";

/// What the listener of `section` needs of `[tls]`.
pub(super) fn check(s: &mut Settings, section: &'static str, rules: &Rules, tls: &Tls) {
    let terminates = rules.client_tls != ClientTls::Passthrough;
    let asks = rules.client_certificates != ClientCertificates::None;
    let originates = rules.upstream_tls != UpstreamTls::None;
    let mut fault = |key, found: &str, reason: &str, remedy: &str| {
        s.fault_in(
            (section, key),
            Problem::Text { found: found.into(), reason: reason.into(), remedy: remedy.into() },
        );
    };
    if terminates && !tls.credentials.has_certificate() {
        let remedy = "write certificate_file and key_file in [tls], or spiffe_socket";
        fault("client_tls", name(rules.client_tls, &CLIENT_TLS), "which needs a certificate", remedy);
    }
    let asked = name(rules.client_certificates, &CLIENT_CERTIFICATES);
    if asks && !terminates {
        let remedy = "write client_tls = \"terminate\" or \"require\" beside it";
        fault("client_certificates", asked, "which TLS that is passed through cannot ask for", remedy);
    }
    if asks && !tls.credentials.has_authorities() {
        fault("client_certificates", asked, "which needs authorities to verify them by", GIVE_AUTHORITIES);
    }
    if originates && !tls.credentials.has_authorities() {
        let found = name(rules.upstream_tls, &UPSTREAM_TLS);
        fault("upstream_tls", found, "which needs authorities to verify the upstream by", GIVE_AUTHORITIES);
    }
    let expected = [("upstream_name", &rules.upstream_name), ("upstream_id", &rules.upstream_id)];
    for (key, value) in expected {
        if let (Some(value), false) = (value, originates) {
            let remedy = "write upstream_tls = \"originate\" or \"as_client\" beside it";
            fault(key, value, "which nobody verifies without TLS to the upstream", remedy);
        }
    }
}

fn name<T: PartialEq + Copy>(value: T, names: &[(&'static str, T)]) -> &'static str {
    let name = names.iter().find(|(_, known)| *known == value).map(|(name, _)| *name);
    name.expect("every value of the enum stands in its table of names")
}
