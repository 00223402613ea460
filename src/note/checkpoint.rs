//! The text of a checkpoint: which log, how many leaves, which root (C2SP tlog-checkpoint, "Note text").
//!
//! Invariant: each checkpoint has one text and each text one checkpoint, so `parse(text)` then `text()` gives
//! the same bytes. Not here: signatures (`note`), or whether the root is right (`merkle`).

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{NOTE_BYTES_MAX, NoteError};
use crate::merkle::Hash;

/// What a log signs after each commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's identity, one non-empty line without control characters.
    pub origin: String,
    /// Leaves in the tree.
    pub size: u64,
    /// The RFC 6962 root of the tree.
    pub root: Hash,
    /// Further lines, opaque and not empty. The ledger writes none; others' logs may.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    /// The note text to sign.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root));
        for extension in &self.extensions {
            text.push_str(extension);
            text.push('\n');
        }
        text
    }

    /// The checkpoint in a note's text. Verify the note first: an unsigned text proves nothing.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        if text.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong { bytes: text.len() });
        }
        let wrong = |problem| NoteError::Checkpoint { problem };
        let Some(lines) = text.strip_suffix('\n') else { return Err(wrong("it does not end in a newline")) };
        let mut lines = lines.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(wrong("it has fewer than three lines"));
        };
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if origin.is_empty() || extensions.iter().any(String::is_empty) {
            return Err(wrong("it has an empty line"));
        }
        let size = parse_size(size).ok_or(wrong("its second line is not a tree size in plain decimal"))?;
        let root =
            parse_root(root).ok_or(wrong("its third line is not a root hash of 32 bytes in base64"))?;
        Ok(Self { origin: origin.to_owned(), size, root, extensions })
    }
}

/// Decimal digits alone and no leading zero: the one way to write a size.
fn parse_size(line: &str) -> Option<u64> {
    let canonical = line == "0" || !line.starts_with('0');
    let digits = line.bytes().all(|byte| byte.is_ascii_digit());
    if canonical && digits { line.parse().ok() } else { None }
}

fn parse_root(line: &str) -> Option<Hash> {
    STANDARD.decode(line).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of C2SP tlog-checkpoint.
    const EXAMPLE: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn the_specifications_example_is_read_and_written_back() {
        let checkpoint = Checkpoint::parse(EXAMPLE).unwrap();
        assert_eq!(checkpoint.origin, "example.com/behind-the-sofa");
        assert_eq!(checkpoint.size, 20_852_163);
        assert_eq!(checkpoint.root[..4], [0x0a, 0xc5, 0x18, 0x6a]);
        assert_eq!(checkpoint.extensions, Vec::<String>::new());
        assert_eq!(checkpoint.text(), EXAMPLE);
    }

    #[test]
    fn extension_lines_are_kept() {
        let text = format!("{EXAMPLE}first\nand second\n");
        let checkpoint = Checkpoint::parse(&text).unwrap();
        assert_eq!(checkpoint.extensions, ["first", "and second"]);
        assert_eq!(checkpoint.text(), text);
    }

    #[test]
    fn a_text_with_anything_else_is_refused() {
        let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        let refused = [
            String::new(),
            "\n".to_owned(),
            "o\n1\n".to_owned(),
            EXAMPLE.trim_end().to_owned(),
            format!("\n1\n{root}\n"),
            format!("{EXAMPLE}\n"),
            format!("{EXAMPLE}\nx\n"),
            format!("o\n1\n{}\n", root.trim_end_matches('=')),
            format!("o\n1\n{}\n", root.replace("I=", "J=")),
            format!("o\n1\n{}\n", root.replace('/', "_")),
            format!("o\n1\n {root}\n"),
            format!("o\n1\n{}\n", STANDARD.encode([0; 31])),
            format!("o\n1\n{}\n", STANDARD.encode([0; 33])),
        ];
        let sizes =
            ["", "00", "01", "-1", "+1", "1 ", " 1", "1.0", "0x1", "1\r", "\u{661}", "18446744073709551616"];
        let sizes = sizes.iter().map(|size| format!("o\n{size}\n{root}\n"));
        for text in sizes.chain(refused) {
            let verdict = Checkpoint::parse(&text);
            assert!(matches!(verdict, Err(NoteError::Checkpoint { .. })), "{text:?}: {verdict:?}");
        }
        let bytes = NOTE_BYTES_MAX + 1;
        assert_eq!(Checkpoint::parse(&"x".repeat(bytes)), Err(NoteError::TooLong { bytes }));
    }

    proptest! {
        #[test]
        fn a_checkpoint_is_its_text(
            origin in "[^\n]{1,40}",
            size: u64,
            root: Hash,
            extensions in prop::collection::vec("[^\n]{1,20}", 0..3),
        ) {
            let checkpoint = Checkpoint { origin, size, root, extensions };
            prop_assert_eq!(Checkpoint::parse(&checkpoint.text()), Ok(checkpoint));
        }

        #[test]
        fn what_is_read_is_written_back(
            text in "[a-z]{0,3}\n[0-9]{0,21}\n(AA|Ab|[+/]{2}){21}[A-Z]=\n([ -~]{0,3}\n)?",
        ) {
            if let Ok(checkpoint) = Checkpoint::parse(&text) {
                prop_assert_eq!(checkpoint.text(), text);
            }
        }
    }
}
