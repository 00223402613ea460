//! What is to be redirected: as it was asked for, and checked.
//!
//! Invariants: a `Plan` redirects something, never to port 0, and cannot loop: outbound redirection always names how the
//! sidecar's own connections are known. All faults of a request are reported at once. A plan prints as the options that make it
//! again, which is also how it is kept in the rules. What rules it comes to is in `rules`.

use super::ports::{Network, PortRange};
use std::collections::BTreeSet;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// Most entries of one list. Each is a rule that every new connection passes.
const ENTRIES_MAX: usize = 64;

/// Marks the packets of a diverted connection that must come back to the sidecar: see `rules`. No `--mark` may equal it or the next.
pub(super) const RETURNING_MARK: u32 = 0x6174;
/// Marks, in connection tracking only, the connections that were diverted to the sidecar.
pub(super) const DIVERTED_MARK: u32 = RETURNING_MARK + 1;

/// What is asked for: the options of `attestry redirect install`, none of them checked against another.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Wanted {
    /// Redirect connections to this host to this port of the sidecar
    #[arg(long, value_name = "PORT")]
    pub inbound_port: Option<u16>,
    /// Redirect connections from this host to this port of the sidecar
    #[arg(long, value_name = "PORT")]
    pub outbound_port: Option<u16>,
    /// How inbound connections are intercepted [default: redirect]
    #[arg(long, value_name = "MODE", value_enum)]
    pub inbound_mode: Option<InboundMode>,
    /// The user id that the sidecar runs as: its connections are not redirected
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// The group id that the sidecar runs as
    #[arg(long, value_name = "GID")]
    pub gid: Option<u32>,
    /// The mark (SO_MARK) that the sidecar sets on its connections, such as 0x539
    #[arg(long, value_name = "MARK")]
    pub mark: Option<Mark>,
    /// Ports that the sidecar itself listens on beside the two above: never redirected
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub own_ports: Vec<PortRange>,
    /// Redirect inbound connections to these ports only, such as 80,8000-8999
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub inbound_ports: Vec<PortRange>,
    /// Leave inbound connections to these ports alone
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub skip_inbound_ports: Vec<PortRange>,
    /// Redirect outbound connections to these ports only
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub outbound_ports: Vec<PortRange>,
    /// Leave outbound connections to these ports alone
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub skip_outbound_ports: Vec<PortRange>,
    /// Leave outbound connections to these networks alone, such as 10.96.0.1,fd00::/8
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    pub skip_outbound_networks: Vec<Network>,
    /// Redirect IPv6 too; auto is yes where this host has it [default: auto]
    #[arg(long, value_name = "WHEN", value_enum)]
    pub ipv6: Option<Ipv6>,
}

/// How inbound connections come to the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum InboundMode {
    /// By NAT: the sidecar needs no privilege.
    #[default]
    Redirect,
    /// By TPROXY: the service sees the client's own address; the sidecar needs CAP_NET_ADMIN.
    Tproxy,
}

/// Whether IPv6 is redirected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Ipv6 {
    /// Where the host has it.
    #[default]
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

/// A packet mark, in decimal or after 0x in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub u32);

impl FromStr for Mark {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).map(Self),
            None => text.parse().map(Self),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What is wrong with what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanFault {
    /// Neither direction has a port.
    #[error(
        "nothing is to be redirected: name --inbound-port, --outbound-port or both, or a --config with [inbound] or [outbound]"
    )]
    Nothing,
    /// Port 0 cannot be redirected to.
    #[error(
        "{option} is 0, which is no port that could be redirected to: name the one that the sidecar listens on"
    )]
    PortZero {
        /// The option.
        option: &'static str,
    },
    /// Both directions go to one port, so that the sidecar could not tell them apart.
    #[error("--inbound-port and --outbound-port are both {0}: give each its own listener")]
    SamePort(u16),
    /// Outbound without a way to know the sidecar's own connections.
    #[error(
        "with --outbound-port the sidecar's own connections would come back to it for ever: name its --uid, --gid or --mark"
    )]
    NoOwner,
    /// An option of a direction that is not redirected.
    #[error("{option} is given without {needs}, and would do nothing: add that, or leave it out")]
    Idle {
        /// The option.
        option: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// A mark that means something else.
    #[error(
        "--mark {mark} is taken: 0 is the mark of all packets, {0:#x} and {1:#x} are attestry's for TPROXY; choose another",
        RETURNING_MARK,
        DIVERTED_MARK
    )]
    Mark {
        /// The mark.
        mark: Mark,
    },
    /// A list that is too long.
    #[error("{option} has {found} entries: write at most {ENTRIES_MAX}, with ranges where they fit")]
    TooMany {
        /// The option.
        option: &'static str,
        /// How many it has.
        found: usize,
    },
}

/// What is redirected, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(super) inbound: Option<Inbound>,
    pub(super) outbound: Option<Outbound>,
    /// All listeners of the sidecar, those that are redirected to among them.
    pub(super) own_ports: Vec<PortRange>,
    pub(super) ipv6: bool,
}

/// Connections to this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inbound {
    pub(super) port: u16,
    pub(super) mode: InboundMode,
    pub(super) ports: Ports,
}

/// Connections from this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outbound {
    pub(super) port: u16,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mark: Option<Mark>,
    pub(super) ports: Ports,
    pub(super) skip_networks: BTreeSet<Network>,
}

/// Which destination ports: these only (all where there are none), and of those not the skipped ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) only: Vec<PortRange>,
    pub(super) skip: Vec<PortRange>,
}

impl Plan {
    /// Checks what is asked for; `host_has_ipv6` decides where `ipv6` is `auto`.
    pub fn new(wanted: &Wanted, host_has_ipv6: bool) -> Result<Self, Vec<PlanFault>> {
        let faults = faults(wanted);
        if !faults.is_empty() {
            return Err(faults);
        }
        let ports =
            |only: &[_], skip: &[_]| Ports { only: PortRange::merged(only), skip: PortRange::merged(skip) };
        let inbound = wanted.inbound_port.map(|port| Inbound {
            port,
            mode: wanted.inbound_mode.unwrap_or_default(),
            ports: ports(&wanted.inbound_ports, &wanted.skip_inbound_ports),
        });
        let outbound = wanted.outbound_port.map(|port| Outbound {
            port,
            uid: wanted.uid,
            gid: wanted.gid,
            mark: wanted.mark,
            ports: ports(&wanted.outbound_ports, &wanted.skip_outbound_ports),
            skip_networks: wanted.skip_outbound_networks.iter().copied().collect(),
        });
        let redirected_to = [wanted.inbound_port, wanted.outbound_port].into_iter().flatten();
        let own_ports: Vec<_> =
            redirected_to.filter_map(PortRange::single).chain(wanted.own_ports.iter().copied()).collect();
        let ipv6 = match wanted.ipv6.unwrap_or_default() {
            Ipv6::Auto => host_has_ipv6,
            Ipv6::Yes => true,
            Ipv6::No => false,
        };
        Ok(Self { inbound, outbound, own_ports: PortRange::merged(&own_ports), ipv6 })
    }

    /// Whether IPv6 is redirected too.
    pub fn redirects_ipv6(&self) -> bool {
        self.ipv6
    }

    /// Whether packets must be routed back to the sidecar, which is more than rules can do.
    pub(super) fn needs_routes(&self) -> bool {
        self.inbound.as_ref().is_some_and(|inbound| inbound.mode == InboundMode::Tproxy)
    }

    /// What is allowed and yet seldom meant, in whole sentences.
    pub fn warnings(&self, host_has_ipv6: bool) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if self.outbound.as_ref().is_some_and(|outbound| outbound.uid == Some(0)) {
            warnings.push(
                "--uid 0: no connection of any process that runs as root is recorded; run the sidecar as a user of its own",
            );
        }
        if host_has_ipv6 && !self.ipv6 {
            warnings.push("--ipv6 no: connections over IPv6 pass by the sidecar, and nothing records them");
        }
        warnings
    }

    /// The options that make this plan again, one on each line.
    pub fn to_options(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(inbound) = &self.inbound {
            lines.push(format!("--inbound-port {}", inbound.port));
            if inbound.mode == InboundMode::Tproxy {
                lines.push("--inbound-mode tproxy".to_owned());
            }
            lines.extend(each("--inbound-ports", &inbound.ports.only));
            lines.extend(each("--skip-inbound-ports", &inbound.ports.skip));
        }
        if let Some(outbound) = &self.outbound {
            lines.push(format!("--outbound-port {}", outbound.port));
            lines.extend(each("--uid", &outbound.uid));
            lines.extend(each("--gid", &outbound.gid));
            lines.extend(each("--mark", &outbound.mark));
            lines.extend(each("--outbound-ports", &outbound.ports.only));
            lines.extend(each("--skip-outbound-ports", &outbound.ports.skip));
            lines.extend(each("--skip-outbound-networks", &outbound.skip_networks));
        }
        lines.extend(each("--own-ports", &self.own_ports));
        lines.push(format!("--ipv6 {}", if self.ipv6 { "yes" } else { "no" }));
        lines
    }
}

fn each<'a, T: fmt::Display + 'a>(
    option: &'a str,
    values: impl IntoIterator<Item = &'a T> + 'a,
) -> impl Iterator<Item = String> + 'a {
    values.into_iter().map(move |value| format!("{option} {value}"))
}

fn faults(wanted: &Wanted) -> Vec<PlanFault> {
    let mut faults = Vec::new();
    let (inbound, outbound) = (wanted.inbound_port, wanted.outbound_port);
    if inbound.is_none() && outbound.is_none() {
        faults.push(PlanFault::Nothing);
    }
    for (option, port) in [("--inbound-port", inbound), ("--outbound-port", outbound)] {
        if port == Some(0) {
            faults.push(PlanFault::PortZero { option });
        }
    }
    if let Some(port) = inbound.filter(|port| outbound == Some(*port)) {
        faults.push(PlanFault::SamePort(port));
    }
    if outbound.is_some() && wanted.uid.is_none() && wanted.gid.is_none() && wanted.mark.is_none() {
        faults.push(PlanFault::NoOwner);
    }
    if let Some(mark) = wanted.mark.filter(|mark| [0, RETURNING_MARK, DIVERTED_MARK].contains(&mark.0)) {
        faults.push(PlanFault::Mark { mark });
    }
    let of_inbound = ("--inbound-port", inbound.is_some());
    let of_outbound = ("--outbound-port", outbound.is_some());
    let lists = [
        ("--inbound-ports", PortRange::merged(&wanted.inbound_ports).len(), of_inbound),
        ("--skip-inbound-ports", PortRange::merged(&wanted.skip_inbound_ports).len(), of_inbound),
        ("--inbound-mode", usize::from(wanted.inbound_mode.is_some()), of_inbound),
        ("--outbound-ports", PortRange::merged(&wanted.outbound_ports).len(), of_outbound),
        ("--skip-outbound-ports", PortRange::merged(&wanted.skip_outbound_ports).len(), of_outbound),
        ("--skip-outbound-networks", wanted.skip_outbound_networks.len(), of_outbound),
        ("--own-ports", PortRange::merged(&wanted.own_ports).len(), ("", true)),
    ];
    for (option, found, (needs, is_redirected)) in lists {
        if found > 0 && !is_redirected {
            faults.push(PlanFault::Idle { option, needs });
        }
        if found > ENTRIES_MAX {
            faults.push(PlanFault::TooMany { option, found });
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Options {
        #[command(flatten)]
        wanted: Wanted,
    }

    fn wanted(options: &str) -> Wanted {
        let arguments = ["install"].into_iter().chain(options.split_whitespace());
        Options::try_parse_from(arguments).unwrap_or_else(|error| panic!("{options}: {error}")).wanted
    }

    fn faults_of(options: &str) -> Vec<PlanFault> {
        Plan::new(&wanted(options), true).unwrap_err()
    }

    #[test]
    fn the_options_that_a_plan_prints_make_the_same_plan() {
        for options in [
            "--inbound-port 15006",
            "--outbound-port 15001 --gid 7 --ipv6 no",
            "--inbound-port 15006 --inbound-mode tproxy --skip-inbound-ports 22,9000-9100 --own-ports 15021",
            "--inbound-port 6 --inbound-ports 80,81 --outbound-port 1 --uid 1337 --mark 1337 --outbound-ports 1-65535 \
             --skip-outbound-ports 3306 --skip-outbound-networks fd00::/8,10.0.0.0/8,10.96.0.1 --ipv6 yes",
        ] {
            let plan = Plan::new(&wanted(options), true).unwrap();
            let again = Plan::new(&wanted(&plan.to_options().join(" ")), !plan.ipv6).unwrap();
            assert_eq!(again, plan, "{options}");
        }
    }

    #[test]
    fn every_fault_is_found_at_once() {
        assert_eq!(faults_of(""), [PlanFault::Nothing]);
        assert_eq!(faults_of("--outbound-port 15001"), [PlanFault::NoOwner]);
        assert_eq!(faults_of("--inbound-port 7 --outbound-port 7 --uid 1"), [PlanFault::SamePort(7)]);
        let many = (1..=65).map(|port| (port * 2).to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(
            faults_of(&format!(
                "--inbound-port 0 --mark 0x6174 --skip-inbound-ports {many} --outbound-ports 1"
            )),
            [
                PlanFault::PortZero { option: "--inbound-port" },
                PlanFault::Mark { mark: Mark(RETURNING_MARK) },
                PlanFault::TooMany { option: "--skip-inbound-ports", found: 65 },
                PlanFault::Idle { option: "--outbound-ports", needs: "--outbound-port" },
            ]
        );
        assert_eq!(faults_of("--outbound-port 1 --mark 0"), [PlanFault::Mark { mark: Mark(0) }]);
    }

    #[test]
    fn auto_follows_the_host_and_what_passes_by_is_said() {
        let plan = |options, host| Plan::new(&wanted(options), host).unwrap();
        assert!(plan("--inbound-port 1", true).ipv6);
        assert!(!plan("--inbound-port 1", false).ipv6);
        assert!(plan("--inbound-port 1 --ipv6 yes", false).ipv6);
        assert_eq!(plan("--inbound-port 1 --ipv6 no", true).warnings(true).len(), 1);
        assert_eq!(plan("--outbound-port 1 --uid 0", false).warnings(false).len(), 1);
        assert_eq!(plan("--outbound-port 1 --uid 1", true).warnings(true), Vec::<&str>::new());
    }
}
