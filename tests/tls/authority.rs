//! Certificate authorities for tests, made by the openssl command: their certificates, those that they issue, and what they revoke.
//!
//! Unit tests of TLS use this file too. Everything is made anew in a folder of the caller's, so nothing expires in the repository.
#![allow(dead_code, reason = "each user takes its own part")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority with a database of its own.
pub(crate) struct Authority {
    folder: PathBuf,
    /// Its certificate.
    pub(crate) certificate: PathBuf,
    key: PathBuf,
}

/// A certificate, its chain behind it, and its key.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What a certificate is to say.
pub(crate) struct Wanted<'a> {
    /// As `openssl` writes it: `/O=x/CN=y`.
    pub(crate) subject: &'a str,
    /// `DNS:a,URI:spiffe://b/c`; may be empty.
    pub(crate) names: &'a str,
    /// Further lines of extensions.
    pub(crate) extensions: &'a str,
    /// `YYYYMMDDHHMMSSZ`.
    pub(crate) not_after: Option<&'a str>,
}

const LEAF: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n";
const AUTHORITY: &str =
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self { subject: "/CN=leaf", names: "", extensions: LEAF, not_after: None }
    }
}

impl Authority {
    /// A root.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let folder = prepare(folder, name);
        let (certificate, key) = (folder.join("root.pem"), folder.join("root.key"));
        openssl(
            &folder,
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "30",
                "-subj",
                &format!("/O=attestry tests/CN={name}"),
                "-config",
                "ca.cnf",
                "-extensions",
                "authority",
                "-keyout",
                "root.key",
                "-out",
                "root.pem",
            ],
        );
        Self { folder, certificate, key }
    }

    /// An authority that this one has issued a certificate for.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let issued = self.issue(
            name,
            &Wanted { subject: &format!("/CN={name}"), extensions: AUTHORITY, ..Wanted::default() },
        );
        let folder = prepare(&self.folder, &format!("{name}-authority"));
        let (certificate, key) = (folder.join("root.pem"), folder.join("root.key"));
        fs::copy(&issued.certificate, &certificate).unwrap();
        fs::copy(&issued.key, &key).unwrap();
        Self { folder, certificate, key }
    }

    /// Issues a certificate to files named for `file`.
    pub(crate) fn issue(&self, file: &str, wanted: &Wanted<'_>) -> Issued {
        let (certificate, key) = (format!("{file}.pem"), format!("{file}.key"));
        let (request, extensions) = (format!("{file}.csr"), format!("{file}.ext"));
        let names = if wanted.names.is_empty() {
            String::new()
        } else {
            format!("subjectAltName={}\n", wanted.names)
        };
        fs::write(self.folder.join(&extensions), format!("{}{names}", wanted.extensions)).unwrap();
        openssl(
            &self.folder,
            &[
                "req",
                "-new",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-config",
                "ca.cnf",
                "-subj",
                wanted.subject,
                "-keyout",
                &key,
                "-out",
                &request,
            ],
        );
        let mut sign = vec![
            "ca",
            "-batch",
            "-notext",
            "-config",
            "ca.cnf",
            "-in",
            &request,
            "-out",
            &certificate,
            "-extfile",
            &extensions,
            "-startdate",
            "20200101000000Z",
        ];
        sign.extend(wanted.not_after.map(|end| ["-enddate", end]).into_iter().flatten());
        openssl(&self.folder, &sign);
        Issued { certificate: self.folder.join(certificate), key: self.folder.join(key) }
    }

    /// Issues a certificate with these names.
    pub(crate) fn issue_for(&self, file: &str, names: &str) -> Issued {
        self.issue(file, &Wanted { subject: &format!("/CN={file}"), names, ..Wanted::default() })
    }

    /// Puts this authority's own certificate behind what it has issued, as a server with an intermediate must.
    pub(crate) fn append_to(&self, issued: &Issued) {
        let chain = [fs::read(&issued.certificate).unwrap(), fs::read(&self.certificate).unwrap()].concat();
        fs::write(&issued.certificate, chain).unwrap();
    }

    /// The list of what is revoked so far, `revoked` included.
    pub(crate) fn revoke(&self, revoked: &[&Issued]) -> PathBuf {
        for issued in revoked {
            openssl(
                &self.folder,
                &["ca", "-batch", "-config", "ca.cnf", "-revoke", issued.certificate.to_str().unwrap()],
            );
        }
        openssl(&self.folder, &["ca", "-batch", "-config", "ca.cnf", "-gencrl", "-out", "crl.pem"]);
        self.folder.join("crl.pem")
    }
}

/// DER of the first certificate in a PEM file.
pub(crate) fn der_of_certificate(pem: &Path) -> Vec<u8> {
    output(&["x509", "-in", pem.to_str().unwrap(), "-outform", "DER"])
}

/// DER of the public key in it, as OpenSSL writes it.
pub(crate) fn der_of_public_key(pem: &Path) -> Vec<u8> {
    let text = output(&["x509", "-in", pem.to_str().unwrap(), "-noout", "-pubkey"]);
    let folder = pem.parent().unwrap();
    fs::write(folder.join("public.pem"), text).unwrap();
    output(&["pkey", "-pubin", "-in", folder.join("public.pem").to_str().unwrap(), "-outform", "DER"])
}

/// DER (PKCS#8) of a private key in a PEM file.
pub(crate) fn der_of_key(pem: &Path) -> Vec<u8> {
    output(&["pkcs8", "-topk8", "-nocrypt", "-in", pem.to_str().unwrap(), "-outform", "DER"])
}

fn prepare(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name);
    fs::create_dir_all(&folder).unwrap();
    let config = format!(
        "[req]\ndistinguished_name=dn\nprompt=no\nstring_mask=utf8only\n[dn]\n[authority]\n{AUTHORITY}[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\n\
         serial=serial\ncrlnumber=crlnumber\nnew_certs_dir=.\ndefault_md=sha256\npolicy=any\nunique_subject=no\ndefault_crl_days=30\ndefault_days=30\n\
         certificate=root.pem\nprivate_key=root.key\n[any]\norganizationName=optional\norganizationalUnitName=optional\ncommonName=optional\n"
    );
    fs::write(folder.join("ca.cnf"), config).unwrap();
    fs::write(folder.join("index.txt"), "").unwrap();
    fs::write(folder.join("serial"), "1000\n").unwrap();
    fs::write(folder.join("crlnumber"), "01\n").unwrap();
    folder
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn output(arguments: &[&str]) -> Vec<u8> {
    let done = Command::new("openssl").args(arguments).output().unwrap();
    assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}
