//! The two ends of the thousand, as processes: this test binary, run again in a namespace with a role.
//!
//! Each is one thread. The server says when it listens. The clients take commands by their standard input, one a line, and answer each with a line:
//!
//! ```text
//!   phase NAME      what happens from now on belongs to it         phase NAME
//!   calls N         every slot completes so many calls             calls COMPLETED CERTIFICATES
//!   stop            everybody ends in good order                   stopped
//! ```

use std::env;
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};

use super::clients::{self, Clients};
use super::kinds::Kind;
use super::tally::Tally;
use super::upstream;
use super::wire::client_config;

/// What one end is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Clients,
}

/// What stands before an answer: the test harness prints to the same output.
pub(crate) const ANSWER: &str = "driver: ";

/// Where the sidecar of the clients takes what it puts into TLS itself.
pub(crate) const MESH_LISTENER: &str = "127.0.0.1:15010";

/// The service's address, as the node has it.
pub(crate) const SERVICE: &str = "10.96.0.10";

const ROLE: &str = "PODS_DRIVER_ROLE";
const SIDECARS: &str = "PODS_DRIVER_SIDECARS";
const FOLDER: &str = "PODS_DRIVER_FOLDER";
const SLOTS: &str = "PODS_DRIVER_SLOTS";

/// The rest of a command that runs one end; `place` is what it begins with.
pub(crate) fn command(
    mut place: Command,
    role: Role,
    folder: &Path,
    slots: usize,
    sidecars: bool,
) -> Command {
    place.arg(env::current_exe().unwrap());
    place.args(["--exact", "thousand::driver::an_end_of_the_thousand", "--ignored", "--nocapture"]);
    place.env(ROLE, format!("{role:?}")).env(FOLDER, folder).env(SLOTS, slots.to_string());
    if sidecars {
        place.env(SIDECARS, "1");
    }
    place
}

/// Where the clients write their tally.
pub(crate) fn tally_file(folder: &Path) -> PathBuf {
    folder.join("tally")
}

#[test]
#[ignore = "no test: the thousand run it for themselves, in their namespaces"]
fn an_end_of_the_thousand() {
    let Ok(role) = env::var(ROLE) else { return };
    let (folder, sidecars) = (PathBuf::from(env::var(FOLDER).unwrap()), env::var_os(SIDECARS).is_some());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let commands = commands();
    if role == format!("{:?}", Role::Server) {
        LocalSet::new().block_on(&runtime, serve(&folder, sidecars, commands));
    } else {
        let slots = env::var(SLOTS).unwrap().parse().unwrap();
        LocalSet::new().block_on(&runtime, call(&folder, slots, sidecars, commands));
    }
}

fn commands() -> UnboundedReceiver<String> {
    let (sender, commands) = unbounded_channel();
    std::thread::spawn(move || {
        // The receiver is gone only when the process is about to end.
        std::io::stdin().lock().lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
    });
    commands
}

fn answer(text: &str) {
    // Behind a line's end, as the harness leaves its own line open.
    println!("\n{ANSWER}{text}");
}

async fn serve(folder: &Path, sidecars: bool, mut commands: UnboundedReceiver<String>) {
    upstream::start(folder, !sidecars);
    answer("ready");
    while commands.recv().await.is_some() {}
}

async fn call(folder: &Path, slots: usize, sidecars: bool, mut commands: UnboundedReceiver<String>) {
    let clients = Rc::new(Clients {
        tally: Tally::new(slots),
        address: if sidecars { address_with_sidecars } else { address },
        sealed: client_config(folder, &[]),
        secure: client_config(folder, &["h2"]),
        connecting: Clients::places(),
    });
    let running: Vec<_> =
        (0..slots).map(|slot| spawn_local(clients::run(Rc::clone(&clients), slot))).collect();
    while let Some(command) = commands.recv().await {
        match command.split_once(' ') {
            Some(("phase", name)) => clients.tally.begin_phase(name),
            Some(("calls", number)) => {
                clients.tally.progress(number.parse().unwrap()).await;
                let (calls, certificates) = clients.tally.so_far();
                answer(&format!("calls {calls} {certificates}"));
                continue;
            }
            _ => break,
        }
        answer(&command);
    }
    clients.tally.stop();
    for slot in running {
        slot.await.unwrap();
    }
    clients.tally.write(&tally_file(folder));
    answer("stopped");
}

fn address(kind: Kind) -> SocketAddr {
    SocketAddr::new(SERVICE.parse().unwrap(), kind.port())
}

fn address_with_sidecars(kind: Kind) -> SocketAddr {
    if kind == Kind::Mesh { MESH_LISTENER.parse().unwrap() } else { address(kind) }
}
