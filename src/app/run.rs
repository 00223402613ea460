//! `attestry run`: certificates, ledger, data path, signals; and the same in reverse.
//!
//! Start: listening sockets, certificates, ledger (its first entries are durable), workers. Stop (SIGTERM or SIGINT): accept nothing more for the workload, GOAWAY to its clients,
//! let open calls end within `drain_timeout`, and meanwhile still serve what the workload itself calls; commit, write the last entry. SIGHUP is reserved, and ignored.

use super::admin::Admin;
use super::data_path;
use super::descriptors;
use super::life::{self, Life, Parts};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, OnFailure};
use crate::counters::Counters;
use crate::credentials;
use crate::entry::{Body, PendingEntry, Submission};
use crate::generated::v1::{self, Traffic};
use crate::ledger::{self, Ledger, LedgerHandle, open::Location};
use crate::limits::OUTBOUND_QUIET_MS;
use crate::note::VerifierKey;
use crate::proxy::{Listeners, Role};
use anyhow::{Context as _, bail};
use std::future::poll_fn;
use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tower::Service as _;

/// Runs until a signal ends it.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals::new()?
    };
    descriptors::raise_limit(config.limits.connections_max.get());
    let running = runtime.block_on(start(config.clone(), &mut signals))?;
    for (address, role) in &running.listening {
        let kind = if role.traffic == Traffic::Outbound { " (outbound)" } else { "" };
        println!("listening on {address}{kind}");
    }
    std::io::stdout().flush()?;
    let reason = runtime.block_on(signals.ended());
    tracing::info!(reason, "draining");
    running.stop(reason, config.proxy.drain_timeout)
}

/// Starts, unless a signal comes first: what a start needs may never answer.
async fn start(config: Config, signals: &mut Signals) -> anyhow::Result<Running> {
    let (started, starting) = oneshot::channel();
    // Nobody waits for this thread. Where a signal comes first the process ends under it, which to the ledger is a crash, and as safe as one.
    let run = move || drop(started.send(Running::start(&config)));
    thread::Builder::new().name("start".into()).spawn(run)?;
    tokio::select! {
        running = starting => running.context("the start panicked; the log says where")?,
        reason = signals.ended() => bail!("ended by {reason} during the start"),
    }
}

/// Whether the instructions are there that sha2 uses for SHA-256 where it finds them.
fn hashes_in_hardware() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("sha");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// A running sidecar.
pub struct Running {
    ledger: Ledger,
    listeners: Listeners,
    listening: Vec<(SocketAddr, Arc<Role>)>,
    credentials: Option<credentials::Watch>,
    counters: Arc<Counters>,
    life: Arc<Life>,
    /// Last, so that it answers until everything else has ended.
    admin: Option<Admin>,
}

impl Running {
    /// Starts everything; when this returns, connections are accepted.
    pub fn start(config: &Config) -> anyhow::Result<Self> {
        // First, so that probes are answered while the rest starts.
        let life = Arc::new(Life::default());
        let admin = config.admin.listen.map(|address| {
            Admin::start(address, Arc::clone(&life))
                .with_context(|| format!("cannot listen on {address} ([admin] listen)"))
        });
        let admin = admin.transpose()?;
        let credentials = data_path::credentials(config)?;
        let entrances = data_path::entrances(config, credentials.as_ref())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let counters = Arc::new(Counters::default());
        let ledger = Ledger::start(
            &ledger_options(config),
            Arc::clone(&clock),
            Arc::clone(&counters),
            started(config),
        )?;
        tracing::info!(ledger = %config.ledger.dir.display(), key = %ledger.verifier_key(), "ledger open");
        if !hashes_in_hardware() {
            tracing::warn!(
                "this CPU has no SHA-256 instructions: hashing costs about seven times as much for each byte of payload"
            );
        }
        let options = data_path::options(config, &ledger, &entrances, clock, Arc::clone(&counters))?;
        let mut listening = Vec::new();
        for entrance in &entrances {
            listening.push((entrance.socket.local_addr()?, Arc::clone(&entrance.role)));
        }
        if let Some(notice) = data_path::bypassed(config) {
            commit_notice(ledger.handle(), notice);
        }
        let (port, totals) = (ledger.handle(), Arc::clone(&counters));
        let noticed = move |notice: v1::Notice| {
            let is_refused = notice.r#type() == v1::notice::Type::CredentialsRefused;
            if is_refused { &totals.credentials_refused } else { &totals.credentials_loaded }.add(1);
            commit_notice(port.clone(), notice);
        };
        let watch = credentials.map(|credentials| credentials.watch(noticed));
        let workers = config
            .proxy
            .workers
            .or_else(|| thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN);
        let listeners =
            Listeners::start(entrances, workers, &options).context("cannot start the data path")?;
        let credentials = watch.transpose()?;
        let inbound = listening.iter().filter(|(_, role)| role.traffic != Traffic::Outbound);
        let inbound = inbound.map(|(_, role)| role.open.subscribe()).collect();
        life.started(Parts { health: ledger.health(), inbound });
        Ok(Self { ledger, listeners, listening, credentials, counters, life, admin })
    }

    /// Where connections are accepted: of several listeners the fixed one, or else the first.
    pub fn address(&self) -> SocketAddr {
        self.listening[0].0
    }

    /// The key that the ledger verifies under.
    pub fn verifier_key(&self) -> &VerifierKey {
        self.ledger.verifier_key()
    }

    /// Drains within `limit`, commits what is left, writes the last entry, and ends.
    pub fn stop(self, reason: &str, limit: Duration) -> anyhow::Result<()> {
        let Self { ledger, mut listeners, listening, credentials, counters, life, admin } = self;
        life.drain();
        let roles: Vec<Arc<Role>> = listening.into_iter().map(|(_, role)| role).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(drain(&mut listeners, &roles, Instant::now() + limit));
        listeners.join();
        drop(credentials);
        ledger.stop(reason).context("the ledger's last entry could not be written")?;
        let counters = counters.snapshot();
        tracing::info!(?counters, "stopped");
        drop(admin);
        Ok(())
    }
}

/// What comes to the workload ends first; what it calls itself is served until it has been quiet, since it may call out as long as it lives.
async fn drain(listeners: &mut Listeners, roles: &[Arc<Role>], deadline: Instant) {
    let (outbound, inbound): (Vec<_>, Vec<_>) =
        roles.iter().partition(|role| role.traffic == Traffic::Outbound);
    listeners.close(Traffic::Inbound);
    for role in &inbound {
        role.drain.started.cancel();
    }
    let ended = async {
        for role in &inbound {
            idle(role).await;
        }
        let pause = Duration::from_millis(OUTBOUND_QUIET_MS);
        life::quiet(outbound.iter().map(|role| role.open.subscribe()).collect(), pause).await;
    };
    let _ = timeout_at(deadline, ended).await;
    listeners.close(Traffic::Outbound);
    for role in &outbound {
        role.drain.started.cancel();
    }
    let ended = async {
        for role in roles {
            idle(role).await;
        }
    };
    let _ = timeout_at(deadline, ended).await;
    for role in roles {
        role.drain.expired.cancel();
    }
}

/// Waits until a listener has no connection.
async fn idle(role: &Role) {
    // The sender lives in the role itself, so there is nothing else that could end the wait.
    let _ = role.open.subscribe().wait_for(|open| *open == 0).await;
}

/// Puts a notice into the ledger; called on threads that may wait.
fn commit_notice(mut port: LedgerHandle, notice: v1::Notice) {
    let submission = Submission { entries: vec![PendingEntry::new(&Body::Notice(notice))], wire_bytes: 0 };
    let commit = async move {
        poll_fn(|cx| port.poll_ready(cx)).await?;
        port.call(submission).await
    };
    let committed = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map(|runtime| runtime.block_on(commit));
    if !matches!(committed, Ok(Ok(_))) {
        tracing::warn!(?committed, "a notice is not in the ledger");
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
