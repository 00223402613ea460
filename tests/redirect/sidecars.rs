//! The sidecar behind the rules: in front of the service, in front of its client, and at both.
//!
//! Each conversation of `talk.py` is had directly first. With sidecars each end must receive the same bytes and see the same end, and each
//! ledger must say what came by which way. They run as an unprivileged user, but for TPROXY.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use attestry::entry::Body;
use serde_json::Value;

use crate::ledger_reading;
use crate::network::{Network, PATIENCE, Place, said, script};
use crate::paths::BACKENDS;
use crate::support::process::Process;
use crate::support::sidecar::{attestry, calls, program, verify};

/// The user that sidecars run as.
const UID: &str = "1337";

const CONVERSATIONS: [&str; 7] =
    ["grpc", "http1", "greeting", "half-close", "bulk", "server-reset", "client-reset"];

/// Under which addresses the client dials: the pod's own and the service's, over IPv4 and IPv6.
const ADDRESSES: [&str; 4] = ["10.77.1.2", "fd77:1::2", "10.96.0.10", "fd96::10"];

/// For TPROXY: keys of [inbound].
const TPROXY: &str = "mode = \"tproxy\"";

const RULES: &str = "redirect install --inbound-port 15006 --outbound-port 15001 --uid 1337";

#[test]
fn neither_end_notices_a_sidecar_at_the_service() {
    let Some(network) = Network::make("redirect::sidecar_at_service") else { return };
    let mut ends = Ends::start(&network);
    let direct = ends.converse();
    let mut sidecar = Sidecar::start(&network, Place::Pod, "");
    network.attestry_must(Place::Pod, RULES);
    ends.must_equal(&direct);
    sidecar.stop();
    sidecar.must_have("inbound", "redirect", |address| service(address).0.to_owned());
}

#[test]
fn neither_end_notices_a_sidecar_at_the_client() {
    let Some(network) = Network::make("redirect::sidecar_at_client") else { return };
    let mut ends = Ends::start(&network);
    let direct = ends.converse();
    let mut sidecar = Sidecar::start(&network, Place::Peer, "");
    network.attestry_must(Place::Peer, RULES);
    ends.must_equal(&direct);
    sidecar.stop();
    sidecar.must_have("outbound", "redirect", str::to_owned);
}

#[test]
fn neither_end_notices_sidecars_at_both() {
    let Some(network) = Network::make("redirect::sidecars") else { return };
    let mut ends = Ends::start(&network);
    let direct = ends.converse();
    let mut sidecars = [Place::Pod, Place::Peer].map(|place| {
        let sidecar = Sidecar::start(&network, place, "");
        network.attestry_must(place, RULES);
        sidecar
    });
    ends.must_equal(&direct);
    sidecars.iter_mut().for_each(Sidecar::stop);
    sidecars[0].must_have("inbound", "redirect", |address| service(address).0.to_owned());
    sidecars[1].must_have("outbound", "redirect", str::to_owned);
}

/// Many callers have every conversation at once, through two sidecars, while the rules are installed anew again and again.
#[test]
fn many_at_once_are_as_one_alone() {
    const CALLERS: usize = 12;
    let Some(network) = Network::make("redirect::many") else { return };
    let mut ends = Ends::start(&network);
    let direct = ends.converse();
    let mut sidecars = [Place::Pod, Place::Peer].map(|place| {
        let sidecar = Sidecar::start(&network, place, "");
        network.attestry_must(place, RULES);
        sidecar
    });
    let mut callers: Vec<_> = (0..CALLERS).map(|_| caller(&network, Place::Peer)).collect();
    for (address, name) in direct.keys() {
        for caller in &mut callers {
            caller.say(&format!("{address} {name}"));
        }
    }
    for backend in BACKENDS {
        network.attestry_must(Place::Pod, &format!("{RULES} --backend {backend}"));
        network.attestry_must(Place::Peer, &format!("{RULES} --backend {backend}"));
    }
    for (conversation, (client, _)) in &direct {
        for caller in &callers {
            assert_eq!(&caller.line(PATIENCE), client, "{conversation:?}");
        }
    }
    let mut expected: Vec<_> = direct.values().map(|(_, server)| peerless(server)).collect();
    let mut seen: Vec<_> =
        (0..CALLERS * direct.len()).map(|_| peerless(&ends.server.line(PATIENCE))).collect();
    expected = expected.into_iter().flat_map(|line| vec![line; CALLERS]).collect();
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);
    sidecars.iter_mut().for_each(Sidecar::stop);
    for sidecar in &sidecars {
        assert_eq!(sidecar.connections().len(), CALLERS * direct.len(), "{:?}", sidecar.place);
        verify(&sidecar.ledger);
    }
}

#[test]
fn under_tproxy_the_service_sees_the_clients_address() {
    let Some(network) = Network::make("redirect::sidecar_tproxy") else { return };
    let mut ends = Ends::start(&network);
    let direct = ends.converse();
    for backend in BACKENDS {
        let mut sidecar = Sidecar::start(&network, Place::Pod, TPROXY);
        network.attestry_must(Place::Pod, &format!("{RULES} --inbound-mode tproxy --backend {backend}"));
        let relayed = ends.converse();
        assert_eq!(relayed, direct, "{backend}: the client's address included");
        network.attestry_must(Place::Pod, "redirect remove");
        sidecar.stop();
        sidecar.must_have("inbound", "tproxy", |address| service(address).0.to_owned());
    }
}

/// Nobody gets from the sidecar to itself, over none of its ports: such a connection is reset, and the ledger has it.
#[test]
fn no_connection_loops() {
    let Some(network) = Network::make("redirect::loops") else { return };
    let mut sidecar = Sidecar::start(&network, Place::Pod, "");
    network.attestry_must(Place::Pod, RULES);
    let direct = ["10.77.1.2 15006", "10.77.1.2 15001", "fd77:1::2 15006", "fd77:1::2 15001"];
    let local = ["127.0.0.1 15006", "127.0.0.1 15001", "::1 15006", "::1 15001"];
    let mut dialled = 0;
    for (place, dials) in [(Place::Pod, &direct[..]), (Place::Peer, &direct[..]), (Place::Pod, &local[..])] {
        let mut caller = caller(&network, place);
        for dial in dials {
            caller.say(dial);
            let end = caller.line(PATIENCE);
            assert!(end.ends_with(" reset"), "from the {place:?} to {dial}: {end}");
            dialled += 1;
        }
    }
    sidecar.stop();
    let turned_away = ledger_reading::bodies_of(&sidecar.ledger, |body| match body {
        Body::Notice(notice) => Some(notice),
        _ => None,
    });
    assert_eq!(turned_away.iter().map(|notice| notice.count).sum::<u64>(), dialled, "{turned_away:?}");
    assert!(
        turned_away.iter().all(|notice| notice.reason.contains("dialled this listener itself")),
        "{turned_away:?}"
    );
    assert_eq!(sidecar.connections(), Vec::<Value>::new(), "none of them may be relayed");
    verify(&sidecar.ledger);
}

/// A port where nobody listens: the client, whose handshake the sidecar has had to answer, gets a reset, and the ledger says why.
#[test]
fn an_upstream_that_is_not_there_is_told_by_a_reset() {
    let Some(network) = Network::make("redirect::unreachable") else { return };
    let mut ends = Ends::start(&network);
    let mut sidecars = [Place::Pod, Place::Peer].map(|place| Sidecar::start(&network, place, ""));
    for place in [Place::Pod, Place::Peer] {
        network.attestry_must(place, RULES);
        for address in ["10.77.1.2", "fd77:1::2"] {
            let end = ends.client_alone(&format!("{address} 7"));
            assert!(end.ends_with(" reset"), "rules up to the {place:?}, {address}: {end}");
        }
    }
    sidecars.iter_mut().for_each(Sidecar::stop);
    let [at_service, at_client] = sidecars;
    // The sidecar at the client reaches the other one, and learns of the failure by a reset: at once, or a moment later.
    for connection in at_client.connections() {
        let reason = connection["local_reason"].as_str().unwrap_or("reset");
        assert!(reason.contains("reset"), "{connection}");
    }
    assert_eq!((at_service.connections().len(), at_client.connections().len()), (4, 2));
    for connection in at_service.connections() {
        let reason = connection["local_reason"].as_str().unwrap();
        assert!(reason.contains(":7: Connection refused"), "{connection}");
    }
    verify(&at_service.ledger);
    verify(&at_client.ledger);
}

/// Under TPROXY too: the reset that answers the sidecar's dial finds back to it, though it is addressed to the client.
#[test]
fn under_tproxy_a_missing_or_killed_service_is_told_by_a_reset() {
    let Some(network) = Network::make("redirect::unreachable_tproxy") else { return };
    let mut sidecar = Sidecar::start(&network, Place::Pod, TPROXY);
    network.attestry_must(Place::Pod, &format!("{RULES} --inbound-mode tproxy"));
    let mut ends = Ends::start(&network);
    for address in ["10.77.1.2", "fd77:1::2"] {
        let end = ends.client_alone(&format!("{address} 7"));
        assert!(end.ends_with(" reset"), "{address}: {end}");
        ends.kill_while_connected(&network, address, "under TPROXY");
        let end = ends.client_alone(&format!("{address} 15006"));
        assert!(end.ends_with(" reset"), "{address}, the sidecar's own port: {end}");
    }
    sidecar.stop();
    assert_eq!(sidecar.connections().len(), 4, "{:?}", sidecar.connections());
    verify(&sidecar.ledger);
}

/// Connection tracking forgets a half-closed connection that is silent for long, here after five seconds, and its NAT with it;
/// a keepalive that comes sooner reminds it.
#[test]
fn an_answer_after_a_long_silence_arrives() {
    let Some(network) = Network::make("redirect::late") else { return };
    network.attestry_must(Place::Pod, RULES);
    network.sh(Place::Pod, "echo 5 > /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait");
    let mut sidecar = Sidecar::start(&network, Place::Pod, "[tcp]\nkeepalive_ms = 1000");
    let _server = Ends::serve(&network);
    let callers = ["10.77.1.2", "fd77:1::2"].map(|address| {
        let mut caller = caller(&network, Place::Peer);
        caller.say(&format!("{address} late"));
        (address, caller)
    });
    for (address, caller) in &callers {
        let end = caller.line(PATIENCE);
        assert!(end.starts_with("14:") && end.ends_with(" fin"), "{address}: {end}");
    }
    sidecar.stop();
    assert_eq!(sidecar.connections().len(), 2);
    verify(&sidecar.ledger);
}

/// By its own service's address: out through the sidecar, to the node, which sends it back, and in through the sidecar.
#[test]
fn a_pod_that_calls_its_own_service_is_recorded_both_ways() {
    let Some(network) = Network::make("redirect::own_service") else { return };
    let ends = Ends::start(&network);
    let mut pod = caller(&network, Place::Pod);
    let mut have = |address: &str| {
        pod.say(&format!("{address} http1"));
        let server = ends.server.line(PATIENCE).split(' ').skip(2).collect::<Vec<_>>().join(" ");
        (pod.line(PATIENCE), server)
    };
    let direct = have("10.96.0.10");
    let mut sidecar = Sidecar::start(&network, Place::Pod, "");
    network.attestry_must(Place::Pod, RULES);
    // The last two stay within the pod.
    for address in ["10.96.0.10", "fd96::10", "10.77.1.2", "::1"] {
        assert_eq!(have(address), direct, "{address}");
    }
    sidecar.stop();
    let mut ways: Vec<_> = sidecar
        .connections()
        .iter()
        .map(|connection| format!("{} {}", connection["direction"], connection["original_destination"]))
        .collect();
    ways.sort();
    let expected = [
        r#""inbound" "10.77.1.2:5002""#,
        r#""inbound" "[fd77:1::2]:5002""#,
        r#""outbound" "10.96.0.10:5002""#,
        r#""outbound" "[fd96::10]:5002""#,
    ];
    assert_eq!(ways, expected);
    verify(&sidecar.ledger);
}

/// The service is killed with a connection open and bytes of it unread: without a sidecar the client gets a reset, and so it does with any.
#[test]
fn a_killed_service_resets_its_clients() {
    let Some(network) = Network::make("redirect::killed") else { return };
    let mut sidecars = Vec::new();
    for place in [None, Some(Place::Pod), Some(Place::Peer)] {
        sidecars.extend(place.map(|place| {
            let sidecar = Sidecar::start(&network, place, "");
            network.attestry_must(place, RULES);
            sidecar
        }));
        let mut ends = Ends::start(&network);
        for address in ["10.96.0.10", "fd96::10"] {
            ends.kill_while_connected(&network, address, &format!("sidecars up to {place:?}"));
        }
    }
    sidecars.iter_mut().for_each(Sidecar::stop);
    for sidecar in &sidecars {
        verify(&sidecar.ledger);
    }
}

/// What the client dials, and where that is: the pod's address and port.
fn service(address: &str) -> (&str, bool) {
    match address {
        "10.96.0.10" => ("10.77.1.2", true),
        "fd96::10" => ("fd77:1::2", true),
        own => (own, false),
    }
}

fn caller(network: &Network, place: Place) -> Process {
    network.start(place, &format!("talk-call-{place:?}"), &["python3", &script("talk.py"), "call"])
}

/// The service and its client.
struct Ends {
    server: Process,
    client: Process,
}

/// What each end saw of a conversation under an address: (the client's end, the server's end).
type Seen = BTreeMap<(String, String), (String, String)>;

/// What the server says of a conversation, but for the client's address.
fn peerless(server: &str) -> String {
    let words: Vec<_> = server.split(' ').collect();
    [&words[..1], &words[2..]].concat().join(" ")
}

impl Ends {
    fn start(network: &Network) -> Self {
        Self { server: Self::serve(network), client: caller(network, Place::Peer) }
    }

    fn serve(network: &Network) -> Process {
        let server = network.start(Place::Pod, "talk-serve", &["python3", &script("talk.py"), "serve"]);
        assert_eq!(server.line(PATIENCE), "ready");
        server
    }

    /// Kills the service with a connection open and bytes of it unread; another takes its place.
    fn kill_while_connected(&mut self, network: &Network, address: &str, what: &str) {
        self.client.say(&format!("{address} killed"));
        assert_eq!(self.server.line(PATIENCE), "holding");
        self.server.kill();
        let end = self.client.line(PATIENCE);
        assert!(end.starts_with("5:") && end.ends_with(" reset"), "{what}, {address}: {end}");
        self.server = Self::serve(network);
    }

    /// What a client sees of a conversation in which no server takes part.
    fn client_alone(&mut self, dial: &str) -> String {
        self.client.say(dial);
        self.client.line(PATIENCE)
    }

    /// Has every conversation under every address.
    fn converse(&mut self) -> Seen {
        let mut seen = Seen::new();
        for address in ADDRESSES {
            for name in CONVERSATIONS {
                self.client.say(&format!("{address} {name}"));
                let client = self.client.line(PATIENCE);
                seen.insert((address.to_owned(), name.to_owned()), (client, self.server.line(PATIENCE)));
            }
        }
        seen
    }

    /// Has them again; all must be as they were, but for the client's address.
    fn must_equal(&mut self, direct: &Seen) {
        let relayed = self.converse();
        for (conversation, (client, server)) in direct {
            let now = &relayed[conversation];
            assert_eq!(&now.0, client, "{conversation:?}: what the client saw");
            assert_eq!(peerless(&now.1), peerless(server), "{conversation:?}: what the server saw");
        }
    }
}

/// `attestry run` in a place.
struct Sidecar {
    process: Process,
    ledger: PathBuf,
    place: Place,
}

impl Sidecar {
    /// Starts it with both redirected listeners; `inbound` are further lines after that section; for TPROXY it gets one capability.
    fn start(network: &Network, place: Place, inbound: &str) -> Self {
        let folder = network.folder.path().join(format!("sidecar-{place:?}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let (ledger, config) = (folder.join("ledger"), folder.join("proxy.toml"));
        let text = format!(
            "[inbound]\nlisten = \"[::]:15006\"\n{inbound}\n[outbound]\nlisten = \"[::]:15001\"\n\
             [ledger]\ndir = \"{}\"\nsegment_bytes = 4194304\n",
            ledger.display()
        );
        fs::write(&config, text).unwrap();
        let folder = folder.to_str().unwrap();
        network.sh(Place::Node, &format!("chmod 755 {folder}/.. && chown -R {UID} {folder}"));
        let capabilities: &[_] = if inbound == TPROXY {
            &["--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin"]
        } else {
            &["--inh-caps=-all", "--bounding-set=-all"]
        };
        let user = [&["setpriv", "--reuid", UID, "--regid", UID, "--clear-groups"], capabilities].concat();
        let run = [&user[..], &[program(), "run", "--config", config.to_str().unwrap()]].concat();
        let process = network.start(place, &format!("sidecar-{place:?}"), &run);
        process.line_after("listening on [::]:15006", PATIENCE);
        process.line_after("listening on [::]:15001", PATIENCE);
        Self { process, ledger, place }
    }

    fn stop(&mut self) {
        self.process.signal("TERM");
        let status = self.process.wait(PATIENCE);
        assert!(status.success(), "{:?}: {status}\n{}", self.place, self.process.stderr());
    }

    /// What `attestry connections` lists.
    fn connections(&self) -> Vec<Value> {
        let output = attestry(&["connections", "--ledger", self.ledger.to_str().unwrap(), "-o", "jsonl"]);
        let text = said(&output).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Each conversation is in the ledger once for each address, with what the client dialled there, and the ledger is intact.
    fn must_have(&self, direction: &str, interception: &str, dialled: impl Fn(&str) -> String) {
        verify(&self.ledger);
        let mut expected: Vec<(String, String)> = Vec::new();
        for address in ADDRESSES {
            let dialled = dialled(address);
            let host = if dialled.contains(':') { format!("[{dialled}]") } else { dialled };
            let protocols = ["http2", "http1", "opaque", "opaque", "opaque", "opaque", "opaque"];
            expected.extend(
                (5001..)
                    .zip(protocols)
                    .map(|(port, protocol)| (format!("{host}:{port}"), protocol.to_owned())),
            );
        }
        let mut found = Vec::new();
        for connection in self.connections() {
            assert_eq!(connection["direction"], direction, "{connection}");
            assert_eq!(connection["interception"], interception, "{connection}");
            let original = connection["original_destination"].as_str().unwrap().to_owned();
            found.push((original, connection["protocols"][0]["protocol"].as_str().unwrap_or("-").to_owned()));
        }
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{:?}", self.place);
        let calls = calls(&self.ledger);
        assert_eq!(calls.len(), ADDRESSES.len() * 3, "one of gRPC and two of HTTP/1.1 each: {calls:?}");
    }
}
