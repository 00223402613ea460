//! One call's events in their order, and its messages put together again from their segments.
//!
//! Invariants: events come in the order of their sequence numbers, and what is missing is said where it is
//! missing; a message is the bytes of its segments in order, and its digest is computed from them again;
//! memory is bounded by one frame and the events that wait for one before them. How it is printed is
//! `render`'s and `json`'s.

use super::calls::{CallId, CallSummary};
use super::payload;
use super::reader::{Damaged, Item, ReadError, Reader, Record};
use crate::entry::Body;
use crate::generated::v1::{self, Direction, Protocol};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

/// Events that are held until one that was captured before them has come. The two directions are committed
/// one after the other, so more than a few wait only where something is missing.
const HELD_EVENTS_MAX: usize = 256;

/// Bytes of a message that are kept to show its beginning.
const PREVIEW_BYTES: usize = 64;

/// What comes next on a timeline.
#[derive(Clone, Debug)]
pub enum Moment {
    /// An event of the call.
    Step(Box<Step>),
    /// Events of the call are missing: from the first of these sequence numbers up to, and without, the
    /// second.
    Missing(u64, u64),
    /// Something passed unrecorded while the call ran; whether it was this call's is not known.
    Gap(v1::Gap),
    /// The ledger cannot be read at some place between the call's entries.
    Damaged(Damaged),
}

/// One event of a call.
#[derive(Clone, Debug)]
pub struct Step {
    /// The entry that tells of it.
    pub index: u64,
    /// Its number within the call, from 1.
    pub sequence: u64,
    /// When it was read from the socket.
    pub captured_unix_nanos: u64,
    /// Which way it went.
    pub direction: Direction,
    /// What the call speaks.
    pub protocol: Protocol,
    /// As recorded.
    pub event: v1::Event,
    /// The fields of its header block, wherever they stood; `None` where it has none, or they cannot be read.
    pub fields: Option<Vec<v1::Field>>,
    /// The bytes of its message segment, where they are stored.
    pub data: Option<Bytes>,
}

/// Iterates over one call's events.
#[derive(Debug)]
pub struct Timeline {
    reader: Reader,
    call: CallId,
    first_index: u64,
    last_index: u64,
    next_sequence: u64,
    held: BTreeMap<u64, Step>,
    ready: VecDeque<Moment>,
    at_end: bool,
}

impl Timeline {
    /// The timeline of a call of the ledger in `dir`, as far as `call` knows of it.
    pub fn open(dir: &Path, call: &CallSummary) -> Result<Self, ReadError> {
        Ok(Self {
            reader: Reader::open_at(dir, call.first_index)?,
            call: call.call,
            first_index: call.first_index,
            last_index: call.last_index,
            next_sequence: 1,
            held: BTreeMap::new(),
            ready: VecDeque::new(),
            at_end: false,
        })
    }

    fn advance(&mut self) -> Result<(), ReadError> {
        match self.reader.next().transpose()? {
            None => self.at_end = true,
            Some(Item::Damaged(damaged)) => self.ready.push_back(Moment::Damaged(damaged)),
            Some(Item::Record(record)) if record.index > self.last_index => self.at_end = true,
            Some(Item::Record(record)) if record.index < self.first_index => {}
            Some(Item::Record(record)) => self.record(&record),
        }
        let held_max = if self.at_end { 0 } else { HELD_EVENTS_MAX };
        self.release(held_max);
        Ok(())
    }

    fn record(&mut self, record: &Record) {
        match &record.body {
            Body::Gap(gap) if gap.forwarded => self.ready.push_back(Moment::Gap(gap.clone())),
            Body::CallEvents(events) if events.call.as_ref() == self.call.0 => {
                for (sequence, step) in (events.sequence..).zip(steps(record, events)) {
                    self.hold(sequence, step);
                }
            }
            _ => {}
        }
    }

    fn hold(&mut self, sequence: u64, mut step: Step) {
        if sequence > self.next_sequence.saturating_add(self.held.len() as u64) {
            // It waits: its bytes must not keep their whole frame in memory.
            step.data = step.data.map(|data| Bytes::copy_from_slice(&data));
        }
        self.held.insert(sequence, step);
    }

    /// Hands out what is due, and of what is not until at most `held_max` events wait.
    fn release(&mut self, held_max: usize) {
        while let Some((&sequence, _)) = self.held.first_key_value() {
            if sequence > self.next_sequence {
                if self.held.len() <= held_max {
                    return;
                }
                self.ready.push_back(Moment::Missing(self.next_sequence, sequence));
            }
            self.next_sequence = self.next_sequence.max(sequence.saturating_add(1));
            self.ready.extend(self.held.remove(&sequence).map(|step| Moment::Step(Box::new(step))));
        }
    }
}

impl Iterator for Timeline {
    type Item = Result<Moment, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.at_end {
            if let Err(error) = self.advance() {
                self.at_end = true;
                return Some(Err(error));
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

/// The events of one entry.
pub(super) fn steps(record: &Record, events: &v1::CallEvents) -> Vec<Step> {
    let beside = payload::cut(&record.body, &record.payload);
    let step = |((event, beside), sequence): ((&v1::Event, payload::Beside), u64)| Step {
        index: record.index,
        sequence,
        captured_unix_nanos: events.captured_unix_nanos,
        direction: events.direction(),
        protocol: events.protocol(),
        event: event.clone(),
        fields: event.header.as_ref().and_then(|header| payload::fields(header, beside.fields.as_ref())),
        data: beside.data,
    };
    events.events.iter().zip(beside).zip(events.sequence..).map(step).collect()
}

/// A message, as far as its segments tell of it.
#[derive(Clone, Debug)]
pub struct Message {
    /// Which way it went.
    pub direction: Direction,
    /// Its number in its direction, from 0.
    pub number: u64,
    /// gRPC's length prefix: a flag octet and four octets of length; empty in HTTP.
    pub prefix: Vec<u8>,
    /// Bytes of data seen.
    pub length: u64,
    /// The newest digest stated for it.
    pub sha256: Bytes,
    /// Whether the bytes have that digest; `None` where bytes are not stored or missing.
    pub digest_holds: Option<bool>,
    /// Its first bytes.
    pub preview: Vec<u8>,
    /// Segments that it was recorded in.
    pub segments: u64,
    /// When its first and its last segment were captured.
    pub captured_unix_nanos: (u64, u64),
    /// Its last byte has been seen, and none between is missing.
    pub complete: bool,
}

impl Message {
    /// The flag octet of gRPC's prefix: 1 for a compressed message.
    pub fn flag(&self) -> Option<u8> {
        self.prefix.first().copied()
    }

    /// The length that gRPC's prefix announces.
    pub fn announced_length(&self) -> Option<u32> {
        let length = self.prefix.get(1..5)?;
        Some(u32::from_be_bytes([length[0], length[1], length[2], length[3]]))
    }
}

/// Puts messages together from the steps of a timeline; at most one is open in each direction.
#[derive(Debug, Default)]
pub struct MessageFold {
    open: [Option<Open>; 2],
}

#[derive(Debug)]
struct Open {
    message: Message,
    digest: Sha256,
    /// All bytes up to here were stored and are consecutive.
    unbroken: bool,
}

impl MessageFold {
    /// Takes the next step; returns the messages that are finished by it: one that ends, or one that another
    /// has cut off.
    pub fn push(&mut self, step: &Step) -> Vec<Message> {
        let mut finished = Vec::new();
        let Some(segment) = &step.event.message else { return finished };
        let slot = &mut self.open[usize::from(step.direction == Direction::ServerToClient)];
        if slot.as_ref().is_some_and(|open| open.message.number != segment.message) {
            finished.extend(slot.take().map(Open::finish));
        }
        let open = slot.get_or_insert_with(|| Open::new(step, segment));
        open.push(step, segment);
        if segment.end {
            finished.extend(slot.take().map(Open::finish));
        }
        finished
    }

    /// The message of that direction that has begun and not ended.
    pub fn take_open(&mut self, direction: Direction) -> Option<Message> {
        self.open[usize::from(direction == Direction::ServerToClient)].take().map(Open::finish)
    }
}

impl Open {
    fn new(step: &Step, segment: &v1::MessageSegment) -> Self {
        let message = Message {
            direction: step.direction,
            number: segment.message,
            prefix: Vec::new(),
            length: 0,
            sha256: Bytes::new(),
            digest_holds: None,
            preview: Vec::new(),
            segments: 0,
            captured_unix_nanos: (step.captured_unix_nanos, step.captured_unix_nanos),
            complete: false,
        };
        Self { message, digest: Sha256::new(), unbroken: true }
    }

    fn push(&mut self, step: &Step, segment: &v1::MessageSegment) {
        let message = &mut self.message;
        let is_next = segment.offset == message.length;
        self.unbroken &= is_next && segment.stored && step.data.is_some();
        message.complete = segment.end && is_next;
        if let Some(data) = &step.data {
            self.digest.update(data);
            let missing = PREVIEW_BYTES - message.preview.len();
            if is_next {
                message.preview.extend_from_slice(&data[..data.len().min(missing)]);
            }
        }
        message.prefix.extend_from_slice(&segment.prefix);
        message.length = segment.offset.saturating_add(segment.length);
        message.segments += 1;
        message.captured_unix_nanos.1 = step.captured_unix_nanos;
        message.sha256 = segment.sha256.clone();
    }

    fn finish(self) -> Message {
        let mut message = self.message;
        if self.unbroken {
            message.digest_holds = Some(self.digest.finalize()[..] == message.sha256[..]);
        }
        message
    }
}
