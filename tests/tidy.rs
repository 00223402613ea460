//! The rules of the house as tests: layers, headers, sizes, names, documented configuration.
//!
//! Everything here reads the sources as text; nothing is built or run. Each test collects all breaches before it
//! fails, so one run shows the whole list. That generated code is fresh is checked in `tests/generated.rs`; what
//! the compiler and clippy can check (function length, unwrap, unsafe) is left to them.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules bottom up. A module imports only from the rows above its own. To change the architecture on
/// purpose, change this table together with src/lib.rs and docs/architecture.md.
const LAYERS: &[&[&str]] = &[
    &["clock", "counters", "limits"],
    &["generated"],
    PURE,
    &["ledger", "credentials"],
    &["capture"],
    &["proxy"],
    &["query"],
    &["config"],
    &["redirect", "telemetry"],
    &["app"],
    &["cli"],
    &["main"],
];

/// No async, no I/O, no store: what goes in decides alone what comes out.
const PURE: &[&str] = &["entry", "grpc", "http1", "http2", "merkle", "note", "tls"];

/// Who may import from a neighbour of the same row: (importer, imported). Keep it free of cycles.
const NEIGHBOURS: &[(&str, &str)] =
    &[("entry", "merkle"), ("grpc", "http2"), ("http1", "http2"), ("note", "merkle")];

/// Crates and parts of std that no pure module names outside its tests.
const IMPURE_CRATES: &[&str] = &[
    "tokio",
    "tokio_stream",
    "tokio_util",
    "futures_util",
    "hyper",
    "h2",
    "rustls",
    "notify",
    "spiffe",
    "tonic",
    "tower",
    "socket2",
    "sled",
];
const IMPURE_STD: &[&str] = &["fs", "net", "process", "thread"];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc"];

const LINES_BEFORE_TESTS_MAX: usize = 500;

/// Text that belongs to one machine, one moment or one mirror, not to the project. Written in halves, because
/// this file is scanned too.
const FORBIDDEN_TEXT: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tm", "p/"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("Being", " written"),
    concat!("issue", " #"),
    concat!("index.", "crates.io"),
    concat!("registry.", "npmjs"),
    concat!("pypi", ".org"),
    concat!("python", "hosted"),
];

/// Folders that hold no text of ours, by path from the root or by name anywhere.
const FOREIGN_FOLDERS: &[&str] =
    &["target", ".git", "node_modules", "__pycache__", "fuzz/corpus", "fuzz/artifacts"];

/// Variables that docs/configuration.md may name although they set no key: they steer the test suite.
const RESERVED_VARIABLES: &[&str] = &["ATTESTRY_REQUIRE_ALL", "ATTESTRY_REGENERATE"];

#[test]
fn every_source_file_opens_with_a_header() {
    let breaches = own_rust_files().into_iter().filter(|path| {
        let source = read(path);
        let first = source.lines().next().unwrap_or_default();
        first.strip_prefix("//! ").is_none_or(|purpose| purpose.len() <= 10)
    });
    report(
        "these files do not open with a //! header that states their purpose",
        breaches.map(|path| name(&path)),
    );
}

#[test]
fn source_files_stay_short() {
    let breaches = sources().into_iter().filter_map(|path| {
        let lines = before_tests(&path, &read(&path)).lines().count();
        (lines > LINES_BEFORE_TESTS_MAX).then(|| format!("{}: {lines} lines", name(&path)))
    });
    report(
        &format!("these files have more than {LINES_BEFORE_TESTS_MAX} lines before their tests"),
        breaches,
    );
}

/// Code behind the tests would be taken for tests by the checks below.
#[test]
fn tests_stand_last() {
    let breaches = sources().into_iter().filter(|path| !is_all_tests(path)).filter(|path| {
        let source = read(path);
        let tests = code_of(&source[before_tests(path, &source).len()..]);
        tests.split_once("\n}\n").is_some_and(|(_, behind)| !behind.trim().is_empty())
    });
    report("in these files something stands behind the module of tests", breaches.map(|path| name(&path)));
}

#[test]
fn names_of_modules_say_something() {
    let mut breaches = Vec::new();
    for path in own_rust_files() {
        let parts = name(&path).replace(".rs", "");
        if parts.split('/').any(|part| EMPTY_NAMES.contains(&part)) {
            breaches.push(name(&path));
        }
        let code = code_of(&read(&path));
        for inline in EMPTY_NAMES.iter().filter(|empty| code.contains(&format!("mod {empty} {{"))) {
            breaches.push(format!("{}: mod {inline}", name(&path)));
        }
    }
    report("these modules have a name that fits anything", breaches);
}

#[test]
fn every_module_stands_in_the_table_of_layers() {
    let listed: BTreeSet<String> =
        LAYERS.iter().copied().flatten().map(|module| (*module).to_owned()).collect();
    let mut found: BTreeSet<String> = sources().iter().map(|path| module_of(path)).collect();
    found.remove("lib");
    assert_eq!(found, listed, "left: modules under src/; right: the table LAYERS in tests/tidy.rs");
}

#[test]
fn modules_import_only_what_stands_below_them() {
    let breaches = sources().into_iter().filter(|path| module_of(path) != "lib").flat_map(|path| {
        let module = module_of(&path);
        let code = code_of(&read(&path));
        let prefix = if module == "main" { "attestry" } else { "crate" };
        let mut found = Vec::new();
        for (line, imported) in path_heads(&code, prefix) {
            if !may_import(&module, &imported) {
                found.push(format!("{}:{line}: {module} names {prefix}::{imported}", name(&path)));
            }
        }
        found
    });
    report("these imports do not point downwards (tables LAYERS and NEIGHBOURS in tests/tidy.rs)", breaches);
}

/// Relative paths would pass the check above unseen, were they long enough to leave their module.
#[test]
fn relative_paths_stay_within_their_module() {
    let breaches = sources().into_iter().flat_map(|path| {
        let depth = depth_of(&path);
        let code = code_of(before_tests(&path, &read(&path)));
        let mut found = Vec::new();
        for (number, line) in code.lines().enumerate() {
            if line.contains(&"super::".repeat(depth)) {
                found.push(format!("{}:{}: {}", name(&path), number + 1, line.trim()));
            }
        }
        found
    });
    report("these paths climb to the root of the crate: write crate::module instead", breaches);
}

#[test]
fn pure_modules_do_no_input_or_output() {
    let mut breaches = Vec::new();
    for path in sources().into_iter().filter(|path| PURE.contains(&module_of(path).as_str())) {
        let code = code_of(before_tests(&path, &read(&path)));
        for impure in IMPURE_CRATES.iter().filter(|&&impure| names_crate(&code, impure)) {
            breaches.push(format!("{}: {impure}", name(&path)));
        }
        for (line, part) in
            path_heads(&code, "std").iter().filter(|(_, part)| IMPURE_STD.contains(&part.as_str()))
        {
            breaches.push(format!("{}:{line}: std::{part}", name(&path)));
        }
        for (line, _) in words(&code, "async") {
            breaches.push(format!("{}:{line}: async", name(&path)));
        }
    }
    report("these pure modules reach outside", breaches);
}

#[test]
fn one_file_alone_names_sled() {
    let with_sled: Vec<String> = sources()
        .iter()
        .filter(|path| names_crate(&code_of(&read(path)), "sled"))
        .map(|path| name(path))
        .collect();
    assert_eq!(
        with_sled.len(),
        1,
        "exactly one file names sled, the store of the ledger; these do: {with_sled:?}"
    );
    assert!(with_sled[0].starts_with("src/ledger/"), "sled is named outside the ledger: {with_sled:?}");
}

#[test]
fn every_configuration_key_is_in_the_sample_and_in_the_document() {
    let keys = attestry::config::known_keys();
    let known: BTreeSet<String> = keys.iter().map(|(section, key)| format!("{section}.{key}")).collect();
    assert_eq!(known.len(), keys.len(), "known_keys() lists a key twice");
    assert_eq!(
        keys_of_sample(),
        known,
        "left: keys set or shown as comments in proxy.toml; right: known_keys()"
    );

    let document = read(&root().join("docs/configuration.md"));
    let variables: BTreeSet<String> =
        keys.iter().map(|(section, key)| format!("ATTESTRY_{section}_{key}").to_uppercase()).collect();
    assert_eq!(
        variables_of(&document),
        variables,
        "left: variables in docs/configuration.md; right: of known_keys()"
    );
    let unnamed = keys.iter().filter(|(_, key)| !document.contains(&format!("`{key}`")));
    report(
        "docs/configuration.md does not name these keys",
        unnamed.map(|(section, key)| format!("{section}.{key}")),
    );
}

#[test]
fn nothing_of_the_workshop_is_left_in_the_text() {
    let mut breaches = Vec::new();
    for path in own_files(root()) {
        // Cargo writes the lock file, and names its registry in it.
        let Some(text) = fs::read(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
            continue;
        };
        if name(&path).ends_with("Cargo.lock") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for forbidden in FORBIDDEN_TEXT.iter().filter(|forbidden| line.contains(**forbidden)) {
                breaches.push(format!("{}:{}: {forbidden}", name(&path), number + 1));
            }
        }
    }
    report("these lines name a machine, a mirror or something unfinished", breaches);
}

// ---- the table ----

fn may_import(module: &str, imported: &str) -> bool {
    let (Some(from), Some(to)) = (row_of(module), row_of(imported)) else { return false };
    to < from || module == imported || (to == from && NEIGHBOURS.contains(&(module, imported)))
}

fn row_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// `src/ledger/segment.rs` and `src/ledger.rs` belong to the module ledger.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// How many `super::` lead from the file to the root of the crate.
fn depth_of(path: &Path) -> usize {
    let parts = path.strip_prefix(root().join("src")).unwrap().iter().count();
    if path.ends_with("mod.rs") { parts - 1 } else { parts }
}

// ---- reading Rust, just well enough ----

/// The source up to its module of tests. A file that is named for tests has nothing before them.
fn before_tests<'a>(path: &Path, source: &'a str) -> &'a str {
    if is_all_tests(path) {
        return "";
    }
    let inline_module = |at: &usize| {
        let after = source[*at..].split_once('\n').map_or("", |(_, after)| after);
        after.starts_with("mod ") && after.lines().next().is_some_and(|line| line.ends_with('{'))
    };
    let mut starts = source.match_indices("\n#[cfg(").filter(|(at, _)| {
        let attribute = source[at + 1..].lines().next().unwrap_or_default();
        attribute.contains("(test") && attribute.ends_with(']')
    });
    let start = starts.find(|(at, _)| inline_module(&(at + 1))).map(|(at, _)| at + 1);
    &source[..start.unwrap_or(source.len())]
}

fn is_all_tests(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.parent().is_some_and(|folder| folder.ends_with("tests"))
}

/// The code of a source: comments and literals are blanked, and each line keeps its number.
fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let blank = comment_or_literal_len(rest);
        let (taken, after) = rest.split_at(blank.max(first.len_utf8()));
        code.extend(taken.chars().map(|c| if blank > 0 && c != '\n' { ' ' } else { c }));
        rest = after;
    }
    code
}

/// The length of the comment or literal that `rest` begins with, or 0.
fn comment_or_literal_len(rest: &str) -> usize {
    let until =
        |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    let hashes = rest.bytes().skip(1).take_while(|&byte| byte == b'#').count();
    match rest.as_bytes() {
        [b'/', b'/', ..] => rest.find('\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => until("*/", 2),
        [b'r', ..] if rest[1 + hashes..].starts_with('"') => {
            until(&format!("\"{}", "#".repeat(hashes)), 2 + hashes)
        }
        [b'"', ..] => quoted_len(rest),
        [b'\'', b'\\', _, ..] => until("'", 3),
        // 'x' is a character, 'x without the second quote a lifetime.
        [b'\'', ..] => {
            let inside = rest[1..].chars().next().map_or(0, char::len_utf8);
            if rest[1 + inside..].starts_with('\'') { inside + 2 } else { 0 }
        }
        _ => 0,
    }
}

fn quoted_len(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Where `word` stands in the code as a whole identifier: line, and the text behind it.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).filter_map(move |(at, _)| {
        let behind = &code[at + word.len()..];
        let whole = !code[..at].ends_with(is_part) && !behind.starts_with(is_part);
        whole.then(|| (code[..at].matches('\n').count() + 1, behind))
    })
}

fn names_crate(code: &str, name: &str) -> bool {
    words(code, name).any(|(_, behind)| behind.starts_with("::")) || code.contains(&format!("use {name}"))
}

/// What follows `prefix::` in the code, with its line: `a` of `prefix::a::b`, `a` and `c` of `prefix::{a::b, c}`.
fn path_heads(code: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut heads = Vec::new();
    for (line, behind) in words(code, prefix) {
        let Some(path) = behind.strip_prefix("::") else { continue };
        match path.strip_prefix('{') {
            Some(group) => {
                heads.extend(group_items(group).into_iter().map(|item| (line, leading_word(item))));
            }
            None => heads.push((line, leading_word(path))),
        }
    }
    heads
}

/// The items of `a::{b, c}, d}`, a group whose opening brace has been read.
fn group_items(group: &str) -> Vec<&str> {
    let (mut items, mut start, mut depth) = (Vec::new(), 0, 1);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            items.push(group[start..at].trim());
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

fn leading_word(text: &str) -> String {
    text.chars().take_while(|&c| c.is_alphanumeric() || c == '_' || c == '*').collect()
}

// ---- reading the configuration's documents ----

/// Keys of proxy.toml as section.key, those shown as comments included.
fn keys_of_sample() -> BTreeSet<String> {
    let sample = read(&root().join("proxy.toml"));
    let (mut section, mut keys) = (String::new(), BTreeSet::new());
    for line in sample.lines().map(|line| line.trim_start_matches(['#', ' '])) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            header.clone_into(&mut section);
        } else if let Some((key, _)) = line.split_once(" = ")
            && leading_word(key) == key
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

/// Every ATTESTRY_* variable that a text names, but for those of the test suite.
fn variables_of(document: &str) -> BTreeSet<String> {
    let names = document.match_indices("ATTESTRY_").map(|(at, _)| leading_word(&document[at..]));
    // The placeholder ATTESTRY_<SECTION>_<KEY> ends at its underscore.
    names.filter(|name| !name.ends_with('_') && !RESERVED_VARIABLES.contains(&name.as_str())).collect()
}

// ---- files ----

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()))
}

/// The path from the root, for messages.
fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The hand-written files under src/.
fn sources() -> Vec<PathBuf> {
    own_rust_files().into_iter().filter(|path| path.starts_with(root().join("src"))).collect()
}

/// The hand-written Rust files: what a generator wrote is named for its protobuf package, `a.b.rs`.
fn own_rust_files() -> Vec<PathBuf> {
    let hand_written = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_suffix(".rs").is_some_and(|stem| !stem.contains('.'))
    };
    own_files(root()).into_iter().filter(|path| hand_written(path)).collect()
}

fn own_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let items = fs::read_dir(folder).unwrap().map(|item| item.unwrap());
    for item in items.filter(|item| !is_foreign(&item.path())) {
        if item.file_type().unwrap().is_dir() {
            files.extend(own_files(&item.path()));
        } else {
            files.push(item.path());
        }
    }
    files.sort();
    files
}

fn is_foreign(path: &Path) -> bool {
    let (from_root, last) = (name(path), path.file_name().and_then(|last| last.to_str()).unwrap_or_default());
    FOREIGN_FOLDERS.iter().any(|&foreign| foreign == from_root || foreign == last)
}

fn report(what: &str, breaches: impl IntoIterator<Item = String>) {
    let breaches: Vec<String> = breaches.into_iter().collect();
    assert!(breaches.is_empty(), "{what}:\n  {}", breaches.join("\n  "));
}

// ---- the readers above, tested themselves: a scan that finds nothing passes everything ----

#[test]
fn comments_and_literals_are_no_code() {
    let source = "a // b\n/* c */ d \"e\\\"f\" g r#\"h\" i\"# j '\"' k '\\'' l 'm n";
    assert_eq!(code_of(source).split_whitespace().collect::<String>(), "adgjkl'mn");
    assert_eq!(code_of(source).lines().count(), 2);
}

#[test]
fn heads_of_paths_are_found_in_every_shape() {
    let code = "use crate::{\n  a::{b, c},\n  d,\n};\nfn f() { crate::e::g(); mycrate::h(); crate::*; }\npub(crate) x";
    let heads: Vec<String> = path_heads(code, "crate").into_iter().map(|(_, head)| head).collect();
    assert_eq!(heads, ["a", "d", "e", "*"]);
    assert_eq!(path_heads(code, "crate").last().unwrap().0, 5);
}

#[test]
fn imports_point_downwards_or_to_listed_neighbours() {
    assert!(may_import("ledger", "entry") && may_import("ledger", "ledger") && may_import("note", "merkle"));
    assert!(!may_import("entry", "ledger") && !may_import("merkle", "note") && !may_import("ledger", "*"));
}

#[test]
fn tests_begin_at_their_module() {
    let path = Path::new("src/x.rs");
    let source = "#[cfg(test)]\nmod tests;\nfn f() {}\n#[cfg(test)]\nmod more {\n}\n";
    assert!(before_tests(path, source).ends_with("fn f() {}\n"));
    assert_eq!(before_tests(Path::new("src/x/tests.rs"), source), "");
}
