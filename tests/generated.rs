//! Proves that `src/generated/` is what the schemas under `proto/` give today, byte for byte.
//!
//! Generation runs in this process (protox parses, prost and tonic print), so no protoc is needed. With
//! `ATTESTRY_REGENERATE=1` the test writes the files instead of comparing them. `src/generated/mod.rs` is written by
//! hand and not looked at here.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

const SCHEMAS: [&str; 2] = ["attestry/v1/entry.proto", "attestry/demo/v1/demo.proto"];
const DEMO_SCHEMA: &str = "attestry/demo/v1/demo.proto";
const DEMO_DESCRIPTOR: &str = "demo_descriptor.bin";
const REMEDY: &str = "run: ATTESTRY_REGENERATE=1 cargo test --test generated";

#[test]
fn checked_in_code_is_what_the_schemas_give() {
    let fresh = generate();
    if env::var("ATTESTRY_REGENERATE").is_ok_and(|value| value == "1") {
        return write(&fresh);
    }
    let stored = read_stored();
    assert_eq!(
        stored.keys().collect::<Vec<_>>(),
        fresh.keys().collect::<Vec<_>>(),
        "src/generated/ does not hold just the files that proto/ gives; {REMEDY}"
    );
    for (name, bytes) in &fresh {
        assert!(stored[name] == *bytes, "src/generated/{name} is not what proto/ gives; {REMEDY}");
    }
}

/// A schema that nobody lists here would never be generated, and its absence never noticed.
#[test]
fn every_schema_is_listed() {
    let mut found = Vec::new();
    schemas_below(&root().join("proto"), &mut found);
    found.sort();
    let mut listed: Vec<PathBuf> = SCHEMAS.iter().map(|name| root().join("proto").join(name)).collect();
    listed.sort();
    assert_eq!(found, listed, "the schemas under proto/ and the list SCHEMAS in tests/generated.rs differ");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// File name to content, of everything that is generated.
fn generate() -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let schemas = protox::compile(SCHEMAS, [root().join("proto")]).unwrap();
    tonic_prost_build::configure()
        .bytes(".")
        .emit_rerun_if_changed(false)
        .out_dir(folder.path())
        .compile_fds(schemas)
        .unwrap();
    let mut files = read_folder(folder.path());
    files.insert(DEMO_DESCRIPTOR.to_owned(), demo_descriptor());
    files
}

/// What reflection serves: the schema with its imports, without comments and source positions.
fn demo_descriptor() -> Vec<u8> {
    let mut compiler = protox::Compiler::new([root().join("proto")]).unwrap();
    compiler.include_imports(true).include_source_info(false);
    compiler.open_file(DEMO_SCHEMA).unwrap();
    compiler.encode_file_descriptor_set()
}

fn read_stored() -> BTreeMap<String, Vec<u8>> {
    let mut files = read_folder(&root().join("src/generated"));
    files.remove("mod.rs");
    files
}

fn write(files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        let path = root().join("src/generated").join(name);
        fs::write(&path, bytes).unwrap();
        eprintln!("wrote {} ({} bytes)", path.display(), bytes.len());
    }
    for name in read_stored().keys().filter(|name| !files.contains_key(*name)) {
        eprintln!("src/generated/{name} comes from no schema any more: delete it");
    }
}

fn read_folder(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .collect()
}

fn schemas_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            schemas_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
}
