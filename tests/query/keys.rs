//! `attestry keygen` and `attestry key`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use attestry::ledger::key as key_file;
use attestry::note::Signer;

use crate::ledger_maker::{LogParts, ORIGIN, key};
use crate::support::sidecar::program;
use crate::{attestry, ledger, printed, refusal, text};

fn keygen(arguments: &[&str]) -> Output {
    Command::new(program()).arg("keygen").args(arguments).output().unwrap()
}

#[test]
fn a_key_is_made_once_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signing");
    let path = path.to_str().unwrap();
    let made = keygen(&[path, "--origin", "log.test/one"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let secret = fs::read(path).unwrap();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let verifier_key = Signer::new("log.test/one", key_file::load(path.as_ref()).unwrap()).unwrap();
    let expected = format!("key file      {path}\nverifier key  {}\n", verifier_key.verifier_key());
    assert_eq!(text(&made.stdout), expected);

    let again = keygen(&[path]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("exists already"), "{}", text(&again.stderr));
    assert_eq!(fs::read(path).unwrap(), secret);
}

#[test]
fn the_key_of_a_ledger_comes_from_its_key_file() {
    let (_folder, maker) = ledger();
    fs::write(maker.folder.join("key"), pem(1)).unwrap();
    fs::set_permissions(maker.folder.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(printed(&maker.folder, &["key"]), format!("{}\n", key(1)));
    // Another key lies there: what the ledger says is no longer what it is signed by.
    fs::write(maker.folder.join("key"), pem(2)).unwrap();
    let refused = refusal(&maker.folder, &["key"]);
    assert!(refused.contains(&key(1).to_string()) && refused.contains(&key(2).to_string()), "{refused}");
}

#[test]
fn the_key_of_a_ledger_without_its_key_file_is_the_one_that_it_names() {
    let (_folder, maker) = ledger();
    let output = attestry(&maker.folder, &["key"]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), format!("{}\n", key(1)));
    assert!(text(&output.stderr).contains("entry 0 of the ledger names"), "{}", text(&output.stderr));
    let mut log = LogParts::read(&maker.folder);
    log.frame(0).entries.remove(0);
    log.write(&maker.folder);
    assert!(refusal(&maker.folder, &["key"]).contains("entry 0"));
}

#[test]
fn a_key_file_and_an_origin_need_no_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k");
    fs::write(&path, pem(7)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let arguments = ["key", "--key-file", path.to_str().unwrap(), "--origin", ORIGIN];
    assert_eq!(printed(folder.path(), &arguments), format!("{}\n", key(7)));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refusal(folder.path(), &arguments).contains("chmod 600"));
    let spaced = ["key", "--key-file", path.to_str().unwrap(), "--origin", "a b"];
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(refusal(folder.path(), &spaced).contains("a b"));
}

/// The key whose secret is 32 times `seed`, as `openssl genpkey` writes it.
fn pem(seed: u8) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let der = [&prefix[..], &[seed; 32]].concat();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}
