//! Kills at any moment lose nothing that a peer has seen: 200 times SIGKILL under load, and once at each step of a start.
//!
//! Both peers keep every byte that they receive; after each restart on the same ledger all of it must be in there, byte for byte,
//! and the ledger must verify, for `attestry` and for the Python verifier, with nothing unsigned left. What kills cannot
//! show, a cache of the disk that is lost with the power, is `power_cut.rs`'s.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test's panic is its report")]

#[path = "support/evidence.rs"]
mod evidence;
#[path = "support/load.rs"]
mod load;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use attestry::ledger::fsck::Verdict;
use attestry::ledger::segment::{self, Found, Segment};

use evidence::{Evidence, must_be_intact, must_be_intact_for_python, report};
use load::Random;
use support::sidecar::{self, Sidecar};
use traffic::{Client, EchoServer, Receipt, Way};

const KILLS: usize = 200;
const CONNECTIONS: usize = 4;
/// After so many kills under load, the next start is killed too.
const START_KILL_EVERY: usize = 5;
/// The smallest that is allowed: kills also meet the change from one segment to the next.
const SEGMENT_BYTES: &str = "1048576";
const SEED: u64 = 20_240_229;

#[test]
fn two_hundred_kills_lose_nothing_that_a_peer_received() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let ledger = folder.path().join("ledger");
    let server = EchoServer::start(<[u8]>::to_vec);
    let mut random = Random(SEED);
    let (mut received, mut evidence) = (Vec::new(), Evidence::default());
    let mut checked = 0;
    for kill in 1..=KILLS {
        received.extend(kill_under_load(&ledger, &server, &format!("k{kill}"), &mut random));
        if kill % START_KILL_EVERY == 0 {
            kill_a_start(&ledger, folder.path(), &mut random);
        }
        if kill % 10 == 0 {
            let report = report(&ledger);
            assert_eq!(report.verdict, Verdict::Intact, "as the kill left it: {:?}", report.faults);
        }
        // This start has to make the ledger whole again.
        let restarted = start(&ledger, &server);
        evidence.read(&ledger);
        evidence.must_cover(&received[checked..]);
        checked = received.len();
        if kill % 10 == 0 {
            must_be_intact(&ledger);
        }
        if kill % 20 == 0 {
            must_be_intact_for_python(&ledger);
        }
        drop(restarted);
    }
    let mut last = start(&ledger, &server);
    last.stop();
    check_the_whole(&ledger, &received);
}

/// Reads everything again from its beginning, and shows that the checks are not empty.
fn check_the_whole(ledger: &Path, received: &[Receipt]) {
    must_be_intact(ledger);
    must_be_intact_for_python(ledger);
    let mut evidence = Evidence::default();
    evidence.read(ledger);
    evidence.must_cover(received);
    for way in [Way::Request, Way::Response] {
        let of_way = || received.iter().filter(|receipt| receipt.way == way);
        let (all, whole) = (of_way().count(), of_way().filter(|receipt| receipt.ended).count());
        let cut = all - whole - of_way().filter(|receipt| receipt.cancelled).count();
        let bytes: usize = of_way().map(|receipt| receipt.data.len()).sum();
        eprintln!("{way:?}: {all} calls, {bytes} bytes, {whole} to their end, {cut} cut off by a kill");
        assert!(whole > KILLS && cut > KILLS, "most kills must come while calls are open");
        evidence.must_notice_changes_of(
            of_way().find(|receipt| receipt.ended && receipt.data.len() > 100).unwrap(),
        );
    }
    eprintln!("the ledger holds {} directions of calls", evidence.len());
    sidecar::verify(ledger);
}

fn start(ledger: &Path, server: &EchoServer) -> Sidecar {
    Sidecar::builder(server.addr).ledger_dir(ledger).set("ledger", "segment_bytes", SEGMENT_BYTES).start()
}

/// Starts, lets the clients work until a number of calls have ended, kills at once; returns what all peers received.
fn kill_under_load(ledger: &Path, server: &EchoServer, name: &str, random: &mut Random) -> Vec<Receipt> {
    let mut sidecar = start(ledger, server);
    let (tell, ended) = channel();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let (name, addr, tell) = (format!("{name}-{number}"), sidecar.addr, tell.clone());
            let mut random = Random(random.next());
            thread::spawn(move || load::load(addr, &name, &mut random, &|| tell.send(()).unwrap_or_default()))
        })
        .collect();
    for _ in 0..random.below(400) {
        ended.recv_timeout(traffic::PATIENCE).unwrap();
    }
    // Anywhere between two commits: a pause of up to a few of them, by nobody's clock but the machine's.
    (0..random.below(100_000)).for_each(|_| std::hint::spin_loop());
    sidecar.kill();
    let of_clients = clients.into_iter().map(|client| client.join().unwrap());
    let of_both = of_clients.chain(server.take());
    of_both.flat_map(|receipts| receipts.calls).collect()
}

/// Kills within the first milliseconds of a start.
fn kill_a_start(ledger: &Path, folder: &Path, random: &mut Random) {
    let mut start = Start::begin(&[], ledger, folder);
    // A time is what is wanted here: where in its start the process is by then is left to chance.
    thread::sleep(Duration::from_micros(random.below(60_000) as u64));
    start.kill();
}

/// System calls by which a start changes the disk; a kill comes on entering each of them, so before each effect.
const EFFECTS: &[&str] =
    &["mkdir", "openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "ftruncate", "unlink"];

#[test]
fn a_first_start_that_is_killed_at_any_step_can_be_made_again() {
    kill_at_each_step("a first start", &|_| {}, &|_| {});
}

#[test]
fn a_start_after_a_crash_that_is_killed_at_any_step_can_be_made_again() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let crashed = folder.path().join("crashed");
    let server = EchoServer::start(<[u8]>::to_vec);
    let received = kill_under_load(&crashed, &server, "before", &mut Random(SEED));
    tear_the_tail(&crashed);
    let prepare = |ledger: &Path| {
        assert!(Command::new("cp").arg("-a").args([&crashed, ledger]).status().unwrap().success());
    };
    let check = |ledger: &Path| {
        let mut evidence = Evidence::default();
        evidence.read(ledger);
        evidence.must_cover(&received);
    };
    kill_at_each_step("a start after a crash", &prepare, &check);
}

/// For each step of a start on a ledger that `prepare` makes: a kill there, a whole start, both verifiers, `check`.
fn kill_at_each_step(what: &str, prepare: &dyn Fn(&Path), check: &dyn Fn(&Path)) {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return support::skip(what, "there is no strace");
    }
    let (mut kills, mut failed) = (0, Vec::new());
    for effect in EFFECTS {
        for step in 1.. {
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let ledger = folder.path().join("ledger");
            prepare(&ledger);
            if !is_killed_at(effect, step, &ledger, folder.path()) {
                break;
            }
            kills += 1;
            // Also as it lies there it must not look tampered with.
            if report(&ledger).verdict == Verdict::Damaged {
                failed.push(format!("killed at {effect} number {step}: {:?}", report(&ledger).faults));
            }
            let mut again = Start::begin(&[], &ledger, folder.path());
            let listens = again.listens();
            again.kill();
            let faults = if listens { faults(&ledger) } else { Some(again.stderr()) };
            failed.extend(faults.map(|faults| format!("killed at {effect} number {step}, then: {faults}")));
            check(&ledger);
        }
    }
    eprintln!("{what}: killed at {kills} steps");
    assert!(kills > 20, "strace did not kill");
    assert!(failed.is_empty(), "{what}, {} of {kills} kills:\n{}", failed.len(), failed.join("\n"));
}

/// A start that ends on entering its `step`th `effect`; false where it comes to listen before that.
fn is_killed_at(effect: &str, step: usize, ledger: &Path, folder: &Path) -> bool {
    let inject = format!("inject={effect}:signal=SIGKILL:when={step}");
    let trace = format!("trace={effect}");
    let mut start = Start::begin(
        &["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject],
        ledger,
        folder,
    );
    let listens = start.listens();
    start.kill();
    !listens
}

fn faults(ledger: &Path) -> Option<String> {
    let both = || {
        must_be_intact(ledger);
        must_be_intact_for_python(ledger);
    };
    let panic = std::panic::catch_unwind(both).err()?;
    Some(panic.downcast_ref::<String>().cloned().unwrap_or_default())
}

/// Puts the first bytes of a frame behind the last one, as a write leaves them that a crash has cut short.
fn tear_the_tail(ledger: &Path) {
    let newest = *segment::list(ledger).unwrap().last().unwrap();
    let segment = Segment::open(ledger, newest).unwrap();
    let (mut offset, mut last) = (segment::HEADER_LEN, None);
    while let Found::Frame(frame) = segment.at(offset).unwrap() {
        offset += u64::from(frame.header().length);
        last = Some(frame);
    }
    let file = segment::folder(ledger).join(segment::file_name(newest));
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(&last.unwrap().bytes()[..200], offset).unwrap();
}

/// Found by the load above: what either side still sends on a stream after its reset is evidence, and no fault.
#[test]
fn messages_that_go_on_after_their_call_was_cancelled_verify() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    thread::spawn(move || finish_what_was_begun(&listener.accept().unwrap().0));
    let mut sidecar = Sidecar::start(server);
    let client = Client::connect(sidecar.addr).unwrap();
    let call = |stream, name| {
        let frames =
            [traffic::open_call(stream, "/echo.Echo/Stream", name), traffic::data(stream, &[], true)];
        assert!(client.write(&frames.concat()));
    };
    let request = traffic::message(b"first second");
    let begun =
        [traffic::open_call(1, "/echo.Echo/Stream", "cancelled"), traffic::data(1, &request[..10], false)];
    assert!(client.write(&begun.concat()));
    // The first part of its message has arrived once this call has ended, and the second once the next one has.
    call(3, "before");
    assert!(client.wait_for_ended_calls(1));
    assert!(client.write(&traffic::cancel(1)));
    // No client should, but one can.
    assert!(client.write(&traffic::data(1, &request[10..], false)));
    call(5, "behind");
    assert!(client.wait_for_ended_calls(2));
    sidecar.kill();
    let receipts = client.finish();
    let mut evidence = Evidence::default();
    evidence.read(&sidecar.ledger_dir);
    evidence.must_cover(&receipts.calls);
    assert_eq!(receipts.calls[0].data, traffic::message(b"first second"), "the late part has arrived");
    must_be_intact(&sidecar.ledger_dir);
    must_be_intact_for_python(&sidecar.ledger_dir);
}

/// A server that begins a message on stream 1, and ends it when the client resets the stream; other calls it just ends.
fn finish_what_was_begun(mut socket: &TcpStream) {
    let message = traffic::message(b"first second");
    let (first, second) = message.split_at(10);
    socket.write_all(&traffic::greeting()).unwrap();
    traffic::read_all(
        socket,
        |_| {},
        |frame| {
            let stream = frame.stream;
            let answer = match frame.kind {
                traffic::HEADERS if stream == 1 => {
                    [traffic::begin_response(1, "cancelled"), traffic::data(1, first, false)].concat()
                }
                traffic::RST_STREAM => traffic::data(1, second, false),
                _ if frame.ends_stream() => {
                    [traffic::begin_response(stream, "other"), traffic::end_response(stream, "other")]
                        .concat()
                }
                _ => return,
            };
            socket.write_all(&answer).unwrap();
        },
    );
}

/// An `attestry run` of which nothing is expected.
struct Start {
    child: Child,
    lines: Receiver<String>,
    stderr: PathBuf,
}

impl Start {
    /// Begins it on that ledger, perhaps under another command; waits for nothing.
    fn begin(wrapper: &[&str], ledger: &Path, folder: &Path) -> Self {
        let config = folder.join("proxy.toml");
        let ledger = format!("[ledger]\ndir = \"{}\"\nsegment_bytes = {SEGMENT_BYTES}\n", ledger.display());
        let proxy = "[proxy]\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"\n";
        fs::write(&config, [proxy, &ledger].concat()).unwrap();
        let words: Vec<&str> =
            wrapper.iter().copied().chain([sidecar::program(), "run", "--config"]).collect();
        let stderr = folder.join("stderr");
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&stderr).unwrap());
        // With it the loader would look for libraries in many more places, each of them a step.
        let mut child = command.env_remove("LD_LIBRARY_PATH").spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(send.send(line))));
        Self { child, lines, stderr }
    }

    /// Waits until it listens; false where it ends without.
    fn listens(&self) -> bool {
        match self.lines.recv_timeout(traffic::PATIENCE) {
            Ok(line) => line.starts_with("listening on "),
            Err(RecvTimeoutError::Disconnected) => false,
            Err(RecvTimeoutError::Timeout) => panic!("a start neither listens nor ends: {}", self.stderr()),
        }
    }

    /// Kills it: the wrapped process first, because strace lets go of what it traces when it ends.
    fn kill(&mut self) {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        for child in children.split_whitespace() {
            Command::new("kill").args(["-KILL", child]).stderr(Stdio::null()).status().unwrap();
        }
        if children.is_empty() {
            let _ = self.child.kill();
        }
        self.child.wait().unwrap();
    }

    fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }
}
