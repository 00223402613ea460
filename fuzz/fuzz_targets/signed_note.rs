//! Signed notes, checkpoints and verifier keys from anybody: nothing panics, and what is accepted has one meaning,
//! so that it is written back as the bytes that were read.
#![no_main]

use attestry::note::{Checkpoint, Note, VerifierKey};
use libfuzzer_sys::fuzz_target;

/// The key of the examples in Go's `golang.org/x/mod/sumdb/note`; its notes are good seeds for the corpus.
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

/// All that this key is known to have signed.
const PETER_SIGNED: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n";

fuzz_target!(|bytes: &[u8]| {
    let Ok(input) = std::str::from_utf8(bytes) else { return };
    if let Ok(note) = Note::parse(input) {
        let below = input.strip_prefix(note.text.as_str()).expect("the text opens the note");
        let lines = below.strip_prefix('\n').expect("an empty line ends the text").lines();
        assert_eq!(lines.count(), note.signatures.len(), "each line below is one signature");
        assert!(!note.signatures.is_empty() && note.text.ends_with('\n'));
        let key: VerifierKey = PETER.parse().expect("a published key");
        if note.verify(&key).is_ok() {
            assert_eq!(note.text, PETER_SIGNED, "a forgery");
        }
        written_back(&note.text);
    }
    written_back(input);
    if let Ok(key) = input.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), input);
    }
});

fn written_back(text: &str) {
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.text(), text);
    }
}
