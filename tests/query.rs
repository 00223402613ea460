//! Reading a ledger: what `attestry calls`, `connections`, `show`, `tail`, `keygen` and `key` say of ledgers whose content is known to the byte.
//!
//! The ledgers are made up here, so that every shape of a call is there: also those that a real peer rarely makes.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]
#![allow(clippy::cast_possible_truncation, reason = "everything here is a few kilobytes long")]

#[path = "support/ledger_maker.rs"]
mod ledger_maker;
#[path = "query/scenes.rs"]
mod scenes;

mod support;

#[path = "query/connecting.rs"]
mod connecting;
#[path = "query/following.rs"]
mod following;
#[path = "query/keys.rs"]
mod keys;
#[path = "query/listing.rs"]
mod listing;
#[path = "query/places.rs"]
mod places;
#[path = "query/showing.rs"]
mod showing;
#[path = "query/web.rs"]
mod web;

use std::path::Path;
use std::process::{Command, Output};

use ledger_maker::{Content, LedgerMaker, started};
use serde_json::Value;
use tempfile::TempDir;

const CLIENT: &str = "10.1.2.3:5555";

/// A ledger with an open connection, and the folder that it goes with.
fn ledger() -> (TempDir, LedgerMaker) {
    let folder = tempfile::tempdir().unwrap();
    let mut maker = LedgerMaker::new(&folder.path().join("ledger"), 1);
    let opened = maker.opened();
    maker.commit(vec![opened, started(), scenes::connection_opened(scenes::CONNECTION, CLIENT)]);
    (folder, maker)
}

/// A ledger with these entries in it, one frame for each.
fn ledger_of(contents: Vec<Content>) -> (TempDir, LedgerMaker) {
    let (folder, mut maker) = ledger();
    for content in contents {
        maker.commit(vec![content]);
    }
    (folder, maker)
}

/// Runs a command on a ledger to its end.
fn attestry(ledger: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(support::sidecar::program());
    command.args(&arguments[..1]).arg("--ledger").arg(ledger).args(&arguments[1..]);
    command.env_remove("ATTESTRY_LEDGER_DIR").output().unwrap()
}

/// What a command prints, which must succeed and say nothing on standard error.
fn printed(ledger: &Path, arguments: &[&str]) -> String {
    let output = attestry(ledger, arguments);
    let errors = text(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{arguments:?} ended with {}: {errors}",
        output.status
    );
    text(&output.stdout)
}

/// What a command says when it fails with exit code 1, printing nothing.
fn refusal(ledger: &Path, arguments: &[&str]) -> String {
    let output = attestry(ledger, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stderr)
}

/// The calls that match the filters, as JSON.
fn calls(ledger: &Path, filters: &[&str]) -> Vec<Value> {
    let listed = printed(ledger, &[&["calls", "-o", "jsonl"], filters].concat());
    listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// One member of each call.
fn each<'a>(calls: &'a [Value], member: &str) -> Vec<&'a Value> {
    calls.iter().map(|call| &call[member]).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
