//! The threads of a verification and the channels between them.
//!
//! Invariants: what comes out of a stage is in the order of the log, because frames are dealt to the `content` threads in turn and taken back
//! in the same turn; each channel is bounded, in batches of bounded bytes, so a slow stage stops the ones before it.

use super::Progress;
use super::content::{Checker, Content, Work};
use super::fault::Sink;
use super::log::Log;
use super::messages::{Break, Item, Messages, Route, route};
use super::rows::{RowCheck, Rows};
use super::start::Known;
use super::walk::{Walk, WalkEnd};
use crate::ledger::segment::Segment;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};

/// Frames of one batch: enough that passing it on costs nothing beside them, few enough that a batch is a few milliseconds of work.
const BATCH_FRAMES_MAX: usize = 64;

/// Bytes of one batch, beyond which it is passed on: the last frame may exceed it.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Batches that wait in each channel. One keeps its reader busy while the next is made.
const BATCHES_WAITING_MAX: usize = 1;

/// What is known when all frames were read.
pub(super) struct End {
    /// Where the walk ended.
    pub walk: WalkEnd,
    /// The log.
    pub log: Log,
}

/// Runs all stages; this thread is the one of `log`.
pub(super) fn run(
    ledger: &Path,
    known: &Known,
    rows: Option<Rows>,
    threads: Option<NonZeroUsize>,
    sink: &Sink,
    progress: impl FnMut(Progress),
) -> End {
    let threads = threads.map_or(1, NonZeroUsize::get);
    let checker = Checker { key: known.key.as_ref(), origin: known.origin.as_deref(), sink };
    thread::scope(|scope| {
        let (mut work, mut content, mut checkers) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..threads {
            let (to_checker, from_walk) = sync_channel(BATCHES_WAITING_MAX);
            let (to_log, from_checker) = sync_channel(BATCHES_WAITING_MAX);
            checkers.push(scope.spawn(move || check(checker, &from_walk, &to_log)));
            work.push(to_checker);
            content.push(from_checker);
        }
        let walk = scope.spawn(move || {
            let mut deal = Deal::new(work);
            let end = Walk::new(ledger, known, sink, |work| deal.add(work)).run();
            deal.pass_on();
            end
        });
        let (shards, messages): (Vec<_>, Vec<_>) = (0..threads)
            .map(|_| {
                let (to_messages, from_log) = sync_channel::<Vec<Item>>(BATCHES_WAITING_MAX);
                (to_messages, scope.spawn(move || follow(sink, &from_log)))
            })
            .unzip();
        let collector = Collector {
            log: Log::new(known),
            rows: RowCheck::new(rows, sink),
            shards: Shards { pending: shards.iter().map(|_| Vec::new()).collect(), channels: shards },
            sink,
            progress,
            done: Progress { done_bytes: 0, total_bytes: total_bytes(ledger, known) },
        };
        let (log, rows) = collector.run(&content);
        // Had one of the checkers panicked, the others would wait for this thread to take more from them.
        drop(content);
        checkers.into_iter().for_each(join);
        let walk = join(walk);
        rows.end(walk.size);
        match messages.into_iter().map(join).sum::<u64>() {
            0 => {}
            count => sink.remark(format!(
                "{count} segments of messages could not be checked, because something before them is missing or not stored."
            )),
        }
        End { walk, log }
    })
}

/// A panic in one stage is a panic of the whole: a verdict on a part would be none.
fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn total_bytes(ledger: &Path, known: &Known) -> u64 {
    known.segments.iter().filter_map(|&number| Segment::open(ledger, number).ok()?.bytes().ok()).sum()
}

/// Deals frames to the checkers in turn, in batches.
struct Deal {
    channels: Vec<SyncSender<Vec<Work>>>,
    turn: usize,
    batch: Vec<Work>,
    batch_bytes: usize,
}

impl Deal {
    fn new(channels: Vec<SyncSender<Vec<Work>>>) -> Self {
        Self { channels, turn: 0, batch: Vec::new(), batch_bytes: 0 }
    }

    fn add(&mut self, work: Work) {
        self.batch_bytes += work.frame.bytes().len();
        self.batch.push(work);
        if self.batch.len() >= BATCH_FRAMES_MAX || self.batch_bytes >= BATCH_BYTES_MAX {
            self.pass_on();
        }
    }

    fn pass_on(&mut self) {
        self.batch_bytes = 0;
        // A receiver is gone only after a panic, which ends everything when its thread is joined.
        let _ = self.channels[self.turn].send(std::mem::take(&mut self.batch));
        self.turn = (self.turn + 1) % self.channels.len();
    }
}

/// A thread of `content`.
fn check(checker: Checker<'_>, from_walk: &Receiver<Vec<Work>>, to_log: &SyncSender<Vec<Content>>) {
    for batch in from_walk {
        if to_log.send(batch.into_iter().map(|work| checker.check(work)).collect()).is_err() {
            return;
        }
    }
}

/// A thread of `messages`.
fn follow(sink: &Sink, from_log: &Receiver<Vec<Item>>) -> u64 {
    let mut messages = Messages::new(sink);
    for batch in from_log {
        for item in &batch {
            messages.take(item);
        }
    }
    messages.unchecked()
}

/// The stage in the middle, which sees all frames in order.
struct Collector<'a, P> {
    log: Log,
    rows: RowCheck<'a>,
    shards: Shards,
    sink: &'a Sink,
    progress: P,
    done: Progress,
}

impl<'a, P: FnMut(Progress)> Collector<'a, P> {
    /// Takes batches back in the turn in which they were dealt, until the walk and with it the turn has ended.
    fn run(mut self, content: &[Receiver<Vec<Content>>]) -> (Log, RowCheck<'a>) {
        for turn in content.iter().cycle() {
            let Ok(batch) = turn.recv() else { break };
            for frame in batch {
                self.frame(frame);
            }
            self.shards.pass_on();
            (self.progress)(self.done);
        }
        (self.log, self.rows)
    }

    fn frame(&mut self, content: Content) {
        let goes_on = self.log.append(&content, self.sink);
        self.rows.frame(&content, self.log.root());
        self.done.done_bytes += u64::from(content.length);
        if content.after_unknown {
            self.shards.all(Break::Unknown);
        }
        for (position, leaf) in (0..).zip(content.leaves) {
            match route(content.at, position, leaf, self.shards.pending.len()) {
                Route::One(shard, item) => self.shards.pending[shard].push(item),
                Route::All(kind) => self.shards.all(kind),
                Route::None => {}
            }
        }
        if !goes_on {
            self.shards.all(Break::Unknown);
        }
    }
}

/// The threads of `messages`, each with what it is to be given next.
struct Shards {
    channels: Vec<SyncSender<Vec<Item>>>,
    pending: Vec<Vec<Item>>,
}

impl Shards {
    fn all(&mut self, kind: Break) {
        for pending in &mut self.pending {
            pending.push(Item::Break(kind));
        }
    }

    fn pass_on(&mut self) {
        for (channel, pending) in self.channels.iter().zip(&mut self.pending) {
            if !pending.is_empty() {
                // A receiver is gone only after a panic, which ends everything when its thread is joined.
                let _ = channel.send(std::mem::take(pending));
            }
        }
    }
}
