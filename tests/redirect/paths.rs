//! Where connections go under the rules: each back end, both families, as `acceptor.py` tells it to `dialer.py`.
//!
//! Each table is of dials and where they must arrive: whose acceptor, on which port, and which destination the kernel remembers (`-`: none,
//! the connection was not redirected). Acceptors stand in for the sidecar too.

use crate::network::{Dialer, Network, Place};

pub(crate) const BACKENDS: [&str; 3] = ["nft", "iptables-nft", "iptables-legacy"];

const INSTALL: &str = "redirect install --inbound-port 15006 --outbound-port 15001 --uid 1337 --gid 1338 --mark 0x539 \
    --own-ports 15021 --skip-inbound-ports 22 --skip-outbound-ports 3306 \
    --skip-outbound-networks 10.77.3.0/24,fd77:3::/64";

const POD_PORTS: &str = "15006 15001 15021 8080 22 9000";
const PEER_PORTS: &str = "80 81 3306 15001 --udp 53";

#[test]
fn connections_go_to_the_sidecar_or_pass_by_it_as_they_should() {
    let Some(network) = Network::make("redirect::paths") else { return };
    let _acceptors = [(Place::Pod, POD_PORTS), (Place::Peer, PEER_PORTS), (Place::Node, "80")]
        .map(|(place, ports)| network.accept(place, ports));
    let mut ends = Ends { pod: network.dialer(Place::Pod), peer: network.dialer(Place::Peer) };
    for backend in BACKENDS {
        network.attestry_must(Place::Pod, &format!("{INSTALL} --backend {backend}"));
        let mut failures = inbound(&mut ends);
        failures.extend(outbound(&mut ends));
        failures.extend(within_the_pod(&mut ends));
        assert!(failures.is_empty(), "{backend}:\n{}", failures.join("\n"));
    }
    network.attestry_must(Place::Pod, "redirect remove");
    assert_eq!(ends.peer.ask("10.77.1.2 8080"), "pod 8080 - 10.77.2.2");
    assert_eq!(ends.pod.ask("fd77:2::2 80"), "peer 80 - [fd77:1::2]");
}

#[test]
fn only_the_ports_and_families_that_were_asked_for_are_redirected() {
    let Some(network) = Network::make("redirect::ports") else { return };
    let _acceptors = [(Place::Pod, POD_PORTS), (Place::Peer, PEER_PORTS)]
        .map(|(place, ports)| network.accept(place, ports));
    let mut ends = Ends { pod: network.dialer(Place::Pod), peer: network.dialer(Place::Peer) };
    for backend in BACKENDS {
        let plan = "--inbound-ports 8000-8080 --outbound-ports 80 --skip-outbound-ports 79-79 --uid 1337";
        let install =
            format!("redirect install --inbound-port 15006 --outbound-port 15001 {plan} --backend {backend}");
        network.attestry_must(Place::Pod, &install);
        let both = ends.check(&[
            (Place::Peer, "10.77.1.2 8080", "pod 15006 10.77.1.2:8080"),
            (Place::Peer, "10.77.1.2 9000", "pod 9000 -"),
            (Place::Pod, "10.77.2.2 80", "pod 15001 10.77.2.2:80"),
            (Place::Pod, "10.77.2.2 81", "peer 81 -"),
            (Place::Peer, "fd77:1::2 8080", "pod 15006 [fd77:1::2]:8080"),
            (Place::Pod, "fd77:2::2 81", "peer 81 -"),
        ]);
        network.attestry_must(Place::Pod, &format!("{install} --ipv6 no"));
        let v4_alone = ends.check(&[
            (Place::Peer, "10.77.1.2 8080", "pod 15006 10.77.1.2:8080"),
            (Place::Pod, "10.77.2.2 80", "pod 15001 10.77.2.2:80"),
            (Place::Peer, "fd77:1::2 8080", "pod 8080 -"),
            (Place::Pod, "fd77:2::2 80", "peer 80 -"),
        ]);
        let install = format!("redirect install --inbound-port 15006 --backend {backend}");
        network.attestry_must(Place::Pod, &install);
        let inbound_alone = ends.check(&[
            (Place::Peer, "10.77.1.2 22", "pod 15006 10.77.1.2:22"),
            (Place::Pod, "10.77.2.2 80", "peer 80 -"),
            (Place::Pod, "10.77.1.2 8080", "pod 8080 -"),
            (Place::Pod, "::1 8080", "pod 8080 -"),
        ]);
        let failures = [both, v4_alone, inbound_alone].concat();
        assert!(failures.is_empty(), "{backend}:\n{}", failures.join("\n"));
    }
}

/// Neither the first installation, before which nothing tracked connections here, nor one over another, nor a removal and an
/// installation after it disturbs what is connected.
#[test]
fn connections_from_before_go_on() {
    let Some(network) = Network::make("redirect::before") else { return };
    let _acceptors = [(Place::Pod, POD_PORTS), (Place::Peer, PEER_PORTS)]
        .map(|(place, ports)| network.accept(place, ports));
    for backend in BACKENDS {
        let mut held =
            [(Place::Peer, "10.77.1.2 8080"), (Place::Peer, "fd77:1::2 8080"), (Place::Pod, "10.77.2.2 80")]
                .map(|(place, dial)| {
                    let mut dialer = network.dialer(place);
                    assert!(
                        dialer.ask(format!("{dial} hold")).contains(" - "),
                        "{backend}: {dial} is direct"
                    );
                    (dial, dialer)
                });
        let mut all_go_on = |moment: &str| {
            for (dial, dialer) in &mut held {
                let echo = dialer.ask("echo still-there");
                assert_eq!(
                    echo,
                    "still-there",
                    "{backend}: {dial}, {moment}:\n{}",
                    network.state(Place::Pod)
                );
            }
        };
        let install = format!(
            "redirect install --inbound-port 15006 --outbound-port 15001 --uid 1 --backend {backend}"
        );
        network.attestry_must(Place::Pod, &install);
        all_go_on("after the first installation");
        let mut redirected = network.dialer(Place::Peer);
        assert_eq!(redirected.ask("10.77.1.2 8080 hold"), "pod 15006 10.77.1.2:8080 10.77.2.2");
        network.attestry_must(Place::Pod, &format!("{install} --skip-inbound-ports 22"));
        assert_eq!(
            redirected.ask("echo here"),
            "here",
            "{backend}: redirected before the second installation"
        );
        all_go_on("after the second installation");
        network.attestry_must(Place::Pod, "redirect remove");
        all_go_on("after the removal");
    }
}

/// A segment from outside of the connection's window is INVALID to connection tracking, so that NAT does not turn it: it would
/// reach the service's port, where no such connection is, and the reset that answers it would end the healthy one.
#[test]
fn a_stray_segment_does_not_reset_a_redirected_connection() {
    let Some(network) = Network::make("redirect::invalid") else { return };
    let _pod = network.accept(Place::Pod, POD_PORTS);
    let without_the_rule = [
        "nft flush chain inet attestry prerouting_mangle",
        "iptables-nft -t mangle -F ATTESTRY_PREROUTING",
        "iptables-legacy -t mangle -F ATTESTRY_PREROUTING",
    ];
    for (backend, without_the_rule) in BACKENDS.into_iter().zip(without_the_rule) {
        network
            .attestry_must(Place::Pod, &format!("redirect install --inbound-port 15006 --backend {backend}"));
        let mut dialer = network.dialer(Place::Peer);
        assert_eq!(dialer.ask("10.77.1.2 8080 hold"), "pod 15006 10.77.1.2:8080 10.77.2.2");
        assert_eq!(dialer.ask("forge"), "forged");
        assert_eq!(dialer.ask("echo unharmed"), "unharmed", "{backend}");
        network.sh(Place::Pod, without_the_rule);
        assert_eq!(dialer.ask("forge"), "forged");
        assert!(dialer.ask("echo harmed").starts_with("ended:"), "{backend}: the test does nothing");
    }
}

/// A connection that its peer has reset leaves an entry in connection tracking, and a SYN from the same port to the same destination follows it past
/// NAT: the application's past the sidecar, where the sidecar's was reset, and the other way the sidecar's to itself. The zone parts them.
#[test]
fn what_is_left_of_one_connection_does_not_lead_the_next_astray() {
    let Some(network) = Network::make("redirect::remnants") else { return };
    let _acceptors =
        [(Place::Pod, "15001"), (Place::Peer, "80")].map(|(place, ports)| network.accept(place, ports));
    let mut pod = network.dialer(Place::Pod);
    let without_the_rule = [
        "nft flush chain inet attestry output_raw",
        "iptables-nft -t raw -F ATTESTRY_OUTPUT; ip6tables-nft -t raw -F ATTESTRY_OUTPUT",
        "iptables-legacy -t raw -F ATTESTRY_OUTPUT; ip6tables-legacy -t raw -F ATTESTRY_OUTPUT",
    ];
    let mut ports = 20_000..;
    let mut one_after_the_other = |first: &str, second: &str| {
        let port = ports.next().unwrap();
        [pod.ask(format!("{first} from={port} reset")), pod.ask(format!("{second} from={port}"))]
    };
    let ways = [
        ("10.77.2.2 80", "peer 80 - 10.77.1.2", "pod 15001 10.77.2.2:80 10.77.1.2"),
        ("fd77:2::2 80", "peer 80 - [fd77:1::2]", "pod 15001 [fd77:2::2]:80 [fd77:1::2]"),
    ];
    for (backend, without_the_rule) in BACKENDS.into_iter().zip(without_the_rule) {
        let install = format!(
            "redirect install --outbound-port 15001 --uid 1337 --gid 1338 --mark 0x539 --backend {backend}"
        );
        network.attestry_must(Place::Pod, &install);
        network.sh(Place::Pod, "echo 600 > /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close");
        for has_rule in [true, false] {
            for ((application, own, redirected), owner) in ways
                .into_iter()
                .flat_map(|way| ["uid=1337", "gid=1338", "mark=0x539"].map(|owner| (way, owner)))
            {
                let sidecar = format!("{application} {owner}");
                let found =
                    [one_after_the_other(&sidecar, application), one_after_the_other(application, &sidecar)];
                let led_astray = [[own, own], [redirected, redirected]];
                let right = [[own, redirected], [redirected, own]];
                assert_eq!(
                    found,
                    if has_rule { right } else { led_astray },
                    "{backend}, {sidecar}, {has_rule}"
                );
            }
            network.sh(Place::Pod, without_the_rule);
        }
        network.attestry_must(Place::Pod, "redirect remove");
    }
}

/// What a router in the pod's namespace forwards is nobody's connection to this pod.
#[test]
fn a_connection_that_passes_through_is_left_alone() {
    let Some(network) = Network::make("redirect::forwarded") else { return };
    let _peer = network.accept(Place::Peer, "80");
    let mut pod = network.dialer(Place::Pod);
    for backend in BACKENDS {
        let plan = "--inbound-port 15006 --outbound-port 15001 --uid 1337";
        network.attestry_must(Place::Node, &format!("redirect install {plan} --backend {backend}"));
        assert_eq!(pod.ask("10.77.2.2 80"), "peer 80 - 10.77.1.2", "{backend}");
        assert_eq!(pod.ask("fd77:2::2 80"), "peer 80 - [fd77:1::2]", "{backend}");
        // While a dial to the node itself is refused, as nobody listens on the port that it is redirected to.
        assert_eq!(pod.ask("10.77.1.1 80"), "refused", "{backend}");
    }
}

/// TPROXY: the service sees the client's address, and its answers find back through the one who dialled under it.
#[test]
fn under_tproxy_the_service_sees_the_client() {
    let Some(network) = Network::make("redirect::tproxy") else { return };
    let ports = "8080 22 15001 15021 --transparent 15006";
    let _acceptors =
        [(Place::Pod, ports), (Place::Peer, PEER_PORTS)].map(|(place, ports)| network.accept(place, ports));
    let mut ends = Ends { pod: network.dialer(Place::Pod), peer: network.dialer(Place::Peer) };
    let before = network.traces(Place::Pod);
    for backend in BACKENDS {
        let mut older = network.dialer(Place::Peer);
        assert_eq!(older.ask("10.77.1.2 8080 hold"), "pod 8080 - 10.77.2.2");
        network.attestry_must(Place::Pod, &format!("{INSTALL} --backend {backend} --inbound-mode tproxy"));
        assert_eq!(older.ask("echo from-before"), "from-before", "{backend}: a connection from before");
        let failures = ends.check(&[
            // The greeting is the service's own, so that only the log of the one between would tell: the refusal below does.
            (Place::Peer, "10.77.1.2 8080", "pod 8080 - 10.77.2.2"),
            (Place::Peer, "fd77:1::2 8080", "pod 8080 - [fd77:2::2]"),
            (Place::Peer, "10.77.1.2 22", "pod 22 - 10.77.2.2"),
            (Place::Peer, "10.77.1.2 15021", "pod 15021 -"),
            (Place::Pod, "10.77.2.2 80", "pod 15001 10.77.2.2:80"),
            (Place::Pod, "10.77.1.2 8080", "pod 8080 -"),
            (Place::Pod, "::1 8080", "pod 8080 -"),
        ]);
        assert!(failures.is_empty(), "{backend}:\n{}", failures.join("\n"));
        let mut held = network.dialer(Place::Peer);
        assert_eq!(held.ask("10.77.1.2 8080 hold"), "pod 8080 - 10.77.2.2");
        assert_eq!(
            network.sh(Place::Pod, SERVED_BY_SIDECAR).trim(),
            "1",
            "{backend}: not through port 15006"
        );
        assert_eq!(held.ask("echo back-and-forth"), "back-and-forth", "{backend}");
        network.attestry_must(Place::Pod, "redirect remove");
    }
    let after = network.traces(Place::Pod);
    assert!(
        !after.contains("6174") && !after.contains("ttestry") && !after.contains("ATTESTRY"),
        "{before}\n{after}"
    );
}

/// Connections from the client's address *within* the pod, which only one who is transparent can have made. (The service's end of
/// a direct connection has the same addresses, but the pod's first.)
const SERVED_BY_SIDECAR: &str =
    "ss -Htn state established src 10.77.2.2 and dst 10.77.1.2 and dport = :8080 | wc -l";

fn inbound(ends: &mut Ends) -> Vec<String> {
    ends.check(&[
        (Place::Peer, "10.77.1.2 8080", "pod 15006 10.77.1.2:8080 10.77.2.2"),
        (Place::Peer, "fd77:1::2 8080", "pod 15006 [fd77:1::2]:8080 [fd77:2::2]"),
        // Nobody listens on 7; it is the sidecar that finds that out.
        (Place::Peer, "10.77.1.2 7", "pod 15006 10.77.1.2:7"),
        (Place::Peer, "10.77.1.2 22", "pod 22 - 10.77.2.2"),
        (Place::Peer, "fd77:1::2 22", "pod 22 - [fd77:2::2]"),
        // The sidecar's own ports, dialled directly: it sees that they were, and no loop can begin.
        (Place::Peer, "10.77.1.2 15006", "pod 15006 -"),
        (Place::Peer, "fd77:1::2 15006", "pod 15006 -"),
        (Place::Peer, "10.77.1.2 15001", "pod 15001 -"),
        (Place::Peer, "10.77.1.2 15021", "pod 15021 -"),
        // The service's address, which the node turns into the pod's.
        (Place::Peer, "10.96.0.10 80", "pod 15006 10.77.1.2:8080 10.77.2.2"),
        (Place::Peer, "fd96::10 80", "pod 15006 [fd77:1::2]:8080 [fd77:2::2]"),
    ])
}

fn outbound(ends: &mut Ends) -> Vec<String> {
    ends.check(&[
        (Place::Pod, "10.77.2.2 80", "pod 15001 10.77.2.2:80 10.77.1.2"),
        (Place::Pod, "fd77:2::2 80", "pod 15001 [fd77:2::2]:80 [fd77:1::2]"),
        (Place::Pod, "10.77.2.2 80 uid=1000", "pod 15001 10.77.2.2:80"),
        // A port of the sidecar's, but not on this host: another pod's.
        (Place::Pod, "10.77.2.2 15001", "pod 15001 10.77.2.2:15001"),
        (Place::Pod, "10.77.2.2 80 uid=1337", "peer 80 - 10.77.1.2"),
        (Place::Pod, "fd77:2::2 80 uid=1337", "peer 80 -"),
        (Place::Pod, "10.77.2.2 80 gid=1338", "peer 80 -"),
        (Place::Pod, "fd77:2::2 80 gid=1338", "peer 80 -"),
        (Place::Pod, "10.77.2.2 80 mark=0x539", "peer 80 -"),
        (Place::Pod, "fd77:2::2 80 mark=0x539", "peer 80 -"),
        (Place::Pod, "10.77.2.2 80 mark=0x53a", "pod 15001 10.77.2.2:80"),
        (Place::Pod, "10.77.2.2 3306", "peer 3306 -"),
        (Place::Pod, "fd77:2::2 3306", "peer 3306 -"),
        (Place::Pod, "10.77.3.2 80", "peer 80 -"),
        (Place::Pod, "fd77:3::2 80", "peer 80 -"),
        (Place::Pod, "10.77.2.2 53 udp", "peer 53"),
        (Place::Pod, "fd77:2::2 53 udp", "peer 53"),
        (Place::Pod, "169.254.77.1 80", "node 80 - 169.254.77.2"),
        (Place::Pod, "fe80::77:1%eth0 80", "node 80 -"),
    ])
}

fn within_the_pod(ends: &mut Ends) -> Vec<String> {
    ends.check(&[
        (Place::Pod, "127.0.0.1 8080", "pod 8080 - 127.0.0.1"),
        (Place::Pod, "127.1.2.3 8080", "pod 8080 -"),
        (Place::Pod, "::1 8080", "pod 8080 - [::1]"),
        (Place::Pod, "10.77.1.2 8080", "pod 8080 - 10.77.1.2"),
        (Place::Pod, "fd77:1::2 8080", "pod 8080 - [fd77:1::2]"),
        // The sidecar's own connection to the service.
        (Place::Pod, "10.77.1.2 8080 uid=1337", "pod 8080 -"),
        (Place::Pod, "fd77:1::2 8080 uid=1337", "pod 8080 -"),
        // The pod's own service: out through the sidecar, and in again through it.
        (Place::Pod, "10.96.0.10 80", "pod 15001 10.96.0.10:80"),
        (Place::Pod, "fd96::10 80", "pod 15001 [fd96::10]:80"),
        (Place::Pod, "10.96.0.10 80 uid=1337", "pod 15006 10.77.1.2:8080"),
        (Place::Pod, "fd96::10 80 uid=1337", "pod 15006 [fd77:1::2]:8080"),
    ])
}

/// A dialer on each side.
struct Ends {
    pod: Dialer,
    peer: Dialer,
}

impl Ends {
    /// Dials all, and tells which did not arrive where they should.
    fn check(&mut self, cases: &[(Place, &str, &str)]) -> Vec<String> {
        let mut failures = Vec::new();
        for (from, dial, expected) in cases {
            let dialer = if *from == Place::Pod { &mut self.pod } else { &mut self.peer };
            let arrived = dialer.ask(dial);
            if arrived != *expected && !arrived.starts_with(&format!("{expected} ")) {
                failures.push(format!("from the {from:?} to {dial}: {arrived:?} instead of {expected:?}"));
            }
        }
        failures
    }
}
