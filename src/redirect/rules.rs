//! The rules that a plan comes to, once, for both back ends: which packets, and what happens to them.
//!
//! Invariants: every rule is of TCP alone; the rules of a chain are tried in order and the first verdict ends the chain
//! (setting a mark or a zone is none); a connection of the sidecar itself is never redirected, nor one to the sidecar's own
//! listeners, to a link-local address, or over the loopback interface; a connection that is older than the rules is left
//! as it is. How a rule is written is in `nft` and `iptables`.
//!
//! How the meshes do it, and why this is the same. Both linkerd and Istio let a process call its own pod without the
//! proxy, by localhost or by the pod's address: such packets leave through `lo` (`ToLoopback`) and never leave the pod,
//! and the sidecar's own connection to the service, which is also to the pod's address, differs from them by its owner
//! alone. A call to the pod's own *service* address is not local: it goes out, is redirected as outbound, comes back from
//! the node and is redirected as inbound. Istio's further rule, that sends the proxy's own `lo` traffic to its inbound
//! port, serves a proxy that picks endpoints itself; this one always dials what the client dialled.
//!
//! TPROXY keeps the client's address, so the service answers the client and not the sidecar: those answers must be
//! turned round. The sidecar's connection to the service is known by its foreign source on `lo`; connection tracking
//! carries RETURNING_MARK for it, the answers' packets take it over, and the routing rule of `routes` sends them to `lo`.
//! The connections that came from outside carry DIVERTED_MARK, so that those from before the installation are left alone.
//!
//! An application and its sidecar dial the same destinations from the same address, and may do so from the same port, one after the
//! other. Connection tracking keeps an ended connection for a while, and a SYN that meets one follows it without asking NAT: an
//! application's would pass by on what is left of the sidecar's, and the sidecar's would come back to it on what is left of the
//! application's. So the sidecar's have a zone of connection tracking to themselves. It is of the original direction alone: nothing
//! tells the answers that arrive, which are looked for in the common zone. Over `lo` nothing is redirected, so nothing can follow.

use super::plan::{DIVERTED_MARK, Inbound, InboundMode, Outbound, Plan, Ports, RETURNING_MARK};
use super::ports::{Family, Network, PortRange};

/// The rules of one hook of the kernel.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) table: Table,
    pub(super) hook: Hook,
    pub(super) rules: Vec<Rule>,
}

/// What a chain may do: decide how connections are tracked, change packets and connection marks, or destinations of new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Raw,
    Mangle,
    Nat,
}

/// Where packets pass a chain: as they arrive, or as a process of this host sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting,
    Output,
}

/// What happens to TCP packets that meet every condition, and why.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: Verdict,
    pub(super) why: &'static str,
}

/// A condition of a rule.
#[derive(Debug, Clone, Copy)]
pub(super) enum Condition {
    Family(Family),
    To(Network),
    ToPorts(PortRange),
    /// The destination is no address of this host.
    ToElsewhere,
    /// The source is no address of this host.
    FromElsewhere,
    FromLoopback,
    ToLoopback,
    Uid(u32),
    Gid(u32),
    Mark(u32),
    ConnectionMark(u32),
    /// Connection tracking can make nothing of the packet.
    Invalid,
    /// The packet opens a connection: a SYN, whatever connection tracking makes of it.
    Opening,
    /// The packet goes against the direction in which the connection was opened.
    Answer,
}

/// What a rule does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    /// Leave the packet as it is.
    Return,
    Drop,
    Redirect(u16),
    Tproxy(u16),
    /// Mark the connection, and go on with the next rule.
    MarkConnection(u32),
    /// Mark the packet, and go on with the next rule.
    Mark(u32),
    /// Look for its connection among those of a zone, if it goes in the direction in which that was opened; and go on.
    ZoneOfOriginal(u16),
}

/// The zone of the sidecar's own connections: far from the small numbers that others take.
const OWN_ZONE: u16 = 0x6174;

/// Destinations on the link itself: they mean nothing without the interface, which an original destination does not tell
/// for IPv4, and the metadata services of clouds are among them.
const LINK_LOCAL: [&str; 2] = ["169.254.0.0/16", "fe80::/10"];

/// The chains of a plan; those without rules are left out.
pub(super) fn chains(plan: &Plan) -> Vec<Chain> {
    let mut chains = vec![
        Chain { table: Table::Raw, hook: Hook::Output, rules: Vec::new() },
        Chain { table: Table::Mangle, hook: Hook::Prerouting, rules: vec![drop_invalid()] },
        Chain { table: Table::Mangle, hook: Hook::Output, rules: Vec::new() },
        Chain { table: Table::Nat, hook: Hook::Prerouting, rules: Vec::new() },
        Chain { table: Table::Nat, hook: Hook::Output, rules: Vec::new() },
    ];
    match &plan.inbound {
        Some(inbound) if inbound.mode == InboundMode::Tproxy => {
            chains[1].rules.extend(inbound_rules(plan, inbound));
            chains[2].rules = answers_of_the_service();
        }
        Some(inbound) => chains[3].rules = inbound_rules(plan, inbound),
        None => {}
    }
    if let Some(outbound) = &plan.outbound {
        chains[0].rules = zone_rules(outbound);
        chains[4].rules = outbound_rules(outbound);
    }
    chains.retain(|chain| !chain.rules.is_empty());
    if !plan.ipv6 {
        for chain in &mut chains {
            chain.rules.insert(0, leave(Condition::Family(Family::V6), "IPv6 is not redirected"));
        }
    }
    chains
}

/// An INVALID packet passes NAT unchanged: it would reach a socket that knows nothing of it, whose reset ends a healthy
/// connection.
fn drop_invalid() -> Rule {
    Rule {
        conditions: vec![Condition::Invalid],
        verdict: Verdict::Drop,
        why: "would pass NAT unchanged, and be answered by a reset",
    }
}

fn inbound_rules(plan: &Plan, inbound: &Inbound) -> Vec<Rule> {
    let mut rules = vec![
        leave(Condition::FromLoopback, "from within this host"),
        leave(Condition::ToElsewhere, "passes through this host"),
    ];
    rules.extend(link_local());
    rules.extend(
        plan.own_ports.iter().map(|port| leave(Condition::ToPorts(*port), "the sidecar listens there")),
    );
    match inbound.mode {
        InboundMode::Redirect => rules.extend(redirect(&inbound.ports, Verdict::Redirect(inbound.port))),
        InboundMode::Tproxy => {
            let mark = Verdict::MarkConnection(DIVERTED_MARK);
            rules.extend(redirect(&inbound.ports, mark));
            rules.push(Rule {
                conditions: vec![Condition::ConnectionMark(DIVERTED_MARK)],
                verdict: Verdict::Tproxy(inbound.port),
                why: "inbound",
            });
        }
    }
    rules
}

fn answers_of_the_service() -> Vec<Rule> {
    vec![
        Rule {
            conditions: vec![Condition::ToLoopback, Condition::FromElsewhere],
            verdict: Verdict::MarkConnection(RETURNING_MARK),
            why: "the sidecar, under the address of the client",
        },
        Rule {
            conditions: vec![Condition::ConnectionMark(RETURNING_MARK), Condition::Answer],
            verdict: Verdict::Mark(RETURNING_MARK),
            why: "answer of the service to the sidecar",
        },
    ]
}

/// Every packet of theirs, not the SYN alone: each is looked for in the zone that it is in.
fn zone_rules(outbound: &Outbound) -> Vec<Rule> {
    let into_zone = |condition| Rule {
        conditions: vec![condition],
        verdict: Verdict::ZoneOfOriginal(OWN_ZONE),
        why: "apart from what is left of other connections",
    };
    let mut rules = vec![leave(Condition::ToLoopback, "stays within this host")];
    rules.extend(of_the_sidecar(outbound).map(into_zone));
    rules
}

fn outbound_rules(outbound: &Outbound) -> Vec<Rule> {
    let own = |condition| leave(condition, "own connection of the sidecar");
    let mut rules: Vec<_> = of_the_sidecar(outbound).map(own).collect();
    rules.push(leave(Condition::ToLoopback, "stays within this host"));
    rules.extend(link_local());
    rules.extend(
        outbound.skip_networks.iter().map(|network| leave(Condition::To(*network), "skipped network")),
    );
    rules.extend(redirect(&outbound.ports, Verdict::Redirect(outbound.port)));
    rules
}

/// How the sidecar's own packets are known: each of these is enough.
fn of_the_sidecar(outbound: &Outbound) -> impl Iterator<Item = Condition> {
    let (uid, gid) = (outbound.uid.map(Condition::Uid), outbound.gid.map(Condition::Gid));
    [uid, gid, outbound.mark.map(|mark| Condition::Mark(mark.0))].into_iter().flatten()
}

/// Only what opens a connection: one that is older than connection tracking here looks new to it in the middle of its life.
fn redirect(ports: &Ports, verdict: Verdict) -> Vec<Rule> {
    let skipped = ports.skip.iter().map(|port| leave(Condition::ToPorts(*port), "skipped port"));
    let rule = |conditions, why| Rule { conditions, verdict, why };
    if ports.only.is_empty() {
        return skipped.chain([rule(vec![Condition::Opening], "everything else")]).collect();
    }
    let included = ports
        .only
        .iter()
        .map(|port| rule(vec![Condition::ToPorts(*port), Condition::Opening], "included port"));
    skipped.chain(included).collect()
}

fn link_local() -> impl Iterator<Item = Rule> {
    LINK_LOCAL.into_iter().map(|network| {
        let network = network.parse().expect("both networks are written out in LINK_LOCAL");
        leave(Condition::To(network), "link-local")
    })
}

fn leave(condition: Condition, why: &'static str) -> Rule {
    Rule { conditions: vec![condition], verdict: Verdict::Return, why }
}
