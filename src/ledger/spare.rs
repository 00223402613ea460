//! The next segment, filled with zeros ahead of its use by a thread of its own.
//!
//! Overwriting zeros that are on the disk already halves an fdatasync against growing a file (docs/decisions/0004-zero-filled-segments.md). A spare is
//! never needed: where there is none, segments grow. It is not part of the log until it is renamed.

use super::block_file::BlockFile;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

/// Prepares one spare segment at a time.
#[derive(Debug)]
pub struct Spare {
    path: PathBuf,
    segment_bytes: u64,
    filling: Option<Receiver<io::Result<BlockFile>>>,
    ready: Option<BlockFile>,
}

impl Spare {
    /// A preparer of spares of `segment_bytes` in `folder`.
    pub fn new(folder: &Path, segment_bytes: u64) -> Self {
        Self { path: folder.join("spare"), segment_bytes, filling: None, ready: None }
    }

    /// Bytes of a prepared segment.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Starts to prepare the next spare, unless one is being prepared or ready. One that a process before left is begun anew: its zeros may never have
    /// reached the disk. There is never a second thread at the file: its zeros could land in a segment that the file has become since.
    pub fn prepare(&mut self) {
        if self.filling.is_some() || self.ready.is_some() {
            return;
        }
        let (done, filling) = sync_channel(1);
        let (path, segment_bytes) = (self.path.clone(), self.segment_bytes);
        let fill_spare = move || {
            let result = create_filled(&path, segment_bytes);
            if let Err(error) = &result {
                tracing::warn!(%error, spare = %path.display(), "no spare segment; the next one grows with its frames");
                // Its space is better used by the log itself. A failure leaves a file that the next attempt truncates.
                let _ = fs::remove_file(&path);
            }
            let _ = done.send(result);
        };
        match thread::Builder::new().name("spare".into()).spawn(fill_spare) {
            Ok(_) => self.filling = Some(filling),
            Err(error) => tracing::warn!(%error, "no thread for the spare segment"),
        }
    }

    /// Whether there is one.
    pub fn is_ready(&mut self) -> bool {
        let result = self.filling.as_ref().map(Receiver::try_recv);
        if let Some(Ok(_) | Err(TryRecvError::Disconnected)) = result {
            self.filling = None;
            self.ready = result.and_then(Result::ok).and_then(Result::ok);
        }
        self.ready.is_some()
    }

    /// The spare, if it is ready; its zeros are durable.
    pub fn take(&mut self) -> Option<(BlockFile, PathBuf)> {
        self.is_ready();
        Some((self.ready.take()?, self.path.clone()))
    }
}

impl Drop for Spare {
    /// Waits for the filling thread, which would otherwise create files behind a ledger that is closed, and removes the spare.
    fn drop(&mut self) {
        let filled = self.filling.take().is_some_and(|filling| filling.recv().is_ok());
        if filled || self.ready.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn create_filled(path: &Path, segment_bytes: u64) -> io::Result<BlockFile> {
    let mut file = BlockFile::create(path)?;
    file.fill(segment_bytes)?;
    file.file().sync_all()?;
    Ok(file)
}
