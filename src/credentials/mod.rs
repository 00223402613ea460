//! Who attestry is in TLS and whom it believes: certificates, their key, authorities and revocation lists, kept up to date.
//!
//! Invariants: material is checked as a whole before it is used, and used as a whole; what is in use is never replaced by something that cannot serve what it
//! serves; whoever took a `ServerSide` or a `ClientSide` keeps the material that it was made of, so connections outlive a rotation. One cryptographic
//! provider, aws-lc-rs, is named everywhere; the process-wide default is never asked. Handshakes are `proxy`'s.
//!
//! ```text
//!  files | Workload API ──▶ material (checked) ──▶ current ──▶ sides: one configuration for each use, and verified_peer
//!            watch ─────────────────────▲  refused: the current one stays, and a Notice says so
//! ```

mod chain;
mod files;
mod material;
mod peer;
mod sides;
mod watch;
mod workload_api;

pub use sides::{ClientCertificates, ClientSide, Expect, ServerSide};
pub use watch::Watch;

use crate::generated::v1;
use arc_swap::ArcSwap;
use material::Material;
use std::path::PathBuf;
use std::sync::Arc;

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// PEM files.
    Files(Files),
    /// The SPIFFE Workload API at this socket, which brings the authorities of each trust domain along.
    Spiffe {
        /// A path, or `unix:PATH`.
        socket: PathBuf,
    },
}

/// PEM files; each is needed only for what it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// attestry's own certificate, followed by its intermediates.
    pub certificate: Option<PathBuf>,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: Option<PathBuf>,
    /// Certificates of the authorities that peers are verified by.
    pub authorities: Option<PathBuf>,
    /// Revocation lists of any of them.
    pub revocation: Option<PathBuf>,
}

/// What the credentials are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where they come from.
    pub source: Source,
    /// The protocols that configurations offer by themselves, best first (ALPN, RFC 7301).
    pub alpn: Vec<Vec<u8>>,
}

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file.
    #[error("cannot read {path}: {source}. Check tls.{key}")]
    Unreadable {
        /// Which.
        path: String,
        /// Its key under [tls].
        key: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{path} {fault}. Check tls.{key}")]
    Malformed {
        /// Which.
        path: String,
        /// Its key under [tls].
        key: &'static str,
        /// In words.
        fault: String,
    },
    /// Parts that do not fit each other, or cannot serve what they are used for.
    #[error("{0}")]
    Unfit(String),
    /// The Workload API.
    #[error(
        "the SPIFFE Workload API at {socket}: {fault}. Check tls.spiffe_socket, and that the workload is registered"
    )]
    WorkloadApi {
        /// Its socket.
        socket: String,
        /// What it said, or what happened.
        fault: String,
    },
    /// Changes cannot be followed.
    #[error(
        "credentials cannot be watched for changes: {0}. Without that attestry would go on with certificates that expire"
    )]
    Unwatchable(String),
}

/// The credentials in use. Clones share them.
#[derive(Clone, Debug)]
pub struct Credentials {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    current: ArcSwap<Material>,
}

impl Credentials {
    /// Loads them for the first time. A Workload API that is not there yet, or has nothing for this workload yet, is waited for, half a minute at the most.
    pub fn load(options: Options) -> Result<Self, CredentialsError> {
        let material = match &options.source {
            Source::Files(files) => files::load(files, &options.alpn)?,
            Source::Spiffe { socket } => workload_api::load(socket, &options.alpn)?,
        };
        tracing::info!(credentials = %material.summary(), "credentials loaded");
        Ok(Self { shared: Arc::new(Shared { options, current: ArcSwap::from_pointee(material) }) })
    }

    /// Follows changes on a thread of its own until the watch is dropped. `notify` is told of each set that was taken into use or refused, on that thread.
    pub fn watch(&self, notify: impl Fn(v1::Notice) + Send + 'static) -> Result<Watch, CredentialsError> {
        Watch::start(self.clone(), Box::new(notify))
    }

    /// What is needed to serve TLS, of the material that is current.
    pub fn server(&self, client_certificates: ClientCertificates) -> Result<ServerSide, CredentialsError> {
        self.shared.current.load().server(client_certificates)
    }

    /// What is needed to speak TLS to a server, of the material that is current.
    pub fn client(&self, expect: Expect) -> Result<ClientSide, CredentialsError> {
        self.shared.current.load().client(expect)
    }

    /// Takes `material` into use, if it can serve all that the current one serves. True if it is any other.
    fn replace(&self, material: Material) -> Result<bool, CredentialsError> {
        let current = self.shared.current.load();
        if material.digest() == current.digest() {
            return Ok(false);
        }
        material.serve_like(&current)?;
        self.shared.current.store(Arc::new(material));
        Ok(true)
    }
}

#[cfg(test)]
pub(crate) mod tests;
