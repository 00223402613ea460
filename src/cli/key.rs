//! `attestry keygen` and `attestry key`: a new signing key, and the verifier key of a ledger or of a key.
//!
//! The verifier key is public: it is what whoever checks a ledger should hold, from elsewhere than the
//! ledger. The secret key is never printed.

use super::stdout::{self, LedgerArg};
use crate::ledger::genuine;
use crate::ledger::key::{self, KeyError};
use crate::note::Signer;
use crate::query;
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use ed25519_dalek::SigningKey;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The name of a ledger's key file, and of a new one.
const KEY_FILE: &str = "key";

/// What `attestry keygen` takes.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// The file to make; an existing one is never overwritten
    #[arg(default_value = KEY_FILE)]
    file: PathBuf,
    /// The name of the log that the key is for: its verifier key is printed too
    #[arg(long, value_name = "NAME")]
    origin: Option<String>,
}

/// What `attestry key` takes.
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(flatten)]
    ledger: LedgerArg,
    /// The signing key's file [default: key in the ledger's folder]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The name of the log [default: the ledger's]
    #[arg(long, value_name = "NAME")]
    origin: Option<String>,
}

/// Makes a key.
pub fn keygen(args: &KeygenArgs) -> ExitCode {
    stdout::run(|out| {
        let path = args.file.display();
        let key = match key::create(&args.file) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                bail!("{path} exists already, and a key is never overwritten: choose another name")
            }
            other => other?,
        };
        writeln!(out, "key file      {path}")?;
        if let Some(origin) = &args.origin {
            let kept = || format!("the key is in {path}, but the origin cannot name it");
            writeln!(out, "verifier key  {}", verifier_key(origin, key).with_context(kept)?)?;
        }
        Ok(())
    })
}

/// Prints a verifier key.
pub fn key(args: &KeyArgs) -> ExitCode {
    stdout::run(|out| {
        let dir = args.ledger.dir();
        // Both given: no ledger is needed.
        if let (Some(key_file), Some(origin)) = (&args.key_file, &args.origin) {
            return Ok(writeln!(out, "{}", verifier_key(origin, key::load(key_file)?)?)?);
        }
        let opened = genuine::opened(&dir);
        let stated = opened.as_ref().map(|opened| opened.verifier_key.clone());
        let origin =
            args.origin.clone().or_else(|| origin_file(&dir)).or_else(|| opened.map(|opened| opened.origin));
        let key_file = args.key_file.clone().unwrap_or_else(|| dir.join(KEY_FILE));
        let found = match (key::load(&key_file), origin) {
            (Ok(key), Some(origin)) => verifier_key(&origin, key)?,
            (Ok(_), None) => bail!("{} does not say its origin: name it with --origin", dir.display()),
            (Err(error), _) if args.key_file.is_some() => return Err(error.into()),
            (Err(error), _) => return stated_alone(stated, &dir, &error, out),
        };
        if let Some(stated) = stated.filter(|_| args.origin.is_none() && args.key_file.is_none()) {
            ensure!(
                stated == found,
                "the key file gives {found}, but entry 0 of the ledger names {}: run `attestry verify`",
                query::printable(&stated)
            );
        }
        Ok(writeln!(out, "{found}")?)
    })
}

/// The key that the ledger names itself, where its key file is out of reach.
fn stated_alone(
    stated: Option<String>,
    dir: &Path,
    error: &KeyError,
    out: &mut dyn io::Write,
) -> anyhow::Result<()> {
    let Some(stated) = stated else { bail!("{error}; and entry 0 of {} cannot be read", dir.display()) };
    eprintln!(
        "attestry: {error}; this is the key that entry 0 of the ledger names, which proves nothing by itself"
    );
    Ok(writeln!(out, "{}", query::printable(&stated))?)
}

fn origin_file(dir: &Path) -> Option<String> {
    let origin = fs::read_to_string(dir.join("origin")).ok()?;
    Some(origin.trim_end_matches('\n').to_owned())
}

fn verifier_key(origin: &str, key: SigningKey) -> anyhow::Result<String> {
    Ok(Signer::new(origin, key)?.verifier_key().to_string())
}
