//! One direction of a connection: bytes in, evidence to the commit port, bytes out once it is durable.
//!
//! Invariant: a byte leaves only after the receipt of the submission that holds its evidence, and after every byte before it. One queue, first in, first out; control
//! frames wait in it like all others, because an acknowledgement that overtakes held frames would be another conversation than the peers'.
//! The pipe never waits itself: `poll` says what is ready, the other methods do it. What the frames mean is `crate::capture`'s; who polls is `relay`.

use super::CommitPort;
use super::link::Link;
use crate::capture::Milestone;
use crate::entry::{CommitError, Receipt, Submission};
use crate::limits::{EVIDENCE_FACTOR_MAX, HELD_SMALL_DATA_MAX};
use bytes::{Buf as _, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Room that is made for a read when less than a quarter of it is left: at first, and where little comes.
const READ_BYTES_MIN: usize = 8 * 1024;

/// The same where reads fill their room.
const READ_BYTES_MAX: usize = 64 * 1024;

/// The same for what nothing is recorded of: a third less CPU for each byte of a bulk transfer (docs/decisions/0013). What is recorded is read in smaller pieces,
/// since each is held with its evidence.
const BULK_READ_BYTES: usize = 256 * 1024;

/// Slices of one vectored write; Linux takes 1,024, and more than a few change nothing.
const WRITE_SLICES: usize = 64;

/// What a pipe can do now.
#[derive(Debug)]
pub(super) enum Ready {
    /// The oldest held bytes have their receipt, or never will.
    Receipt(Result<Receipt, CommitError>),
    /// Released bytes can be written.
    Write,
    /// Bytes can be read, and their submission has a place.
    Read,
    /// Bytes that were read before can be observed now.
    More,
}

/// One direction.
pub(super) struct Pipe<C: CommitPort> {
    port: C,
    buffer: BytesMut,
    held: VecDeque<Held<C::Future>>,
    held_bytes: usize,
    /// Room to make for the next read.
    read_bytes: usize,
    /// Bytes of the entries that wait for their receipts.
    evidence_bytes: usize,
    out: VecDeque<Bytes>,
    hold_bytes_max: usize,
    /// Small DATA frames that are held.
    small_data: usize,
    /// The buffer holds units that can be observed once there is room for them.
    is_waiting: bool,
    place: Place,
    has_begun: bool,
    /// The sender has ended, or nothing more is taken from it.
    pub(super) is_ended: bool,
    /// Bytes written to the receiver.
    pub(super) written: u64,
}

/// A pipe's place in the commit queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Unasked,
    /// It is taken, or may be given at any time.
    Asked,
    /// Nothing that comes has to be committed.
    Unneeded,
}

struct Held<F> {
    /// `None` where nothing had to be committed.
    receipt: Option<F>,
    bytes: Bytes,
    evidence_bytes: usize,
    small_data: usize,
    milestones: Vec<Milestone>,
}

impl<C: CommitPort> Pipe<C> {
    /// A pipe whose sender has sent `early` already.
    pub(super) fn new(port: C, hold_bytes_max: usize, early: BytesMut) -> Self {
        Self {
            port,
            is_waiting: !early.is_empty(),
            buffer: early,
            held: VecDeque::new(),
            held_bytes: 0,
            read_bytes: READ_BYTES_MIN,
            evidence_bytes: 0,
            out: VecDeque::new(),
            hold_bytes_max,
            small_data: 0,
            place: Place::Unasked,
            has_begun: false,
            is_ended: false,
            written: 0,
        }
    }

    /// What can be done now. Polls the receipt of the oldest held bytes alone: those behind it must wait for it anyway.
    /// Without `releases`, nothing is released yet, whatever has its receipt.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Link,
        to: &Link,
        releases: bool,
    ) -> Poll<Ready> {
        if let Some(front) = self.held.front_mut().filter(|_| releases) {
            let Some(receipt) = &mut front.receipt else {
                return Poll::Ready(Ready::Receipt(Ok(Receipt::Unrecorded)));
            };
            if let Poll::Ready(result) = Pin::new(receipt).poll(cx) {
                return Poll::Ready(Ready::Receipt(result));
            }
        }
        if !self.out.is_empty() && to.poll_write_ready(cx).is_ready() {
            return Poll::Ready(Ready::Write);
        }
        if self.is_waiting {
            let has_room = self.small_data_room() > 0 && self.poll_place(cx).is_ready();
            return if has_room { Poll::Ready(Ready::More) } else { Poll::Pending };
        }
        let has_more = !self.is_ended && self.has_room() && from.poll_read_ready(cx).is_ready();
        // A place in the commit queue comes before the bytes: without one, reading on would only move the wait into memory. But an idle
        // connection takes none.
        if has_more && self.poll_place(cx).is_ready() {
            return Poll::Ready(Ready::Read);
        }
        self.release_idle_room();
        Poll::Pending
    }

    /// A connection on which nothing happens keeps no more room than one that never carried much.
    fn release_idle_room(&mut self) {
        if self.is_empty() && self.buffer.is_empty() && self.buffer.capacity() > READ_BYTES_MIN {
            (self.buffer, self.read_bytes) = (BytesMut::new(), READ_BYTES_MIN);
        }
    }

    fn has_room(&self) -> bool {
        self.held_bytes < self.hold_bytes_max
            && self.evidence_bytes < EVIDENCE_FACTOR_MAX * self.hold_bytes_max
    }

    fn poll_place(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.place == Place::Unneeded {
            return Poll::Ready(());
        }
        self.place = Place::Asked;
        // A port that has failed answers each submission so, and that is where it is heard.
        self.port.poll_ready(cx).map(drop)
    }

    /// Gives back the place that `poll` took, after a read that brought nothing to commit.
    pub(super) fn give_place_back(&mut self) {
        if self.place == Place::Asked {
            (self.port, self.place) = (self.port.clone(), Place::Unasked);
        }
    }

    /// Nothing that is read from here on is evidence of anything.
    pub(super) fn end_record(&mut self) {
        self.give_place_back();
        self.place = Place::Unneeded;
    }

    /// Reads once; `Ok(0)` is the sender's end.
    pub(super) fn read(&mut self, from: &Link, wanted: usize) -> io::Result<usize> {
        let room = self.buffer.capacity() - self.buffer.len();
        if room < self.read_bytes / 4 || self.buffer.len() + room < wanted {
            self.buffer.reserve(self.read_bytes.max(wanted.saturating_sub(self.buffer.len())));
        }
        let read = from.try_read(&mut self.buffer)?;
        let most = if self.place == Place::Unneeded { BULK_READ_BYTES } else { READ_BYTES_MAX };
        if self.buffer.len() == self.buffer.capacity() {
            self.read_bytes = (4 * self.read_bytes).min(most);
        } else if read < self.read_bytes / 16 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        Ok(read)
    }

    /// Small DATA frames that may still be held. What is held is released at once, so this bounds the burst that the receiver gets.
    pub(super) fn small_data_room(&self) -> usize {
        HELD_SMALL_DATA_MAX.saturating_sub(self.small_data)
    }

    /// Says whether the buffer holds units that can be observed without another read.
    pub(super) fn set_waiting(&mut self, is_waiting: bool) {
        self.is_waiting = is_waiting;
    }

    /// Bytes read and not yet taken.
    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes the first `length` of the bytes read.
    pub(super) fn take(&mut self, length: usize) -> Bytes {
        self.buffer.split_to(length).freeze()
    }

    /// Holds `bytes` until `submission` is committed. The place for it was taken when `poll` said that it can read.
    pub(super) fn hold(
        &mut self,
        bytes: Bytes,
        small_data: usize,
        submission: Submission,
        milestones: Vec<Milestone>,
    ) {
        let evidence_bytes =
            submission.entries.iter().map(|entry| entry.body.len() + entry.payload_len()).sum::<usize>();
        let receipt = if submission.entries.is_empty() {
            None
        } else {
            self.place = Place::Unasked;
            Some(self.port.call(submission))
        };
        self.held_bytes += bytes.len();
        self.evidence_bytes += evidence_bytes;
        self.has_begun = true;
        self.small_data += small_data;
        self.held.push_back(Held { receipt, bytes, evidence_bytes, small_data, milestones });
    }

    /// Puts a frame of attestry's own behind everything held.
    pub(super) fn inject(&mut self, frame: Vec<u8>) {
        if frame.is_empty() {
            return;
        }
        self.hold(frame.into(), 0, Submission::default(), Vec::new());
    }

    /// Releases the oldest held bytes; returns what becomes true with them.
    pub(super) fn release(&mut self) -> Vec<Milestone> {
        let Some(held) = self.held.pop_front() else { return Vec::new() };
        self.small_data -= held.small_data;
        self.evidence_bytes -= held.evidence_bytes;
        if held.bytes.is_empty() {
            return held.milestones;
        }
        self.out.push_back(held.bytes);
        held.milestones
    }

    /// Writes once what was released.
    pub(super) fn write(&mut self, to: &Link) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        let count = self.out.len().min(WRITE_SLICES);
        for (slice, bytes) in slices.iter_mut().zip(&self.out) {
            *slice = IoSlice::new(bytes);
        }
        let mut written = to.try_write_vectored(&slices[..count])?;
        self.written += written as u64;
        self.held_bytes -= written;
        while let Some(first) = self.out.front_mut() {
            if written < first.len() {
                first.advance(written);
                break;
            }
            written -= first.len();
            self.out.pop_front();
        }
        Ok(())
    }

    /// Nothing is held and nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.out.is_empty()
    }

    /// Something was held, so the receiver has, or will have, the sender's first frames.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Turns the pipe to the client into one from the client and back: what was released is still written, what is held without a receipt never will be,
    /// and what the other pipe had read of the client goes on being read here.
    pub(super) fn continue_locally(&mut self, from_client: Self) {
        self.held_bytes -= self.held.drain(..).map(|held| held.bytes.len()).sum::<usize>();
        (self.small_data, self.evidence_bytes, self.is_waiting) = (0, 0, from_client.is_waiting);
        self.buffer = from_client.buffer;
        self.is_ended = from_client.is_ended;
    }

    /// The receiver is gone: nothing more is read, and nothing that waits can be written.
    pub(super) fn abandon(&mut self) {
        self.end();
        self.held.clear();
        self.out.clear();
        (self.held_bytes, self.evidence_bytes, self.small_data) = (0, 0, 0);
    }

    /// Takes no more from the sender, and nothing of what was read and not yet observed goes on.
    pub(super) fn end(&mut self) {
        self.buffer.clear();
        self.is_waiting = false;
        self.is_ended = true;
    }
}
