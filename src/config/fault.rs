//! What can be wrong with a configuration, said so that the operator can mend it without looking anything up.
//!
//! Invariants: a fault names its place (file and line, or variable), its key, what is wrong and the remedy; `Faults` is
//! never empty and stands in reading order, the file before the environment. Finding the faults is not here: see
//! `settings` and `checked`.

use std::fmt;
use std::path::PathBuf;

/// All faults of one configuration, one per line when printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Sorts the faults into reading order; `Ok(())` where there are none.
    pub(super) fn check(mut faults: Vec<Fault>) -> Result<(), Self> {
        if faults.is_empty() {
            return Ok(());
        }
        faults.sort_by(|a, b| a.place.cmp(&b.place));
        Err(Self(faults))
    }

    /// The faults in reading order.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            let end_of_line_before = if i == 0 { "" } else { "\n" };
            write!(f, "{end_of_line_before}{fault}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {}{problem}", if key.is_empty() { String::new() } else { format!("{key} ") })]
pub struct Fault {
    /// Where it stands.
    pub place: Place,
    /// `section.key`, or the section alone; empty where the fault is the whole file's or a line's.
    pub key: String,
    /// What is wrong, with the remedy.
    pub problem: Problem,
}

/// Where a fault stands. The order is the reading order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File(PathBuf),
    /// A line of the file, counted from 1.
    Line(PathBuf, usize),
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// What is wrong, phrased to follow the key's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read at all.
    #[error("cannot be read ({reason}); create it, or name another file with --config")]
    Unreadable {
        /// What the system said.
        reason: String,
    },
    /// A line is not TOML, or says something twice.
    #[error("is not TOML here ({reason}); correct this line")]
    Syntax {
        /// What the parser said.
        reason: String,
    },
    /// A section or key that does not exist, or a variable that would override one.
    #[error("is not known; {remedy}")]
    Unknown {
        /// "did you mean ..." or what there is.
        remedy: String,
    },
    /// A key without a value that something else needs.
    #[error("{why}; {remedy}")]
    Missing {
        /// What needs it.
        why: String,
        /// A line and a variable that would do.
        remedy: String,
    },
    /// A value of another type.
    #[error("must be {expected}, but is {found}; write {example}")]
    Type {
        /// The type that the key takes.
        expected: &'static str,
        /// What stands there.
        found: String,
        /// A value of the right type.
        example: String,
    },
    /// A number outside of the key's range.
    #[error("is {found}, outside of its range; choose a value from {least} to {most}")]
    Range {
        /// The number given.
        found: String,
        /// The lowest that is allowed.
        least: String,
        /// The highest that is allowed.
        most: String,
    },
    /// A text that the key cannot take.
    #[error("is {found:?}, {reason}; {remedy}")]
    Text {
        /// The text given.
        found: String,
        /// Why it cannot be taken.
        reason: String,
        /// What to write instead.
        remedy: String,
    },
}

/// The known name nearest to what was written, if one is near enough to be what was meant: at most two edits away, or
/// a third of the name's length for long ones.
pub(super) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (edits(written, name), name))
        .filter(|(edits, name)| *edits <= (name.len() / 3).clamp(2, 4))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Levenshtein distance over bytes; names are ASCII.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, byte_a) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, byte_b) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(byte_a != byte_b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let known = || ["listen", "upstream", "workers"].into_iter();
        assert_eq!(nearest("lisen", known()), Some("listen"));
        assert_eq!(nearest("upstraem", known()), Some("upstream"));
        assert_eq!(nearest("colour", known()), None);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn faults_stand_in_reading_order() {
        let fault =
            |place| Fault { place, key: String::new(), problem: Problem::Syntax { reason: "x".into() } };
        let line = |n| fault(Place::Line("p".into(), n));
        let sorted = Faults::check(vec![fault(Place::Variable("A".into())), line(10), line(9)]).unwrap_err();
        let places: Vec<_> = sorted.iter().map(|fault| fault.place.to_string()).collect();
        assert_eq!(places, ["p:9", "p:10", "A"]);
        assert_eq!(Faults::check(vec![]), Ok(()));
    }
}
