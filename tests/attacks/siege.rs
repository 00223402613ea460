//! One attack on a sidecar with one worker thread, and what must hold meanwhile and afterwards.
//!
//! A genuine client, whose connection is served by the same thread as the attacker's, makes its calls from the moment at which the attack is under way; the attack goes on
//! until the last of them is answered. Then: each was answered and is listed, the ledger is intact, resident memory has not grown past a bound, the threads come to
//! rest while the attackers are still connected, and the ledger has not grown past a number of bytes for each byte of the attack. Nothing is timed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use attestry::entry::Body;
use attestry::generated::v1;

use crate::frames::{self, PREFACE};
use crate::h2_peers::{Client, message, runtime};
use crate::ledger_reading::{assert_intact, bodies};
use crate::support::sidecar::{Builder, Sidecar};

/// Genuine calls during each attack.
pub(crate) const CALLS: usize = 20;

/// Bytes of an attack until it counts as under way.
const UNDER_WAY_BYTES: u64 = 64 * 1024;

/// Any wait for what must happen.
const PATIENCE: Duration = Duration::from_mins(1);

/// The path of the genuine calls; attackers name others.
const GENUINE: &str = "/echo.Echo/Call";

/// How large an attack is, and what it may cost.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Threads that attack.
    pub(crate) attackers: usize,
    /// Bytes after which they hold what they have.
    pub(crate) bytes: u64,
    /// Growth of resident memory, from idle to its peak.
    pub(crate) memory_kib: u64,
    /// Bytes of the ledger for each byte of the attack that the sidecar has taken.
    pub(crate) ledger_bytes_per_byte: f64,
    /// The ledger is in memory, so that a call waits for its turns alone and not for a disk.
    pub(crate) in_memory: bool,
}

impl Bounds {
    /// One attacker with all the bytes that it can send, as most attacks are; no memory to speak of, and as many bytes of the ledger as of the attack.
    pub(crate) const ONE: Self = Self {
        attackers: 1,
        bytes: u64::MAX,
        memory_kib: 32 * 1024,
        ledger_bytes_per_byte: 1.0,
        in_memory: false,
    };

    fn folder(&self) -> &'static Path {
        Path::new(if self.in_memory { "/dev/shm" } else { env!("CARGO_TARGET_TMPDIR") })
    }
}

/// What the attackers are given, and what they say.
#[derive(Default)]
pub(crate) struct Attack {
    /// Bytes that were written to the sidecar.
    sent: AtomicU64,
    /// Bytes that the attack has at the most: then it holds what it has.
    budget: AtomicU64,
    over: AtomicBool,
    /// Set by attacks that send little.
    under_way: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
    addr: Mutex<Option<SocketAddr>>,
}

impl Attack {
    /// A connection to the sidecar whose answers nobody looks at. `None` once the siege is over.
    pub(crate) fn connect(self: &Arc<Self>) -> Option<TcpStream> {
        let socket = self.connect_deaf()?;
        let mut reading = socket.try_clone().unwrap();
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while matches!(reading.read(&mut buffer), Ok(1..)) {}
        });
        Some(socket)
    }

    /// The same, but nothing is read from it at all.
    pub(crate) fn connect_deaf(&self) -> Option<TcpStream> {
        if self.over.load(Ordering::SeqCst) {
            return None;
        }
        let addr = self.addr.lock().unwrap().expect("a siege has a sidecar");
        let socket = TcpStream::connect(addr).ok()?;
        socket.set_nodelay(true).unwrap();
        let mut sockets = self.sockets.lock().unwrap();
        if self.over.load(Ordering::SeqCst) {
            return None;
        }
        sockets.push(socket.try_clone().unwrap());
        Some(socket)
    }

    /// An HTTP/2 connection whose preface and SETTINGS have been sent.
    pub(crate) fn connect_http2(self: &Arc<Self>) -> Option<TcpStream> {
        let mut socket = self.connect()?;
        socket.write_all(&[&PREFACE[..], &frames::settings(&[])].concat()).ok()?;
        Some(socket)
    }

    /// Sends it; false where the connection takes no more, or the siege is over.
    pub(crate) fn send(&self, mut socket: &TcpStream, bytes: &[u8]) -> bool {
        let sent = self.sent.load(Ordering::SeqCst);
        if self.over.load(Ordering::SeqCst) || sent >= self.budget.load(Ordering::SeqCst) {
            return false;
        }
        let is_taken = socket.write_all(bytes).is_ok();
        if is_taken {
            self.sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        }
        is_taken
    }

    /// Says that the attack is under way, whatever it has sent.
    pub(crate) fn is_under_way(&self) {
        self.under_way.store(true, Ordering::SeqCst);
    }

    /// Counts bytes for what costs the sidecar something and has none.
    pub(crate) fn allow_for(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    /// Closes the connections of all attackers.
    pub(crate) fn forget(&self) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            // It may be gone already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Keeps the connections that there are until the siege is over.
    pub(crate) fn hold(&self) {
        self.is_under_way();
        while !self.over.load(Ordering::SeqCst) {
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// The siege is over, or the attack has spent its bytes.
    pub(crate) fn is_spent(&self) -> bool {
        self.over.load(Ordering::SeqCst)
            || self.sent.load(Ordering::SeqCst) >= self.budget.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.forget();
    }
}

/// What a siege has left behind.
pub(crate) struct Aftermath {
    /// Everything that the ledger says, in order.
    pub(crate) bodies: Vec<Body>,
    /// Bytes that the attackers have got rid of while the genuine calls were made.
    pub(crate) sent_during_calls: u64,
}

impl Aftermath {
    /// The events of connections, in order.
    pub(crate) fn connection_events(&self) -> Vec<v1::ConnectionEvent> {
        let events = self.bodies.iter().filter_map(|body| match body {
            Body::ConnectionEvents(events) => Some(events.events.clone()),
            _ => None,
        });
        events.flatten().collect()
    }

    /// Calls that began.
    pub(crate) fn calls(&self) -> usize {
        let is_first = |body: &&Body| matches!(body, Body::CallEvents(events) if events.sequence == 1);
        self.bodies.iter().filter(is_first).count()
    }
}

/// The settings of every siege: one worker, so that attackers and genuine clients share a thread.
pub(crate) fn builder(upstream: SocketAddr) -> Builder {
    Sidecar::builder(upstream).set("proxy", "workers", "1").set("ledger", "segment_bytes", "67108864")
}

/// Lays siege: `attack` runs on `bounds.attackers` threads, over and over, until the genuine calls are answered or its bytes are spent.
pub(crate) fn besiege(
    name: &str,
    builder: Builder,
    bounds: &Bounds,
    attack: impl Fn(&Arc<Attack>) + Send + Sync + 'static,
) -> Aftermath {
    let &Bounds { attackers, bytes: attack_bytes, .. } = bounds;
    let folder = tempfile::tempdir_in(bounds.folder()).unwrap();
    let mut sidecar = builder.ledger_dir(&folder.path().join("ledger")).start();
    let runtime = runtime();
    let content = message(b"genuine");
    let mut client = runtime.block_on(Client::connect(sidecar.addr));
    let mut call = |number: usize| {
        let outcome = runtime.block_on(client.call(&content));
        assert!(outcome.is_echo_of(&content), "{name}: call {number}: {outcome:?}; {}", sidecar.stderr());
    };
    call(0);
    let idle = resident_kib(&sidecar, "VmRSS:");
    let (ledger_before, cpu_before) = (ledger_bytes(&sidecar.ledger_dir), cpu_ticks(&sidecar));

    let (state, attack) = (Arc::<Attack>::default(), Arc::new(attack));
    state.budget.store(attack_bytes, Ordering::SeqCst);
    *state.addr.lock().unwrap() = Some(sidecar.addr);
    let threads: Vec<_> = (0..attackers)
        .map(|_| {
            let (state, attack) = (Arc::clone(&state), Arc::clone(&attack));
            thread::spawn(move || {
                while !state.is_spent() {
                    attack(&state);
                }
            })
        })
        .collect();
    until(name, "the attack is under way", || {
        state.under_way.load(Ordering::SeqCst)
            || state.sent.load(Ordering::SeqCst) >= UNDER_WAY_BYTES.min(attack_bytes)
    });
    let before = state.sent.load(Ordering::SeqCst);
    for number in 1..=CALLS {
        call(number);
    }
    let sent = state.sent.load(Ordering::SeqCst);
    let peak = resident_kib(&sidecar, "VmHWM:");
    must_come_to_rest(name, &sidecar, &state);
    call(CALLS + 1);
    let cpu = cpu_ticks(&sidecar) - cpu_before;
    let growth = peak.max(resident_kib(&sidecar, "VmHWM:")).saturating_sub(idle);
    state.end();
    for thread in threads {
        thread.join().unwrap();
    }

    drop(client);
    sidecar.stop();
    let sent_in_all = state.sent.load(Ordering::SeqCst);
    let ledger = ledger_bytes(&sidecar.ledger_dir) - ledger_before;
    let ratio = ledger as f64 / sent_in_all as f64;
    eprintln!(
        "{name}: {sent_in_all} bytes sent ({} during the calls), {growth} KiB more resident, {cpu} ticks, {ledger} bytes of ledger ({ratio:.2} for each)",
        sent - before
    );
    assert_intact(&sidecar.ledger_dir, name);
    let genuine = sidecar.calls().iter().filter(|call| call["method"].as_str() == Some(GENUINE)).count();
    assert_eq!(genuine, CALLS + 2, "{name}: genuine calls in the ledger");
    assert!(growth <= bounds.memory_kib, "{name}: resident memory grew by {growth} KiB");
    assert!(
        ratio <= bounds.ledger_bytes_per_byte,
        "{name}: the ledger grew by {ratio:.2} bytes for each byte"
    );
    Aftermath { bodies: bodies(&sidecar.ledger_dir), sent_during_calls: sent - before }
}

/// Once the attackers send no more, but are still there, every thread of the sidecar must be found asleep: none spins.
fn must_come_to_rest(name: &str, sidecar: &Sidecar, state: &Attack) {
    state.budget.store(0, Ordering::SeqCst);
    let mut restless: Vec<String> = fs::read_dir(format!("/proc/{}/task", sidecar.pid()))
        .unwrap()
        .map(|task| format!("{}/stat", task.unwrap().path().display()))
        .collect();
    until(name, "every thread sleeps", || {
        restless.retain(|path| {
            // "pid (name) state ...", and the name may hold anything but its last parenthesis.
            let stat = fs::read_to_string(path).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R'))
        });
        restless.is_empty()
    });
}

fn until(name: &str, what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{name}: it never came to this: {what}");
        thread::yield_now();
    }
}

fn cpu_ticks(sidecar: &Sidecar) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", sidecar.pid())).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    // The fields 14 and 15 of the line; the state is field 3.
    rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

fn ledger_bytes(ledger: &Path) -> u64 {
    let frames = crate::ledger_reading::frames(ledger);
    frames.iter().map(|placed| u64::from(placed.frame.header().length)).sum()
}

/// A line of `/proc/PID/status`, in KiB.
fn resident_kib(sidecar: &Sidecar, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
