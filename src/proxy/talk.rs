//! The protocol that a connection speaks, as the relay needs it: one capture of three, asked the same questions.

use super::CommitPort;
use super::pipe::Pipe;
use super::session::Taken;
use crate::capture::{Connection, Direction, Ending, Http1, Observed, Opaque};
use crate::entry::Submission;
use crate::http2::{PREFACE, Prefix, Scheme, scheme};
use bytes::Bytes;

/// A capture.
pub(super) enum Talk {
    Http2 {
        capture: Box<Connection>,
        /// The client's preface has passed.
        preface_passed: bool,
        /// What requests are to say.
        scheme: Option<Scheme>,
    },
    Http1(Box<Http1>),
    Opaque(Box<Opaque>),
}

impl Talk {
    pub(super) fn http2(capture: Connection, scheme: Option<Scheme>) -> Self {
        Self::Http2 { capture: Box::new(capture), preface_passed: false, scheme }
    }

    /// Whether these first bytes of the client's break off the HTTP/2 that the server has begun (RFC 9113 section 3.4).
    pub(super) fn contradicts(&self, direction: Direction, buffered: &[u8]) -> bool {
        let waits = matches!(self, Self::Http2 { preface_passed: false, .. });
        let length = buffered.len().min(PREFACE.len());
        waits && direction == Direction::ClientToServer && buffered[..length] != PREFACE[..length]
    }

    /// Bytes that the buffer must have room for, so that the next unit can become complete.
    pub(super) fn bytes_wanted(&self, direction: Direction, buffered: &[u8]) -> usize {
        match self {
            Self::Http2 { capture, .. } => capture.reader(direction).bytes_wanted(buffered),
            // A head that is not complete yet: as much again.
            Self::Http1(_) | Self::Opaque(_) => 2 * buffered.len(),
        }
    }

    /// Takes what the pipe has read as far as it can be observed; `None` where more must be read first.
    pub(super) fn take<C: CommitPort>(
        &mut self,
        pipe: &mut Pipe<C>,
        direction: Direction,
        now: u64,
    ) -> Option<Taken> {
        match self {
            Self::Http2 { capture, preface_passed, scheme } => {
                let room = pipe.small_data_room();
                pipe.set_waiting(room == 0 && !pipe.buffered().is_empty());
                if room == 0 {
                    return None;
                }
                if direction == Direction::ClientToServer && !*preface_passed {
                    return preface(preface_passed, pipe);
                }
                let taken = take_frames(capture, pipe, direction, room, now)?;
                Some(match *scheme {
                    Some(scheme) if direction == Direction::ClientToServer => {
                        Taken { bytes: scheme::rewrite(taken.bytes, scheme), ..taken }
                    }
                    _ => taken,
                })
            }
            Self::Http1(capture) => {
                pipe.set_waiting(false);
                let length = capture.prefix(direction, pipe.buffered());
                take_all(pipe, length, |chunk| capture.observe(direction, chunk, now))
            }
            Self::Opaque(capture) => {
                pipe.set_waiting(false);
                let length = pipe.buffered().len();
                let taken = take_all(pipe, length, |chunk| capture.observe(direction, chunk, now))?;
                if taken.observed.submission.entries.is_empty() {
                    // The first bytes of a direction are all of its evidence, and they have passed.
                    pipe.end_record();
                }
                Some(taken)
            }
        }
    }

    /// The sender of `direction` has ended, and left `rest` unfinished.
    pub(super) fn sender_ended(&mut self, direction: Direction, rest: &Bytes, now: u64) -> Observed {
        match self {
            Self::Http2 { .. } if rest.is_empty() => nothing(0),
            Self::Http2 { capture, .. } => capture.truncated(direction, rest, now),
            Self::Http1(capture) => capture.sender_ended(direction, rest, now),
            Self::Opaque(capture) => capture.sender_ended(direction, rest, now),
        }
    }

    /// Records that attestry answers these calls itself.
    pub(super) fn answered(&mut self, streams: &[u32], reason: &str, now: u64) -> Submission {
        match self {
            Self::Http2 { capture, .. } => capture.answered(streams, reason, now),
            Self::Http1(capture) => capture.answered(streams, reason, now),
            Self::Opaque(_) => Submission::default(),
        }
    }

    /// The connection's last evidence.
    pub(super) fn close(&mut self, ending: Ending, now: u64) -> Submission {
        match self {
            Self::Http2 { capture, .. } => capture.close(ending, now),
            Self::Http1(capture) => capture.close(ending, now),
            Self::Opaque(capture) => capture.close(ending, now),
        }
    }
}

fn take_frames<C: CommitPort>(
    capture: &mut Connection,
    pipe: &mut Pipe<C>,
    direction: Direction,
    room: usize,
    now: u64,
) -> Option<Taken> {
    match capture.reader(direction).prefix(pipe.buffered(), room) {
        Ok(Prefix { len: 0, .. }) => None,
        Ok(Prefix { len, small_data }) => {
            let chunk = pipe.take(len);
            let observed = capture.observe(direction, &chunk, now);
            Some(Taken { bytes: chunk.slice(..observed.forward), small_data, observed })
        }
        Err(error) => Some(Taken::nothing(capture.refuse(direction, &error, now))),
    }
}

/// The client's first 24 bytes (RFC 9113 section 3.4), which say nothing else.
fn preface<C: CommitPort>(has_passed: &mut bool, pipe: &mut Pipe<C>) -> Option<Taken> {
    if pipe.buffered().len() < PREFACE.len() {
        return None;
    }
    *has_passed = true;
    Some(Taken { bytes: pipe.take(PREFACE.len()), small_data: 0, observed: nothing(PREFACE.len()) })
}

/// Bytes that say nothing for the record.
fn nothing(forward: usize) -> Observed {
    Observed { submission: Submission::default(), forward, milestones: Vec::new(), failure: None }
}

fn take_all<C: CommitPort>(
    pipe: &mut Pipe<C>,
    length: usize,
    observe: impl FnOnce(&Bytes) -> Observed,
) -> Option<Taken> {
    if length == 0 {
        return None;
    }
    let chunk = pipe.take(length);
    let observed = observe(&chunk);
    Some(Taken { bytes: chunk.slice(..observed.forward), small_data: 0, observed })
}
