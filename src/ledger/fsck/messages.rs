//! The messages of calls, over all segments that they were captured in (section 6, and the parts of step 6 about it).
//!
//! A segment's digest is that of its message up to the segment's end, so the segments of a message must be taken in order, and
//! its hash runs on from one to the next. Calls do not touch each other: several of these run side by side, each with calls of its own.

use super::content::Leaf;
use super::fault::{At, FaultKind, Sink, hex};
use crate::entry::{PieceKind, pieces};
use crate::generated::v1;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use v1::EventType;
use v1::entry::Body;

/// What concerns messages, in the order of the log.
#[expect(
    clippy::large_enum_variant,
    reason = "breaks are rare, and a box would be an allocation for each entry"
)]
pub(super) enum Item {
    /// Events of a call.
    Call {
        /// The frame of the entry.
        at: At,
        /// The entry's position in it.
        position: u64,
        /// The entry's body, which is `CallEvents`.
        body: Body,
        /// Its payload, where it can be cut into pieces.
        payload: Option<Bytes>,
    },
    /// A break in the log.
    Break(Break),
}

/// A break in the log, which concerns all calls.
#[derive(Clone, Copy)]
pub(super) enum Break {
    /// Segments may be missing from here on: traffic went on unrecorded, or an entry cannot be read.
    Gap,
    /// What was before is not known.
    Unknown,
    /// This connection has closed: nothing of it goes on.
    Closed(u64),
}

/// For whom an entry is.
#[expect(clippy::large_enum_variant, reason = "as above; it is taken apart at once")]
pub(super) enum Route {
    /// For the one that has the call.
    One(usize, Item),
    /// For all.
    All(Break),
    /// For nobody.
    None,
}

/// Finds out what an entry says about messages, and which of `shards` it concerns.
pub(super) fn route(at: At, position: u64, leaf: Leaf, shards: usize) -> Route {
    match leaf.entry.map(|entry| entry.body) {
        None => Route::All(Break::Gap),
        Some(Some(Body::Gap(gap))) if gap.forwarded => Route::All(Break::Gap),
        Some(Some(Body::ConnectionClosed(closed))) => Route::All(Break::Closed(closed.connection)),
        Some(Some(Body::CallEvents(events))) => {
            if !events.events.iter().any(|event| event.message.is_some() || ends_call(event)) {
                return Route::None;
            }
            let shard = events
                .call
                .iter()
                .fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
            let body = Body::CallEvents(events);
            Route::One(shard % shards, Item::Call { at, position, body, payload: leaf.payload })
        }
        Some(_) => Route::None,
    }
}

/// Whether messages that are still open end with this event. A reset ends none: frames on the way still count.
fn ends_call(event: &v1::Event) -> bool {
    matches!(event.r#type(), EventType::LocalAnswer | EventType::Abandoned)
}

/// A message of which more is to come.
struct Open {
    connection: u64,
    direction: i32,
    message: u64,
    /// Where its next segment begins.
    offset: u64,
    /// Its hash up to there; `None` where that cannot be known.
    hash: Option<Sha256>,
    /// How many gaps there were before its last segment.
    gaps: u64,
}

/// The open messages of some calls.
pub(super) struct Messages<'a> {
    sink: &'a Sink,
    open: HashMap<Vec<u8>, Vec<Open>>,
    gaps: u64,
    unchecked: u64,
}

impl<'a> Messages<'a> {
    /// None is open.
    pub fn new(sink: &'a Sink) -> Self {
        Self { sink, open: HashMap::new(), gaps: 0, unchecked: 0 }
    }

    /// Stored segments whose digest could not be checked, because something before them is missing.
    pub fn unchecked(&self) -> u64 {
        self.unchecked
    }

    /// Takes what comes next.
    pub fn take(&mut self, item: &Item) {
        match item {
            Item::Call { at, position, body, payload } => {
                if let Body::CallEvents(events) = body {
                    self.call(*at, *position, events, &cut(body, payload.as_ref()));
                }
            }
            Item::Break(Break::Gap) => self.gaps += 1,
            Item::Break(Break::Unknown) => {
                self.gaps += 1;
                self.open.clear();
            }
            Item::Break(Break::Closed(connection)) => {
                self.open.retain(|_, open| open.iter().all(|open| open.connection != *connection));
            }
        }
    }

    fn call(&mut self, at: At, position: u64, call: &v1::CallEvents, data: &[(usize, &[u8])]) {
        let mut data = data.iter().copied().peekable();
        for (number, event) in call.events.iter().enumerate() {
            if let Some(segment) = &event.message {
                let bytes = data.next_if(|(of, _)| *of == number).map(|(_, bytes)| bytes);
                for (kind, problem) in self.segment(call, segment, bytes) {
                    let message = format!("call {}, message {}: {problem}", hex(&call.call), segment.message);
                    self.sink.entry(at, position, kind, number, message);
                }
            }
            if ends_call(event) {
                self.open.remove(&call.call[..]);
            }
        }
    }

    /// Takes a segment; `data` is `None` where its bytes are not at hand.
    fn segment(
        &mut self,
        call: &v1::CallEvents,
        segment: &v1::MessageSegment,
        data: Option<&[u8]>,
    ) -> impl Iterator<Item = (FaultKind, String)> + use<> {
        let before = self.close(&call.call, call.direction);
        let order = self.order_fault(before.as_ref(), segment);
        let continued =
            before.filter(|open| (open.message, open.offset) == (segment.message, segment.offset));
        let mut hash = match continued {
            Some(open) => open.hash,
            None => (segment.offset == 0).then(Sha256::new),
        };
        let mut digest = None;
        match (data, &mut hash) {
            (Some(data), Some(running)) => {
                running.update(data);
                let found = running.clone().finalize();
                if found[..] != segment.sha256[..] {
                    let end = segment.offset.saturating_add(segment.length);
                    let (found, expected) = (hex(&found), hex(&segment.sha256));
                    digest =
                        Some(format!("its first {end} bytes have the SHA-256 {found}, expected {expected}"));
                    hash = None;
                }
            }
            (Some(_), None) => self.unchecked += 1,
            (None, _) => hash = None,
        }
        if !segment.end {
            self.reopen(call, segment, hash);
        }
        let digest = digest.map(|problem| (FaultKind::PayloadDigest, problem));
        digest.into_iter().chain(order.map(|problem| (FaultKind::MessageOrder, problem)))
    }

    /// Why a segment cannot follow what was before it. Behind a gap anything can.
    fn order_fault(&self, before: Option<&Open>, segment: &v1::MessageSegment) -> Option<String> {
        let offset = segment.offset;
        match before {
            None if offset == 0 || self.gaps > 0 => None,
            None => Some(format!("a segment at offset {offset} begins it, expected offset 0")),
            Some(open) if open.gaps != self.gaps => None,
            Some(open) if open.message != segment.message => {
                Some(format!("it begins before message {} has ended", open.message))
            }
            Some(open) if open.offset != offset => {
                Some(format!("a segment begins at offset {offset}, expected {}", open.offset))
            }
            Some(_) => None,
        }
    }

    /// Takes out the open message of a direction.
    fn close(&mut self, call: &[u8], direction: i32) -> Option<Open> {
        let open = self.open.get_mut(call)?;
        let place = open.iter().position(|open| open.direction == direction)?;
        let closed = open.swap_remove(place);
        if open.is_empty() {
            self.open.remove(call);
        }
        Some(closed)
    }

    fn reopen(&mut self, call: &v1::CallEvents, segment: &v1::MessageSegment, hash: Option<Sha256>) {
        let open = Open {
            connection: call.connection,
            direction: call.direction,
            message: segment.message,
            offset: segment.offset.saturating_add(segment.length),
            hash,
            gaps: self.gaps,
        };
        self.open.entry(call.call.to_vec()).or_default().push(open);
    }
}

/// The bytes of the segments in a payload, each with the number of its event.
fn cut<'a>(body: &Body, payload: Option<&'a Bytes>) -> Vec<(usize, &'a [u8])> {
    let Some(mut rest) = payload.map(|payload| &payload[..]) else { return Vec::new() };
    let mut segments = Vec::new();
    for piece in pieces(body) {
        // `content` has checked that the payload is as long as its pieces.
        let length = usize::try_from(piece.length).expect("no longer than the payload");
        let (bytes, behind) = rest.split_at(length);
        rest = behind;
        if let PieceKind::Segment(event, _) = piece.kind {
            segments.push((event, bytes));
        }
    }
    segments
}
