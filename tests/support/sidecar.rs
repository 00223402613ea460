//! `attestry run` in front of a test's own server: started on a free port, its ledger in a temporary folder.
//!
//! The real binary is what runs, configured by a file as a user would. `verify` and `calls` run the real binary too.
//! Dropping a `Sidecar` kills it; `stop` is the orderly end, which must come within a bound and with exit code 0.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;

const START_BOUND: Duration = Duration::from_mins(1);
const STOP_BOUND: Duration = Duration::from_mins(1);
/// Small, so that tests cross segments; it is also the smallest that the configuration allows with room for one frame.
const SEGMENT_BYTES: &str = "4194304";

/// A running sidecar.
pub(crate) struct Sidecar {
    /// Where clients connect.
    pub(crate) addr: SocketAddr,
    /// The ledger's folder.
    pub(crate) ledger_dir: PathBuf,
    /// The configuration file that it was started with.
    pub(crate) config: PathBuf,
    process: Process,
    /// Goes with the sidecar, and the ledger with it unless it was given a place of its own.
    folder: TempDir,
}

/// What a sidecar is to be started with.
pub(crate) struct Builder {
    settings: BTreeMap<String, BTreeMap<String, String>>,
    env: Vec<(String, String)>,
    ledger_dir: Option<PathBuf>,
    wrapper: Vec<String>,
}

impl Sidecar {
    /// Starts `attestry run` in front of `upstream`, everything else as by default.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        Self::builder(upstream).start()
    }

    /// Begins a description of a sidecar in front of `upstream`.
    pub(crate) fn builder(upstream: SocketAddr) -> Builder {
        let builder =
            Builder { settings: BTreeMap::new(), env: Vec::new(), ledger_dir: None, wrapper: Vec::new() };
        builder
            .set("proxy", "listen", "\"127.0.0.1:0\"")
            .set("proxy", "upstream", &format!("\"{upstream}\""))
            .set("ledger", "segment_bytes", SEGMENT_BYTES)
    }

    /// The process id: of the wrapper, if there is one.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends a signal by its name without SIG.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Asks for the orderly end (SIGTERM), which must come within a bound and with exit code 0.
    pub(crate) fn stop(&mut self) {
        self.process.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "attestry run ended with {status}; its standard error:\n{}", self.stderr());
    }

    /// Waits for an end that the test has asked for in another way.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait(STOP_BOUND)
    }

    /// Ends it as a crash would (SIGKILL).
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.process.kill()
    }

    /// The end of what it logged.
    pub(crate) fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// `attestry verify` on its ledger must find it intact.
    pub(crate) fn verify(&self) {
        verify(&self.ledger_dir);
    }

    /// What `attestry calls -o jsonl` lists.
    pub(crate) fn calls(&self) -> Vec<Value> {
        calls(&self.ledger_dir)
    }
}

impl Drop for Sidecar {
    /// Where a test failed and `KEEP_FAILED_LEDGER` is set, the ledger stays for a look.
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("KEEP_FAILED_LEDGER").is_some() {
            self.folder.disable_cleanup(true);
            eprintln!("the ledger is kept in {}", self.ledger_dir.display());
        }
    }
}

impl Builder {
    /// Sets one key; `value` is TOML, so a string brings its quotes along.
    pub(crate) fn set(mut self, section: &str, key: &str, value: &str) -> Self {
        self.settings.entry(section.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets an environment variable of the sidecar.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts the ledger there, where it outlives the sidecar.
    pub(crate) fn ledger_dir(mut self, folder: &Path) -> Self {
        self.ledger_dir = Some(folder.to_owned());
        self
    }

    /// Runs the sidecar under a command, such as `strace -f -o FILE`.
    pub(crate) fn wrapper(mut self, command: &[&str]) -> Self {
        self.wrapper = command.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// Starts it, and waits until it listens.
    pub(crate) fn start(self) -> Sidecar {
        let folder = tempfile::tempdir().unwrap();
        let ledger_dir = self.ledger_dir.clone().unwrap_or_else(|| folder.path().join("ledger"));
        let config = folder.path().join("proxy.toml");
        fs::write(&config, self.to_toml(&ledger_dir)).unwrap();
        let program: Vec<&str> = self.wrapper.iter().map(String::as_str).chain([program()]).collect();
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).args(["run", "--config"]).arg(&config);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let process = Process::start("attestry", &mut command, folder.path());
        let line = process.line_after("listening on ", START_BOUND);
        // Behind the address may stand which way its traffic goes.
        let addr = line.split(' ').next().unwrap_or_default();
        let addr = addr.parse().unwrap_or_else(|error| panic!("attestry listens on {addr:?}: {error}"));
        Sidecar { addr, ledger_dir, config, process, folder }
    }

    fn to_toml(&self, ledger_dir: &Path) -> String {
        let mut settings = self.settings.clone();
        let ledger = settings.entry("ledger".to_owned()).or_default();
        ledger.insert("dir".to_owned(), format!("{:?}", ledger_dir.to_str().unwrap()));
        let mut text = String::new();
        for (section, keys) in &settings {
            writeln!(text, "[{section}]").unwrap();
            for (key, value) in keys {
                writeln!(text, "{key} = {value}").unwrap();
            }
        }
        text
    }
}

/// The binary under test.
pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_attestry")
}

/// Runs the binary under test to its end.
pub(crate) fn attestry(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

/// `attestry verify` must find the ledger intact.
pub(crate) fn verify(ledger_dir: &Path) {
    let output = attestry(&["verify", "--ledger", ledger_dir.to_str().unwrap()]);
    assert!(
        output.status.success(),
        "attestry verify ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What `attestry calls -o jsonl` lists.
pub(crate) fn calls(ledger_dir: &Path) -> Vec<Value> {
    let output = attestry(&["calls", "--ledger", ledger_dir.to_str().unwrap(), "-o", "jsonl"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "attestry calls ended with {}:\n{errors}", output.status);
    let lines = String::from_utf8(output.stdout).expect("attestry calls prints UTF-8");
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line of jsonl is a JSON value"))
        .collect()
}
