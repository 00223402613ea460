//! The signing key's file: PKCS#8 PEM of an Ed25519 key, as `openssl genpkey -algorithm ed25519` writes it, readable by its owner alone.

use crate::limits::KEY_FILE_BYTES_MAX;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read it.
    #[error("key file {path} has mode {mode:04o}: others may read it; run `chmod 600 {path}`")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is something else.
    #[error(
        "key file {path} holds no Ed25519 key in PKCS#8 PEM ({reason}); make one with `attestry keygen` or `openssl genpkey -algorithm ed25519`"
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// The system gave no random bytes.
    #[error("no random bytes for a new key: {0}")]
    Random(getrandom::Error),
}

/// Reads a key.
pub fn load(path: &Path) -> Result<SigningKey, KeyError> {
    let io = |source| KeyError::Io { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { path: path.to_path_buf(), mode });
    }
    let mut pem = String::new();
    file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut pem).map_err(io)?;
    SigningKey::from_pkcs8_pem(&pem)
        .map_err(|error| KeyError::Content { path: path.to_path_buf(), reason: error.to_string() })
}

/// Makes a key and writes it to `path`, which must not exist. When this returns, the file is durable.
pub fn create(path: &Path) -> Result<SigningKey, KeyError> {
    let io = |source| KeyError::Io { path: path.to_path_buf(), source };
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(KeyError::Random)?;
    let key = SigningKey::from_bytes(&secret);
    // Without the public half, as openssl writes it: version 1 of PKCS#8 is what every tool reads.
    let pem = KeypairBytes { secret_key: secret, public_key: None }
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|error| KeyError::Content { path: path.to_path_buf(), reason: error.to_string() })?;
    write(path, pem.as_bytes()).map_err(io)?;
    Ok(key)
}

/// The file gets its name once its content is durable: a crash leaves a whole key or none. A link, not a rename: it never replaces a key.
fn write(path: &Path, pem: &[u8]) -> io::Result<()> {
    let unnamed = path.with_added_extension("new");
    match fs::remove_file(&unnamed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unnamed)?;
    file.write_all(pem)?;
    file.sync_all()?;
    fs::hard_link(&unnamed, path)?;
    fs::remove_file(&unnamed)?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// The key of the digests that stand for secrets in metadata, derived from the signing key: HMAC-SHA256 of a fixed text under its 32 bytes.
pub fn redaction_key(key: &SigningKey) -> [u8; 32] {
    let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.chain_update(b"attestry metadata digest v1").finalize().into_bytes().into()
}
