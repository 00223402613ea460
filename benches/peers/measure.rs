//! One run: a peer started for it alone, one call looked at closely, the load, and what was seen of it; everything gone again at its end.
//!
//! Before each run the file system is synced, so that nobody pays for what the one before has written. attestry's ledger is new in each run.

use super::backend::Service;
use super::bulk_load::{self, Streams};
use super::case::Work;
use super::install::Programs;
use super::load::{Load, Shape};
use super::machine::Cores;
use super::peer::Peer;
use super::running::{Backend, Running};
use super::stored::Stored;
use super::support::sidecar;
use super::usage::Cost;
use super::watch::{Moment, Watch, Watched, memory_mib};
use super::{bulk_service, echo};
use anyhow::{Context as _, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Payload of the call that is looked at closely before a load that is not of unary calls.
const LOOKED_AT_BYTES: u32 = 100;
/// Time for a proxy to come to rest before its memory at rest is read.
const REST: Duration = Duration::from_millis(300);

/// What all runs have in common.
pub(super) struct Bench {
    pub(super) programs: Programs,
    pub(super) cores: Cores,
    pub(super) backend: Backend,
    /// For ledgers and whatever else the peers write: beside the build, on a disk.
    pub(super) folder: PathBuf,
    /// For h2load's files: in memory where that is possible, so that they cost the ledger's disk nothing.
    pub(super) scratch: PathBuf,
    pub(super) warm_up_s: u64,
    /// Runs so far, each with a folder of its own.
    pub(super) runs: u64,
}

/// What one run gave.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Calls, or messages of bulk, per second.
    pub(super) per_s: f64,
    /// Of payload, where that is the subject.
    pub(super) mb_per_s: Option<f64>,
    pub(super) latency: Option<Latency>,
    /// Per call, or message of bulk; `None` where there is no proxy.
    pub(super) cost: Option<Cost>,
    pub(super) memory: Option<Memory>,
    /// Of attestry.
    pub(super) stored: Option<StoredOf>,
    /// Percent.
    pub(super) cores_busy: Vec<f64>,
    /// Percent of the machine.
    pub(super) others: f64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// Resident.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_field_names, reason = "the unit belongs into the name")]
pub(super) struct Memory {
    /// Before the first call.
    pub(super) idle_mib: f64,
    /// With the load on it, at the end of what was watched.
    pub(super) loaded_mib: f64,
    /// The most at any time.
    pub(super) peak_mib: f64,
}

/// A ledger, and how many calls or messages it is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredOf {
    pub(super) ledger: Stored,
    pub(super) exchanges: u64,
}

/// What a load gives, before the proxy is stopped.
struct Loaded {
    per_s: f64,
    mb_per_s: Option<f64>,
    latency: Option<Latency>,
    watched: Watched,
    exchanges: u64,
}

impl Bench {
    /// One run of `seconds`. With `verifies`, attestry's ledger has to be found intact.
    pub(super) fn measure(
        &mut self,
        work: Work,
        peer: Peer,
        seconds: u64,
        verifies: bool,
    ) -> anyhow::Result<Measured> {
        self.runs += 1;
        let folder = self.folder.join(format!("run-{}", self.runs));
        fs::create_dir(&folder)?;
        sync(&folder)?;
        let address = self.backend.address(service(work));
        let running = Running::start(peer, address, &self.programs, self.cores, &folder)?;
        let pid = running.meter.as_ref().map(|meter| meter.pid);
        let idle_mib = pid.map(|pid| {
            thread::sleep(REST);
            memory_mib(pid, "VmRSS")
        });
        let loaded = match work {
            Work::Unary { shape, payload_bytes } => self.unary(&running, shape, payload_bytes, seconds)?,
            Work::Streams { connections } => self.streams(&running, connections, seconds)?,
            Work::Upload { messages } => self.upload(&running, messages)?,
            Work::Idle { connections } => self.idle(&running, connections)?,
        };
        let memory = pid.zip(idle_mib).map(|(pid, idle_mib)| {
            let loaded_mib = loaded.watched.cost.as_ref().map_or(f64::NAN, |cost| cost.rss_mib);
            anyhow::Ok(Memory { idle_mib: idle_mib?, loaded_mib, peak_mib: memory_mib(pid, "VmHWM")? })
        });
        let memory = memory.transpose()?;
        let ledger = running.stop();
        let stored = ledger.map(|ledger| look_at(&ledger, loaded.exchanges, verifies)).transpose()?;
        Ok(Measured {
            per_s: loaded.per_s,
            mb_per_s: loaded.mb_per_s,
            latency: loaded.latency,
            cost: loaded.watched.cost,
            memory,
            stored,
            cores_busy: loaded.watched.cores_busy,
            others: loaded.watched.others,
        })
    }

    fn unary(
        &mut self,
        running: &Running,
        shape: Shape,
        payload_bytes: u32,
        seconds: u64,
    ) -> anyhow::Result<Loaded> {
        let message = echo::message(payload_bytes);
        echo::check(running.address, &message).context("the call before the load")?;
        let (address, folder, warm_up_s) = (running.address, self.scratch.clone(), self.warm_up_s);
        let load = Load { address, shape, message: &message, warm_up_s, seconds, folder: &folder };
        let before = self.backend.calls()?;
        let (seen, watched) = load.run(|h2load| {
            let watch = self.watch(running, &[h2load]);
            // Costs are those of the middle of the run: neither its warm-up nor its end is in them.
            thread::sleep(Duration::from_millis(warm_up_s * 1000 + seconds * 100));
            let first = watch.moment(self.backend.calls()?)?;
            thread::sleep(Duration::from_millis(seconds * 800));
            Ok(watch.moment(self.backend.calls()?)?.since(&first))
        })?;
        let is_counted = watched.cost.as_ref().is_none_or(|cost| cost.cpu_us_per_call.is_finite());
        ensure!(is_counted, "no call was answered in the middle of the run");
        let answered = self.backend.calls()? - before;
        load.check_bytes(&seen, answered)?;
        ensure!(answered >= seen.calls, "of {} answered calls the backend has seen {answered}", seen.calls);
        echo::check(running.address, &message).context("the call behind the load")?;
        Ok(Loaded {
            per_s: seen.calls_per_s,
            mb_per_s: None,
            latency: Some(Latency { p50_us: seen.p50_us, p99_us: seen.p99_us }),
            watched,
            // With the two that were looked at.
            exchanges: answered + 2,
        })
    }

    fn streams(&self, running: &Running, connections: u32, seconds: u64) -> anyhow::Result<Loaded> {
        let watch = self.watch(running, &[]);
        let (warm_up, window) = (Duration::from_secs(self.warm_up_s), Duration::from_secs(seconds));
        let load = Streams { address: running.address, connections, warm_up, window };
        let (per_s, first, last) = load.run(|messages| Ok((messages, watch.moment(messages)?)))?;
        Ok(Loaded {
            per_s,
            mb_per_s: Some(per_s * bulk_service::STREAMED_PAYLOAD_BYTES as f64 / 1e6),
            latency: None,
            watched: last.1.since(&first.1),
            exchanges: last.0,
        })
    }

    fn upload(&self, running: &Running, messages: u32) -> anyhow::Result<Loaded> {
        let watch = self.watch(running, &[]);
        let first = watch.moment(0)?;
        let took = bulk_load::upload(running.address, u64::from(messages))?;
        let watched = watch.moment(u64::from(messages))?.since(&first);
        let per_s = f64::from(messages) / took.as_secs_f64();
        Ok(Loaded {
            per_s,
            mb_per_s: Some(per_s * bulk_load::UPLOADED_PAYLOAD_BYTES as f64 / 1e6),
            latency: None,
            watched,
            exchanges: u64::from(messages),
        })
    }

    fn idle(&self, running: &Running, connections: u32) -> anyhow::Result<Loaded> {
        echo::check(running.address, &echo::message(LOOKED_AT_BYTES))?;
        let watch = self.watch(running, &[]);
        let first = watch.moment(0)?;
        let clients = bulk_load::idle(running.address, connections)?;
        thread::sleep(REST);
        let last: Moment = watch.moment(u64::from(connections))?;
        let seconds = last.seconds_since(&first);
        drop(clients);
        Ok(Loaded {
            per_s: f64::from(connections) / seconds,
            mb_per_s: None,
            latency: None,
            watched: last.since(&first),
            exchanges: u64::from(connections) + 1,
        })
    }

    fn watch<'a>(&self, running: &'a Running, more: &[u32]) -> Watch<'a> {
        let meter = running.meter.as_ref();
        let own = [std::process::id(), self.backend.pid()];
        let own = own.into_iter().chain(more.iter().copied()).chain(meter.map(|meter| meter.pid));
        Watch { meter, own: own.collect() }
    }
}

fn service(work: Work) -> Service {
    match work {
        Work::Unary { .. } | Work::Idle { .. } => Service::Echo,
        Work::Streams { .. } => Service::Stream,
        Work::Upload { .. } => Service::Sink,
    }
}

/// What the ledger holds; it goes then.
fn look_at(ledger: &Path, exchanges: u64, verifies: bool) -> anyhow::Result<StoredOf> {
    if verifies {
        sidecar::verify(ledger);
    }
    let stored = Stored::of(ledger)?;
    fs::remove_dir_all(ledger)?;
    Ok(StoredOf { ledger: stored, exchanges })
}

/// Has everything written that the page cache holds of this file system.
fn sync(folder: &Path) -> anyhow::Result<()> {
    let status = Command::new("sync").arg("--file-system").arg(folder).status().context("sync")?;
    ensure!(status.success(), "sync ended with {status}");
    Ok(())
}
