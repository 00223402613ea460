//! Who a peer is, as its verified certificate says: for the ledger, and for the verification of SPIFFE ids.
//!
//! Invariants: a SPIFFE id is taken only from a certificate with exactly one URI name (X509-SVID section 2); what goes into an entry is bounded, however large the certificate is.

use super::chain::Role;
use super::material::Trusted;
use crate::generated::v1;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use spiffe::SpiffeId;
use std::fmt::Write as _;
use std::net::IpAddr;
use x509_parser::extensions::{GeneralName, KeyUsage};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Names of one certificate in an entry.
const NAMES_MAX: usize = 64;
/// Bytes of each of them, and of a subject. A SPIFFE id has at most 2,048.
const NAME_BYTES_MAX: usize = 2_048;
/// Bytes of all of them.
const NAMES_BYTES_MAX: usize = 16 * 1024;

/// Why a certificate is no X509-SVID.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is not accepted as a SPIFFE identity: {0}")]
pub(super) struct NotAnSvid(pub(super) String);

/// Describes the peer that has shown `chain`, which has been verified by `trusted`.
pub(super) fn describe(
    chain: &[CertificateDer<'_>],
    trusted: &Trusted,
    role: Role,
) -> Option<v1::VerifiedPeer> {
    let leaf = chain.first()?;
    let mut peer =
        v1::VerifiedPeer { certificate_sha256: Sha256::digest(leaf).to_vec().into(), ..Default::default() };
    // webpki has read it already; should this reader find it too odd, its fingerprint still says which it is.
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return Some(peer) };
    peer.subject = bounded(rfc4514(certificate.subject()));
    peer.not_after_unix_seconds = certificate.validity().not_after.timestamp();
    peer.subject_alternative_names = names(&certificate);
    peer.spiffe_id = svid_of(leaf).map(|id| id.to_string()).unwrap_or_default();
    let authorities = match trusted {
        Trusted::Any(authorities) => authorities.as_ref(),
        Trusted::Spiffe { own, bundles } => match spiffe_id(&peer.spiffe_id) {
            Some(id) => bundles.get(id.trust_domain_name()),
            None => bundles.get(own),
        },
    };
    if let Some(root) = authorities.and_then(|authorities| authorities.root_of(chain, role))
        && let Ok((_, root)) = X509Certificate::from_der(root)
    {
        peer.root_subject = bounded(rfc4514(root.subject()));
        peer.root_key_sha256 = Sha256::digest(root.public_key().raw).to_vec().into();
    }
    Some(peer)
}

/// A SPIFFE id, if the text is one (SPIFFE-ID section 2) and names more than a trust domain.
pub(super) fn spiffe_id(text: &str) -> Option<SpiffeId> {
    SpiffeId::new(text).ok().filter(|id| !id.path().is_empty())
}

/// The id of a leaf certificate: its one URI name.
pub(super) fn svid_of(leaf: &CertificateDer<'_>) -> Result<SpiffeId, NotAnSvid> {
    let refuse = |why: &str| NotAnSvid(why.to_owned());
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| refuse("it cannot be read"))?;
    let may_sign = |usage: &KeyUsage| usage.key_cert_sign() || usage.crl_sign();
    let usage = certificate.key_usage().map_err(|_| refuse("its key usage cannot be read"))?;
    if usage.is_some_and(|usage| may_sign(usage.value)) {
        return Err(refuse("it may sign others (X509-SVID section 5.2)"));
    }
    let mut uris = Vec::new();
    if let Some(names) =
        certificate.subject_alternative_name().map_err(|_| refuse("its names cannot be read"))?
    {
        uris.extend(names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        }));
    }
    match *uris.as_slice() {
        [uri] => spiffe_id(uri).ok_or_else(|| refuse("its URI name is no SPIFFE id")),
        [] => Err(refuse("it has no URI name")),
        _ => Err(refuse("it has more than one URI name")),
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let mut room = NAMES_BYTES_MAX;
    let texts = names.value.general_names.iter().take(NAMES_MAX).map(|name| bounded(name_text(name)));
    texts
        .take_while(|text| {
            let fits = text.len() <= room;
            room = room.saturating_sub(text.len());
            fits
        })
        .collect()
}

fn name_text(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::RFC822Name(address) => format!("email:{address}"),
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            match address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)) {
                Ok(address) => format!("IP:{address}"),
                Err(_) => format!("IP:{}", hexadecimal(bytes)),
            }
        }
        GeneralName::DirectoryName(name) => format!("dirName:{}", rfc4514(name)),
        GeneralName::RegisteredID(id) => format!("RID:{id}"),
        _ => "other".to_owned(),
    }
}

/// Cuts a text that is too long for an entry, and says so by its end.
fn bounded(mut text: String) -> String {
    if text.len() > NAME_BYTES_MAX {
        text.truncate(text.floor_char_boundary(NAME_BYTES_MAX - "…".len()));
        text.push('…');
    }
    text
}

/// RFC 4514 section 2: the last relative name first, attributes of one joined by plus signs.
fn rfc4514(name: &X509Name<'_>) -> String {
    let mut names: Vec<String> = name
        .iter_rdn()
        .map(|relative| relative.iter().map(attribute).collect::<Vec<_>>().join("+"))
        .collect();
    names.reverse();
    names.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    // The short names of RFC 4514 section 3; anything else goes by its number, its value in hexadecimal.
    let kind = match attribute.attr_type().to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.6" => "C",
        "2.5.4.9" => "STREET",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        other => return format!("{other}=#{}", hexadecimal(attribute.attr_value().data)),
    };
    match attribute.as_str() {
        Ok(value) => format!("{kind}={}", escaped(value)),
        Err(_) => format!("{kind}=#{}", hexadecimal(attribute.attr_value().data)),
    }
}

/// RFC 4514 section 2.4.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, letter) in value.chars().enumerate() {
        let is_special = matches!(letter, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || (at == 0 && matches!(letter, ' ' | '#'))
            || (at == last && letter == ' ');
        if letter.is_control() {
            for byte in letter.to_string().bytes() {
                let _ = write!(text, "\\{byte:02x}");
            }
            continue;
        }
        if is_special {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}
