//! What a stress gave: tables, a verdict, and their place in docs/benchmarks-stress.md.

use anyhow::Context as _;
use std::fmt::{self, Write as _};
use std::path::Path;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks-stress.md");

/// Of one stress.
pub(super) struct Report {
    /// Its name on the command line, and its place in the document.
    pub(super) name: &'static str,
    /// Markdown.
    pub(super) text: String,
    /// What did not hold.
    pub(super) faults: Vec<String>,
    /// What took longer than it may, which a smoke run on a busy machine says and does not judge.
    pub(super) slow: Vec<String>,
}

impl Report {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, text: String::new(), faults: Vec::new(), slow: Vec::new() }
    }

    /// Adds a line.
    pub(super) fn line(&mut self, line: impl fmt::Display) {
        // For who watches: a stress may take hours.
        eprintln!("{line}");
        let _ = writeln!(self.text, "{line}");
    }

    /// Adds a line of a table.
    pub(super) fn row(&mut self, cells: &[String]) {
        self.line(format_args!("| {} |", cells.join(" | ")));
    }

    /// Adds the head of a table.
    pub(super) fn head(&mut self, titles: &[&str]) {
        self.line(format_args!("| {} |\n|{}", titles.join(" | "), "---|".repeat(titles.len())));
    }

    /// What must hold.
    pub(super) fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(what());
        }
    }

    /// What must hold of time.
    pub(super) fn must_in_time(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.slow.push(what());
        }
    }

    /// Puts it into its place in the document, between two markers.
    pub(super) fn write(&self, circumstances: &[String]) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(DOCUMENT).with_context(|| format!("{DOCUMENT} cannot be read"))?;
        let [begin, end] = ["begin", "end"].map(|edge| format!("<!-- {edge} {} -->\n", self.name));
        let place =
            text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
        let (before, after) = place.with_context(|| format!("{DOCUMENT} has no place for {}", self.name))?;
        let circumstances = circumstances.join("\n- ");
        std::fs::write(
            Path::new(DOCUMENT),
            format!("{before}{begin}- {circumstances}\n\n{self}\n{end}{after}"),
        )?;
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        let wrong: Vec<&str> = self.faults.iter().chain(&self.slow).map(String::as_str).collect();
        if wrong.is_empty() {
            return write!(f, "Verdict of `{}`: holds.", self.name);
        }
        write!(f, "Verdict of `{}`: DOES NOT HOLD: {}.", self.name, wrong.join("; "))
    }
}
