//! Clients for which there is no room: each connects, calls, is turned away, waits, and begins again.
//!
//! They are a process of their own (the benchmark's binary, told so by a command), of a low priority, so that they delay the clients that are inside as little as
//! clients on other machines would. It begins when it is told so, and ends with its standard input.

use super::client::{Client, Ended, message};
use super::figures::quantile;
use super::support::process::Process;
use anyhow::Context as _;
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The end of the last tries, each of which is bounded.
const END_BOUND: Duration = Duration::from_mins(1);

/// Who knocks where, and how often.
#[derive(Clone, clap::Args)]
pub(super) struct Knocking {
    address: SocketAddr,
    clients: u32,
    pause_ms: u64,
}

/// The running process.
pub(super) struct Knockers {
    process: Process,
}

/// What they have met.
#[derive(Clone, Debug, Default)]
pub(super) struct Met {
    pub(super) unavailable: u64,
    pub(super) reset: u64,
    pub(super) answered: u64,
    pub(super) failed: u64,
    /// From the beginning of the connection to the client's knowing that it is turned away.
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) max_us: u64,
}

impl Knockers {
    pub(super) fn start(
        address: SocketAddr,
        clients: u32,
        pause: Duration,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new("nice");
        command.args(["-n", "10"]).arg(std::env::current_exe()?).arg("knock");
        command.args([address.to_string(), clients.to_string(), pause.as_millis().to_string()]);
        let process = Process::start("knock", &mut command, folder);
        process.line_after("knocking", END_BOUND);
        Ok(Self { process })
    }

    pub(super) fn end(mut self) -> anyhow::Result<Met> {
        self.process.say("");
        let line = self.process.line_after("met ", END_BOUND);
        let figures: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [unavailable, reset, answered, failed, p50_us, p99_us, max_us] =
            figures[..].try_into().context("seven figures")?;
        Ok(Met { unavailable, reset, answered, failed, p50_us, p99_us, max_us })
    }

    /// What it wrote to standard error.
    pub(super) fn stderr(&self) -> String {
        self.process.stderr()
    }
}

/// Is the process.
pub(super) fn knock(knocking: &Knocking) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (met, latencies_us, is_over) =
        (Arc::<Mutex<Met>>::default(), Arc::<Mutex<Vec<u64>>>::default(), Arc::<AtomicBool>::default());
    let over = Arc::clone(&is_over);
    println!("knocking");
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read_line(&mut String::new());
        over.store(true, Ordering::Relaxed);
    });
    runtime.block_on(async {
        let mut clients = tokio::task::JoinSet::new();
        let pause = Duration::from_millis(knocking.pause_ms);
        for number in 0..knocking.clients {
            let (met, latencies_us, is_over) =
                (Arc::clone(&met), Arc::clone(&latencies_us), Arc::clone(&is_over));
            let (address, in_all) = (knocking.address, knocking.clients);
            clients.spawn(async move {
                // Not all at the same moment, as clients with a pause of their own are not.
                tokio::time::sleep(pause * number / in_all).await;
                while !is_over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let ended = once(address).await;
                    let latency_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                    count(&met, &latencies_us, &ended, latency_us);
                    tokio::time::sleep(pause).await;
                }
            });
        }
        clients.join_all().await;
    });
    let mut latencies_us = latencies_us.lock().unwrap_or_else(PoisonError::into_inner);
    latencies_us.sort_unstable();
    let met = met.lock().unwrap_or_else(PoisonError::into_inner);
    let [p50, p99] = [0.5, 0.99].map(|share| quantile(&latencies_us, share) as u64);
    let max = latencies_us.last().copied().unwrap_or_default();
    println!("met {} {} {} {} {p50} {p99} {max}", met.unavailable, met.reset, met.answered, met.failed);
    Ok(())
}

async fn once(address: SocketAddr) -> Ended {
    match Client::connect(address).await {
        Ok(client) => client.unary(&message(100)).await,
        Err(ended) => ended,
    }
}

fn count(met: &Mutex<Met>, latencies_us: &Mutex<Vec<u64>>, ended: &Ended, latency_us: u64) {
    let mut met = met.lock().unwrap_or_else(PoisonError::into_inner);
    let counted = match ended {
        Ended::Unavailable => &mut met.unavailable,
        Ended::Reset => &mut met.reset,
        Ended::Answered => &mut met.answered,
        Ended::Failed(reason) => {
            eprintln!("{reason}");
            &mut met.failed
        }
    };
    *counted += 1;
    if matches!(ended, Ended::Unavailable | Ended::Reset) {
        latencies_us.lock().unwrap_or_else(PoisonError::into_inner).push(latency_us);
    }
}
