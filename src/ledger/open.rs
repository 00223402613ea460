//! From a folder to a writer: the start of a ledger, new or old, after whatever ended it (docs/commit-protocol.md, crash table).
//!
//! Order: lock, key, what is known, the tail, the new segment, and the entries that tell of it. Nothing is written to a ledger before the lock is held and
//! the key is the ledger's own. A torn tail is cut only where nothing known is in it; anything else that is missing stays where it is and becomes a `Damage` entry.

use super::disk::Disk;
use super::genuine;
use super::head::{self, Head};
use super::index;
use super::key::{self, KeyError};
use super::segment;
use super::tail::{self, Tail};
use super::writer::{State, Writer};
use crate::clock::Clock;
use crate::entry::{Body, PendingEntry};
use crate::generated::v1;
use crate::merkle::CompactRange;
use crate::note::{NoteError, Signer, VerifierKey};
use ed25519_dalek::SigningKey;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Where a ledger is and whose it is.
#[derive(Clone, Debug)]
pub struct Location {
    /// The ledger's folder; made where it is missing.
    pub dir: PathBuf,
    /// The signing key's file; made in a new ledger where it is missing.
    pub key_file: PathBuf,
    /// The log's name; chosen at random in a new ledger where it is `None`.
    pub origin: Option<String>,
    /// Bytes of a segment.
    pub segment_bytes: u64,
}

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or a file in it.
    #[error("ledger {dir}: {step}: {source}")]
    Io {
        /// The ledger.
        dir: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another process writes to it.
    #[error(
        "ledger {0} is in use by another attestry process; each ledger has one writer: stop the other, or give this one a folder of its own ([ledger] dir)"
    )]
    Locked(PathBuf),
    /// No usable key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The origin cannot name a key.
    #[error("[ledger] origin: {0}")]
    Origin(#[from] NoteError),
    /// The ledger has another origin than the configured one.
    #[error(
        "ledger {dir} belongs to the log \"{found}\", but [ledger] origin is \"{configured}\": configure its own origin, or another folder"
    )]
    OtherOrigin {
        /// The ledger.
        dir: PathBuf,
        /// As it says itself.
        found: String,
        /// As configured.
        configured: String,
    },
    /// The key is not the one that signed the ledger.
    #[error(
        "the key in {key_file} is {given}, but the ledger {dir} is signed by {found}: nothing was written; give it its own key ([ledger] key_file), or another folder"
    )]
    OtherKey {
        /// The ledger.
        dir: PathBuf,
        /// The key's file.
        key_file: PathBuf,
        /// The key in it.
        given: String,
        /// The ledger's.
        found: String,
    },
    /// A format that this version cannot write.
    #[error("ledger {dir}: {source}")]
    Format {
        /// The ledger.
        dir: PathBuf,
        /// Which, and why.
        source: segment::HeaderError,
    },
}

/// An open ledger, locked, its writer behind everything that is there.
pub struct Opened {
    /// Ready to commit.
    pub writer: Writer,
    /// Held as long as the writer lives.
    pub lock: File,
    /// The key that the ledger verifies under.
    pub verifier_key: VerifierKey,
    /// The key of digests that stand for secrets.
    pub redaction_key: [u8; 32],
    /// What the start found, and the log must say: the first entries to commit.
    pub first_entries: Vec<PendingEntry>,
}

/// A ledger that may be written to: locked, and its key is ours. Nothing was written yet, but the key of a new one.
pub struct Examined {
    lock: File,
    signer: Signer,
    redaction_key: [u8; 32],
    is_new: bool,
    tail: Tail,
}

/// Locks a ledger and finds out whether it may be continued.
pub fn examine(location: &Location) -> Result<Examined, OpenError> {
    let io = |step| move |source| OpenError::Io { dir: location.dir.clone(), step, source };
    let lock = lock(&location.dir)?;
    let segments = segment::list(&location.dir).map_err(io("the segments cannot be listed"))?;
    let traces = [head::path(&location.dir), index::folder(&location.dir)];
    let is_new = segments.is_empty() && !traces.iter().any(|trace| trace.exists());
    let (signer, redaction_key) = signer(location, is_new)?;
    let tail = tail::read(&location.dir, &segments, signer.verifier_key())
        .map_err(io("the newest segment cannot be read"))?;
    refuse_foreign(location, &tail, signer.verifier_key())?;
    Ok(Examined { lock, signer, redaction_key, is_new, tail })
}

/// Opens or creates an examined ledger. `started` is completed with what was found; `known` is the newest state that the lookup tables remember.
pub fn open(
    examined: Examined,
    mut disk: Box<dyn Disk>,
    location: &Location,
    clock: Arc<dyn Clock>,
    mut started: v1::Started,
    known: Option<Head>,
) -> Result<Opened, OpenError> {
    let io = |step| move |source| OpenError::Io { dir: location.dir.clone(), step, source };
    let Examined { lock, signer, redaction_key, is_new, mut tail } = examined;
    let verifier_key = signer.verifier_key().clone();
    let head = newest_signed([read_head(&location.dir), known], &verifier_key);
    let known_size = head.as_ref().map_or(0, |head| head.range.size());
    let mut damage = std::mem::take(&mut tail.damage);
    started.previous_stop_was_clean = is_new || (tail.clean_stop && known_size <= tail.size());
    if known_size <= tail.size() {
        started.torn_bytes_cut =
            settle(disk.as_mut(), &tail).map_err(io("the newest segment cannot be settled"))?;
    }
    let state = continue_from(tail, head, &mut damage);
    write_origin(&location.dir, verifier_key.name()).map_err(io("the origin file cannot be written"))?;
    for damage in &damage {
        let v1::Damage { reason, first_index, end_index, segment, offset } = damage;
        tracing::error!(
            first_index,
            end_index,
            segment,
            offset,
            "the ledger is damaged, and goes on: {reason}"
        );
    }
    let first_entries = first_entries(&state, &verifier_key, started, damage);
    let writer = Writer::begin(disk, clock, signer, location.segment_bytes, state)
        .map_err(io("a new segment cannot be created"))?;
    Ok(Opened { writer, lock, verifier_key, redaction_key, first_entries })
}

/// How long another's lock is waited for, 1 s in all: a process that was killed holds it until the kernel has taken it down.
pub(super) const LOCK_PAUSE: Duration = Duration::from_millis(10);
pub(super) const LOCK_PAUSES_MAX: usize = 100;

/// Makes the folder where it is missing, and takes the one lock on it.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let io = |step| move |source| OpenError::Io { dir: dir.to_path_buf(), step, source };
    let create = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    create(dir).map_err(io("the folder cannot be created"))?;
    create(&segment::folder(dir)).map_err(io("the folder of segments cannot be created"))?;
    // The folders' own names are durable before anything in them is relied on.
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for folder in [parent, dir] {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io("the folder cannot be made durable"))?;
    }
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("LOCK"));
    let lock = lock.map_err(io("the LOCK file cannot be opened"))?;
    for _ in 0..LOCK_PAUSES_MAX {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(io("the LOCK file cannot be locked")(source)),
        }
    }
    Err(OpenError::Locked(dir.to_path_buf()))
}

/// A damaged head file tells nothing, and is no reason not to start: the segments are the truth.
fn read_head(dir: &Path) -> Option<Head> {
    Head::read(dir).unwrap_or_else(|error| {
        tracing::warn!(%error, "starting from the segments alone");
        None
    })
}

/// The newest state that the log's own key has signed. Whoever can write files here could name any other, and have the log continue from a tree of theirs.
fn newest_signed(remembered: [Option<Head>; 2], key: &VerifierKey) -> Option<Head> {
    let signed = |head: &Head| {
        let signed = head.is_signed_by(key);
        if !signed {
            tracing::error!(
                size = head.range.size(),
                "a remembered state of the log is not signed by its key: not believed"
            );
        }
        signed
    };
    remembered.into_iter().flatten().filter(signed).max_by_key(|head| head.range.size())
}

/// The key and the name of the log, checked against what the ledger says of itself.
fn signer(location: &Location, is_new: bool) -> Result<(Signer, [u8; 32]), OpenError> {
    let dir = location.dir.clone();
    let key = load_or_create(&location.key_file, is_new)?;
    let stated = fs::read_to_string(dir.join("origin")).ok();
    let stated =
        stated.map(|origin| origin.trim_end_matches('\n').to_owned()).filter(|origin| !origin.is_empty());
    let opened = genuine::opened(&dir);
    let found = opened.as_ref().map(|opened| opened.origin.clone()).or(stated);
    let origin = match (found, location.origin.clone()) {
        (Some(found), Some(configured)) if found != configured => {
            return Err(OpenError::OtherOrigin { dir, found, configured });
        }
        (Some(origin), _) | (None, Some(origin)) => origin,
        (None, None) => random_origin()?,
    };
    let redaction_key = key::redaction_key(&key);
    let signer = Signer::new(&origin, key)?;
    let given = signer.verifier_key().to_string();
    match opened {
        Some(v1::Opened { verifier_key: found, .. }) if found != given => {
            Err(OpenError::OtherKey { dir, key_file: location.key_file.clone(), given, found })
        }
        _ => Ok((signer, redaction_key)),
    }
}

/// Nothing is written behind a frame that this version cannot read, or that the key did not sign.
fn refuse_foreign(location: &Location, tail: &Tail, key: &VerifierKey) -> Result<(), OpenError> {
    let dir = location.dir.clone();
    if let Some(source) = tail.header_error.clone() {
        return Err(OpenError::Format { dir, source });
    }
    if tail.last.is_some() && !tail.is_signed {
        let (key_file, given) = (location.key_file.clone(), key.to_string());
        return Err(OpenError::OtherKey {
            dir,
            key_file,
            given,
            found: "another key (its last frame does not verify)".into(),
        });
    }
    Ok(())
}

fn load_or_create(key_file: &Path, is_new: bool) -> Result<SigningKey, KeyError> {
    match key::load(key_file) {
        Err(KeyError::Io { source, .. }) if is_new && source.kind() == io::ErrorKind::NotFound => {
            key::create(key_file)
        }
        other => other,
    }
}

fn random_origin() -> Result<String, OpenError> {
    let number = getrandom::u64().map_err(KeyError::Random)?;
    Ok(format!("attestry.local/{number:016x}"))
}

/// Makes the end of the newest segment certain: whatever is torn is cut, and the last frame, of which it is not known whether its fdatasync came back, is
/// written once more in place. Returns the bytes cut.
fn settle(disk: &mut dyn Disk, tail: &Tail) -> io::Result<u64> {
    let Some(last) = &tail.last else { return Ok(0) };
    if tail.clean_stop {
        return Ok(0);
    }
    let mut file = disk.open_segment(last.segment)?;
    file.write_at(last.frame.bytes(), last.offset)?;
    file.sync()?;
    file.trim(last.offset + u64::from(last.frame.header().length))?;
    Ok(tail.torn_bytes)
}

/// The state to continue from: the end of the segments, or what is known beyond it, with the loss on record.
fn continue_from(tail: Tail, head: Option<Head>, damage: &mut Vec<v1::Damage>) -> State {
    let last_time_unix_nanos = tail.last_time_unix_nanos;
    let Some(head) = head.filter(|head| head.range.size() > tail.size()) else {
        return State { range: tail.range, last_leaf: tail.last_leaf, last_time_unix_nanos };
    };
    damage.push(v1::Damage {
        reason: "entries that were published are missing or unreadable at the end of the segments".into(),
        first_index: tail.size(),
        end_index: head.range.size(),
        segment: segment::file_name(head.segment),
        offset: head.offset,
    });
    State { range: head.range, last_leaf: head.last_leaf, last_time_unix_nanos }
}

fn write_origin(dir: &Path, origin: &str) -> io::Result<()> {
    let path = dir.join("origin");
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0) {
        return Ok(());
    }
    let unnamed = dir.join("origin.new");
    fs::write(&unnamed, format!("{origin}\n"))?;
    File::open(&unnamed)?.sync_all()?;
    fs::rename(unnamed, path)?;
    File::open(dir)?.sync_all()
}

fn first_entries(
    state: &State,
    key: &VerifierKey,
    started: v1::Started,
    damage: Vec<v1::Damage>,
) -> Vec<PendingEntry> {
    let mut bodies = Vec::new();
    if state.range == CompactRange::new() {
        let origin = key.name().to_owned();
        let format_version = segment::FORMAT_VERSION;
        bodies.push(Body::Opened(v1::Opened { origin, verifier_key: key.to_string(), format_version }));
    }
    bodies.push(Body::Started(started));
    bodies.extend(damage.into_iter().map(Body::Damage));
    bodies.iter().map(PendingEntry::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::ledger::disk::FsDisk;
    use crate::ledger::head;

    fn open_in(dir: &Path) -> Result<Opened, OpenError> {
        let location = Location {
            dir: dir.to_path_buf(),
            key_file: dir.join("key"),
            origin: None,
            segment_bytes: 1 << 20,
        };
        let disk = Box::new(FsDisk::new(dir, location.segment_bytes));
        open(examine(&location)?, disk, &location, Arc::new(ManualClock::at(1)), v1::Started::default(), None)
    }

    /// Opens, commits the first entries, and leaves as a crash would: without a last entry.
    fn run_in(dir: &Path) -> Head {
        let mut opened = open_in(dir).unwrap();
        opened.writer.commit(opened.first_entries.iter()).unwrap();
        opened.writer.head()
    }

    #[test]
    fn a_head_that_the_key_did_not_sign_is_not_continued_from() {
        let dir = tempfile::tempdir().unwrap();
        let genuine = run_in(dir.path());
        let mut forged = genuine.clone();
        for leaf in 0..1_000_u32 {
            forged.range.push(merkle_leaf(leaf));
        }
        fs::write(head::path(dir.path()), forged.encode()).unwrap();
        let opened = open_in(dir.path()).unwrap();
        assert_eq!(opened.writer.size(), genuine.range.size(), "the segments alone say how far the log goes");
    }

    #[test]
    fn a_signed_head_that_knows_more_than_the_segments_is_continued_from_and_the_loss_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let genuine = run_in(dir.path());
        fs::remove_file(segment::folder(dir.path()).join(segment::file_name(0))).unwrap();
        let opened = open_in(dir.path()).unwrap();
        assert_eq!(opened.writer.size(), genuine.range.size());
        assert_eq!(opened.first_entries.len(), 2, "Started and Damage, and no second Opened");
    }

    fn merkle_leaf(number: u32) -> crate::merkle::Hash {
        crate::merkle::leaf_hash(&number.to_le_bytes())
    }
}
