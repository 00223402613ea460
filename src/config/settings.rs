//! Where each value stands: the keys of the file with their lines and the variables of the environment, handed out key
//! by key, and what is left over afterwards.
//!
//! Invariants: every key that the program knows is asked for exactly once, so that what nobody asked for is unknown;
//! where a key stands in the file and in the environment, both are checked and the environment's value is taken. The
//! meaning of a value is not here: `checked` hands in a parser per key.

use super::fault::{Fault, Faults, Place, Problem, nearest};
use super::variable_name;
use crate::limits::SYNTAX_FAULTS_MAX;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml_span::value::{Table, ValueInner};
use toml_span::{ErrorKind, Span};

/// What every variable of attestry begins with.
pub(super) const VARIABLE_PREFIX: &str = "ATTESTRY_";

/// A section and a key in it, as the program knows them.
pub(super) type KnownKey = (&'static str, &'static str);
/// Where the value of each key came from.
pub(super) type Origins = BTreeMap<KnownKey, Origin>;

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    File,
    Variable,
    Default,
}

/// A value before its type is known to be right.
#[derive(Debug, Clone)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    /// The text of a variable: a number or a text, as the key wants it.
    Variable(String),
    List(Vec<Raw>),
    /// Any other TOML type, by its name; no key takes one.
    Other(&'static str),
}

/// What was found for one key.
enum Given<T> {
    Value(T),
    Faulty,
    Nothing,
}

/// All values that were given, until each has been asked for.
#[derive(Debug, Default)]
pub(super) struct Settings {
    path: Option<PathBuf>,
    /// False where a part of the file could not be read, so that a key not seen may yet stand there.
    file_is_whole: bool,
    /// By section and key.
    file: BTreeMap<(String, String), (Raw, usize)>,
    sections: BTreeMap<String, usize>,
    variables: BTreeMap<String, String>,
    known: Vec<KnownKey>,
    origins: Origins,
    faults: Vec<Fault>,
}

impl Settings {
    pub(super) fn new(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Self {
        Self {
            path: path.map(Path::to_owned),
            file_is_whole: true,
            variables: env.filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)).collect(),
            ..Self::default()
        }
    }

    /// Takes in the text of the file. A line that is not TOML is reported and left out, as long as it looks like one
    /// `key = value`, so that the faults of the other lines are found as well.
    pub(super) fn read_toml(&mut self, text: &str) {
        let mut lines: Vec<&str> = text.split('\n').collect();
        for _ in 0..SYNTAX_FAULTS_MAX {
            let remaining = lines.join("\n");
            let error = match toml_span::parse(&remaining) {
                Ok(mut root) => return self.take_root(root.take(), &remaining),
                Err(error) => error,
            };
            self.file_is_whole = false;
            let line = line_at(remaining.as_bytes(), error.span.start);
            let key = lines.get(line - 1).and_then(|text| single_key(text));
            let problem = Problem::Syntax { reason: error.kind.to_string() };
            self.fault(self.line(line), key.unwrap_or_default().to_owned(), problem);
            if key.is_none() || matches!(error.kind, ErrorKind::UnterminatedString | ErrorKind::UnexpectedEof)
            {
                return;
            }
            lines[line - 1] = "";
        }
    }

    /// Says that the file could not be read: what it would have held is then not reported as missing.
    pub(super) fn set_unreadable(&mut self, problem: Problem) {
        self.file_is_whole = false;
        if let Some(path) = self.path.clone() {
            self.fault(Place::File(path), String::new(), problem);
        }
    }

    /// The value of a key that has a default.
    pub(super) fn optional<T>(
        &mut self,
        known: KnownKey,
        default: T,
        parse: impl Fn(&Raw) -> Result<T, Problem>,
    ) -> Option<T> {
        match self.given(known, parse) {
            Given::Value(value) => Some(value),
            Given::Faulty => None,
            Given::Nothing => Some(default),
        }
    }

    /// Reports a key that has no value and needs one; `why` follows its name, and `example` is a value as TOML.
    pub(super) fn missing(&mut self, (section, key): KnownKey, why: &str, example: &str) {
        let variable = variable_name(section, key);
        let problem = Problem::Missing {
            why: why.to_owned(),
            remedy: format!("write {key} = {example} in its section, or set {variable}"),
        };
        self.absent((section, key), full_name(section, key), problem);
    }

    /// Reports that nothing was said where one of several keys had to be given; it stands at the section of the first.
    pub(super) fn nothing_given(&mut self, first: KnownKey, why: &str, remedy: &str) {
        self.absent(
            first,
            String::new(),
            Problem::Missing { why: why.to_owned(), remedy: remedy.to_owned() },
        );
    }

    /// A part of the file that could not be read may hold what seems to be absent.
    fn absent(&mut self, (section, key): KnownKey, name: String, problem: Problem) {
        if self.file_is_whole {
            let place = match (self.sections.get(section), &self.path) {
                (Some(line), Some(path)) => Place::Line(path.clone(), *line),
                (None, Some(path)) => Place::File(path.clone()),
                (_, None) => Place::Variable(variable_name(section, key)),
            };
            self.fault(place, name, problem);
        }
    }

    /// Reports a fault of a value that was taken already, where that value stands.
    pub(super) fn fault_in(&mut self, (section, key): KnownKey, problem: Problem) {
        let variable = variable_name(section, key);
        let place = match self.file.get(&(section.into(), key.into())) {
            Some((_, line)) if !self.variables.contains_key(&variable) => self.line(*line),
            _ => Place::Variable(variable),
        };
        self.fault(place, full_name(section, key), problem);
    }

    /// Reports what nobody asked for, and ends in the origins of all values or in all the faults.
    pub(super) fn finish(mut self) -> Result<Origins, Faults> {
        self.report_unknown_in_file();
        self.report_unknown_variables();
        Faults::check(self.faults)?;
        Ok(self.origins)
    }

    /// The keys asked for so far, in order.
    pub(super) fn known(&self) -> &[KnownKey] {
        &self.known
    }

    fn given<T>(&mut self, known: KnownKey, parse: impl Fn(&Raw) -> Result<T, Problem>) -> Given<T> {
        let (section, key) = known;
        self.known.push(known);
        let variable = variable_name(section, key);
        let in_file = self.file.get(&(section.into(), key.into())).cloned();
        let in_env = self.variables.get(&variable).cloned();
        let candidates = [
            in_file.map(|(raw, line)| (raw, self.line(line), Origin::File)),
            in_env.map(|value| (Raw::Variable(value), Place::Variable(variable), Origin::Variable)),
        ];
        let mut given = Given::Nothing;
        self.origins.insert(known, Origin::Default);
        for (raw, place, origin) in candidates.into_iter().flatten() {
            self.origins.insert(known, origin);
            given = match parse(&raw) {
                Ok(value) => Given::Value(value),
                Err(problem) => {
                    self.fault(place, full_name(section, key), problem);
                    Given::Faulty
                }
            };
        }
        given
    }

    fn take_root(&mut self, root: ValueInner<'_>, text: &str) {
        let ValueInner::Table(root) = root else { return };
        let line_of = |span: Span| line_at(text.as_bytes(), span.start);
        for (section, mut value) in root {
            let (name, line) = (section.name.into_owned(), line_of(section.span));
            match value.take() {
                ValueInner::Table(keys) => {
                    self.take_section(&name, keys, line_of);
                    self.sections.insert(name, line);
                }
                // A key above the first section: it stands under the empty section, which is never asked for.
                other => {
                    self.file.insert((String::new(), name), (raw(other), line));
                }
            }
        }
    }

    fn take_section(&mut self, section: &str, keys: Table<'_>, line_of: impl Fn(Span) -> usize) {
        for (key, mut value) in keys {
            let line = line_of(key.span);
            self.file.insert((section.to_owned(), key.name.into_owned()), (raw(value.take()), line));
        }
    }

    fn report_unknown_in_file(&mut self) {
        let mut found = Vec::new();
        for (name, line) in &self.sections {
            if !self.is_section(name) {
                let near = nearest(name, self.known.iter().map(|(section, _)| *section));
                let remedy =
                    near.map_or_else(|| self.sections_remedy(), |near| format!("did you mean [{near}]?"));
                found.push((*line, format!("[{name}]"), remedy));
            }
        }
        for ((section, key), (raw, line)) in &self.file {
            if section.is_empty() && self.is_section(key) {
                let remedy =
                    format!("it is a section, not {}: write [{key}] on a line by itself", raw.describe());
                found.push((*line, key.clone(), remedy));
            } else if section.is_empty() {
                let remedy = self.key_remedy(section, key);
                found.push((*line, key.clone(), format!("it stands outside of any section: {remedy}")));
            } else if self.is_section(section) && !self.is_known(section, key) {
                found.push((*line, full_name(section, key), self.key_remedy(section, key)));
            }
        }
        for (line, name, remedy) in found {
            self.fault(self.line(line), name, Problem::Unknown { remedy });
        }
    }

    /// Variables of a known section, or of one that is nearly known with a key that is. Other names that begin alike
    /// are somebody else's: Kubernetes makes `ATTESTRY_SERVICE_HOST` for a service named attestry.
    fn report_unknown_variables(&mut self) {
        let known: Vec<String> =
            self.known.iter().map(|(section, key)| variable_name(section, key)).collect();
        let names: Vec<String> =
            self.variables.keys().filter(|name| !known.contains(name)).cloned().collect();
        for name in names {
            let Some((section, key)) = name[VARIABLE_PREFIX.len()..].split_once('_') else { continue };
            let (section, key) = (section.to_lowercase(), key.to_lowercase());
            let remedy = if self.is_section(&section) {
                let near = nearest(&name, known.iter().map(String::as_str));
                near.map_or_else(|| self.key_remedy(&section, &key), |near| format!("did you mean {near}?"))
            } else {
                let sections =
                    self.known.iter().filter(|(_, known)| *known == key).map(|(section, _)| *section);
                let Some(near) = nearest(&section, sections) else { continue };
                format!("did you mean {}?", variable_name(near, &key))
            };
            let problem = Problem::Unknown { remedy: format!("{remedy} Otherwise unset it") };
            self.fault(Place::Variable(name), full_name(&section, &key), problem);
        }
    }

    /// The nearest key of the section, else the same key of another section, else all keys of the section.
    fn key_remedy(&self, section: &str, key: &str) -> String {
        let here = || self.known.iter().filter(|(known, _)| *known == section).map(|(_, key)| *key);
        if let Some(near) = nearest(key, here()) {
            return format!("did you mean {near}?");
        }
        let elsewhere = self.known.iter().find(|(_, known)| *known == key);
        match elsewhere {
            Some((section, _)) => format!("did you mean {key} in [{section}]?"),
            None if section.is_empty() => self.sections_remedy(),
            None => format!("the keys of [{section}] are {}.", here().collect::<Vec<_>>().join(", ")),
        }
    }

    fn sections_remedy(&self) -> String {
        let mut sections: Vec<_> = self.known.iter().map(|(section, _)| format!("[{section}]")).collect();
        sections.dedup();
        format!("the sections are {}.", sections.join(", "))
    }

    fn is_section(&self, name: &str) -> bool {
        self.known.iter().any(|(section, _)| *section == name)
    }

    fn is_known(&self, section: &str, key: &str) -> bool {
        self.known.contains(&(section, key))
    }

    fn line(&self, line: usize) -> Place {
        Place::Line(self.path.clone().unwrap_or_default(), line)
    }

    fn fault(&mut self, place: Place, key: String, problem: Problem) {
        self.faults.push(Fault { place, key, problem });
    }
}

impl Raw {
    /// What stands there, for a message.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Text(text) => format!("the string {text:?}"),
            Self::Integer(number) => format!("the integer {number}"),
            Self::Variable(text) => format!("{text:?}"),
            Self::List(_) => "a list".to_owned(),
            Self::Other(kind) => format!("a {kind}"),
        }
    }
}

/// The line, counted from 1, on which the byte at `offset` stands.
pub(super) fn line_at(text: &[u8], offset: usize) -> usize {
    let before = &text[..offset.min(text.len())];
    before.split(|byte| *byte == b'\n').count()
}

/// No key takes a list of lists, so nothing is read below the first level.
fn raw(value: ValueInner<'_>) -> Raw {
    match value {
        ValueInner::Array(items) => Raw::List(items.into_iter().map(|mut item| plain(item.take())).collect()),
        other => plain(other),
    }
}

fn plain(value: ValueInner<'_>) -> Raw {
    match value {
        ValueInner::String(text) => Raw::Text(text.into_owned()),
        ValueInner::Integer(number) => Raw::Integer(number),
        ValueInner::Float(_) => Raw::Other("float"),
        ValueInner::Boolean(_) => Raw::Other("boolean"),
        ValueInner::Array(_) => Raw::Other("list"),
        ValueInner::Table(_) => Raw::Other("table"),
    }
}

fn full_name(section: &str, key: &str) -> String {
    format!("{section}.{key}")
}

/// The key of a line of the form `key = value` that ends where the line ends: leaving it out harms no other line.
fn single_key(line: &str) -> Option<&str> {
    let (key, value) = line.split_once('=')?;
    let key = key.trim();
    let is_bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    let spans_lines = value.contains("\"\"\"")
        || value.contains("'''")
        || (value.trim_start().starts_with('[') && !value.contains(']'));
    (is_bare && !spans_lines).then_some(key)
}
