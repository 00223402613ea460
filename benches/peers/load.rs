//! h2load: the load of one run, and what it saw.
//!
//! A run in which anything but the right answers came is an error, never a number.

use super::figures::quantile;
use anyhow::{Context as _, bail, ensure};
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Connections, and streams on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) connections: u64,
    pub(super) streams: u64,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.connections, self.streams)
    }
}

/// One run.
pub(super) struct Load<'a> {
    pub(super) address: SocketAddr,
    pub(super) shape: Shape,
    pub(super) message: &'a [u8],
    pub(super) warm_up_s: u64,
    pub(super) seconds: u64,
    /// For the message and the log of requests; better not on the disk that the ledger is on.
    pub(super) folder: &'a Path,
}

/// What h2load saw between its warm-up and its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) calls: u64,
    data_bytes: u64,
    pub(super) calls_per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// Where the echo is called.
pub(super) fn url(address: SocketAddr) -> String {
    format!("http://{address}/attestry.bench.Echo/Unary")
}

/// What h2load says that it is, if it is installed.
pub(super) fn version() -> Option<String> {
    let output = Command::new("h2load").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

impl Load<'_> {
    /// Runs it; `meanwhile` is called with h2load's process id once it has begun, and is to return before it ends.
    pub(super) fn run<T>(
        &self,
        meanwhile: impl FnOnce(u32) -> anyhow::Result<T>,
    ) -> anyhow::Result<(Seen, T)> {
        let (message, log) = (self.folder.join("message"), self.folder.join("requests.log"));
        std::fs::write(&message, self.message)?;
        let child = self.command(&message, &log).spawn().context("h2load cannot be started")?;
        let during = meanwhile(child.id());
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "h2load ended with {}:\n{text}", output.status);
        let seen = self.seen(&text, &log).with_context(|| format!("h2load said:\n{text}"))?;
        std::fs::remove_file(log)?;
        Ok((seen, during?))
    }

    fn command(&self, message: &Path, log: &PathBuf) -> Command {
        let Shape { connections, streams } = self.shape;
        let mut command = Command::new("h2load");
        command
            .args([format!("--clients={connections}"), format!("--max-concurrent-streams={streams}")])
            .args([format!("--duration={}", self.seconds), format!("--warm-up-time={}", self.warm_up_s)])
            .args(["--threads=1", "--header=content-type: application/grpc", "--header=te: trailers"])
            .arg("--data")
            .arg(message)
            .arg("--log-file")
            .arg(log)
            .arg(url(self.address))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        command
    }

    fn seen(&self, text: &str, log: &Path) -> anyhow::Result<Seen> {
        let requests = line(text, "requests:")?;
        let succeeded = number_before(requests, " succeeded")?;
        for wrong in [" failed", " errored", " timeout"] {
            ensure!(number_before(requests, wrong)? == 0, "not every call succeeded");
        }
        let others = [" 3xx", " 4xx", " 5xx"].map(|class| number_before(line(text, "status codes:")?, class));
        for other in others {
            ensure!(other? == 0, "not every status was 2xx");
        }
        let mut latencies = latencies_us(log, self.shape.connections * self.shape.streams)?;
        ensure!(latencies.len() as u64 >= succeeded, "the log of requests is shorter than their number");
        latencies.sort_unstable();
        Ok(Seen {
            calls: succeeded,
            data_bytes: number_before(line(text, "traffic:")?, ") data")?,
            calls_per_s: succeeded as f64 / self.seconds as f64,
            p50_us: quantile(&latencies, 0.5),
            p99_us: quantile(&latencies, 0.99),
        })
    }

    /// Checks that as many bytes of messages came back as `answered` calls have. h2load counts its warm-up's bytes in some versions and not in others; calls in flight
    /// at an edge count with a part of theirs.
    pub(super) fn check_bytes(&self, seen: &Seen, answered: u64) -> anyhow::Result<()> {
        let message_bytes = self.message.len() as u64;
        let slack_bytes = 2 * self.shape.connections * self.shape.streams * message_bytes;
        let fits = |calls: u64| seen.data_bytes.abs_diff(calls * message_bytes) <= slack_bytes;
        ensure!(
            fits(seen.calls) || fits(answered),
            "{} bytes of data came back in {} calls ({answered} with the warm-up) of {message_bytes}",
            seen.data_bytes,
            seen.calls
        );
        Ok(())
    }
}

/// The third column of h2load's log: microseconds until the end of the response. A response whose headers came within the warm-up has no status
/// there, so as many may lack one as can be in flight at that edge.
fn latencies_us(log: &Path, in_flight_max: u64) -> anyhow::Result<Vec<u64>> {
    let (mut latencies, mut without_status) = (Vec::new(), 0);
    for line in BufReader::new(File::open(log)?).lines() {
        let line = line?;
        let mut columns = line.split('\t').skip(1);
        match (columns.next(), columns.next()) {
            (Some("200"), Some(latency)) => latencies.push(latency.parse()?),
            (Some("0"), Some(latency)) => {
                without_status += 1;
                latencies.push(latency.parse()?);
            }
            _ => bail!("a request of h2load's log did not end with status 200: {line:?}"),
        }
    }
    ensure!(without_status <= in_flight_max, "{without_status} requests of h2load's log have no status");
    ensure!(!latencies.is_empty(), "h2load logged no request");
    Ok(latencies)
}

fn line<'a>(text: &'a str, prefix: &str) -> anyhow::Result<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(prefix))
        .with_context(|| format!("no line begins with {prefix:?}"))
}

/// The digits in front of `word`.
fn number_before(line: &str, word: &str) -> anyhow::Result<u64> {
    let before = line.split_once(word).with_context(|| format!("{word:?} is not in {line:?}"))?.0;
    let digits = before.len() - before.bytes().rev().take_while(u8::is_ascii_digit).count();
    Ok(before[digits..].parse()?)
}
