//! Keys of signed notes: names, key ids, verifier keys ("vkeys") and the signer (C2SP signed-note,
//! "Signatures" and "Ed25519 signatures"; the vkey text form is that of Go's `golang.org/x/mod/sumdb/note`).
//!
//! Invariants: a name that exists here can stand in a signature line; a [`VerifierKey`]'s id follows from its
//! name and public key; its text form is unique. Not here: the note around a signature (`note`), key files
//! (`cli`).

use std::fmt;
use std::str::FromStr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{PUBLIC_KEY_LENGTH, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use super::{NoteError, SIGNATURE_LINE_START};

/// Signature type of C2SP signed-note: Ed25519 over the note text.
const ED25519: u8 = 0x01;

/// The longest name of a key in use here, in bytes, so that a signature line always fits into its note. Names
/// are DNS names with a path as a rule, far below this. Signature lines of unknown keys are bound by the note
/// alone.
pub const KEY_NAME_BYTES_MAX: usize = 1_024;

/// A named public key that verifies notes, written `<name>+<key id, 8 hex digits>+<base64(0x01 ‖ public
/// key)>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key_id: u32,
    public_key: VerifyingKey,
}

impl VerifierKey {
    fn new(name: &str, public_key: VerifyingKey) -> Result<Self, NoteError> {
        check_key_name(name)?;
        if name.len() > KEY_NAME_BYTES_MAX {
            return Err(refused_name(name));
        }
        // A key of small order accepts signatures that nobody made.
        if public_key.is_weak() {
            return Err(NoteError::PublicKey);
        }
        Ok(Self { name: name.to_owned(), key_id: key_id(name, &public_key), public_key })
    }

    /// The key's name, for a log key by convention its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key id, SHA-256(name ‖ "\n" ‖ 0x01 ‖ public key), cut to its first four bytes (big-endian). It
    /// picks the signature line; it is too short to identify a key.
    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    /// Whether `signature` is this key's signature of exactly `text` (strict: no malleable encodings).
    pub(super) fn accepts(&self, text: &str, signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| self.public_key.verify_strict(text.as_bytes(), &signature).is_ok())
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(vkey: &str) -> Result<Self, NoteError> {
        // Only the last part may contain a plus, as base64 does.
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::VerifierKeyForm);
        };
        let typed_key = STANDARD.decode(key).map_err(|_| NoteError::VerifierKeyForm)?;
        let public_key = match typed_key.split_first() {
            Some((&ED25519, public_key)) => public_key,
            Some((&signature_type, _)) => return Err(NoteError::SignatureType { signature_type }),
            None => return Err(NoteError::VerifierKeyForm),
        };
        let public_key: &[u8; PUBLIC_KEY_LENGTH] =
            public_key.try_into().map_err(|_| NoteError::VerifierKeyForm)?;
        let public_key = VerifyingKey::from_bytes(public_key).map_err(|_| NoteError::PublicKey)?;
        let key = Self::new(name, public_key)?;
        let expected = format!("{:08x}", key.key_id);
        if id == expected { Ok(key) } else { Err(NoteError::KeyId { expected, found: id.to_owned() }) }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed_key = [&[ED25519], self.public_key.as_bytes().as_slice()].concat();
        write!(out, "{}+{:08x}+{}", self.name, self.key_id, STANDARD.encode(typed_key))
    }
}

/// A named private key that signs notes.
pub struct Signer {
    signing_key: SigningKey,
    verifier_key: VerifierKey,
}

impl Signer {
    /// A signer whose signature lines carry `name`, for a log its origin.
    pub fn new(name: &str, signing_key: SigningKey) -> Result<Self, NoteError> {
        let verifier_key = VerifierKey::new(name, signing_key.verifying_key())?;
        Ok(Self { signing_key, verifier_key })
    }

    /// The public half, to be given to whoever verifies.
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.verifier_key
    }

    /// The note of `text` with this key's one signature. The text must end in a newline, hold no other
    /// control character, and leave room below [`super::NOTE_BYTES_MAX`]; [`super::Note::parse`] or
    /// [`super::Note::verify`] refuses what comes of any other.
    pub fn sign(&self, text: &str) -> String {
        let VerifierKey { name, key_id, .. } = &self.verifier_key;
        let signature = self.signing_key.sign(text.as_bytes()).to_bytes();
        let signature = STANDARD.encode([key_id.to_be_bytes().as_slice(), &signature].concat());
        format!("{text}\n{SIGNATURE_LINE_START}{name} {signature}\n")
    }
}

impl fmt::Debug for Signer {
    /// Shows the public half alone, so that no log line ever holds a private key.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Signer").field("verifier_key", &self.verifier_key).finish_non_exhaustive()
    }
}

/// Refuses a name that could not stand in a signature line or a vkey.
pub(super) fn check_key_name(name: &str) -> Result<(), NoteError> {
    // `is_whitespace` is Unicode's White_Space; the control characters may not stand anywhere in a note.
    let forbidden = |character: char| character.is_whitespace() || character < ' ' || character == '+';
    if name.is_empty() || name.contains(forbidden) { Err(refused_name(name)) } else { Ok(()) }
}

fn refused_name(name: &str) -> NoteError {
    const SHOWN_CHARACTERS_MAX: usize = 80;
    NoteError::KeyName { name: name.escape_debug().take(SHOWN_CHARACTERS_MAX).collect() }
}

fn key_id(name: &str, public_key: &VerifyingKey) -> u32 {
    let hash: [u8; 32] = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', ED25519])
        .chain_update(public_key.as_bytes())
        .finalize()
        .into();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of the examples in Go's `golang.org/x/mod/sumdb/note`.
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    fn refusal(vkey: &str) -> NoteError {
        vkey.parse::<VerifierKey>().expect_err(vkey)
    }

    /// A vkey whose id is right, whatever the bytes are.
    fn vkey_of(name: &str, typed_key: &[u8]) -> String {
        let hash = Sha256::new().chain_update(name).chain_update("\n").chain_update(typed_key).finalize();
        let id = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        format!("{name}+{id:08x}+{}", STANDARD.encode(typed_key))
    }

    #[test]
    fn published_verifier_keys_are_read_and_written_back() {
        let others = [
            ("EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop", "EnochRoot", 0xaf0c_fe78),
            (
                "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
                "sum.golang.org",
                0x033d_e0ae,
            ),
        ];
        for (vkey, name, key_id) in others.into_iter().chain([(PETER, "PeterNeumann", 0xc74f_20a3)]) {
            let key: VerifierKey = vkey.parse().unwrap();
            assert_eq!((key.name(), key.key_id(), key.to_string().as_str()), (name, key_id, vkey));
        }
    }

    #[test]
    fn no_part_and_no_bit_flip_of_a_verifier_key_is_one() {
        for start in 0..PETER.len() {
            for end in start..=PETER.len() {
                if (start, end) != (0, PETER.len()) {
                    refusal(&PETER[start..end]);
                }
            }
        }
        for at in 0..PETER.len() * 8 {
            let mut flipped = PETER.as_bytes().to_vec();
            flipped[at / 8] ^= 1 << (at % 8);
            if let Ok(flipped) = std::str::from_utf8(&flipped) {
                refusal(flipped);
            }
        }
    }

    #[test]
    fn a_refused_verifier_key_is_told_why() {
        let key_id = |expected: &str, found: &str| NoteError::KeyId {
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        assert_eq!(refusal(&PETER.replace("c74f20a3", "C74F20A3")), key_id("c74f20a3", "C74F20A3"));
        assert_eq!(refusal(&PETER.replace("c74f20a3", "c74f20a4")), key_id("c74f20a3", "c74f20a4"));
        // Both from Go's tests: a key of the wrong length, and one of an unknown type, each with the fitting
        // id.
        let long = "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==";
        assert_eq!(refusal(long), NoteError::VerifierKeyForm);
        let unknown = "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        assert_eq!(refusal(unknown), NoteError::SignatureType { signature_type: 0x65 });
        assert_eq!(refusal("log+00000000+"), NoteError::VerifierKeyForm);
        assert_eq!(refusal("log+00000000"), NoteError::VerifierKeyForm);
    }

    #[test]
    fn a_public_key_that_anybody_can_sign_for_is_refused() {
        let mut identity = [0; 33];
        (identity[0], identity[1]) = (ED25519, 1);
        assert_eq!(refusal(&vkey_of("log", &identity)), NoteError::PublicKey);
        // y = 2 is on no point of the curve.
        let mut no_point = [0; 33];
        (no_point[0], no_point[1]) = (ED25519, 2);
        assert_eq!(refusal(&vkey_of("log", &no_point)), NoteError::PublicKey);
    }

    #[test]
    fn names_that_break_a_line_or_a_vkey_are_refused() {
        let key = || SigningKey::from_bytes(&[7; 32]);
        let too_long = "n".repeat(KEY_NAME_BYTES_MAX + 1);
        let spaces =
            ["a b", " a", "a\t", "a\u{85}", "a\u{a0}b", "a\u{1680}", "a\u{2003}b", "a\u{2028}", "a\u{3000}"];
        for name in ["", "a+b", "a\n", "a\u{1}", &too_long].into_iter().chain(spaces) {
            let refused = Signer::new(name, key()).expect_err(name);
            assert!(matches!(refused, NoteError::KeyName { .. }), "{name:?}: {refused}");
        }
        for name in ["a", "example.com/log", "\u{e8}\u{2014}\u{1f512}", &too_long[1..]] {
            let signer = Signer::new(name, key()).unwrap();
            assert_eq!(
                &signer.verifier_key().to_string().parse::<VerifierKey>().unwrap(),
                signer.verifier_key()
            );
        }
    }

    #[test]
    fn a_signer_shown_for_debugging_keeps_its_secret() {
        let signer = Signer::new("log", SigningKey::from_bytes(&[0xa5; 32])).unwrap();
        let shown = format!("{signer:?}");
        assert!(shown.contains("log") && !shown.contains("165, 165") && !shown.contains("a5a5"), "{shown}");
    }
}
