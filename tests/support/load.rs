//! A load without end: gRPC calls, unary and streaming mixed, messages cut into DATA frames that begin and end anywhere,
//! some calls cancelled.
//!
//! Random, and the same for the same seed up to the timing of threads. What comes of it is kept by the client (`traffic.rs`).

use std::net::SocketAddr;

use crate::traffic::{CANCEL, Client, Receipts, cancel, data, message, open_call};

/// Calls that one client keeps open at a time.
const OPEN_CALLS_MAX: usize = 6;

/// Calls without end from one client, until its connection ends. `name` makes the calls' names unique; `each` hears of
/// every call that has ended.
pub(crate) fn load(addr: SocketAddr, name: &str, random: &mut Random, each: &dyn Fn()) -> Receipts {
    let Some(client) = Client::connect(addr) else { return Receipts::default() };
    let mut open: Vec<Vec<Vec<u8>>> = Vec::new();
    let (mut begun, mut over, mut told) = (0, 0, 0);
    loop {
        let (ended, refusals) = client.so_far();
        if refusals > 0 {
            // Nothing more is asked of a sidecar that refuses; what it still sends is read to the end.
            client.close();
            break;
        }
        (told..ended).for_each(|_| each());
        told = ended;
        if open.len() < OPEN_CALLS_MAX && random.below(3) == 0 {
            // Its first frames leave at once: streams are opened in the order of their numbers (RFC 9113 section 5.1.1).
            let mut frames = call_frames(2 * begun + 1, &format!("{name}-{begun}"), random);
            begun += 1;
            if !client.write(&frames.remove(0)) {
                break;
            }
            if !frames.is_empty() {
                open.push(frames);
            }
        } else if begun as usize > ended + over + 4 * OPEN_CALLS_MAX {
            // Not more ahead of the server than that.
            if !client.wait_for_progress(ended) {
                break;
            }
            continue;
        }
        if open.is_empty() {
            continue;
        }
        let at = random.below(open.len());
        let take = 1 + random.below(3).min(open[at].len() - 1);
        let bytes: Vec<u8> = open[at].drain(..take).flatten().collect();
        if open[at].is_empty() {
            let is_cancelled = bytes.ends_with(&CANCEL.to_be_bytes());
            over += usize::from(is_cancelled);
            open.swap_remove(at);
        }
        if !client.write(&bytes) {
            break;
        }
    }
    // What arrived before the end is still to be read.
    client.finish()
}

/// The frames of one call: unary, or some messages in DATA frames that begin and end anywhere.
fn call_frames(stream: u32, call: &str, random: &mut Random) -> Vec<Vec<u8>> {
    let messages = if random.below(2) == 0 { 1 } else { 1 + random.below(6) };
    let bytes: Vec<u8> = (0..messages)
        .flat_map(|number| {
            let mut bytes = format!("{call}/{number}:").into_bytes();
            let room = if random.below(32) == 0 { 20_000 } else { 600 };
            bytes.extend((0..random.below(room)).map(|_| random.next() as u8));
            message(&bytes)
        })
        .collect();
    let path = if messages == 1 { "/echo.Echo/Unary" } else { "/echo.Echo/Stream" };
    let first = open_call(stream, path, call);
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let length = if messages == 1 { 16_384 } else { 1 + random.below(4_000) };
        let (now, later) = rest.split_at(length.min(rest.len()));
        frames.push(data(stream, now, messages == 1 && later.is_empty()));
        rest = later;
    }
    if messages > 1 {
        let is_cancelled = random.below(8) == 0;
        frames.push(if is_cancelled { cancel(stream) } else { data(stream, &[], true) });
    } else {
        // A unary call's headers and message leave together, as from real clients.
        let unary = [first, frames.concat()].concat();
        return vec![unary];
    }
    frames.insert(0, first);
    frames
}

/// Numbers that are random enough for a load and the same for the same seed (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}
