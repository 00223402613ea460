//! Signed notes and checkpoints, byte for byte those of C2SP signed-note and tlog-checkpoint, with Ed25519
//! keys.
//!
//! Invariants: a parsed [`Note`] obeys every rule of the format, so nothing about its shape is left to doubt;
//! its text means nothing before [`Note::verify`] passed with a key that came from elsewhere. Not here: the
//! tree behind a root (`merkle`), cosignatures of witnesses (they are kept as unknown signatures), files of
//! keys (`cli`).

mod checkpoint;
mod key;

pub use checkpoint::Checkpoint;
pub use key::{KEY_NAME_BYTES_MAX, Signer, VerifierKey};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The longest note, in bytes. Go's `note` package, the oldest reader of the format, takes as much.
pub const NOTE_BYTES_MAX: usize = 1_000_000;

/// The most signatures of one note. C2SP asks for at least 16; Go's `note` package takes as many as this.
pub const SIGNATURES_MAX: usize = 100;

/// Em dash and space.
const SIGNATURE_LINE_START: &str = "\u{2014} ";

/// Why a note, key or checkpoint was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The note is longer than [`NOTE_BYTES_MAX`].
    #[error(
        "the note has {bytes} bytes, more than the {NOTE_BYTES_MAX} allowed: check that the file is a note"
    )]
    TooLong {
        /// Length of the note.
        bytes: usize,
    },
    /// The note has more signature lines than [`SIGNATURES_MAX`].
    #[error(
        "the note has more than {SIGNATURES_MAX} signatures: remove those of keys that nobody here knows"
    )]
    TooManySignatures,
    /// The note breaks a rule of the format.
    #[error("the note is malformed, {problem}: fetch it again from its source")]
    Malformed {
        /// What is wrong.
        problem: &'static str,
    },
    /// The note has no signature by the key; all others were ignored.
    #[error("the note is not signed by {key}: take the verifier key of the log that the note is from")]
    NotSigned {
        /// The verifier key asked for.
        key: String,
    },
    /// The note has a signature line for the key, but the signature is not the key's over this text.
    #[error("the note's signature by {key} is wrong: text or signature was altered, do not trust the note")]
    BadSignature {
        /// The verifier key asked for.
        key: String,
    },
    /// A key name that the format does not allow.
    #[error(
        "\"{name}\" is no key name: it must have 1 to {KEY_NAME_BYTES_MAX} bytes and \
         no space, control character or '+': use something like example.com/log"
    )]
    KeyName {
        /// The name, escaped and shortened.
        name: String,
    },
    /// A text that does not have the form of a verifier key.
    #[error(
        "the verifier key does not have the form <name>+<8 hex digits>+<base64 of 33 bytes>: copy it whole"
    )]
    VerifierKeyForm,
    /// A verifier key of another algorithm.
    #[error(
        "the verifier key is of signature type {signature_type:#04x}, and only 0x01 (Ed25519) is supported: \
         take the log's Ed25519 key"
    )]
    SignatureType {
        /// Type byte of the key.
        signature_type: u8,
    },
    /// A verifier key whose id does not belong to it: a typing error or another's name on it.
    #[error(
        "the verifier key has the id {found}, but its name and public key give {expected}: copy it whole"
    )]
    KeyId {
        /// The id that follows from name and public key, in hex.
        expected: String,
        /// The id as written.
        found: String,
    },
    /// Bytes that are no Ed25519 public key, or one under which anybody can sign.
    #[error("the public key is no point of Ed25519 or a weak one: make a new key with `attestry keygen`")]
    PublicKey,
    /// A note text that is no checkpoint.
    #[error("the text is no checkpoint, {problem}: check that the note is a log's checkpoint")]
    Checkpoint {
        /// What is wrong.
        problem: &'static str,
    },
}

/// A text and the signatures under it, taken apart but **not verified**.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What is signed, with its final newline.
    pub text: String,
    /// At least one signature, in the note's order, by known and unknown keys alike.
    pub signatures: Vec<Signature>,
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The name of the key that the line claims to be by.
    pub name: String,
    /// That key's id.
    pub key_id: u32,
    /// What the key's algorithm made: 64 bytes for Ed25519, of other algorithms any number above 0.
    pub bytes: Vec<u8>,
}

impl Note {
    /// Takes a note apart (C2SP signed-note, "Format"). The text ends at the note's last empty line.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        let malformed = |problem| Err(NoteError::Malformed { problem });
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong { bytes: note.len() });
        }
        if note.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return malformed("it holds a control character");
        }
        let Some((text, signature_lines)) = note.rsplit_once("\n\n") else {
            return malformed("it has no empty line between text and signatures");
        };
        let Some(signature_lines) = signature_lines.strip_suffix('\n') else {
            return malformed("it does not end in a signature line with its newline");
        };
        if signature_lines.split('\n').count() > SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        let signatures = signature_lines.split('\n').map(parse_signature_line).collect::<Result<_, _>>()?;
        Ok(Self { text: format!("{text}\n"), signatures })
    }

    /// Checks that `key` signed the text (C2SP signed-note, "Signatures"): at least one signature carries the
    /// key's name and id, and each that does is right. Signatures by other keys are ignored.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        let is_by_key = |line: &&Signature| line.name == key.name() && line.key_id == key.key_id();
        let mut by_key = self.signatures.iter().filter(is_by_key).peekable();
        if by_key.peek().is_none() {
            return Err(NoteError::NotSigned { key: key.to_string() });
        }
        if !by_key.all(|line| key.accepts(&self.text, &line.bytes)) {
            return Err(NoteError::BadSignature { key: key.to_string() });
        }
        Ok(())
    }
}

fn parse_signature_line(line: &str) -> Result<Signature, NoteError> {
    let malformed = NoteError::Malformed { problem: "a line below the last empty one is no signature line" };
    let Some((name, signature)) =
        line.strip_prefix(SIGNATURE_LINE_START).and_then(|line| line.split_once(' '))
    else {
        return Err(malformed);
    };
    key::check_key_name(name)?;
    let signature = STANDARD.decode(signature).map_err(|_| malformed.clone())?;
    match signature.split_first_chunk() {
        Some((key_id, bytes)) if !bytes.is_empty() => Ok(Signature {
            name: name.to_owned(),
            key_id: u32::from_be_bytes(*key_id),
            bytes: bytes.to_vec(),
        }),
        _ => Err(malformed),
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;

    /// Keys and note of the examples in Go's `golang.org/x/mod/sumdb/note`.
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const PETER_SEED: &str = "gQoUAtUUbI2E8kQzMPVAgOv5juF9nHT2JS/F1ccoMXM=";
    const ENOCH: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n";
    const PETER_LINE: &str = "\u{2014} PeterNeumann \
        x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    const ENOCH_LINE: &str = "\u{2014} EnochRoot \
        rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

    /// Checkpoints that the Go checksum database published, years apart.
    const GO_SUM: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    const GO_SUM_CHECKPOINTS: [&str; 3] = [
        "go.sum database tree\n6476701\nmb8QLQIs0Z0yP5Cstq6guj87oXWeC9gEM8oVikmm9Wk=\n\n\
         \u{2014} sum.golang.org \
         Az3grsLX85Gz+s1SiTbgkuqxgItqFq7gsMUEyVnrsa9LM7Us9S+1xbFIGu95949rj4nPRYfvimWEPWL+o3GeoWwOoAw=\n",
        "go.sum database tree\n10680630\nk1UQFwFXWQa7MF1BREWVQxIhScvUdgRepXuyRS3sRuE=\n\n\
         \u{2014} sum.golang.org \
         Az3grqgyWctiMcdUtITQpkGSxEoEvbaAq7J3FpbaVlW1Zo47LX/jmeeE7LiBktpmR2d/1RsdocLU9HMXYXxHCVyf/AQ=\n",
        "go.sum database tree\n59045944\nLE6Lx+GNVyuFBv/jKcFIiPkG1WC7DHwG0clpfN/TBlA=\n\n\
         \u{2014} sum.golang.org \
         Az3grk9ctaTv+CITXOwxCEHU3APAw5X7Ck14+fvFlh0GCktwX15+XPzy//GgL2G50ZgY05e8eXFTWcvW6pN5tozsLQQ=\n",
    ];

    fn key(vkey: &str) -> VerifierKey {
        vkey.parse().unwrap()
    }

    fn open(note: &str, key: &VerifierKey) -> Result<String, NoteError> {
        let note = Note::parse(note)?;
        note.verify(key)?;
        Ok(note.text)
    }

    fn not_signed(key: &str) -> Result<String, NoteError> {
        Err(NoteError::NotSigned { key: key.to_owned() })
    }

    fn bad_signature(key: &str) -> Result<String, NoteError> {
        Err(NoteError::BadSignature { key: key.to_owned() })
    }

    #[test]
    fn signing_gives_gos_bytes() {
        let seed = STANDARD.decode(PETER_SEED).unwrap().try_into().unwrap();
        let signer = Signer::new("PeterNeumann", SigningKey::from_bytes(&seed)).unwrap();
        assert_eq!(signer.verifier_key(), &key(PETER));
        assert_eq!(signer.sign(TEXT), format!("{TEXT}\n{PETER_LINE}"));
    }

    #[test]
    fn a_note_of_two_signers_verifies_with_each_and_with_nobody_else() {
        let note = format!("{TEXT}\n{PETER_LINE}{ENOCH_LINE}");
        assert_eq!(open(&note, &key(PETER)).as_deref(), Ok(TEXT));
        assert_eq!(open(&note, &key(ENOCH)).as_deref(), Ok(TEXT));
        assert_eq!(open(&note, &key(GO_SUM)), not_signed(GO_SUM));
        let parsed = Note::parse(&note).unwrap();
        let lines: Vec<_> = parsed.signatures.iter().map(|line| (line.name.as_str(), line.key_id)).collect();
        assert_eq!(lines, [("PeterNeumann", 0xc74f_20a3), ("EnochRoot", 0xaf0c_fe78)]);
        assert!(parsed.signatures.iter().all(|line| line.bytes.len() == 64));
    }

    #[test]
    fn the_go_checksum_databases_checkpoints_verify() {
        for note in GO_SUM_CHECKPOINTS {
            let text = open(note, &key(GO_SUM)).unwrap();
            let checkpoint = Checkpoint::parse(&text).unwrap();
            assert_eq!(checkpoint.origin, "go.sum database tree");
            assert_eq!(checkpoint.text(), text);
        }
    }

    /// The examples of C2SP signed-note and tlog-checkpoint; their verifier keys were not published.
    #[test]
    fn the_specifications_examples_are_taken_apart() {
        let poem = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\n\
            ed \u{e8} subito sera.\n";
        let line = "\u{2014} quasimodo.example/salvatore \
            NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
        let note = Note::parse(&format!("{poem}\n{line}")).unwrap();
        assert_eq!(note.text, poem, "an empty line within the text belongs to it");
        assert_eq!(
            (note.signatures[0].name.as_str(), note.signatures[0].key_id),
            ("quasimodo.example/salvatore", 0x367b_a04b)
        );

        let sofa = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
            \u{2014} example.com/behind-the-sofa \
            Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
        let checkpoint = Checkpoint::parse(&Note::parse(sofa).unwrap().text).unwrap();
        assert_eq!(
            (checkpoint.origin.as_str(), checkpoint.size),
            ("example.com/behind-the-sofa", 20_852_163)
        );
    }

    #[test]
    fn no_bit_of_a_signed_checkpoint_can_be_flipped() {
        let signer = Signer::new("example.com/log", SigningKey::from_bytes(&[7; 32])).unwrap();
        let origin = signer.verifier_key().name().to_owned();
        let checkpoint = Checkpoint { origin, size: 20_852_163, root: [0x5a; 32], extensions: vec![] };
        let note = signer.sign(&checkpoint.text());
        assert_eq!(open(&note, signer.verifier_key()), Ok(checkpoint.text()));
        for at in 0..note.len() * 8 {
            let mut flipped = note.as_bytes().to_vec();
            flipped[at / 8] ^= 1 << (at % 8);
            // A flip that breaks UTF-8 does not get as far as the parser.
            let Ok(flipped) = String::from_utf8(flipped) else { continue };
            assert!(open(&flipped, signer.verifier_key()).is_err(), "bit {at} flipped: {flipped}");
        }
    }

    #[test]
    fn every_signature_by_the_key_must_be_right() {
        let wrong = PETER_LINE.replace("x08go/ZJ", "x08go/ZK");
        let (peter, twice) = (key(PETER), format!("{TEXT}\n{PETER_LINE}{PETER_LINE}"));
        assert_eq!(open(&twice, &peter).as_deref(), Ok(TEXT));
        assert_eq!(open(&format!("{TEXT}\n{PETER_LINE}{wrong}"), &peter), bad_signature(PETER));
        assert_eq!(open(&format!("{TEXT}\n{wrong}{PETER_LINE}"), &peter), bad_signature(PETER));
        // One byte too many, under the right name and id.
        let long = STANDARD.encode([[0xc7, 0x4f, 0x20, 0xa3].as_slice(), &[0; 65]].concat());
        let long = format!("\u{2014} PeterNeumann {long}\n");
        assert_eq!(open(&format!("{TEXT}\n{PETER_LINE}{long}"), &peter), bad_signature(PETER));
    }

    #[test]
    fn signatures_that_share_only_name_or_id_are_ignored() {
        let same_name = PETER_LINE.replace("x08go/ZJ", "AAAAAAAA");
        let same_id = PETER_LINE.replace("PeterNeumann", "CarmenSandiego");
        let others = format!("{same_name}{same_id}\u{2014} pq {}\n", STANDARD.encode([1; 4_600]));
        assert_eq!(open(&format!("{TEXT}\n{others}"), &key(PETER)), not_signed(PETER));
        assert_eq!(open(&format!("{TEXT}\n{others}{PETER_LINE}"), &key(PETER)).as_deref(), Ok(TEXT));
    }

    /// A signature moved under another name or text, each with the signature's own bytes intact.
    #[test]
    fn a_signature_counts_for_its_own_text_only() {
        let moved = format!("{}\n{PETER_LINE}", TEXT.replace("don't", "do"));
        assert_eq!(open(&moved, &key(PETER)), bad_signature(PETER));
        // The text of a note ends at the LAST empty line: what Peter signed is not a part that he can be
        // quoted by.
        let quoted = format!("{TEXT}\n{PETER_LINE}\n{PETER_LINE}");
        assert_eq!(open(&quoted, &key(PETER)), bad_signature(PETER));
    }

    /// The key's holder can make such a signature, the signed text hardly enters it, and lax verifiers
    /// (OpenSSL's for one) take it. It was computed with R = the neutral element and S = H(R, A, text) times
    /// the private scalar.
    #[test]
    fn a_signature_with_a_point_of_small_order_is_refused() {
        let vkey = "log+d0ef8fb5+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs";
        let note = "anybody's text\n\n\u{2014} log \
            0O+PtQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAKhmdoOTGkTcmDX9MJSE2aYdiPRfS0in2hgojbqmHbww=\n";
        assert_eq!(open(note, &key(vkey)), bad_signature(vkey));
    }

    /// S plus the group order satisfies the same equation, so a text would have several signatures by one
    /// key.
    #[test]
    fn a_signature_with_an_unreduced_scalar_is_refused() {
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut note = Note::parse(&format!("{TEXT}\n{PETER_LINE}")).unwrap();
        assert_eq!(note.verify(&key(PETER)), Ok(()));
        let scalar = &mut note.signatures[0].bytes[32..];
        let mut carry = 0;
        for (digit, order) in scalar.iter_mut().zip(ORDER) {
            let sum = u16::from(*digit) + u16::from(order) + carry;
            *digit = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert_eq!(carry, 0, "still 256 bits");
        assert_eq!(note.verify(&key(PETER)), Err(NoteError::BadSignature { key: PETER.to_owned() }));
    }

    #[test]
    fn malformed_notes_are_refused() {
        let signature = PETER_LINE.rsplit(' ').next().unwrap();
        let trailing_bits = PETER_LINE.replace("nAM=", "nAN=");
        let malformed = [
            String::new(),
            "\n\n".to_owned(),
            TEXT.to_owned(),
            format!("{TEXT}\n"),
            format!("{TEXT}{PETER_LINE}"),
            format!("{TEXT}\n{}", PETER_LINE.trim_end()),
            format!("{TEXT}\n{PETER_LINE}\n"),
            format!("{TEXT}\n{PETER_LINE}Unexpected line.\n"),
            format!("{TEXT}\nUnexpected line.\n{PETER_LINE}"),
            format!("\u{1}{TEXT}\n{PETER_LINE}"),
            format!("{TEXT}\n{}", PETER_LINE.replace('\n', "\r\n")),
            format!("{TEXT}\n{}", PETER_LINE.replace('\u{2014}', "-")),
            format!("{TEXT}\n{}", PETER_LINE.replace("\u{2014} ", "\u{2014}\u{a0}")),
            format!("{TEXT}\n{}", PETER_LINE.replace("\u{2014} ", "\u{2014}  ")),
            format!("{TEXT}\n\u{2014} Bad Name {signature}"),
            format!("{TEXT}\n\u{2014} Bad+Name {signature}"),
            format!("{TEXT}\n\u{2014} Bad\u{3000}Name {signature}"),
            format!("{TEXT}\n\u{2014} PeterNeumann\n"),
            format!("{TEXT}\n\u{2014} PeterNeumann \n"),
            format!("{TEXT}\n\u{2014} PeterNeumann x08gow==\n"),
            format!("{TEXT}\n{}", PETER_LINE.replace("nAM=", "nAM")),
            format!("{TEXT}\n{}", PETER_LINE.replace("nAM=", "nAM= ")),
            format!("{TEXT}\n{trailing_bits}"),
        ];
        for note in malformed {
            let verdict = Note::parse(&note);
            let refused = matches!(verdict, Err(NoteError::Malformed { .. } | NoteError::KeyName { .. }));
            assert!(refused, "{note:?}: {verdict:?}");
        }
    }

    #[test]
    fn the_bounds_are_where_they_are_said_to_be() {
        let signed_times = |lines: usize| format!("{TEXT}\n{}", PETER_LINE.repeat(lines));
        assert_eq!(open(&signed_times(SIGNATURES_MAX), &key(PETER)).as_deref(), Ok(TEXT));
        assert_eq!(Note::parse(&signed_times(SIGNATURES_MAX + 1)), Err(NoteError::TooManySignatures));

        let signer = Signer::new("log", SigningKey::from_bytes(&[7; 32])).unwrap();
        let around = signer.sign("").len();
        let text_of = |bytes: usize| "x".repeat(bytes - 1) + "\n";
        let longest = text_of(NOTE_BYTES_MAX - around);
        assert_eq!(open(&signer.sign(&longest), signer.verifier_key()), Ok(longest));
        let bytes = NOTE_BYTES_MAX + 1;
        assert_eq!(Note::parse(&signer.sign(&text_of(bytes - around))), Err(NoteError::TooLong { bytes }));
    }

    proptest! {
        /// Whatever is signed: a text that the format allows comes back, any other is refused.
        #[test]
        fn what_is_signed_is_what_is_read(
            text in "([ -~\u{e8}\u{2014}]{0,9}\n?){0,4}[\t\u{0}]?\n?",
            seed: [u8; 32],
        ) {
            let signer = Signer::new("example.com/log", SigningKey::from_bytes(&seed)).unwrap();
            let allowed = text.ends_with('\n') && !text.contains(['\t', '\u{0}']);
            let opened = open(&signer.sign(&text), signer.verifier_key());
            if allowed {
                prop_assert_eq!(opened, Ok(text));
            } else {
                prop_assert!(opened.is_err());
            }
        }

        #[test]
        fn reading_never_panics(note in "(\u{2014} |[a-z+]{1,3}|\n|\n\n| |[A-Za-z0-9+/=]{8}|\\PC){0,20}") {
            let _ = Note::parse(&note);
            let _ = Checkpoint::parse(&note);
            let _ = note.parse::<VerifierKey>();
        }
    }
}
