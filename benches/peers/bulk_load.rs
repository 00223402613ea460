//! The load that is not unary: streams of messages, one large upload, and connections that are idle after a call.
//!
//! Every message that comes back is compared to the last byte; a run in which anything but the right answers came is an error, never a number.

use super::bulk_service::{PREFIX_BYTES, STREAMED_MESSAGES, number_message, streamed_message};
use super::client::Client;
use super::echo;
use anyhow::{Context as _, ensure};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Payload of the one call of a connection that then is idle.
const IDLE_PAYLOAD_BYTES: u32 = 100;
/// Between two looks at whether all clients have begun.
const PAUSE: Duration = Duration::from_millis(1);
/// Payload of each message of an upload.
pub(super) const UPLOADED_PAYLOAD_BYTES: usize = 64 * 1024;

/// Streaming calls, one after another on each of so many connections.
pub(super) struct Streams {
    pub(super) address: SocketAddr,
    pub(super) connections: u32,
    pub(super) warm_up: Duration,
    pub(super) window: Duration,
}

impl Streams {
    /// Runs them, and gives messages per second; `edge` is called at the beginning and at the end of the window, with the number of messages so far.
    pub(super) fn run<T>(&self, edge: impl Fn(u64) -> anyhow::Result<T>) -> anyhow::Result<(f64, T, T)> {
        let (done, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let (edges, ended) = thread::scope(|scope| {
            let client = || self.client(&done, &is_over);
            let clients: Vec<_> = (0..self.connections).map(|_| scope.spawn(client)).collect();
            let edge = || {
                let messages = done.load(Ordering::Relaxed);
                anyhow::Ok((Instant::now(), messages, edge(messages)?))
            };
            let watch = || {
                thread::sleep(self.warm_up);
                // One that has ended has failed, and nothing more is to be waited for.
                while done.load(Ordering::Relaxed) == 0
                    && !clients.iter().any(thread::ScopedJoinHandle::is_finished)
                {
                    thread::sleep(PAUSE);
                }
                let begin = edge()?;
                thread::sleep(self.window);
                anyhow::Ok((begin, edge()?))
            };
            let edges = watch();
            is_over.store(true, Ordering::Relaxed);
            let ended = clients.into_iter().map(|client| client.join().expect("clients do not panic"));
            (edges, ended.collect::<anyhow::Result<()>>())
        });
        // What a client has met says more than what it did not do.
        ended?;
        let ((begin, before, first), (end, messages, last)) = edges?;
        ensure!(messages > before, "no message in the window");
        Ok(((messages - before) as f64 / (end - begin).as_secs_f64(), first, last))
    }

    fn client(&self, done: &AtomicU64, is_over: &AtomicBool) -> anyhow::Result<()> {
        let mut client = Client::connect(self.address)?;
        while !is_over.load(Ordering::Relaxed) {
            client.begin("/attestry.bench.Bulk/Stream");
            client.send(&[0; PREFIX_BYTES], true)?;
            let mut messages = Messages::default();
            client.answer(|data| {
                done.fetch_add(messages.take(data)?, Ordering::Relaxed);
                Ok(())
            })?;
            ensure!(
                messages.whole == STREAMED_MESSAGES && messages.partial.is_empty(),
                "a stream ended after {} messages of {STREAMED_MESSAGES}",
                messages.whole
            );
        }
        Ok(())
    }
}

/// The messages of one stream, as far as they have come.
struct Messages {
    expected: Vec<u8>,
    whole: u32,
    partial: Vec<u8>,
}

impl Default for Messages {
    fn default() -> Self {
        Self { expected: streamed_message(0), whole: 0, partial: Vec::new() }
    }
}

impl Messages {
    /// Compares what comes next, and says how many messages that has completed.
    fn take(&mut self, mut data: &[u8]) -> anyhow::Result<u64> {
        let before = self.whole;
        while !data.is_empty() {
            let missing = self.expected.len() - self.partial.len();
            let (part, behind) = data.split_at(missing.min(data.len()));
            self.partial.extend_from_slice(part);
            data = behind;
            if self.partial.len() == self.expected.len() {
                number_message(&mut self.expected, self.whole);
                ensure!(self.partial == self.expected, "message {} came as another one", self.whole);
                self.partial.clear();
                self.whole += 1;
            }
        }
        Ok(u64::from(self.whole - before))
    }
}

/// One call of so many messages of 64 KiB, the sink's count of which must be right; how long it took.
pub(super) fn upload(address: SocketAddr, messages: u64) -> anyhow::Result<Duration> {
    let mut message = vec![0];
    message.extend_from_slice(&(UPLOADED_PAYLOAD_BYTES as u32).to_be_bytes());
    message.extend((0..UPLOADED_PAYLOAD_BYTES).map(|at| (at.wrapping_mul(167) ^ (at >> 8)) as u8));
    let begun = Instant::now();
    let mut client = Client::connect(address)?;
    client.begin("/attestry.bench.Bulk/Sink");
    for number in 1..=messages {
        client
            .send(&message, number == messages)
            .with_context(|| format!("message {number} of {messages}"))?;
    }
    let mut answer = Vec::new();
    client.answer(|data| {
        answer.extend_from_slice(data);
        Ok(())
    })?;
    let took = begun.elapsed();
    let count = answer.get(PREFIX_BYTES..).unwrap_or_default();
    let sent_bytes = messages * message.len() as u64;
    ensure!(count == sent_bytes.to_be_bytes(), "of {sent_bytes} bytes sent, the sink has counted {count:?}");
    Ok(took)
}

/// So many connections, each of which has made one unary call and now is idle.
pub(super) fn idle(address: SocketAddr, connections: u32) -> anyhow::Result<Vec<Client>> {
    let message = echo::message(IDLE_PAYLOAD_BYTES);
    let one = |number| echo::check(address, &message).with_context(|| format!("idle connection {number}"));
    (1..=connections).map(one).collect()
}
