//! `attestry run`: ledger, data path, signals; and the same in reverse.
//!
//! Start: configuration, listening socket, ledger (its first entries are durable), workers. Stop (SIGTERM or SIGINT): accept no more, GOAWAY to clients, let open calls end within
//! `drain_timeout`, commit, write the last entry. SIGHUP is reserved, and ignored.

use crate::capture::{Level, Limits, Policy, Redactor};
use crate::clock::{Clock, SystemClock};
use crate::config::{CaptureLevel, Config, OnFailure, Upstream};
use crate::counters::Counters;
use crate::generated::v1;
use crate::http2::UnitLimits;
use crate::ledger::{self, Ledger, open::Location};
use crate::note::VerifierKey;
use crate::proxy::{self, DrainSignals, Listeners};
use anyhow::Context as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs until a signal ends it.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reason = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let running = Running::start(config)?;
        println!("listening on {}", running.address());
        std::io::stdout().flush()?;
        let reason = signals.ended().await;
        tracing::info!(reason, "draining");
        anyhow::Ok((running, reason))
    });
    let (running, reason) = reason?;
    running.stop(reason, config.proxy.drain_timeout)
}

/// A running sidecar.
pub struct Running {
    ledger: Ledger,
    listeners: Listeners,
    drain: DrainSignals,
    counters: Arc<Counters>,
}

impl Running {
    /// Starts everything; when this returns, connections are accepted.
    pub fn start(config: &Config) -> anyhow::Result<Self> {
        let listener = proxy::bind(config.proxy.listen)
            .with_context(|| format!("cannot listen on {} ([proxy] listen)", config.proxy.listen))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let counters = Arc::new(Counters::default());
        let ledger = Ledger::start(
            &ledger_options(config),
            Arc::clone(&clock),
            Arc::clone(&counters),
            started(config),
        )?;
        tracing::info!(ledger = %config.ledger.dir.display(), key = %ledger.verifier_key(), "ledger open");
        let drain = DrainSignals { started: CancellationToken::new(), expired: CancellationToken::new() };
        let options = proxy::Options {
            upstream: upstream(&config.proxy.upstream),
            connect_timeout: config.proxy.connect_timeout,
            hold_bytes_max: config.limits.hold_bytes_max,
            limits: limits(config),
            connections_max: config.limits.connections_max.get(),
            policy: Policy {
                level: level(config.capture.level),
                redactor: Redactor::new(ledger.redaction_key()),
            },
            port: ledger.handle(),
            clock,
            counters: Arc::clone(&counters),
            drain: drain.clone(),
        };
        let workers = config
            .proxy
            .workers
            .or_else(|| thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN);
        let listeners =
            Listeners::start(listener, workers, &options).context("cannot start the data path")?;
        Ok(Self { ledger, listeners, drain, counters })
    }

    /// Where connections are accepted.
    pub fn address(&self) -> SocketAddr {
        self.listeners.address()
    }

    /// The key that the ledger verifies under.
    pub fn verifier_key(&self) -> &VerifierKey {
        self.ledger.verifier_key()
    }

    /// Drains within `limit`, commits what is left, writes the last entry, and ends.
    pub fn stop(self, reason: &str, limit: Duration) -> anyhow::Result<()> {
        let Self { ledger, listeners, drain, counters } = self;
        let connections = listeners.close();
        drain.started.cancel();
        let (drained, wait) = std::sync::mpsc::channel::<()>();
        let expired = drain.expired.clone();
        let alarm = thread::spawn(move || {
            if wait.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                expired.cancel();
            }
        });
        connections.join();
        drop(drained);
        let _ = alarm.join();
        ledger.stop(reason).context("the ledger's last entry could not be written")?;
        let counters = counters.snapshot();
        tracing::info!(?counters, "stopped");
        Ok(())
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The signal that asks for the end.
    async fn ended(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => tracing::info!("SIGHUP is reserved for reload and does nothing yet"),
            }
        }
    }
}

fn ledger_options(config: &Config) -> ledger::Options {
    let ledger = &config.ledger;
    ledger::Options {
        location: Location {
            dir: ledger.dir.clone(),
            key_file: ledger.key_file.clone(),
            origin: ledger.origin.clone(),
            segment_bytes: ledger.segment_bytes,
        },
        on_failure: match ledger.on_failure {
            OnFailure::Refuse => ledger::OnFailure::Refuse,
            OnFailure::Forward => ledger::OnFailure::Forward,
        },
        commit_wait_max: ledger.commit_wait_max,
        recovery_interval: ledger.recovery_interval,
        queue_max: config.limits.commit_queue_max,
        batch_bytes_max: ledger.batch_bytes_max,
        db_cache_bytes: ledger.db_cache_bytes,
    }
}

fn started(config: &Config) -> v1::Started {
    let identity = &config.identity;
    v1::Started {
        attestry_version: env!("CARGO_PKG_VERSION").into(),
        config_sha256: config.digest().to_vec().into(),
        identity: Some(v1::Identity {
            pod: identity.pod.clone(),
            namespace: identity.namespace.clone(),
            node: identity.node.clone(),
            service_account: identity.service_account.clone(),
        }),
        ..Default::default()
    }
}

fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        units: UnitLimits {
            frame_bytes_max: limits.frame_bytes_max,
            header_list_bytes_max: limits.header_list_bytes_max,
            continuations_max: limits.continuations_max,
        },
        streams_max: limits.streams_max.get(),
    }
}

fn level(level: CaptureLevel) -> Level {
    match level {
        CaptureLevel::RequestResponse => Level::RequestResponse,
        CaptureLevel::Request => Level::Request,
        CaptureLevel::Metadata => Level::Metadata,
        CaptureLevel::None => Level::None,
    }
}

fn upstream(upstream: &Upstream) -> proxy::Upstream {
    match upstream {
        Upstream::Address(address) => proxy::Upstream::Address(*address),
        Upstream::Name { host, port } => proxy::Upstream::Name(host.clone(), *port),
    }
}
