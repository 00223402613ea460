//! The relay of one connection: two pipes, the bytes of each forwarded as they came, once their evidence is committed.
//!
//! Read top to bottom: what is ready (`turn`), what is done about it (`act`), and how it ends. One task drives both directions, so nothing here is shared or
//! locked. Which protocol is spoken only `session` knows. Frames of attestry's own (GOAWAY at drain or at an unreadable peer) go through the same queues. Answering
//! calls instead of forwarding them is `local`'s.

use super::CommitPort;
use super::answers::Dialect;
use super::detect::Early;
use super::drain::Drain;
use super::half_closed::HalfClosed;
use super::link::Link;
use super::pipe::{Pipe, Ready};
use super::session::{Session, Taken};
use crate::capture::{Direction, Failure, Side, sender};
use crate::entry::{CommitError, Receipt};
use crate::http2::{code, frame};
use crate::limits::{BUSY_BYTES_MAX, LINGER_MS};
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// How a relayed connection came to its end.
pub(super) enum End {
    /// Both sides were served to their end, or one of them broke it off.
    Closed { reason: String, side: Side, how: Goodbye },
    /// The ledger does not commit: what is open must be answered here.
    Refused(String),
}

/// How the sockets are closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Goodbye {
    /// Both sides have ended.
    Silent,
    /// The peers must see a reset, because that is what one of them sent.
    Reset,
    /// attestry has sent a GOAWAY, which the client shall be able to read.
    Spoken,
}

/// One connection, both ways.
pub(super) struct Relay<'a, C: CommitPort> {
    session: &'a mut Session<C>,
    /// The entry of the connection itself, until it has its receipt; nothing goes on before that.
    opened: Option<C::Future>,
    client: &'a Link,
    upstream: &'a Link,
    up: Pipe<C>,
    down: Pipe<C>,
    up_shut: bool,
    down_shut: bool,
    /// Why and by whom the connection ends; the first cause stands.
    cause: Option<(String, Side)>,
    /// Set once both sides have been sent a GOAWAY: how long they have to read it.
    goodbye: Option<Pin<Box<Sleep>>>,
    breakage: Breakage,
    /// Bytes read since the connection last had nothing to do.
    busy_bytes: usize,
    /// Set once one direction has ended and the other goes on.
    half_closed: Option<HalfClosed<'a>>,
    drain: Drain,
}

/// What of the connection is broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Breakage {
    Nothing,
    /// The server takes no more bytes; what it says may still come.
    Upstream,
    /// One side has reset its connection, or attestry cuts it: the other's ends in a reset as well.
    Reset,
}

/// What is ready.
#[derive(Default)]
struct Turn {
    /// The connection's own entry has its receipt, or never will.
    opened: Option<Result<Receipt, CommitError>>,
    up: Option<Ready>,
    down: Option<Ready>,
    drain: bool,
    /// A peer does not read its GOAWAY.
    overdue: bool,
    /// The half that goes on has been silent for too long, or the peer that has ended is gone altogether.
    half_closed: Option<&'static str>,
    /// What TLS had left to send cannot be sent.
    flush: Option<(Side, io::Error)>,
}

impl<'a, C: CommitPort> Relay<'a, C> {
    pub(super) fn new(
        session: &'a mut Session<C>,
        client: &'a Link,
        upstream: &'a Link,
        early: Early,
        opened: Option<C::Future>,
    ) -> Self {
        let pipe = |early| Pipe::new(session.options.port.clone(), session.options.hold_bytes_max, early);
        let (up, down) = (pipe(early.client), pipe(early.server));
        let drain = Drain::new(&session.role.drain);
        let (up_shut, down_shut, goodbye) = (false, false, None);
        Self {
            session,
            opened,
            client,
            upstream,
            up,
            down,
            up_shut,
            down_shut,
            cause: None,
            goodbye,
            breakage: Breakage::Nothing,
            busy_bytes: 0,
            half_closed: None,
            drain,
        }
    }

    /// Relays until an end; returns it, and the pipes with what they still hold.
    pub(super) async fn run(mut self) -> (End, Pipe<C>, Pipe<C>) {
        let end = loop {
            if let Some(end) = self.settle() {
                break end;
            }
            let turn = poll_fn(|cx| self.turn(cx)).await;
            if let Err(end) = self.act(turn) {
                break end;
            }
            if self.busy_bytes > BUSY_BYTES_MAX {
                // Others on this thread come first now, however much this one still has to say.
                self.busy_bytes = 0;
                tokio::task::yield_now().await;
            }
        };
        // What was ready when the end came is not read any more, and its places are needed for saying so.
        self.up.give_place_back();
        self.down.give_place_back();
        (end, self.up, self.down)
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let ready = |poll: Poll<Ready>| if let Poll::Ready(ready) = poll { Some(ready) } else { None };
        let opened = match self.opened.as_mut().map(|opened| Pin::new(opened).poll(cx)) {
            Some(Poll::Ready(result)) => Some(result),
            _ => None,
        };
        let releases = self.opened.is_none();
        let is_idle = self.session.answers.is_idle() && self.up.is_empty() && self.down.is_empty();
        let turn = Turn {
            opened,
            up: ready(self.up.poll(cx, self.client, self.upstream, releases)),
            down: ready(self.down.poll(cx, self.upstream, self.client, releases)),
            drain: self.drain.poll(cx, is_idle).is_ready(),
            overdue: self.goodbye.as_mut().is_some_and(|limit| limit.as_mut().poll(cx).is_ready()),
            half_closed: self.poll_half_closed(cx),
            flush: self.poll_flush(cx),
        };
        let has_bytes = turn.up.is_some() || turn.down.is_some() || turn.opened.is_some();
        let has_more = turn.drain || turn.overdue || turn.half_closed.is_some() || turn.flush.is_some();
        if has_bytes || has_more {
            return Poll::Ready(turn);
        }
        self.busy_bytes = 0;
        Poll::Pending
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Option<(Side, io::Error)> {
        let failed = |link: &Link, cx: &mut Context<'_>| {
            if let Poll::Ready(Err(error)) = link.poll_flush(cx) { Some(error) } else { None }
        };
        if let Some(error) = failed(self.client, cx) {
            return Some((Side::Client, error));
        }
        // Said once: what the server says itself may still come.
        let upstream = (self.breakage == Breakage::Nothing).then(|| failed(self.upstream, cx));
        upstream.flatten().map(|error| (Side::Server, error))
    }

    fn poll_half_closed(&mut self, cx: &mut Context<'_>) -> Option<&'static str> {
        let all_said = [&self.up, &self.down].iter().all(|pipe| !pipe.is_ended || pipe.is_empty());
        let over = self.half_closed.as_mut()?.poll(cx, all_said);
        if let Poll::Ready(why) = over { Some(why) } else { None }
    }

    fn act(&mut self, turn: Turn) -> Result<(), End> {
        if let Some(opened) = turn.opened {
            self.opened = None;
            opened.map_err(refused)?;
        }
        // Answers before requests: what the server has said already is worth more than what the client asks next.
        if let Some(ready) = turn.down {
            self.act_on(Direction::ServerToClient, ready)?;
        }
        if let Some(ready) = turn.up {
            self.act_on(Direction::ClientToServer, ready)?;
        }
        if let Some((side, error)) = turn.flush {
            let direction =
                if side == Side::Client { Direction::ServerToClient } else { Direction::ClientToServer };
            self.write_failed(direction, &error)?;
        }
        if turn.drain {
            self.advance_drain();
        }
        if let Some(why) = turn.half_closed {
            return Err(self.give_up(why));
        }
        if turn.overdue {
            let (reason, side) = self.cause.take().unwrap_or_default();
            return Err(End::Closed { reason, side, how: Goodbye::Reset });
        }
        Ok(())
    }

    fn act_on(&mut self, direction: Direction, ready: Ready) -> Result<(), End> {
        let is_down = direction == Direction::ServerToClient;
        let (pipe, from, to) = if is_down {
            (&mut self.down, self.upstream, self.client)
        } else {
            (&mut self.up, self.client, self.upstream)
        };
        if let Some(half_closed) = &mut self.half_closed {
            half_closed.moved();
        }
        match ready {
            Ready::Receipt(Ok(_)) => {
                for milestone in pipe.release() {
                    self.session.answers.apply(milestone);
                }
            }
            Ready::Receipt(Err(error)) => return Err(refused(error)),
            Ready::Write => match pipe.write(to) {
                Err(error) if !is_retry(&error) => return self.write_failed(direction, &error),
                _ => {}
            },
            // What became ready before the connection was ended is not taken any more.
            Ready::Read | Ready::More if pipe.is_ended => pipe.give_place_back(),
            Ready::More => self.observe(direction),
            Ready::Read => {
                let wanted = self.session.bytes_wanted(direction, pipe.buffered());
                match pipe.read(from, wanted) {
                    Ok(0) => {
                        pipe.give_place_back();
                        self.sender_ended(direction);
                    }
                    Ok(read) => {
                        self.busy_bytes += read;
                        self.observe(direction);
                    }
                    Err(error) if is_retry(&error) => pipe.give_place_back(),
                    Err(error) => {
                        pipe.give_place_back();
                        self.broken_off(direction, &error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Observes what was read, and holds it until it is committed.
    fn observe(&mut self, direction: Direction) {
        let is_down = direction == Direction::ServerToClient;
        let pipe = if is_down { &mut self.down } else { &mut self.up };
        let (mut commits, mut took) = (false, false);
        while let Some(Taken { bytes, small_data, mut observed }) = self.session.observe(pipe, direction) {
            commits |= !observed.submission.entries.is_empty();
            took = true;
            if !is_down {
                // The client waits for an answer from the moment it has asked, whether or not the question went on.
                observed.milestones.drain(..).for_each(|milestone| self.session.answers.apply(milestone));
            }
            pipe.hold(bytes, small_data, observed.submission, observed.milestones);
            if let Some(failure) = observed.failure {
                return self.fail(direction, &failure);
            }
        }
        if !commits {
            pipe.give_place_back();
        }
        // What one side has said may decide what bytes of the other are that wait behind a request for another protocol.
        if took && self.session.answers.dialect() != Dialect::Http2 {
            let other = if is_down { &mut self.up } else { &mut self.down };
            other.set_waiting(!other.buffered().is_empty());
        }
    }

    /// A half-closed connection is over: the side that still has an open half sees a reset.
    fn give_up(&mut self, why: &str) -> End {
        self.session.options.counters.half_closed_reaped.add(1);
        let (before, side) = self.cause.take().unwrap_or_default();
        End::Closed { reason: format!("{before}, then {why}"), side, how: Goodbye::Reset }
    }

    /// One side cannot be read: both are told, behind everything that was read before.
    fn fail(&mut self, direction: Direction, failure: &Failure) {
        self.cause.get_or_insert((failure.reason.clone(), sender(direction)));
        let goaway = self.session.answers.goaway_finally(failure.code, &failure.reason);
        self.say_goodbye(goaway, failure.code);
    }

    /// Ends both directions behind what they hold, with a GOAWAY each.
    fn say_goodbye(&mut self, to_client: Vec<u8>, code: u32) {
        self.goodbye.get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(LINGER_MS))));
        self.up.end();
        self.down.end();
        if !self.session.speaks_http2() {
            // There is no word for it in another protocol, and an end in good order would be taken for the sender's.
            if !self.session.answers.is_idle() {
                self.breakage = Breakage::Reset;
            }
            return;
        }
        self.inject_down(to_client);
        if self.up.has_begun() {
            self.up.inject(frame::goaway(0, code, b""));
        }
    }

    /// The client must have SETTINGS before anything else (RFC 9113 section 3.4): the server's, or where it has not sent any, empty ones.
    fn inject_down(&mut self, frame: Vec<u8>) {
        if self.down_shut {
            return;
        }
        if !self.down.has_begun() {
            self.down.inject(self.session.answers.preamble());
        }
        self.down.inject(frame);
    }

    /// The sender of `direction` has closed its side. What it left unfinished goes on as it is.
    fn sender_ended(&mut self, direction: Direction) {
        let is_down = direction == Direction::ServerToClient;
        let side = sender(direction);
        let from = if is_down { self.upstream } else { self.client };
        let how = if from.has_ended_in_good_order() { "" } else { " without TLS's close_notify" };
        self.cause.get_or_insert_with(|| (format!("closed by the {}{how}", name(side)), side));
        let pipe = if is_down { &mut self.down } else { &mut self.up };
        let rest = pipe.take(pipe.buffered().len());
        let (submission, milestones) = self.session.sender_ended(direction, &rest);
        if !rest.is_empty() || !submission.entries.is_empty() {
            pipe.hold(rest, 0, submission, milestones);
        }
        pipe.is_ended = true;
        let timeout = self.session.options.half_close_timeout;
        self.half_closed.get_or_insert_with(|| HalfClosed::new(from, timeout));
    }

    /// The sender of `direction` has reset its connection. What it said before still goes on, as far as the receiver takes it soon; then it sees a reset too.
    fn broken_off(&mut self, direction: Direction, error: &io::Error) {
        let side = sender(direction);
        self.cause = Some((format!("{} by the {}", error.kind(), name(side)), side));
        self.breakage = Breakage::Reset;
        self.goodbye.get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(LINGER_MS))));
        if direction == Direction::ServerToClient {
            self.down.end();
            self.up.abandon();
            self.up_shut = true;
        } else {
            self.up.end();
            self.down.abandon();
            self.down_shut = true;
        }
    }

    fn write_failed(&mut self, direction: Direction, error: &io::Error) -> Result<(), End> {
        if direction == Direction::ServerToClient {
            let reason = format!("{} by the client", error.kind());
            return Err(End::Closed { reason, side: Side::Client, how: Goodbye::Reset });
        }
        // The server takes no more, but what it said last may still be on its way: the client shall have it.
        self.cause.get_or_insert_with(|| (format!("{} by the server", error.kind()), Side::Server));
        self.up.abandon();
        // The kernel tells of a reset once, and of one behind the server's end as a broken pipe: so what is read from here on will seem to end in good order, and does not.
        let is_reset = error.kind() == io::ErrorKind::ConnectionReset;
        let breakage = if is_reset { Breakage::Reset } else { Breakage::Upstream };
        (self.up_shut, self.breakage) = (true, self.breakage.max(breakage));
        Ok(())
    }

    /// Passes a sender's end on once everything before it has gone; the connection is over when both have ended.
    fn settle(&mut self) -> Option<End> {
        if self.up.is_ended
            && self.up.is_empty()
            && !std::mem::replace(&mut self.up_shut, true)
            && self.breakage != Breakage::Reset
        {
            self.upstream.shutdown_write(self.client.has_ended_in_good_order());
        }
        if self.down.is_ended
            && self.down.is_empty()
            && !std::mem::replace(&mut self.down_shut, true)
            && self.breakage != Breakage::Reset
        {
            self.client.shutdown_write(self.upstream.has_ended_in_good_order());
        }
        let is_flushed =
            self.client.is_flushed() && (self.breakage != Breakage::Nothing || self.upstream.is_flushed());
        if !(self.up_shut && self.down_shut && is_flushed) {
            return None;
        }
        let (reason, side) = self.cause.take().unwrap_or_default();
        let how = if self.breakage == Breakage::Reset {
            Goodbye::Reset
        } else if self.goodbye.is_some() {
            Goodbye::Spoken
        } else {
            Goodbye::Silent
        };
        Some(End::Closed { reason, side, how })
    }

    fn advance_drain(&mut self) {
        match self.drain {
            Drain::No(_) => {
                // Before the server's SETTINGS there can be no GOAWAY but with SETTINGS of our own, whose acknowledgement the server would get.
                if self.down.has_begun() && self.session.answers.dialect() == Dialect::Http2 {
                    let goaway = self.session.answers.goaway_gracefully("attestry is stopping");
                    self.inject_down(goaway);
                }
                self.drain = Drain::asked(&self.session.role.drain);
            }
            Drain::Asked { .. } => {
                let calls = self.session.answers.streams().len();
                // A call that came in the same turn has been taken, and is served.
                if calls > 0 && !self.session.role.drain.expired.is_cancelled() {
                    return;
                }
                let reason = if self.session.answers.is_idle() {
                    "drained".to_owned()
                } else if calls == 0 {
                    "drain timeout".to_owned()
                } else {
                    format!("drain timeout with {calls} calls open")
                };
                self.cause.get_or_insert((reason, Side::Attestry));
                let goaway = self.session.answers.goaway_finally(code::NO_ERROR, "attestry is stopping");
                self.say_goodbye(goaway, code::NO_ERROR);
                self.drain = Drain::Done;
            }
            Drain::Done => {}
        }
    }
}

fn refused(error: CommitError) -> End {
    match error {
        CommitError::Refusing(reason) => End::Refused(reason),
        CommitError::Closed => End::Refused(error.to_string()),
    }
}

fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
        Side::Attestry | Side::Unspecified => "attestry",
    }
}
