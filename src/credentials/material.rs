//! One checked set of credentials, and the configurations that were made of it.
//!
//! Invariants: it never changes; the key fits the certificate; each configuration is made once. Reading files is `files`', the Workload API `workload_api`'s,
//! what a configuration consists of `sides`'.

use super::CredentialsError;
use super::chain::Authorities;
use super::peer;
use super::sides::{self, ClientCertificates, ClientSide, Expect, ServerSide};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

/// What a source has brought, not yet checked.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    pub(super) trust: Trust,
    pub(super) revocation: Vec<CertificateRevocationListDer<'static>>,
}

/// Authorities, not yet checked.
pub(super) enum Trust {
    /// They vouch for every name and id.
    Any(Vec<CertificateDer<'static>>),
    /// By trust domain; each vouches for the ids of its own alone. `own` is attestry's.
    Spiffe { own: String, bundles: BTreeMap<String, Vec<CertificateDer<'static>>> },
}

impl Default for Trust {
    fn default() -> Self {
        Self::Any(Vec::new())
    }
}

/// Authorities, checked.
#[derive(Debug)]
pub(super) enum Trusted {
    /// `None`: nobody is believed.
    Any(Option<Authorities>),
    Spiffe {
        own: String,
        bundles: BTreeMap<String, Authorities>,
    },
}

/// One checked set.
#[derive(Debug)]
pub(super) struct Material {
    digest: [u8; 32],
    summary: String,
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) identity: Option<Arc<SingleCertAndKey>>,
    pub(super) trusted: Arc<Trusted>,
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    servers: HashMap<ClientCertificates, ServerSide>,
    clients: HashMap<Expect, ClientSide>,
}

impl Material {
    pub(super) fn check(parts: Parts, alpn: &[Vec<u8>]) -> Result<Self, CredentialsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (digest, summary) = (digest(&parts), summary(&parts));
        let identity = match parts.identity {
            Some((chain, key)) => {
                // This finds a key that does not fit as well.
                let whole = CertifiedKey::from_der(chain, key, &provider).map_err(unfit_identity)?;
                Some(Arc::new(SingleCertAndKey::from(whole)))
            }
            None => None,
        };
        let trusted = match parts.trust {
            Trust::Any(roots) if roots.is_empty() && parts.revocation.is_empty() => Trusted::Any(None),
            Trust::Any(roots) => Trusted::Any(Some(Authorities::new(roots, parts.revocation, &provider)?)),
            Trust::Spiffe { own, bundles } => {
                let mut checked = BTreeMap::new();
                for (domain, roots) in bundles {
                    checked.insert(domain, Authorities::new(roots, Vec::new(), &provider)?);
                }
                Trusted::Spiffe { own, bundles: checked }
            }
        };
        let (alpn, trusted, made) = (alpn.to_vec(), Arc::new(trusted), Mutex::default());
        Ok(Self { digest, summary, alpn, provider, identity, trusted, made })
    }

    /// Of everything that came in: equal for equal material.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// In words, for the log and for notices.
    pub(super) fn summary(&self) -> &str {
        &self.summary
    }

    pub(super) fn server(&self, certificates: ClientCertificates) -> Result<ServerSide, CredentialsError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(side) = made.servers.get(&certificates) {
            return Ok(side.clone());
        }
        let side = sides::server(self, certificates)?;
        made.servers.insert(certificates, side.clone());
        Ok(side)
    }

    pub(super) fn client(&self, expect: Expect) -> Result<ClientSide, CredentialsError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(side) = made.clients.get(&expect) {
            return Ok(side.clone());
        }
        let side = sides::client(self, &expect)?;
        made.clients.insert(expect, side.clone());
        Ok(side)
    }

    /// Makes everything that was made of `other`, so that nothing of it can fail later.
    pub(super) fn serve_like(&self, other: &Self) -> Result<(), CredentialsError> {
        let (servers, clients) = {
            let made = other.made.lock().unwrap_or_else(PoisonError::into_inner);
            let servers: Vec<_> = made.servers.keys().copied().collect();
            (servers, made.clients.keys().cloned().collect::<Vec<_>>())
        };
        for certificates in servers {
            self.server(certificates)?;
        }
        for expect in clients {
            self.client(expect)?;
        }
        Ok(())
    }
}

fn unfit_identity(error: rustls::Error) -> CredentialsError {
    CredentialsError::Unfit(match error {
        rustls::Error::InconsistentKeys(_) => {
            "the private key does not belong to the certificate. Replace both in one step".to_owned()
        }
        other => format!("the certificate or its private key cannot be used: {other}"),
    })
}

fn digest(parts: &Parts) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |kind: &str, bytes: &[u8]| {
        hash.update(kind);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    if let Some((chain, key)) = &parts.identity {
        for certificate in chain {
            add("certificate", certificate);
        }
        add("key", key.secret_der());
    }
    match &parts.trust {
        Trust::Any(roots) => {
            for root in roots {
                add("authority", root);
            }
        }
        Trust::Spiffe { own, bundles } => {
            add("own", own.as_bytes());
            for (domain, roots) in bundles {
                add("domain", domain.as_bytes());
                for root in roots {
                    add("authority", root);
                }
            }
        }
    }
    for list in &parts.revocation {
        add("revocation", list);
    }
    hash.finalize().into()
}

fn summary(parts: &Parts) -> String {
    let mut text = match parts.identity.as_ref().and_then(|(chain, _)| chain.first()) {
        Some(leaf) => describe_leaf(leaf),
        None => "no certificate".to_owned(),
    };
    let _ = match &parts.trust {
        Trust::Any(roots) => write!(text, "; {} authorities", roots.len()),
        Trust::Spiffe { bundles, .. } => write!(text, "; authorities of {} trust domains", bundles.len()),
    };
    if !parts.revocation.is_empty() {
        let _ = write!(text, "; {} revocation lists", parts.revocation.len());
        let outdated = parts.revocation.iter().filter(|list| is_outdated(list)).count();
        if outdated > 0 {
            let _ = write!(text, ", {outdated} of them past their next update");
        }
    }
    text
}

fn describe_leaf(leaf: &CertificateDer<'_>) -> String {
    let fingerprint = peer::hexadecimal(&Sha256::digest(leaf));
    let Ok((_, read)) = X509Certificate::from_der(leaf) else {
        return format!("certificate sha256:{fingerprint}");
    };
    let validity = read.validity();
    let now = unix_seconds();
    let remark = if now > validity.not_after.timestamp() {
        " (EXPIRED)"
    } else if now < validity.not_before.timestamp() {
        " (not valid yet)"
    } else {
        ""
    };
    format!("certificate sha256:{fingerprint}, valid until {}{remark}", validity.not_after)
}

fn is_outdated(list: &CertificateRevocationListDer<'_>) -> bool {
    CertificateRevocationList::from_der(list)
        .ok()
        .and_then(|(_, list)| list.next_update())
        .is_some_and(|next| next.timestamp() < unix_seconds())
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
