//! What is known before the first frame is checked: head, segments, key, origin, earlier checkpoints (steps 1 to 3).
//!
//! The key and the origin that entry 0 names are taken from its bytes as they stand; whether they are right shows in the walk, which checks
//! entry 0 like any other.

use super::Options;
use super::content::split;
use super::fault::{FaultKind, Place, Sink};
use crate::entry;
use crate::generated::v1;
use crate::ledger::frame::{u32_at, u64_at};
use crate::ledger::head;
use crate::ledger::segment::{self, Found, Segment};
use crate::merkle::Hash;
use crate::note::{Checkpoint, NOTE_BYTES_MAX, Note, VerifierKey};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use v1::entry::Body;

/// The longest head: its fixed part and 64 hashes, and as much again that has no meaning.
const HEAD_BYTES_MAX: u64 = 4_096;

/// Reads of a head that does not hold together, until it counts as damaged.
const HEAD_READS_MAX: u32 = 5;

/// The pause between two of them, a thousand times what writing the file takes.
const HEAD_READ_PAUSE: Duration = Duration::from_millis(1);

/// The longest origin file that can be right, with room to see that one is longer.
const ORIGIN_BYTES_MAX: u64 = 64 * 1024;

/// What the walk and the comparison at its end go by.
#[derive(Default)]
pub(super) struct Known {
    /// What the head file says.
    pub head: Option<HeadState>,
    /// The numbers of the segments, in order.
    pub segments: Vec<u64>,
    /// The key of the log.
    pub key: Option<VerifierKey>,
    /// The origin of the log.
    pub origin: Option<String>,
    /// The earlier checkpoints.
    pub against: Vec<Earlier>,
}

/// The tree that the head file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeadState {
    /// Its leaves.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

/// An earlier checkpoint, or why it is none of this log.
pub(super) struct Earlier {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub checkpoint: Result<Checkpoint, String>,
}

/// Reads all of it. The head comes before the list of segments, so that a writer at work can only make the log longer than its head.
pub(super) fn read(options: &Options, sink: &Sink) -> Known {
    let head = read_head(&options.ledger, sink);
    let segments = list(&options.ledger, sink);
    let mut known = Known { head, segments, key: options.key.clone(), ..Known::default() };
    match opened(&options.ledger, &known.segments) {
        Some(opened) => known.take_opened(options, opened, sink),
        None => match &options.key {
            Some(key) => known.origin = Some(key.name().to_owned()),
            None => sink.cannot_tell("no key was given, and entry 0, which names one, cannot be read".into()),
        },
    }
    for path in &options.against {
        known.read_against(path, sink);
    }
    known
}

impl Known {
    /// Takes over what entry 0 says of key and origin.
    fn take_opened(&mut self, options: &Options, opened: v1::Opened, sink: &Sink) {
        if opened.format_version != segment::FORMAT_VERSION {
            sink.cannot_tell(format!("entry 0 is of the unknown format version {}", opened.format_version));
        }
        let fault =
            |message| sink.before_frame(0, FaultKind::Key, Place::entry(0, segment::HEADER_LEN, 0), message);
        let written = &opened.verifier_key;
        if let Some(given) = &options.key {
            if *written != given.to_string() {
                fault(format!("entry 0 names the key {written:?}, expected the given {given}"));
            }
        } else {
            sink.remark(
                "No key was given: the verdict holds only as far as the key in entry 0 is trusted.".into(),
            );
            match written.parse::<VerifierKey>() {
                Err(error) => fault(format!("the key in entry 0 cannot be used: {error}")),
                Ok(key) => {
                    if key.name() != opened.origin {
                        fault(format!(
                            "the key in entry 0 is named {:?}, expected {:?}",
                            key.name(),
                            opened.origin
                        ));
                    }
                    self.key = Some(key);
                }
            }
        }
        check_origin_file(&options.ledger, &opened.origin, sink);
        self.origin = Some(opened.origin);
    }

    fn read_against(&mut self, path: &Path, sink: &Sink) {
        match read_at_most(path, NOTE_BYTES_MAX as u64 + 1) {
            Ok(bytes) => {
                let checkpoint = self.earlier_checkpoint(&bytes);
                self.against.push(Earlier { path: path.to_path_buf(), checkpoint });
            }
            Err(error) => {
                sink.cannot_tell(format!(
                    "the earlier checkpoint {} cannot be read: {error}",
                    path.display()
                ));
            }
        }
    }

    fn earlier_checkpoint(&self, bytes: &[u8]) -> Result<Checkpoint, String> {
        let text = str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        let note = Note::parse(text).map_err(|error| error.to_string())?;
        let checkpoint = Checkpoint::parse(&note.text).map_err(|error| error.to_string())?;
        if let Some(key) = &self.key {
            note.verify(key).map_err(|error| error.to_string())?;
        }
        match &self.origin {
            Some(origin) if checkpoint.origin != *origin => {
                Err(format!("its origin is {:?}, expected {origin:?}", checkpoint.origin))
            }
            _ => Ok(checkpoint),
        }
    }
}

fn read_head(ledger: &Path, sink: &Sink) -> Option<HeadState> {
    let mut reads = 1;
    loop {
        match read_at_most(&head::path(ledger), HEAD_BYTES_MAX).map(|bytes| parse_head(&bytes)) {
            Ok(Ok(head)) => return Some(head),
            // A writer at work overwrites the file, and a read can fall into the middle of that.
            Ok(Err(_)) if reads < HEAD_READS_MAX => thread::sleep(HEAD_READ_PAUSE),
            Ok(Err(problem)) => {
                let message = format!("the file head cannot be used: {problem}");
                sink.before_frame(0, FaultKind::Head, Place::default(), message);
                return None;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                sink.remark("There is no head file: entries cut off at the end would not be noticed.".into());
                return None;
            }
            Err(error) => {
                sink.cannot_tell(format!("the file head cannot be read: {error}"));
                return None;
            }
        }
        reads += 1;
    }
}

/// Size and root out of the head's bytes. That they fit the rest of the head matters to a start, which continues the tree from it; here they
/// are held against the segments themselves.
fn parse_head(bytes: &[u8]) -> Result<HeadState, String> {
    let (Some(fixed), Some(root)) = (bytes.first_chunk::<104>(), bytes.get(16..48)) else {
        return Err(format!("it is {} bytes long, expected at least 104", bytes.len()));
    };
    if fixed[..8] != *b"ATSTHEAD" {
        return Err("it does not begin with ATSTHEAD".into());
    }
    let end = (u32_at(fixed, 96) as usize).saturating_mul(32).saturating_add(100);
    if end > bytes.len() - 4 {
        return Err(format!("it is {} bytes long, expected at least {}", bytes.len(), end.saturating_add(4)));
    }
    let (found, computed) = (u32_at(bytes, end), crc32fast::hash(&bytes[..end]));
    if found != computed {
        return Err(format!("its checksum is {found:08x}, expected {computed:08x}"));
    }
    let root = root.try_into().expect("16 to 48 are 32 bytes");
    Ok(HeadState { size: u64_at(fixed, 8), root })
}

fn list(ledger: &Path, sink: &Sink) -> Vec<u64> {
    match segment::list(ledger) {
        Ok(segments) => {
            if segments.is_empty() {
                sink.cannot_tell("the folder segments holds no segment".into());
            }
            segments
        }
        Err(error) => {
            sink.cannot_tell(format!(
                "the folder {} cannot be read: {error}",
                segment::folder(ledger).display()
            ));
            Vec::new()
        }
    }
}

/// Entry 0 as it stands at its place, if it can be read.
fn opened(ledger: &Path, segments: &[u64]) -> Option<v1::Opened> {
    let segment = Segment::open(ledger, *segments.first().filter(|&&first| first == 0)?).ok()?;
    let Ok(Found::Frame(frame)) = segment.at(segment::HEADER_LEN) else { return None };
    if frame.header().first_index != 0 {
        return None;
    }
    let first = split(&frame).next()?.ok()?;
    match entry::decode_any(first.entry).ok()?.body? {
        Body::Opened(opened) => Some(opened),
        _ => None,
    }
}

fn check_origin_file(ledger: &Path, origin: &str, sink: &Sink) {
    match read_at_most(&ledger.join("origin"), ORIGIN_BYTES_MAX) {
        Ok(bytes) if bytes.strip_suffix(b"\n") == Some(origin.as_bytes()) => {}
        Ok(bytes) => {
            let found = String::from_utf8_lossy(&bytes);
            let message = format!("the file origin holds {found:?}, expected {:?}", format!("{origin}\n"));
            sink.before_frame(0, FaultKind::Origin, Place::default(), message);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => sink.cannot_tell(format!("the file origin cannot be read: {error}")),
    }
}

fn read_at_most(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}
