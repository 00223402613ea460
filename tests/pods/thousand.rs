//! A thousand connections of every kind through a sidecar at the clients and one at the service, while certificates are replaced, the service restarts,
//! and the service's sidecar is relieved by another: nothing fails that would not have failed without them, and the ledgers have it all.
//!
//! The same clients talk to the same service directly first, through the same restart. What happens is counted in calls: a phase is over when every connection
//! has completed some in it. This file is what happens; whether it was right is `verdict`'s.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::authority::{Authority, Issued};
use crate::network::{Network, Place};
use crate::placed::{Placed, own};
use crate::support::process::Process;

#[path = "clients.rs"]
mod clients;
#[path = "driver.rs"]
mod driver;
#[path = "kinds.rs"]
mod kinds;
#[path = "tally.rs"]
mod tally;
#[path = "upstream.rs"]
mod upstream;
#[path = "verdict.rs"]
mod verdict;
#[path = "wire.rs"]
mod wire;

use driver::{ANSWER, MESH_LISTENER, Role, SERVICE};
use kinds::Kind;
use tally::{Failure, Line};
use verdict::Ledger;

/// The longest wait for one answer of the clients.
const PATIENCE: Duration = Duration::from_secs(90);

/// Calls of every slot in a phase: a brief connection is left and made anew meanwhile.
const CALLS: u64 = 5;

/// Generations of certificates: the first, and two that replace it.
const GENERATIONS: usize = 3;

/// Memory that a sidecar may have needed at most, with and for each connection.
const RSS_BYTES_MAX: u64 = 192 * 1024 * 1024;
const RSS_BYTES_PER_CONNECTION_MAX: u64 = 256 * 1024;

/// Connections at a time, unless `PODS_CONNECTIONS` says otherwise.
const CONNECTIONS: usize = 1_000;

#[test]
fn a_thousand_connections_lose_nothing() {
    let Some(scene) = Scene::new() else { return };
    let direct = directly(&scene);
    verdict::print("directly", &direct);
    verdict::must_have_failed_only_in(&direct, &BTreeMap::from([("restart", &RESTART[..])]));
    let story = through_sidecars(&scene);
    verdict::print("through sidecars", &story.lines);
    let allowed = BTreeMap::from([("restart", &RESTART[..]), ("relief", &RELIEF[..])]);
    verdict::must_have_failed_only_in(&story.lines, &allowed);
    let [client, first, second] = &story.ledgers;
    verdict::must_be_whole(&story.ledgers);
    verdict::calls_are_recorded(&story.lines, client, &[first, second]);
    verdict::connections_are_recorded(&story.lines, client, &[first, second]);
    verdict::certificates_were_replaced(client, &[first, second], GENERATIONS);
}

/// What a restart of the service breaks, whoever stands before it: what is under way, what is tried meanwhile, and connections that nothing is said on.
const RESTART: [Failure; 4] = [Failure::Refused, Failure::NotServed, Failure::InFlight, Failure::TryAgain];

/// What a server that drains asks of its clients: to come back.
const RELIEF: [Failure; 3] = [Failure::Refused, Failure::NotServed, Failure::TryAgain];

/// The network, and everybody's certificates.
struct Scene {
    network: Network,
    slots: usize,
    client: Volume,
    service: Volume,
    /// Of the sidecars: the client's and the service's of each generation.
    generations: Vec<[Issued; 2]>,
}

/// Files as Kubernetes puts them into a pod: links through `..data`, which is replaced as a whole.
struct Volume(PathBuf);

/// What the run with sidecars leaves.
struct Story {
    lines: Vec<Line>,
    /// The client's, and those of the service's sidecars one after the other.
    ledgers: [Ledger; 3],
}

impl Scene {
    fn new() -> Option<Self> {
        let network = Network::make("pods::thousand")?;
        let slots = env::var("PODS_CONNECTIONS").map_or(CONNECTIONS, |text| text.parse().unwrap());
        let folder = network.folder.path();
        let authority = Authority::new(folder, "authority");
        for (name, names) in
            [("server", "DNS:pods.example"), ("client", "URI:spiffe://pods.example/application")]
        {
            let issued = authority.issue_for(name, names);
            fs::copy(issued.certificate, folder.join(format!("{name}.pem"))).unwrap();
            fs::copy(issued.key, folder.join(format!("{name}.key"))).unwrap();
        }
        fs::copy(&authority.certificate, folder.join("root.pem")).unwrap();
        let issue = |generation: usize| {
            let client =
                authority.issue_for(&format!("client-{generation}"), "URI:spiffe://pods.example/client");
            let names = "DNS:pods.example,URI:spiffe://pods.example/service";
            [client, authority.issue_for(&format!("service-{generation}"), names)]
        };
        let generations: Vec<_> = (0..GENERATIONS).map(issue).collect();
        let [client, service] = ["volume-client", "volume-service"].map(|name| Volume(folder.join(name)));
        let scene = Self { network, slots, client, service, generations };
        scene.replace_certificates(0);
        Some(scene)
    }

    /// Puts a generation of certificates into both volumes.
    fn replace_certificates(&self, generation: usize) {
        let [client, service] = &self.generations[generation];
        self.client.put(&self.network, generation, client);
        self.service.put(&self.network, generation, service);
    }

    fn server(&self, sidecars: bool) -> Process {
        let place = self.network.command(Place::Pod, &[]);
        let folder = self.network.folder.path();
        let mut command = driver::command(place, Role::Server, folder, self.slots, sidecars);
        let server = Process::start("server", &mut command, folder);
        assert_eq!(server.line_after(ANSWER, PATIENCE), "ready");
        server
    }

    fn clients(&self, sidecars: bool) -> Clients {
        let place = self.network.command(Place::Peer, &[]);
        let folder = self.network.folder.path();
        let mut command = driver::command(place, Role::Clients, folder, self.slots, sidecars);
        Clients { process: Process::start("clients", &mut command, folder), begun: Instant::now(), phase: "" }
    }

    /// Keys and files that both sidecars have.
    fn tls(&self, volume: &Volume) -> String {
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| volume.0.join(name));
        let authorities = self.network.folder.path().join("root.pem");
        let [certificate, key, authorities] =
            [certificate, key, authorities].map(|file| file.to_str().unwrap().to_owned());
        format!(
            "\n[tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\nauthorities_file = {authorities:?}\n"
        )
    }

    fn client_sidecar(&self) -> Placed {
        let mesh = Kind::Mesh.port();
        let config = format!(
            "\n[outbound]\nlisten = \"[::]:15001\"\n[proxy]\nlisten = \"{MESH_LISTENER}\"\nupstream = \"{SERVICE}:{mesh}\"\ntraffic = \"outbound\"\n\
             upstream_tls = \"originate\"\nupstream_id = \"spiffe://pods.example/service\"\n{}",
            self.tls(&self.client)
        );
        Placed::start(&self.network, Place::Peer, "sidecar-client", &config)
    }

    fn service_sidecar(&self, name: &str) -> Placed {
        let config = format!(
            "\n[inbound]\nlisten = \"[::]:15006\"\nopaque_ports = [{}, {}]\nclient_tls = \"terminate\"\nclient_certificates = \"required\"\n{}",
            Kind::Sealed.port(),
            // Where TLS is opened a client has `detect.timeout_ms` to begin with it, and a server that speaks first would wait.
            Kind::Greeting.port(),
            self.tls(&self.service)
        );
        Placed::start(&self.network, Place::Pod, name, &config)
    }
}

impl Volume {
    fn put(&self, network: &Network, generation: usize, issued: &Issued) {
        let version = self.0.join(format!("..version_{generation}"));
        fs::create_dir_all(&version).unwrap();
        fs::copy(&issued.certificate, version.join("tls.crt")).unwrap();
        fs::copy(&issued.key, version.join("tls.key")).unwrap();
        own(network, &self.0, "1337");
        symlink(version.file_name().unwrap(), self.0.join("..data_tmp")).unwrap();
        fs::rename(self.0.join("..data_tmp"), self.0.join("..data")).unwrap();
        if generation == 0 {
            for name in ["tls.crt", "tls.key"] {
                symlink(PathBuf::from("..data").join(name), self.0.join(name)).unwrap();
            }
        }
    }
}

/// The clients' process.
struct Clients {
    process: Process,
    begun: Instant,
    phase: &'static str,
}

impl Clients {
    /// From now on what happens belongs to this phase.
    fn phase(&mut self, name: &'static str) {
        println!("  {:>5.1} s: {name}", self.begun.elapsed().as_secs_f64());
        self.phase = name;
        self.process.say(&format!("phase {name}"));
        self.process.line_after(&format!("{ANSWER}phase"), PATIENCE);
    }

    /// Every slot completes so many calls more; how many different certificates servers have shown so far.
    fn calls(&mut self, number: u64) -> usize {
        self.process.say(&format!("calls {number}"));
        let said = self.process.line_after(&format!("{ANSWER}calls"), PATIENCE);
        let (calls, certificates) = said.split_once(' ').unwrap();
        println!("  {:>5.1} s: {}: {calls} calls so far", self.begun.elapsed().as_secs_f64(), self.phase);
        certificates.parse().unwrap()
    }

    /// Everybody ends in good order; what they have seen.
    fn stop(mut self, scene: &Scene) -> Vec<Line> {
        self.process.say("stop");
        self.process.line_after(&format!("{ANSWER}stopped"), PATIENCE);
        println!("  {:>5.1} s: stopped", self.begun.elapsed().as_secs_f64());
        tally::read(&driver::tally_file(scene.network.folder.path()))
    }
}

/// The service is killed, and comes back.
fn restart(scene: &Scene, clients: &mut Clients, mut server: Process, sidecars: bool) -> Process {
    clients.phase("restart");
    server.kill();
    let server = scene.server(sidecars);
    clients.calls(CALLS);
    server
}

fn directly(scene: &Scene) -> Vec<Line> {
    let (server, mut clients) = (scene.server(false), scene.clients(false));
    clients.phase("steady");
    clients.calls(CALLS);
    let _server = restart(scene, &mut clients, server, false);
    clients.phase("recovered");
    clients.calls(CALLS);
    clients.stop(scene)
}

fn through_sidecars(scene: &Scene) -> Story {
    let network = &scene.network;
    let server = scene.server(true);
    let (mut client_sidecar, mut first) = (scene.client_sidecar(), scene.service_sidecar("sidecar-first"));
    network.attestry_must(Place::Pod, "redirect install --inbound-port 15006 --uid 1337");
    network.attestry_must(Place::Peer, "redirect install --outbound-port 15001 --own-ports 15010 --uid 1337");
    network.sh(Place::Peer, WATCH);
    let mut clients = scene.clients(true);
    clients.phase("steady");
    clients.calls(CALLS);
    for (generation, phase) in (1..GENERATIONS).zip(["rotation", "second-rotation"]) {
        clients.phase(phase);
        scene.replace_certificates(generation);
        let end = Instant::now() + PATIENCE;
        while clients.calls(CALLS) <= generation {
            assert!(Instant::now() < end, "nobody is shown the new certificate");
        }
        // The other sidecar has noticed its own at about the same time; now it has used it too.
        clients.calls(CALLS);
    }
    let _server = restart(scene, &mut clients, server, true);
    clients.phase("recovered");
    clients.calls(CALLS);
    let first_rss = rss_bytes(&first);
    clients.phase("relief");
    first.process.signal("TERM");
    network.sh(Place::Pod, "timeout 30 sh -c 'while ss -Hltn sport = :15006 | grep -q .; do :; done'");
    let mut second = scene.service_sidecar("sidecar-second");
    first.ended();
    clients.calls(CALLS);
    clients.phase("relieved");
    clients.calls(CALLS);
    let lines = clients.stop(scene);
    none_went_astray(network);
    for (name, rss) in
        [("client", rss_bytes(&client_sidecar)), ("first", first_rss), ("second", rss_bytes(&second))]
    {
        println!("  resident at most, {name}: {} MiB", rss >> 20);
        assert!(
            rss < RSS_BYTES_MAX + RSS_BYTES_PER_CONNECTION_MAX * scene.slots as u64,
            "{name}: {rss} bytes resident"
        );
    }
    client_sidecar.stop();
    second.stop();
    Story { lines, ledgers: [client_sidecar, first, second].map(|sidecar| Ledger::read(&sidecar)) }
}

/// Counts, behind the rules of `attestry redirect`, the beginnings of connections that they did not send where they should: those of the clients that were
/// not redirected, and those of the sidecar that were. Connection tracking remembers a connection for minutes after its end, and what has the same addresses
/// and ports follows it, whoever it is.
const WATCH: &str = "
    nft add table inet watch; nft add chain inet watch output '{ type filter hook output priority 10 ; }'
    nft add rule inet watch output 'tcp flags & (fin | syn | rst | ack) == syn meta skuid != 1337 tcp dport 5010-5016 counter comment \"passed by\"'
    nft add rule inet watch output 'tcp flags & (fin | syn | rst | ack) == syn meta skuid 1337 tcp dport 15001 counter comment \"came back\"'";

/// None has been counted.
fn none_went_astray(network: &Network) {
    let listing = network.sh(Place::Peer, "nft list table inet watch");
    let counters = listing.lines().filter(|line| line.contains(" counter ")).map(str::trim);
    let astray: Vec<_> = counters.filter(|line| !line.contains(" counter packets 0 ")).collect();
    assert!(astray.is_empty(), "connections that the rules have led astray:\n{}", astray.join("\n"));
}

/// The most memory that it has had (`proc(5)`, `VmHWM`).
fn rss_bytes(sidecar: &Placed) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
