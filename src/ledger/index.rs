//! Keeps the lookup tables in step with the log, behind the commits and never in their way.
//!
//! A thread of its own takes the row of each commit from a bounded queue. Rows that did not fit, a start behind the segments, and damaged tables are
//! one case: what is missing is read from the segments. Tables that fail are set aside (`db.damaged`), named in the log, and made anew.

use super::frame::Frame;
use super::head::Head;
use super::row::{self, Row};
use super::segment::{self, Found, Segment};
use crate::limits::{INDEX_FLUSH_INTERVAL_MS, INDEX_INTERVAL_MS, INDEX_QUEUE_MAX};
use crate::merkle::Hash;
use crate::note::{Checkpoint, Note};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Why the lookup tables failed, in the store's own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lookup tables: {0}")]
pub struct StoreError(pub String);

/// What the lookup tables must do. After an error a store is not used again.
pub trait Store: Send {
    /// Adds rows, or replaces those of the same first index. Not durable before the next flush.
    fn put(&self, rows: &[Row]) -> Result<(), StoreError>;
    /// The newest row.
    fn last(&self) -> Result<Option<Row>, StoreError>;
    /// The state of the log at the newest flush.
    fn head(&self) -> Result<Option<Head>, StoreError>;
    /// Makes all rows durable, and `head` with them.
    fn flush(&self, head: &Head) -> Result<(), StoreError>;
    /// All rows in ascending order, until `each` returns false.
    fn scan(&self, each: &mut dyn FnMut(Row) -> bool) -> Result<(), StoreError>;
}

/// How tables are opened: once at the start, and again whenever they were set aside.
pub type OpenStore = Box<dyn Fn(&Path) -> Result<Box<dyn Store>, StoreError> + Send>;

/// The folder of a ledger's lookup tables.
pub fn folder(ledger: &Path) -> PathBuf {
    ledger.join("db")
}

/// Opens the tables of a ledger; damaged ones are set aside, so that the new ones are rebuilt from the segments.
pub fn open_or_set_aside(ledger: &Path, open: &OpenStore) -> Result<Box<dyn Store>, StoreError> {
    let store = open(&folder(ledger)).and_then(|store| {
        store.last()?;
        store.head()?;
        Ok(store)
    });
    store.or_else(|error| {
        set_aside(ledger, &error)
            .map_err(|io| StoreError(format!("{error}, and they cannot be set aside: {io}")))?;
        open(&folder(ledger))
    })
}

fn set_aside(ledger: &Path, error: &StoreError) -> io::Result<()> {
    let (from, to) = (folder(ledger), ledger.join("db.damaged"));
    tracing::error!(%error, "the lookup tables in {} are damaged: moved to {}, rebuilding from the segments", from.display(), to.display());
    // One damaged copy is kept for whoever wants to look; an older one makes room.
    match fs::remove_dir_all(&to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(from, to)
}

/// The committer's end of the indexer.
pub struct Indexer {
    rows: SyncSender<Row>,
    head: Arc<Mutex<Head>>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Indexer {
    /// Starts the thread; it first makes up for what the tables lack of the log in `ledger`, whose published state is `head`.
    pub fn start(ledger: PathBuf, store: Box<dyn Store>, open: OpenStore, head: Head) -> io::Result<Self> {
        let (rows, queue) = sync_channel(INDEX_QUEUE_MAX);
        let (stop, stopped) = sync_channel(0);
        let head = Arc::new(Mutex::new(head));
        let mut worker = Worker {
            ledger,
            store: Some(store),
            open,
            head: Arc::clone(&head),
            is_stopping: false,
            progress: None,
            flushed_size: None,
        };
        let thread =
            thread::Builder::new().name("index".into()).spawn(move || worker.run(&queue, &stopped))?;
        Ok(Self { rows, head, stop: Some(stop), thread: Some(thread) })
    }

    /// Tells of a commit. Never waits, and wakes nobody: a row that does not fit is read from the segments later.
    pub fn committed(&self, row: Row, head: Head) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
        let _ = self.rows.try_send(row);
    }
}

impl Drop for Indexer {
    /// Lets the thread write and flush what is queued, but not start on a long rebuild.
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    ledger: PathBuf,
    store: Option<Box<dyn Store>>,
    open: OpenStore,
    head: Arc<Mutex<Head>>,
    is_stopping: bool,
    /// Unknown until the tables were asked.
    progress: Option<Progress>,
    /// Size of the tree whose state was flushed last: an idle ledger is not written to.
    flushed_size: Option<u64>,
}

/// How far the tables are.
#[derive(Clone, Copy)]
struct Progress {
    /// The entry that was not looked at yet.
    next: u64,
    /// The newest row.
    last: Option<Row>,
}

impl Progress {
    fn of(store: &dyn Store) -> Result<Self, StoreError> {
        let last = store.last()?;
        Ok(Self { next: last.map_or(0, |row| row.end_index), last })
    }

    /// Goes past the frame of `row`; whether that is one of those that have rows.
    fn pass(&mut self, row: &Row) -> bool {
        self.next = row.end_index;
        let is_due = row::is_due(self.last.as_ref().map(Row::position), row.position());
        if is_due {
            self.last = Some(*row);
        }
        is_due
    }
}

impl Worker {
    /// Takes what has come at intervals: a batch costs sled several threads' wakes, however small it is.
    fn run(&mut self, queue: &Receiver<Row>, stopped: &Receiver<()>) {
        let mut flush_at = Instant::now();
        while !self.is_stopping {
            let pause = Duration::from_millis(INDEX_INTERVAL_MS);
            self.is_stopping = stopped.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected);
            let flush = self.is_stopping || Instant::now() >= flush_at;
            let rows: Vec<Row> = queue.try_iter().take(INDEX_QUEUE_MAX).collect();
            if let Err(error) = self.work(&rows, flush) {
                self.replace(&error);
            }
            if flush {
                flush_at = Instant::now() + Duration::from_millis(INDEX_FLUSH_INTERVAL_MS);
            }
        }
    }

    fn work(&mut self, rows: &[Row], flush: bool) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut progress = self.progress.take().map_or_else(|| Progress::of(store.as_ref()), Ok)?;
        if let Some(first) = rows.first()
            && first.first_index > progress.next
        {
            self.catch_up(store.as_ref(), &mut progress, first.first_index)?;
        }
        let mut due = Vec::new();
        let known = rows.partition_point(|row| row.first_index < progress.next);
        for row in &rows[known..] {
            if row.first_index != progress.next {
                // Behind a gap inside the queue, the rest is left to the next round: the segments have it.
                break;
            }
            if progress.pass(row) {
                due.push(*row);
            }
        }
        if !due.is_empty() {
            store.put(&due)?;
        }
        // Where rows still come, what lacks is among them or will show as a gap before them.
        if flush && rows.is_empty() {
            self.catch_up(store.as_ref(), &mut progress, head.range.size())?;
        }
        if flush && self.flushed_size != Some(head.range.size()) {
            store.flush(&head)?;
            self.flushed_size = Some(head.range.size());
        }
        self.progress = Some(progress);
        Ok(())
    }

    /// Reads the rows up to the entry `end` from the segments. Ends early at what cannot be read: that is the verifier's to name.
    fn catch_up(&self, store: &dyn Store, progress: &mut Progress, end: u64) -> Result<(), StoreError> {
        if progress.next >= end {
            return Ok(());
        }
        let segments = segment::list(&self.ledger).unwrap_or_default();
        let is_new = progress.next == 0;
        if is_new {
            tracing::info!(entries = end, "building the lookup tables from the segments");
        }
        let next = progress.next;
        let first = segments.iter().rposition(|&first| first <= next).unwrap_or(0);
        for &segment in &segments[first..] {
            if segment >= end || self.is_stopping {
                break;
            }
            let due = due_rows_of(&self.ledger, segment, progress, end);
            store.put(&due.map_err(|error| StoreError(error.to_string()))?)?;
            if is_new {
                tracing::info!(entries = progress.next, of = end, "lookup tables built");
            }
        }
        if !self.is_stopping {
            // What cannot be read now will not be readable in the next round either.
            progress.next = end;
        }
        Ok(())
    }

    fn replace(&mut self, error: &StoreError) {
        (self.store, self.progress, self.flushed_size) = (None, None, None);
        let opened = set_aside(&self.ledger, error)
            .map_err(|io| StoreError(io.to_string()))
            .and_then(|()| (self.open)(&folder(&self.ledger)));
        match opened {
            Ok(store) => self.store = Some(store),
            Err(error) => tracing::error!(%error, "going on without lookup tables"),
        }
    }
}

/// The rows due for one segment's frames whose entries lie behind `progress` and before `end`.
fn due_rows_of(ledger: &Path, segment: u64, progress: &mut Progress, end: u64) -> io::Result<Vec<Row>> {
    let file = Segment::open(ledger, segment)?;
    let mut rows = Vec::new();
    // What stands before the newest row's frame is in the tables already.
    let last = progress.last.filter(|row| row.segment == segment);
    let mut offset = last.map_or(segment::HEADER_LEN, |row| row.offset);
    loop {
        let frame = match file.at(offset)? {
            Found::Frame(frame) if frame.header().first_index < end => frame,
            Found::Bad(_) => {
                let next = progress.next;
                match file.next_frame(offset + 1, |frame| frame.header().first_index >= next)? {
                    Some((at, frame)) => {
                        offset = at;
                        frame
                    }
                    None => return Ok(rows),
                }
            }
            _ => return Ok(rows),
        };
        let header = *frame.header();
        if header.first_index >= progress.next {
            let (first_index, end_index, length) = (header.first_index, header.end_index(), header.length);
            let mut row = Row { first_index, segment, offset, length, end_index, root: Hash::default() };
            if progress.pass(&row) {
                row.root = stated_root(&frame).unwrap_or_default();
                progress.last = Some(row);
                rows.push(row);
            }
        }
        offset += u64::from(header.length);
    }
}

/// The root in a frame's checkpoint. Whether it is right is the verifier's question.
fn stated_root(frame: &Frame) -> Option<Hash> {
    let note = Note::parse(std::str::from_utf8(frame.checkpoint()).ok()?).ok()?;
    Some(Checkpoint::parse(&note.text).ok()?.root)
}
