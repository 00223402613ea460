//! Following changes: of files by their directories, of the Workload API by its stream.
//!
//! Invariants: one thread per watch, which ends with it; a set is looked at once it has been quiet for a moment, so that a certificate and its key are seen
//! together; a refused set leaves the current one in use and is told of once, not each time that it is looked at again.

use super::material::Material;
use super::workload_api::{self, Answers};
use super::{Credentials, CredentialsError, Files, Source, files};
use crate::clock::{Clock as _, SystemClock};
use crate::generated::v1;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Quiet time after a change until files are read: those of one set are replaced within milliseconds.
const QUIET: Duration = Duration::from_millis(200);
/// Longest wait for that quiet, in a directory in which something else keeps changing.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(2);
/// Files are read without a sign of change as well, since network file systems give none.
const POLL_INTERVAL: Duration = Duration::from_mins(1);

type Notify = Box<dyn Fn(v1::Notice) + Send>;

/// A watch on credentials; dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Stop {
    Files(SyncSender<Signal>),
    WorkloadApi(CancellationToken),
}

#[derive(Debug)]
enum Signal {
    Changed,
    Stop,
}

impl Watch {
    pub(super) fn start(credentials: Credentials, notify: Notify) -> Result<Self, CredentialsError> {
        let source = credentials.shared.options.source.clone();
        let follower = Follower { credentials, notify, refused: None };
        match source {
            Source::Files(files) => Self::files(files, follower),
            Source::Spiffe { socket } => Self::workload_api(socket, follower),
        }
    }

    fn files(files: Files, mut follower: Follower) -> Result<Self, CredentialsError> {
        // One signal stands for all changes that nobody has looked at yet.
        let (stop, signals) = sync_channel(1);
        let changed = stop.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                let _ = changed.try_send(Signal::Changed);
            }
        });
        let mut directories = Directories {
            watcher: watcher.map_err(|error| unwatchable(&error))?,
            paths: directories(&files),
        };
        directories.watch().map_err(|error| unwatchable(&error))?;
        let thread = spawn(move || {
            while wait(&signals) {
                // A directory that was replaced is another one by now.
                if let Err(error) = directories.watch() {
                    tracing::warn!(%error, "credentials are looked at once a minute only");
                }
                follower.look(|alpn| files::load(&files, alpn));
            }
        })?;
        Ok(Self { stop: Stop::Files(stop), thread: Some(thread) })
    }

    fn workload_api(socket: PathBuf, mut follower: Follower) -> Result<Self, CredentialsError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unwatchable(&error))?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = spawn(move || {
            let mut answers = Answers::of(socket);
            // Answers are looked at outside of the runtime: whoever is told of them may start one of his own.
            while let Some(answer) = runtime.block_on(stopped.run_until_cancelled(answers.next())) {
                follower.look(|alpn| match answer {
                    Ok(context) => workload_api::material(&context, alpn),
                    Err(error) => Err(CredentialsError::Unfit(error.to_string())),
                });
            }
        })?;
        Ok(Self { stop: Stop::WorkloadApi(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        match &self.stop {
            // It fails only where the thread has ended already.
            Stop::Files(signals) => drop(signals.send(Signal::Stop)),
            Stop::WorkloadApi(token) => token.cancel(),
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, CredentialsError> {
    thread::Builder::new().name("credentials".into()).spawn(run).map_err(|error| unwatchable(&error))
}

fn unwatchable(error: &impl ToString) -> CredentialsError {
    CredentialsError::Unwatchable(error.to_string())
}

/// The directories of the files: a file that is replaced is another file, and Kubernetes replaces a link beside it.
struct Directories {
    watcher: RecommendedWatcher,
    paths: BTreeSet<PathBuf>,
}

impl Directories {
    /// Those that are watched already stay so.
    fn watch(&mut self) -> notify::Result<()> {
        self.paths.iter().try_for_each(|path| self.watcher.watch(path, RecursiveMode::NonRecursive))
    }
}

fn directories(files: &Files) -> BTreeSet<PathBuf> {
    let paths = [&files.certificate, &files.key, &files.authorities, &files.revocation];
    let parents = paths.into_iter().flatten().filter_map(|path| path.parent());
    parents
        .map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent }.to_owned())
        .collect()
}

/// Not what attestry does itself: it opens and reads.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// Waits for a change and then for quiet, or for the time of the next look. False at the end of the watch.
fn wait(signals: &Receiver<Signal>) -> bool {
    match signals.recv_timeout(POLL_INTERVAL) {
        Ok(Signal::Changed) => {}
        Err(RecvTimeoutError::Timeout) => return true,
        Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
    }
    let end = Instant::now() + QUIET_WAIT_MAX;
    while Instant::now() < end {
        match signals.recv_timeout(QUIET) {
            Ok(Signal::Changed) => {}
            Err(RecvTimeoutError::Timeout) => break,
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    true
}

/// What is done with each set that is seen.
struct Follower {
    credentials: Credentials,
    notify: Notify,
    /// Why the last set was refused, while it is.
    refused: Option<String>,
}

impl Follower {
    fn look(&mut self, load: impl FnOnce(&[Vec<u8>]) -> Result<Material, CredentialsError>) {
        let loaded = load(&self.credentials.shared.options.alpn);
        let taken = loaded.and_then(|material| {
            let summary = material.summary().to_owned();
            self.credentials.replace(material).map(|is_other| is_other.then_some(summary))
        });
        match taken {
            Ok(None) => self.refused = None,
            Ok(Some(summary)) => {
                self.refused = None;
                tracing::info!(credentials = %summary, "new credentials are in use");
                self.tell(v1::notice::Type::CredentialsLoaded, summary);
            }
            Err(error) => {
                let reason = error.to_string();
                if self.refused.as_ref() != Some(&reason) {
                    tracing::error!(%reason, "new credentials are refused; the current ones stay in use");
                    self.refused = Some(reason.clone());
                    self.tell(v1::notice::Type::CredentialsRefused, reason);
                }
            }
        }
    }

    fn tell(&self, kind: v1::notice::Type, reason: String) {
        let now = SystemClock.unix_nanos();
        let (from_unix_nanos, to_unix_nanos) = (now, now);
        (self.notify)(v1::Notice { r#type: kind.into(), reason, count: 1, from_unix_nanos, to_unix_nanos });
    }
}
