//! Credentials in PEM files (RFC 7468).
//!
//! Invariant: a file is read once and as a whole. That the files of one set belong together is `material`'s to check, since they are replaced one by one.

use super::material::{Material, Parts, Trust};
use super::{CredentialsError, Files};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// One file. The bundle of all public authorities has a quarter of a MiB, a large authority's revocation list some ten.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

pub(super) fn load(files: &Files, alpn: &[Vec<u8>]) -> Result<Material, CredentialsError> {
    let certificates = files
        .certificate
        .as_deref()
        .map(|path| list(path, "certificate_file", "a certificate"))
        .transpose()?;
    let key = files.key.as_deref().map(key).transpose()?;
    let identity = match (certificates, key) {
        (Some(chain), Some(key)) => Some((chain, key)),
        (None, None) => None,
        _ => {
            let reason = "a certificate and its private key go together: set both tls.certificate_file and tls.key_file";
            return Err(CredentialsError::Unfit(reason.to_owned()));
        }
    };
    let roots: Option<Vec<CertificateDer<'static>>> = files
        .authorities
        .as_deref()
        .map(|path| list(path, "authorities_file", "a certificate"))
        .transpose()?;
    let revocation: Option<Vec<CertificateRevocationListDer<'static>>> = files
        .revocation
        .as_deref()
        .map(|path| list(path, "revocation_file", "a revocation list"))
        .transpose()?;
    let trust = Trust::Any(roots.unwrap_or_default());
    Material::check(Parts { identity, trust, revocation: revocation.unwrap_or_default() }, alpn)
}

/// All items of one kind; at least one.
fn list<T: PemObject>(path: &Path, setting: &'static str, what: &str) -> Result<Vec<T>, CredentialsError> {
    let text = read(path, setting)?;
    let malformed =
        |fault: String| CredentialsError::Malformed { path: path.display().to_string(), key: setting, fault };
    let items: Result<Vec<T>, _> = T::pem_slice_iter(&text).collect();
    let items = items.map_err(|error| malformed(format!("is not well-formed PEM: {error}")))?;
    if items.is_empty() { Err(malformed(format!("does not hold {what} in PEM"))) } else { Ok(items) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let text = read(path, "key_file")?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| CredentialsError::Malformed {
        path: path.display().to_string(),
        key: "key_file",
        // What the reader says of it could quote the key.
        fault: "does not hold a private key in PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)".to_owned(),
    })
}

fn read(path: &Path, key: &'static str) -> Result<Vec<u8>, CredentialsError> {
    let unreadable = |source| CredentialsError::Unreadable { path: path.display().to_string(), key, source };
    let mut text = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(std::io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes"))));
    }
    Ok(text)
}
