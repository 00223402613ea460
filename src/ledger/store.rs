//! The lookup tables in `db/`, in sled 0.34: the only file that names it. Rebuildable from the segments, never evidence.
//!
//! sled 0.34 can panic on damaged files, so each call into it is guarded; a store that failed once is broken for good and is set aside and rebuilt by
//! `index`. Its `flush` is no fdatasync, so each flush is followed by one of our own: that keeps a rebuild short, nothing depends on it.
//! Values stay below 2 KiB, so that sled's separate blob files never come into being (docs/decisions/0002-sled-behind-segments.md).

use super::frame::{u32_at, u64_at};
use super::fsck::Rows;
use super::head::Head;
use super::index::{self, Store, StoreError};
use super::open::{LOCK_PAUSE, LOCK_PAUSES_MAX};
use super::row::Row;
use std::fs::{self, File};
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;

/// Bytes of sled's own segments: with its default it could not be opened again after a power cut, in 15 of 15 tries.
const SLED_SEGMENT_BYTES: usize = 8 * 1024 * 1024;

const HEAD_KEY: &[u8] = b"head";

/// Page cache for a copy that is scanned once.
const COPY_CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// Tables in a folder.
pub struct SledStore {
    dir: PathBuf,
    db: sled::Db,
    rows: sled::Tree,
    meta: sled::Tree,
}

impl SledStore {
    /// Opens the tables in `dir`; they are made where they are missing.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        remove_unfinished_snapshots(dir).map_err(|error| StoreError(error.to_string()))?;
        let config = sled::Config::default()
            .path(dir)
            .cache_capacity(cache_bytes)
            .segment_size(SLED_SEGMENT_BYTES)
            .flush_every_ms(None);
        let mut pauses = iter::repeat_n(LOCK_PAUSE, LOCK_PAUSES_MAX);
        let db = open_when_unlocked(&config, || pauses.next().map(thread::sleep).is_some())?;
        guard(move || {
            let (rows, meta) = (db.open_tree("rows")?, db.open_tree("meta")?);
            Ok(Self { dir: dir.to_path_buf(), db, rows, meta })
        })
    }
}

/// Opens sled once nobody else holds the lock of its file; `pause` waits a little and says whether to try again.
///
/// The ledger's own lock keeps other sidecars away, so a holder is a remnant that is about to go: a store just closed in this process, whose
/// descriptor a child that is being started still has. Tables must not be taken for damaged because of it.
fn open_when_unlocked(
    config: &sled::Config,
    mut pause: impl FnMut() -> bool,
) -> Result<sled::Db, StoreError> {
    loop {
        match guard(|| config.open()) {
            Err(StoreError(error)) if error.contains("could not acquire lock") && pause() => {}
            result => return result,
        }
    }
}

impl Store for SledStore {
    fn put(&self, rows: &[Row]) -> Result<(), StoreError> {
        guard(|| {
            let mut batch = sled::Batch::default();
            for row in rows {
                batch.insert(&row.first_index.to_be_bytes(), &encode(row)[..]);
            }
            self.rows.apply_batch(batch)
        })
    }

    fn last(&self) -> Result<Option<Row>, StoreError> {
        guard(|| self.rows.last())?.map(|(key, value)| decode(&key, &value)).transpose()
    }

    fn head(&self) -> Result<Option<Head>, StoreError> {
        let bytes = guard(|| self.meta.get(HEAD_KEY))?;
        bytes.map(|bytes| Head::decode(&bytes).map_err(|error| StoreError(error.into()))).transpose()
    }

    fn flush(&self, head: &Head) -> Result<(), StoreError> {
        guard(|| {
            self.meta.insert(HEAD_KEY, head.encode())?;
            self.db.flush()?;
            File::open(self.dir.join("db"))?.sync_data()?;
            Ok(())
        })
    }

    fn scan(&self, each: &mut dyn FnMut(Row) -> bool) -> Result<(), StoreError> {
        let mut rows = guard(|| Ok(self.rows.iter()))?;
        while let Some(pair) = guard(|| rows.next().transpose())? {
            if !each(decode(&pair.0, &pair.1)?) {
                break;
            }
        }
        Ok(())
    }
}

/// Bytes of a row without its key.
const ROW_BYTES: usize = 60;

/// A row without its key, which is its first index in big-endian: so sled keeps rows in the order of the log.
fn encode(row: &Row) -> [u8; ROW_BYTES] {
    let mut bytes = [0; ROW_BYTES];
    bytes[..8].copy_from_slice(&row.segment.to_le_bytes());
    bytes[8..16].copy_from_slice(&row.offset.to_le_bytes());
    bytes[16..20].copy_from_slice(&row.length.to_le_bytes());
    bytes[20..28].copy_from_slice(&row.end_index.to_le_bytes());
    bytes[28..].copy_from_slice(&row.root);
    bytes
}

fn decode(key: &[u8], value: &[u8]) -> Result<Row, StoreError> {
    let (Ok(key), Ok(bytes)) = (key.try_into(), <&[u8; ROW_BYTES]>::try_from(value)) else {
        return Err(StoreError("a row has another length".into()));
    };
    Ok(Row {
        first_index: u64::from_be_bytes(key),
        segment: u64_at(bytes, 0),
        offset: u64_at(bytes, 8),
        length: u32_at(bytes, 16),
        end_index: u64_at(bytes, 20),
        root: *bytes[28..].first_chunk().expect("32 of 60 bytes are left"),
    })
}

/// Rows on their way from sled to the verifier.
const ROWS_QUEUE_MAX: usize = 1_024;

/// The rows of a ledger's tables, read from a copy of them: sled writes where it opens, and evidence is not written to. `None` where there are no tables.
pub fn rows_of_copy(ledger: &Path) -> Option<Rows> {
    let tables = index::folder(ledger);
    if !tables.exists() {
        return None;
    }
    let (send, rows) = sync_channel(ROWS_QUEUE_MAX);
    // The copy is made before the segments are read: it holds no row whose frame is not there yet.
    let copy = copy_of(&tables);
    thread::spawn(move || {
        let result = copy.map_err(|error| StoreError(error.to_string())).and_then(|copy| {
            let scanned = SledStore::open(&copy, COPY_CACHE_BYTES)
                .and_then(|store| store.scan(&mut |row| send.send(Ok(row)).is_ok()));
            // Nothing depends on the copy's end; what is left of it is in the folder for temporary files.
            let _ = fs::remove_dir_all(copy);
            scanned
        });
        if let Err(error) = result {
            let _ = send.send(Err(error.0));
        }
    });
    Some(Box::new(rows.into_iter()))
}

/// Copies the files of a folder, and of its folders, into a new one.
fn copy_of(tables: &Path) -> std::io::Result<PathBuf> {
    let number = getrandom::u64().map_err(std::io::Error::other)?;
    let copy = std::env::temp_dir().join(format!("attestry-tables-{number:016x}"));
    copy_into(tables, &copy)?;
    Ok(copy)
}

fn copy_into(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        let target = to.join(file.file_name());
        if file.file_type()?.is_dir() {
            copy_into(&file.path(), &target)?;
        } else {
            fs::copy(file.path(), target)?;
        }
    }
    Ok(())
}

/// A panic inside sled is an error of this store, not of the process.
fn guard<T>(call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| StoreError(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(StoreError(format!("sled panicked: {}", text.unwrap_or_default())))
        }
    }
}

/// sled cannot be opened while a snapshot that it had begun before a crash lies there.
fn remove_unfinished_snapshots(dir: &Path) -> std::io::Result<()> {
    let Ok(files) = fs::read_dir(dir) else { return Ok(()) };
    for file in files {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(first_index: u64) -> Row {
        Row { first_index, segment: 0, offset: 64, length: 500, end_index: first_index + 1, root: [3; 32] }
    }

    fn head() -> Head {
        Head {
            range: crate::merkle::CompactRange::new(),
            segment: 0,
            offset: 64,
            last_leaf: [0; 32],
            checkpoint: String::new(),
        }
    }

    #[test]
    fn rows_and_head_are_there_after_a_reopen() {
        let dir = tempfile::tempdir().unwrap();
        let store = SledStore::open(dir.path(), 1 << 20).unwrap();
        store.put(&[row(0), row(1), row(300)]).unwrap();
        store.flush(&head()).unwrap();
        drop(store);
        let store = SledStore::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(store.last().unwrap(), Some(row(300)));
        assert_eq!(store.head().unwrap(), Some(head()));
        let mut seen = Vec::new();
        store
            .scan(&mut |row| {
                seen.push(row.first_index);
                true
            })
            .unwrap();
        assert_eq!(seen, [0, 1, 300], "ascending by index");
    }

    #[test]
    fn a_lock_that_is_about_to_go_is_waited_for_and_another_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        drop(SledStore::open(dir.path(), 1 << 20).unwrap());
        let config = sled::Config::default().path(dir.path()).segment_size(SLED_SEGMENT_BYTES);
        let holder = File::open(dir.path().join("db")).unwrap();
        holder.lock().unwrap();
        assert!(open_when_unlocked(&config, || false).is_err());
        let mut holder = Some(holder);
        open_when_unlocked(&config, || holder.take().is_some()).expect("opens once the lock is gone");
        assert!(holder.is_none(), "the lock was held at the first try");
    }

    #[test]
    fn rows_stay_small_enough_that_sled_makes_no_blob_files() {
        let dir = tempfile::tempdir().unwrap();
        let store = SledStore::open(dir.path(), 1 << 20).unwrap();
        store.put(&(0..20_000).map(row).collect::<Vec<_>>()).unwrap();
        store.flush(&head()).unwrap();
        let blobs = fs::read_dir(dir.path().join("blobs")).map_or(0, Iterator::count);
        assert_eq!(blobs, 0);
    }

    #[test]
    fn damaged_files_are_an_error_or_are_read_but_never_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let store = SledStore::open(dir.path(), 1 << 20).unwrap();
        store.put(&(0..2_000).map(row).collect::<Vec<_>>()).unwrap();
        store.db.flush().unwrap();
        drop(store);
        let file = dir.path().join("db");
        let mut bytes = fs::read(&file).unwrap();
        for byte in bytes.iter_mut().step_by(97) {
            *byte ^= 0x55;
        }
        fs::write(&file, bytes).unwrap();
        if let Ok(store) = SledStore::open(dir.path(), 1 << 20) {
            let _ = store.scan(&mut |_| true);
            let _ = store.last();
        }
    }
}
