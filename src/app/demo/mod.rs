//! `attestry demo`: the whole promise in half a minute, on one machine and with nothing else installed.
//!
//! A sample service, the sidecar in front of it with a ledger in a temporary folder, real gRPC calls of all four shapes through it, and then what a security team would do: list the calls,
//! read one, verify all, and find a single flipped bit in a copy. The commands that it prints are run as they stand, by this same program.

mod calls;
mod service;

use super::Running;
use crate::config::{self, Config};
use anyhow::{Context as _, bail, ensure};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Time for the demo's own calls to end.
const DRAIN: Duration = Duration::from_secs(5);

/// A text that the sample service sends, to be found in the ledger's bytes.
const WITNESS: &[u8] = b"rent for November";

/// Runs the demo; with `keep`, leaves sidecar and ledger there until Ctrl-C.
pub fn demo(keep: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let dir = folder()?;
    let upstream = runtime.block_on(service::start())?;
    let sidecar = Running::start(&configuration(&dir, upstream)?)?;
    let (address, key) = (sidecar.address(), sidecar.verifier_key().to_string());
    println!("service   127.0.0.1:{} (attestry.demo.v1.Accounts, health, reflection)", upstream.port());
    println!("sidecar   {address} -> service; every frame is in the ledger before it goes on");
    println!("ledger    {}\n", dir.join("ledger").display());

    runtime.block_on(calls::make(address))?;
    let shown = show(&dir, &key);
    if keep && shown.is_ok() {
        wait_for_interrupt(&runtime, &dir, address)?;
    }
    sidecar.stop("demo", DRAIN)?;
    // What failed is worth a look; what worked is not worth the space.
    if !keep && shown.is_ok() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    shown
}

fn folder() -> anyhow::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("attestry-demo-{:08x}", getrandom::u32()?));
    fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

fn configuration(dir: &Path, upstream: SocketAddr) -> anyhow::Result<Config> {
    let ledger = dir.join("ledger");
    let ledger = ledger.to_str().context("the temporary folder's name is not UTF-8; set TMPDIR")?;
    let text = format!(
        "[proxy]\nlisten = \"127.0.0.1:0\"\nupstream = \"{upstream}\"\nworkers = 1\n[ledger]\ndir = {ledger:?}\norigin = \"attestry.demo/accounts\"\n"
    );
    Ok(config::parse(Path::new("demo"), &text, std::iter::empty())?)
}

/// What a security team does afterwards.
fn show(dir: &Path, key: &str) -> anyhow::Result<()> {
    let ledger = dir.join("ledger");
    let ledger = ledger.to_str().context("the temporary folder's name is not UTF-8; set TMPDIR")?;
    attestry(&["calls", "--ledger", ledger], 0)?;
    let call = call_of(ledger, "Statement")?;
    attestry(&["show", &call, "--ledger", ledger], 0)?;
    attestry(&["verify", "--ledger", ledger, "--key", key], 0)?;

    let copy = dir.join("copy");
    let place = tampered_copy(Path::new(ledger), &copy)?;
    println!("One bit is flipped in a copy, {place}: \"{}\".\n", String::from_utf8_lossy(WITNESS));
    let copy = copy.to_str().context("the temporary folder's name is not UTF-8; set TMPDIR")?;
    attestry(&["verify", "--ledger", copy, "--key", key], 3)
}

/// Prints a command, runs it, and checks its exit code.
fn attestry(arguments: &[&str], expected: i32) -> anyhow::Result<()> {
    println!("$ attestry {}", arguments.join(" "));
    let status = this_program().args(arguments).status().context("cannot run this program again")?;
    println!();
    ensure!(status.code() == Some(expected), "it ended with {status}, not with exit code {expected}");
    Ok(())
}

fn this_program() -> Command {
    // Not by its path: a build may have replaced the file since.
    Command::new("/proc/self/exe")
}

/// The id of a call of `method`, as a script would find it.
fn call_of(ledger: &str, method: &str) -> anyhow::Result<String> {
    let output =
        this_program().args(["calls", "--ledger", ledger, "--method", method, "-o", "jsonl"]).output()?;
    let line = output.stdout.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let call: serde_json::Value =
        serde_json::from_slice(line).context("`attestry calls -o jsonl` printed no call")?;
    Ok(call["call_id"].as_str().context("a call without an id")?.to_owned())
}

/// Copies the ledger's evidence and flips one bit of a message in it; says where.
fn tampered_copy(ledger: &Path, copy: &Path) -> anyhow::Result<String> {
    let segments = copy.join("segments");
    fs::create_dir_all(&segments)?;
    for file in ["head", "origin"] {
        fs::copy(ledger.join(file), copy.join(file))?;
    }
    let mut place = None;
    for file in fs::read_dir(ledger.join("segments"))? {
        let file = file?;
        let mut bytes = fs::read(file.path())?;
        if let Some(at) = bytes.windows(WITNESS.len()).position(|window| window == WITNESS) {
            bytes[at] ^= 1;
            place = Some(format!("byte {at} of {}", file.file_name().display()));
        }
        fs::write(segments.join(file.file_name()), bytes)?;
    }
    let Some(place) = place else { bail!("the message that the service sent is not in the ledger") };
    Ok(place)
}

fn wait_for_interrupt(
    runtime: &tokio::runtime::Runtime,
    dir: &Path,
    address: SocketAddr,
) -> anyhow::Result<()> {
    println!("The sidecar goes on until Ctrl-C. Call it with any gRPC client, for example");
    println!(
        "  grpcurl -plaintext -d '{{\"account\": \"alice\"}}' {address} attestry.demo.v1.Accounts/GetBalance"
    );
    println!("and watch:");
    println!("  attestry tail --ledger {}", dir.join("ledger").display());
    runtime.block_on(tokio::signal::ctrl_c())?;
    println!("The ledger stays in {}", dir.join("ledger").display());
    Ok(())
}
