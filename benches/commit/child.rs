//! A ledger in a process of its own, which can be killed: it starts, says what that took, fills the ledger, and goes on committing until it is told to stop.
//!
//! The benchmark starts itself so. The two talk in lines: "ready ..." and "filled ..." from the child, "stop" or an end of the input to it.

use super::entries::Entries;
use super::ledgers::{Extent, Place, Running};
use super::sweep::Shape;
use super::threads;
use anyhow::{Context as _, ensure};
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _, stdin, stdout};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Submissions that are with the ledger at a time.
const IN_FLIGHT: usize = 16;

/// Bytes between two looks at how far the log has come.
const BYTES_PER_LOOK: u64 = 1024 * 1024;

/// What a start took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    /// Until the ledger took submissions, its first entries durable.
    pub(super) ms: f64,
    /// CPU of the starting thread.
    pub(super) cpu_ms: f64,
    /// Bytes that the starting thread read from files.
    pub(super) own_bytes: u64,
    /// Bytes that all threads read until then: those of the index thread, which makes up in the background for what the tables lack, included.
    pub(super) all_bytes: u64,
}

/// How far a filled ledger has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    pub(super) commits: u64,
    pub(super) seconds: f64,
}

/// A ledger in its process. Dropped, it is killed.
pub(super) struct Filler {
    child: Child,
    lines: BufReader<ChildStdout>,
    pub(super) ready: Ready,
    pub(super) filled: Filled,
}

impl Filler {
    /// Starts the ledger there, and waits until `fill_bytes` more are in the log and its newest segment holds `newest_bytes` at least.
    pub(super) fn run(
        place: &Place,
        shape: Shape,
        fill_bytes: u64,
        newest_bytes: u64,
    ) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--child")
            .arg(&place.dir)
            .args(["--segment-bytes", &place.segment_bytes.to_string()])
            .args(["--batch", &shape.batch.to_string(), "--payload", &shape.payload_bytes.to_string()])
            .args(["--fill-bytes", &fill_bytes.to_string(), "--newest-bytes", &newest_bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("the child has no output")?);
        let ready = figures(&mut lines, "ready")?;
        let filled = figures(&mut lines, "filled")?;
        let (ready, filled) = match (&ready[..], &filled[..]) {
            (&[ms, cpu_ms, own, all], &[commits, seconds]) => (
                Ready { ms, cpu_ms, own_bytes: own as u64, all_bytes: all as u64 },
                Filled { commits: commits as u64, seconds },
            ),
            _ => anyhow::bail!("the child says something else"),
        };
        Ok(Self { child, lines, ready, filled })
    }

    /// Kills it in the middle of its commits.
    pub(super) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Has it stop as a sidecar does.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.lines.read_line(&mut rest)?;
        let status = self.child.wait()?;
        ensure!(status.success() && rest.trim() == "stopped", "the child ended with {status}");
        Ok(())
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // Both fail where it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn figures(lines: &mut impl std::io::BufRead, word: &str) -> anyhow::Result<Vec<f64>> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let figures = line.trim().strip_prefix(word).with_context(|| format!("the child did not say {word}"))?;
    Ok(figures.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

/// The child's side.
pub(super) fn serve(place: &Place, shape: Shape, fill_bytes: u64, newest_bytes: u64) -> anyhow::Result<()> {
    let (own_before, all_before) = (threads::own_bytes_read()?, threads::process_bytes_read()?);
    let (cpu_before_us, begin) = (threads::own_cpu_us()?, Instant::now());
    let mut running = Running::start(place)?;
    let ms = begin.elapsed().as_secs_f64() * 1e3;
    let all_bytes = threads::process_bytes_read()? - all_before;
    let own_bytes = threads::own_bytes_read()? - own_before;
    let cpu_ms = (threads::own_cpu_us()? - cpu_before_us) / 1e3;
    say(&format!("ready {ms} {cpu_ms} {own_bytes} {all_bytes}"))?;

    let end = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&end);
    thread::spawn(move || {
        // A line, an end and an error all mean the same.
        let _ = stdin().lock().read_line(&mut String::new());
        told.store(true, Ordering::Relaxed);
    });
    let first = Extent::read(&place.dir)?.log_bytes;
    let is_filled = || {
        let extent = Extent::read(&place.dir)?;
        Ok(extent.log_bytes - first >= fill_bytes && extent.newest_bytes >= newest_bytes)
    };
    load(&mut running, shape, &end, is_filled)?;
    running.stop()?;
    say("stopped")
}

/// Commits until `end`: at full speed until `is_filled`, which is then said, and a few at a time from there on.
fn load(
    running: &mut Running,
    shape: Shape,
    end: &AtomicBool,
    is_filled: impl Fn() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let commits_per_look = (BYTES_PER_LOOK / shape.frame_bytes()).max(1);
    let (mut entries, begin) = (Entries::new(shape.payload_bytes), Instant::now());
    let (mut waiting, mut commits, mut is_done) = (VecDeque::new(), 0_u64, false);
    while !end.load(Ordering::Relaxed) {
        if waiting.len() >= IN_FLIGHT
            && let Some(commit) = waiting.pop_front()
        {
            running.receive(commit)?;
        }
        waiting.push_back(running.submit(entries.batch(shape.batch))?);
        commits += 1;
        if is_done {
            // Slow, but never at rest: so a kill falls between a write and its sync now and then.
            thread::sleep(Duration::from_micros(100));
        } else if commits.is_multiple_of(commits_per_look) && is_filled()? {
            say(&format!("filled {commits} {}", begin.elapsed().as_secs_f64()))?;
            is_done = true;
        }
    }
    waiting.into_iter().try_for_each(|commit| running.receive(commit))
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
