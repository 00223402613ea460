//! Network namespaces of a test's own: a pod, a peer, and the node that joins them, over IPv4 and IPv6.
//!
//! ```text
//!   pod  10.77.1.2  fd77:1::2 ──── node ──── peer  10.77.2.2  fd77:2::2  (also 10.77.3.2, fd77:3::2)
//! ```
//! As on a node of Kubernetes, the node turns a service address (10.96.0.10, fd96::10) into the pod's own, and the pod
//! has a link-local neighbour in it. The pod filters by reverse path, strictly. Dropping a `Network` removes the
//! namespaces, and with them all that the test did. Programs in them are `Process`es.

use std::fmt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::support;
use crate::support::process::Process;

/// The longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A place in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Pod,
    Node,
    Peer,
}

const PLACES: [Place; 3] = [Place::Pod, Place::Node, Place::Peer];

/// What joins them, a command a line. Every interface has a link-local address, made by hand so that it is there at once:
/// without one a router asks for no neighbour. `POD`, `NODE` and `PEER` stand for the namespaces.
const SETUP: &str = "
    ip link add eth0 netns POD type veth peer name pod netns NODE
    ip link add eth0 netns PEER type veth peer name peer netns NODE
    ip -n NODE link set pod addrgenmode none
    ip -n NODE link set peer addrgenmode none
    ip -n POD link set eth0 addrgenmode none
    ip -n PEER link set eth0 addrgenmode none
    ip -n NODE addr add 10.77.1.1/24 dev pod
    ip -n NODE addr add fd77:1::1/64 dev pod nodad
    ip -n NODE addr add 169.254.77.1/16 dev pod
    ip -n NODE addr add fe80::77:1/64 dev pod nodad
    ip -n NODE addr add 10.77.2.1/24 dev peer
    ip -n NODE addr add fd77:2::1/64 dev peer nodad
    ip -n NODE addr add fe80::77:1/64 dev peer nodad
    ip -n POD addr add 10.77.1.2/24 dev eth0
    ip -n POD addr add fd77:1::2/64 dev eth0 nodad
    ip -n POD addr add 169.254.77.2/16 dev eth0
    ip -n POD addr add fe80::77:2/64 dev eth0 nodad
    ip -n PEER addr add 10.77.2.2/24 dev eth0
    ip -n PEER addr add fd77:2::2/64 dev eth0 nodad
    ip -n PEER addr add fe80::77:2/64 dev eth0 nodad
    ip -n PEER addr add 10.77.3.2/32 dev eth0
    ip -n PEER addr add fd77:3::2/128 dev eth0 nodad preferred_lft 0
    ip -n POD link set lo up
    ip -n PEER link set lo up
    ip -n NODE link set lo up
    ip -n POD link set eth0 up
    ip -n PEER link set eth0 up
    ip -n NODE link set pod up
    ip -n NODE link set peer up
    ip -n POD route add default via 10.77.1.1
    ip -n POD -6 route add default via fd77:1::1
    ip -n PEER route add default via 10.77.2.1
    ip -n PEER -6 route add default via fd77:2::1
    ip -n NODE route add 10.77.3.2/32 via 10.77.2.2
    ip -n NODE -6 route add fd77:3::2/128 via fd77:2::2
    ip netns exec NODE sh -c \"echo 1 > /proc/sys/net/ipv4/ip_forward\"
    ip netns exec NODE sh -c \"echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\"
    ip netns exec POD sh -c \"for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done\"
    ip netns exec NODE nft add table inet kube
    ip netns exec NODE nft add chain inet kube services { type nat hook prerouting priority dstnat ; }
    ip netns exec NODE nft add chain inet kube hairpin { type nat hook postrouting priority srcnat ; }
    ip netns exec NODE nft add rule inet kube services ip daddr 10.96.0.10 tcp dport 80 dnat ip to 10.77.1.2:8080
    ip netns exec NODE nft add rule inet kube services ip6 daddr fd96::10 tcp dport 80 dnat ip6 to [fd77:1::2]:8080
    ip netns exec NODE nft add rule inet kube services ip daddr 10.96.0.10 tcp dport 5000-5999 dnat ip to 10.77.1.2
    ip netns exec NODE nft add rule inet kube services ip6 daddr fd96::10 tcp dport 5000-5999 dnat ip6 to fd77:1::2
    ip netns exec NODE nft add rule inet kube hairpin iifname pod oifname pod masquerade
";

/// The namespaces.
pub(crate) struct Network {
    id: String,
    /// For the files of the programs.
    pub(crate) folder: TempDir,
}

impl Network {
    /// Makes one; `None`, loudly, where that is not possible.
    pub(crate) fn make(test: &str) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let id = format!("attestry-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let network = Self { id, folder: tempfile::tempdir().unwrap() };
        match network.set_up() {
            Ok(()) => Some(network),
            Err(why) => {
                support::skip(test, &why);
                None
            }
        }
    }

    fn set_up(&self) -> Result<(), String> {
        for place in PLACES {
            succeed(&format!("ip netns add {}", self.name(place)))?;
        }
        let setup = PLACES.into_iter().fold(SETUP.to_owned(), |setup, place| {
            setup.replace(&format!("{place:?}").to_uppercase(), &self.name(place))
        });
        setup.lines().map(str::trim).filter(|line| !line.is_empty()).try_for_each(succeed)?;
        self.await_neighbours()?;
        for program in
            ["nft --version", "iptables-nft --version", "iptables-legacy --version", "setpriv --version"]
        {
            succeed(program)?;
        }
        Ok(())
    }

    /// A fresh pair of interfaces takes a moment until IPv6 uses it, which the kernel tells by no event: each end asks for its router
    /// until that answers.
    fn await_neighbours(&self) -> Result<(), String> {
        for (place, router) in [(Place::Pod, "fd77:1::1"), (Place::Peer, "fd77:2::1")] {
            let ask = format!("until (echo > /dev/tcp/{router}/9) 2>&1 | grep -q refused; do :; done");
            succeed(&format!("timeout 30 ip netns exec {} bash -c \"{ask}\"", self.name(place)))?;
        }
        Ok(())
    }

    fn name(&self, place: Place) -> String {
        format!("{}-{place:?}", self.id).to_lowercase()
    }

    /// A command that will run there.
    pub(crate) fn command(&self, place: Place, program: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(place)]).args(program);
        command
    }

    /// Starts a program there.
    pub(crate) fn start(&self, place: Place, name: &str, program: &[&str]) -> Process {
        Process::start(name, &mut self.command(place, program), self.folder.path())
    }

    /// Runs a shell's command there to its end, which must be a success; its standard output.
    pub(crate) fn sh(&self, place: Place, script: &str) -> String {
        let output = self.command(place, &["sh", "-c", script]).stdin(Stdio::null()).output().unwrap();
        said(&output).unwrap_or_else(|why| panic!("{script}: {why}"))
    }

    /// Runs the binary under test there to its end.
    pub(crate) fn attestry(&self, place: Place, arguments: &str) -> Output {
        let program: Vec<_> =
            [support::sidecar::program()].into_iter().chain(arguments.split_whitespace()).collect();
        self.command(place, &program).output().unwrap()
    }

    /// The same, which must succeed; its standard output.
    pub(crate) fn attestry_must(&self, place: Place, arguments: &str) -> String {
        said(&self.attestry(place, arguments)).unwrap_or_else(|why| panic!("attestry {arguments}: {why}"))
    }

    /// Starts an acceptor there: see `acceptor.py`.
    pub(crate) fn accept(&self, place: Place, ports: &str) -> Process {
        let label = format!("{place:?}").to_lowercase();
        let script = script("acceptor.py");
        let program: Vec<_> =
            ["python3", &script, &label].into_iter().chain(ports.split_whitespace()).collect();
        let acceptor = self.start(place, &format!("acceptor-{label}"), &program);
        assert_eq!(acceptor.line(PATIENCE), "ready");
        acceptor
    }

    /// Starts a dialer there.
    pub(crate) fn dialer(&self, place: Place) -> Dialer {
        Dialer(self.start(place, &format!("dialer-{place:?}"), &["python3", &script("dialer.py")]))
    }

    /// The connections of a place and what its kernel makes of them, for the report of a failure.
    pub(crate) fn state(&self, place: Place) -> String {
        self.sh(
            place,
            "ss -tnoi; cat /proc/net/nf_conntrack /proc/net/stat/nf_conntrack; ip neigh; ip -s link",
        )
    }

    /// Everything that could hold a trace in a place: rules of every kind, without their counters, and routes.
    pub(crate) fn traces(&self, place: Place) -> String {
        let legacy = "for n in ip ip6; do if grep -q . /proc/net/${n}_tables_names; then ${n}tables-legacy-save; fi; done";
        let dump = format!(
            "nft --stateless list ruleset; iptables-nft-save; ip6tables-nft-save; {legacy}; \
             ip rule; ip -6 rule; ip route show table all; ip -6 route show table all"
        );
        let dump = self.sh(place, &dump);
        dump.lines()
            .filter(|line| !line.starts_with('#'))
            .map(without_counters)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for place in PLACES {
            // It fails only where it was never made.
            let _ = succeed(&format!("ip netns del {}", self.name(place)));
        }
    }
}

/// Dials in a place: see `dialer.py`.
pub(crate) struct Dialer(Process);

impl Dialer {
    /// Says it, and returns the answer.
    pub(crate) fn ask(&mut self, request: impl fmt::Display) -> String {
        self.0.say(&request.to_string());
        self.0.line(PATIENCE)
    }
}

/// A script beside this file.
pub(crate) fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redirect").join(name).to_str().unwrap().to_owned()
}

/// `:CHAIN POLICY [packets:bytes]` counts.
fn without_counters(line: &str) -> &str {
    if line.starts_with(':') { line.split(" [").next().unwrap() } else { line }
}

/// Fails with the lines that only one of two dumps has.
pub(crate) fn assert_same(found: &str, expected: &str, what: &str) {
    let lines = |of: &str, without: &str| {
        let other: Vec<_> = without.lines().collect();
        of.lines().filter(|line| !other.contains(line)).collect::<Vec<_>>().join("\n")
    };
    let (more, less) = (lines(found, expected), lines(expected, found));
    assert!(found == expected, "{what}: there is more:\n{more}\nand less:\n{less}");
}

/// What a program printed, if it succeeded; else what it complained of.
pub(crate) fn said(output: &Output) -> Result<String, String> {
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("it ended with {}: {complaint}", output.status))
    }
}

/// Runs a command; words are parted by spaces, but for one in double quotes.
fn succeed(line: &str) -> Result<(), String> {
    let (plain, quoted) = line.split_once('"').unwrap_or((line, ""));
    let quoted = quoted.trim_end_matches('"');
    let mut words: Vec<&str> = plain.split_whitespace().collect();
    words.extend(Some(quoted).filter(|quoted| !quoted.is_empty()));
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{line}: {error}"))?;
    said(&output).map(drop).map_err(|why| format!("{line}: {why}"))
}
