//! Parts of `docs/interop.md` that test runs write: with `ATTESTRY_REGENERATE=1` they are written, otherwise compared.
//!
//! A part stands between two comments that bear its name; what is around them is written by hand.

use std::path::Path;
use std::sync::Mutex;
use std::{env, fs};

/// Tests of one process write to the one file one after another.
static FILE: Mutex<()> = Mutex::new(());

/// True where documents and generated code are to be written instead of compared.
pub(crate) fn regenerates() -> bool {
    env::var("ATTESTRY_REGENERATE").is_ok_and(|value| value == "1")
}

/// The document's part `name` must be `text`, or becomes it.
pub(crate) fn keep(name: &str, text: &str, remedy: &str) {
    let _alone = FILE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/interop.md");
    let document = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->\n"));
    let (before, rest) =
        document.split_once(&begin).unwrap_or_else(|| panic!("docs/interop.md has no {begin:?}"));
    let (stored, after) = rest.split_once(&end).unwrap_or_else(|| panic!("docs/interop.md has no {end:?}"));
    if regenerates() {
        fs::write(&path, [before, &begin, text, &end, after].concat()).unwrap();
    } else {
        let differing = text.lines().find(|line| !stored.lines().any(|stored| stored == *line));
        assert!(
            stored == text,
            "docs/interop.md does not say what this run found, such as: {}\nrun: {remedy}",
            differing.unwrap_or("(only lines too many)")
        );
    }
}

/// A table in Markdown.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rule = vec!["---".to_owned(); head.len()];
    let rows = rows.into_iter().map(|row| line(&row)).collect::<String>();
    format!("{}{}{rows}\n", line(&head), line(&rule))
}
