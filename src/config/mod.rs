//! The configuration: `proxy.toml` and the environment, read once into types that cannot hold a wrong value.
//!
//! Invariants: a `Config` from `load` is complete and inside every range; all faults are reported together, each with
//! its key, its line or variable, and the remedy; the environment wins over the file, the file over the default. The
//! parts: `settings` (where a value stands and which keys are left over), `checked` (each key's type, default and
//! range, with `listeners` and `tls` for what those sections must be to each other), `values` (how one is read), `fault`
//! (what can be wrong), `upstream`, `show` (back to TOML). The bounds themselves are in `limits`; the
//! commands that print all this are in `cli`.

mod checked;
mod fault;
mod listeners;
mod settings;
mod show;
mod tls;
mod upstream;
mod values;

pub use fault::{Fault, Faults, Place, Problem};
pub use listeners::{
    ClientCertificates, ClientTls, Fixed, Inbound, Interception, Outbound, Rules, Scheme, Traffic,
    UpstreamTls,
};
pub use tls::{CertificateFiles, CredentialFiles, Credentials, Tls};
pub use upstream::Upstream;

use crate::limits;
use settings::{Origins, Settings};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything that `attestry run` is told. `docs/configuration.md` describes each key.
#[derive(Debug, Clone)]
pub struct Config {
    /// The fixed listener, and how connections are served whichever way they came.
    pub proxy: Proxy,
    /// Redirected connections to this pod; `None` where they are not listened for.
    pub inbound: Option<Inbound>,
    /// Redirected connections out of this pod; `None` where they are not listened for.
    pub outbound: Option<Outbound>,
    /// How it is found out what a connection speaks.
    pub detect: Detect,
    /// Certificates, and whom to believe.
    pub tls: Tls,
    /// The sockets.
    pub tcp: Tcp,
    /// What is kept of a call.
    pub capture: Capture,
    /// The bounds of the data path.
    pub limits: Limits,
    /// Where and how the evidence is kept.
    pub ledger: Ledger,
    /// Where the process is asked how it is.
    pub admin: Admin,
    /// Who this sidecar says it is.
    pub identity: Identity,
    /// The process's log.
    pub log: Log,
    origins: Origins,
}

/// Section `[proxy]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The listener with one upstream; at least this, `inbound` or `outbound` there is.
    pub fixed: Option<Fixed>,
    /// Worker threads; `None` is one for each core.
    pub workers: Option<NonZeroUsize>,
    /// Wait for a connection to the upstream.
    pub connect_timeout: Duration,
    /// Time for open calls to end after SIGTERM.
    pub drain_timeout: Duration,
}

/// Section `[detect]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detect {
    /// Wait for more bytes of a client, from the first one on that leaves open what it speaks.
    pub timeout: Duration,
    /// Bytes of a client that are read to find out.
    pub bytes_max: usize,
    /// What happens to what cannot be read.
    pub on_unreadable: OnUnreadable,
}

/// What happens to a connection or a request that was found to be of a known protocol and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnreadable {
    /// It is recorded as unreadable, and relayed as it is.
    Forward,
    /// It is recorded as unreadable, and ended.
    Refuse,
}

/// Section `[tcp]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// Silence until the kernel asks for the peer; `None` is never. The kernel counts in seconds: round up.
    pub keepalive: Option<Duration>,
    /// Time that sent bytes may go unacknowledged; `None` leaves it to the kernel.
    pub user_timeout: Option<Duration>,
    /// Silence of a connection that one side has ended, until it is ended as a whole.
    pub half_close_timeout: Duration,
    /// SO_MARK of connections to upstreams, by which rules may tell them from the workload's; `None` sets none.
    pub mark: Option<u32>,
}

/// Section `[capture]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// How much of each call is kept.
    pub level: CaptureLevel,
}

/// How much of a call is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureLevel {
    /// Metadata and the messages of both directions.
    RequestResponse,
    /// Metadata and the caller's messages.
    Request,
    /// Metadata and the sizes and digests of messages.
    Metadata,
    /// Only that the call happened.
    None,
}

/// Section `[limits]`. Byte counts and frame counts are per connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Decoded size of one header list.
    pub header_list_bytes_max: u32,
    /// Payload of one frame.
    pub frame_bytes_max: u32,
    /// Streams tracked at a time.
    pub streams_max: NonZeroUsize,
    /// Bytes held in one direction until their commit.
    pub hold_bytes_max: usize,
    /// Connections open at a time in the whole process.
    pub connections_max: NonZeroUsize,
    /// Submissions that wait for the committer in the whole process.
    pub commit_queue_max: NonZeroUsize,
    /// CONTINUATION frames of one header block.
    pub continuations_max: u32,
    /// TLS handshakes under way at a time in the whole process.
    pub handshakes_max: NonZeroUsize,
}

/// Section `[ledger]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Folder of the ledger.
    pub dir: PathBuf,
    /// Name of the log in every checkpoint; `None` lets the ledger make one when it is created.
    pub origin: Option<String>,
    /// The signing key; `key` in `dir` where the configuration names none.
    pub key_file: PathBuf,
    /// Length of one segment file.
    pub segment_bytes: u64,
    /// What happens to traffic while the ledger cannot commit.
    pub on_failure: OnFailure,
    /// Wait for one commit until the ledger counts as failed.
    pub commit_wait_max: Duration,
    /// Pause between two tries to bring a refusing ledger back.
    pub recovery_interval: Duration,
    /// Page cache of the index.
    pub db_cache_bytes: u64,
    /// Bytes of one group commit.
    pub batch_bytes_max: usize,
}

/// What happens to traffic while the ledger cannot commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Calls are answered UNAVAILABLE: nothing passes unrecorded.
    Refuse,
    /// Traffic passes unrecorded; a gap entry says later how much.
    Forward,
}

/// Section `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Address of the admin endpoints; `None` is off.
    pub listen: Option<SocketAddr>,
}

/// Section `[identity]`: copied into the started entries as the operator's claim. Empty where not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the pod.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// The node that it runs on.
    pub node: String,
    /// The service account that it runs as.
    pub service_account: String,
}

/// Section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// Which events are written: a filter that `tracing` has accepted.
    pub filter: String,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For eyes.
    Text,
    /// One JSON object per line.
    Json,
}

/// Reads the file, where one is named, and lets `env` override it. Variables that are not attestry's are passed over,
/// so the whole environment may be handed in (see [`process_env`]).
pub fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Config, Faults> {
    let mut settings = Settings::new(path, env);
    if let Some(path) = path {
        match read_bounded(path) {
            Ok(text) => settings.read_toml(&text),
            Err(problem) => settings.set_unreadable(problem),
        }
    }
    checked::config(settings)
}

/// Reads a configuration that is in memory already; `name` stands in its faults where the path would.
pub fn parse(name: &Path, text: &str, env: impl Iterator<Item = (String, String)>) -> Result<Config, Faults> {
    let mut settings = Settings::new(Some(name), env);
    settings.read_toml(text);
    checked::config(settings)
}

/// Every section and key that `proxy.toml` may have, in the order of the documentation.
pub fn known_keys() -> Vec<(&'static str, &'static str)> {
    checked::known_keys()
}

/// The environment variable that overrides a key.
pub fn variable_name(section: &str, key: &str) -> String {
    format!("{}{}_{}", settings::VARIABLE_PREFIX, section, key).to_uppercase()
}

/// The process's own environment, as `load` takes it. A value that is not UTF-8 is handed on with U+FFFD in the place
/// of what cannot be read, and `load` reports it.
pub fn process_env() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

impl Config {
    /// The canonical text: every key with its value, sections and keys in a fixed order. It reads back to an equal
    /// configuration, wherever the values came from.
    pub fn to_toml(&self) -> String {
        show::canonical(self)
    }

    /// [`Config::to_toml`] with a comment on each value that came from a variable or is a default.
    pub fn to_annotated_toml(&self) -> String {
        show::annotated(self, &self.origins)
    }

    /// SHA-256 of the canonical text, for the started entry: equal for equal values, wherever they came from.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.to_toml()).into()
    }
}

fn read_bounded(path: &Path) -> Result<String, Problem> {
    let unreadable = |reason: String| Problem::Unreadable { reason };
    let file = std::fs::File::open(path).map_err(|e| unreadable(e.to_string()))?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too long from one that just fits.
    file.take(limits::CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| unreadable(e.to_string()))?;
    if bytes.len() as u64 > limits::CONFIG_BYTES_MAX {
        return Err(unreadable(format!("longer than {} bytes", limits::CONFIG_BYTES_MAX)));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = settings::line_at(e.as_bytes(), e.utf8_error().valid_up_to());
        unreadable(format!("line {line} is not UTF-8"))
    })
}
