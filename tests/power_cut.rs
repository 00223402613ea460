//! Power cuts, made real: what any peer received before one is in the ledger after it, 30 times.
//!
//! The ledger is on an ext4 file system in a loop device, which `EXT4_IOC_SHUTDOWN` without a flush of its log brings down
//! under load: whatever was not synced is gone when it is mounted again, and each cut shows so by a file of the test's own. After the
//! cut the sidecar still runs, and must refuse: nothing may reach a peer that the ledger will not hold.
//! Needs root and loop devices. The ioctl is `support/power_cut.py`'s, because no `unsafe` is allowed here.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test's panic is its report")]

#[path = "support/evidence.rs"]
mod evidence;
#[path = "support/load.rs"]
mod load;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

use attestry::ledger::fsck::Verdict;
use evidence::{Evidence, must_be_intact, must_be_intact_for_python, report};
use load::Random;
use support::process::Process;
use support::sidecar::{self, Sidecar};
use tempfile::TempDir;
use traffic::{Client, EchoServer, PATIENCE, Receipt, Receipts};

const CUTS: usize = 30;
const CONNECTIONS: usize = 4;
const IMAGE_BYTES: u64 = 512 * 1024 * 1024;
const SEGMENT_BYTES: &str = "1048576";
const SEED: u64 = 20_240_301;

#[test]
fn thirty_power_cuts_lose_nothing_that_a_peer_received() {
    let Some(mut disk) = Disk::make() else { return };
    let server = EchoServer::start(<[u8]>::to_vec);
    let (mut received, mut evidence) = (Vec::new(), Evidence::default());
    let (mut checked, mut lost, mut refusals, mut not_intact) = (0, 0, 0, Vec::new());
    let mut random = Random(SEED);
    for cut in 1..=CUTS {
        disk.mount();
        let ledger = disk.folder().join("ledger");
        let name = format!("p{cut}");
        let cycle = cut_under_load(&disk, &ledger, &server, &name, &mut random);
        refusals += cycle.iter().map(|receipts| receipts.refusals.len()).sum::<usize>();
        received.extend(cycle.into_iter().flat_map(|receipts| receipts.calls));
        disk.unmount();

        disk.mount();
        lost += usize::from(disk.has_lost_what_was_not_synced(&name));
        let before = report(&ledger);
        if before.verdict != Verdict::Intact {
            not_intact
                .push(format!("after cut {cut}, before the start: {:?} {:?}", before.faults, before.remarks));
        }
        let mut restarted = start(&ledger, &server);
        evidence.read(&ledger);
        evidence.must_cover(&received[checked..]);
        checked = received.len();
        must_be_intact(&ledger);
        restarted.kill();
        drop(restarted);
        disk.unmount();
    }
    disk.mount();
    let ledger = disk.folder().join("ledger");
    check_the_whole(&ledger, &received);
    eprintln!(
        "{CUTS} cuts: {lost} lost what was not synced; {} receipts, {refusals} calls refused after a cut",
        received.len()
    );
    assert_eq!(lost, CUTS, "a cut that loses nothing proves nothing");
    assert!(refusals >= CUTS, "after each cut a new call must be refused");
    assert!(
        not_intact.is_empty(),
        "a power cut must leave a ledger that verifies as it is:\n{}",
        not_intact.join("\n")
    );
}

fn start(ledger: &Path, server: &EchoServer) -> Sidecar {
    Sidecar::builder(server.addr).ledger_dir(ledger).set("ledger", "segment_bytes", SEGMENT_BYTES).start()
}

fn check_the_whole(ledger: &Path, received: &[Receipt]) {
    must_be_intact(ledger);
    must_be_intact_for_python(ledger);
    let mut evidence = Evidence::default();
    evidence.read(ledger);
    evidence.must_cover(received);
    evidence.must_notice_changes_of(
        received.iter().find(|receipt| receipt.ended && receipt.data.len() > 100).unwrap(),
    );
    sidecar::verify(ledger);
}

/// Starts, lets the clients work until a number of calls have ended, cuts the power, and goes on calling until every connection
/// has ended and a new one was refused.
fn cut_under_load(
    disk: &Disk,
    ledger: &Path,
    server: &EchoServer,
    name: &str,
    random: &mut Random,
) -> Vec<Receipts> {
    let mut sidecar = start(ledger, server);
    let mut switch = disk.switch();
    let (tell, ended) = channel();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let (name, addr, tell) = (format!("{name}-{number}"), sidecar.addr, tell.clone());
            let mut random = Random(random.next());
            thread::spawn(move || load::load(addr, &name, &mut random, &|| tell.send(()).unwrap_or_default()))
        })
        .collect();
    for _ in 0..random.below(800) {
        ended.recv_timeout(PATIENCE).unwrap();
    }
    fs::write(disk.not_synced(name), name).unwrap();
    switch.say("go");
    assert_eq!(switch.line(PATIENCE), "cut");

    // Each of them ends by itself: its open calls are answered here, and then the connection is.
    let mut all: Vec<Receipts> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    all.push(refused(&sidecar, name));
    sidecar.kill();
    all.extend(server.take());
    all
}

/// A call on a new connection must be told that the ledger does not commit.
fn refused(sidecar: &Sidecar, name: &str) -> Receipts {
    let client = Client::connect(sidecar.addr).expect("a sidecar that refuses still greets");
    let call = [
        traffic::open_call(1, "/echo.Echo/Unary", name),
        traffic::data(1, &traffic::message(b"anyone?"), true),
    ];
    assert!(client.write(&call.concat()));
    assert!(client.wait_for_refusal(), "the call was not refused");
    client.close();
    let receipts = client.finish();
    assert!(receipts.calls.is_empty(), "nothing of the server may arrive after the cut: {receipts:?}");
    let message = &receipts.refusals[0];
    assert!(message.contains("the ledger cannot commit"), "refused with {message:?}");
    receipts
}

/// An ext4 file system in a file. Dropping it unmounts it, which also gives the loop device back.
struct Disk {
    folder: TempDir,
    is_mounted: bool,
}

impl Disk {
    /// Makes one; `None`, loudly, where that is not possible.
    fn make() -> Option<Self> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut disk = Self { folder, is_mounted: false };
        fs::create_dir(disk.folder()).unwrap();
        let made = fs::File::create(disk.image()).and_then(|file| file.set_len(IMAGE_BYTES));
        made.unwrap();
        let options = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        let attempt =
            run(Command::new("mkfs.ext4").args(options).arg(disk.image())).and_then(|()| disk.try_mount());
        match attempt {
            Ok(()) => disk.unmount(),
            Err(why) => {
                support::skip("power_cut", &why);
                return None;
            }
        }
        Some(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Where it is mounted.
    fn folder(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn try_mount(&mut self) -> Result<(), String> {
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(self.image()).arg(self.folder()))?;
        self.is_mounted = true;
        Ok(())
    }

    fn mount(&mut self) {
        self.try_mount().unwrap();
    }

    fn unmount(&mut self) {
        run(Command::new("umount").arg(self.folder())).unwrap();
        self.is_mounted = false;
    }

    /// What cuts the power, ready to do so.
    fn switch(&self) -> Process {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/power_cut.py");
        let mut command = Command::new("python3");
        let switch = Process::start(
            "power_cut",
            command.arg(script).arg(self.folder()).arg(self.image()),
            self.folder.path(),
        );
        assert_eq!(switch.line(PATIENCE), "ready");
        switch
    }

    /// A file of each cut's own: where one is replaced, ext4 writes the new content out when it is closed (auto_da_alloc).
    fn not_synced(&self, cut: &str) -> PathBuf {
        self.folder().join(format!("not-synced-{cut}"))
    }

    /// Whether the file that was written right before the cut has no content any more.
    fn has_lost_what_was_not_synced(&self, cut: &str) -> bool {
        fs::read(self.not_synced(cut)).map_or(true, |content| content.is_empty())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            // A sidecar that a panic has left behind is killed by its own drop; lazily, because that may still be on its way.
            let _ = run(Command::new("umount").arg("--lazy").arg(self.folder()));
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?} ended with {}: {said}", output.status))
    }
}
