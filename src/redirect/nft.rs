//! The rules as nftables writes them: one table of our own, replaced in one transaction.
//!
//! Invariants: the text that installs names the table before it deletes it, so that it does the same whether or not the table
//! was there; nothing outside of the table is touched. Pure: who feeds it to `nft` is in `host`.

use super::plan::Plan;
use super::ports::Family;
use super::rules::{self, Chain, Condition, Hook, Rule, Table, Verdict};
use std::fmt::Write as _;

/// The table's family and name.
pub(super) const TABLE: &str = "inet attestry";

/// What `nft -f -` is fed to install a plan over whatever plan was there.
pub(super) fn install(plan: &Plan) -> String {
    let mut text = format!("add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    text.push_str("\tchain plan {\n");
    for option in plan.to_options() {
        push(&mut text, format_args!("\t\tcontinue comment \"{option}\"\n"));
    }
    text.push_str("\t}\n");
    for chain in rules::chains(plan) {
        push_chain(&mut text, &chain);
    }
    text.push_str("}\n");
    text
}

/// What `nft -f -` is fed to remove the table, also where it is not there.
pub(super) fn remove() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

/// The options that stand in a listing of the table.
pub(super) fn options(listing: &str) -> Vec<String> {
    let comments = listing.lines().filter_map(|line| line.trim().strip_prefix("continue comment \"--"));
    comments.map(|comment| format!("--{}", comment.trim_end_matches('"'))).collect()
}

/// Writing to a String cannot fail.
fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
}

fn push_chain(text: &mut String, chain: &Chain) {
    // One before the usual priority of NAT: the first chain that decides a connection's destination is obeyed.
    let (name, hook) = match (chain.table, chain.hook) {
        (Table::Raw, Hook::Prerouting) => ("prerouting_raw", "type filter hook prerouting priority raw"),
        (Table::Raw, Hook::Output) => ("output_raw", "type filter hook output priority raw"),
        (Table::Mangle, Hook::Prerouting) => {
            ("prerouting_mangle", "type filter hook prerouting priority mangle")
        }
        (Table::Mangle, Hook::Output) => ("output_mangle", "type route hook output priority mangle"),
        (Table::Nat, Hook::Prerouting) => ("prerouting_nat", "type nat hook prerouting priority dstnat - 1"),
        (Table::Nat, Hook::Output) => ("output_nat", "type nat hook output priority -101"),
    };
    push(text, format_args!("\tchain {name} {{\n\t\t{hook}; policy accept;\n"));
    for rule in &chain.rules {
        push_rule(text, rule);
    }
    text.push_str("\t}\n");
}

fn push_rule(text: &mut String, rule: &Rule) {
    text.push_str("\t\tmeta l4proto tcp");
    for condition in &rule.conditions {
        push(text, format_args!(" {}", condition_text(*condition)));
    }
    push(text, format_args!(" {} comment \"{}\"\n", verdict_text(rule.verdict), rule.why));
}

fn condition_text(condition: Condition) -> String {
    match condition {
        Condition::Family(Family::V4) => "meta nfproto ipv4".to_owned(),
        Condition::Family(Family::V6) => "meta nfproto ipv6".to_owned(),
        Condition::To(network) if network.family() == Family::V4 => format!("ip daddr {network}"),
        Condition::To(network) => format!("ip6 daddr {network}"),
        Condition::ToPorts(ports) => format!("tcp dport {}", ports.with_separator('-')),
        Condition::ToElsewhere => "fib daddr type != local".to_owned(),
        Condition::FromElsewhere => "fib saddr type != local".to_owned(),
        Condition::FromLoopback => "iifname \"lo\"".to_owned(),
        Condition::ToLoopback => "oifname \"lo\"".to_owned(),
        Condition::Uid(uid) => format!("meta skuid {uid}"),
        Condition::Gid(gid) => format!("meta skgid {gid}"),
        Condition::Mark(mark) => format!("meta mark {mark:#x}"),
        Condition::ConnectionMark(mark) => format!("ct mark {mark:#x}"),
        Condition::Invalid => "ct state invalid".to_owned(),
        Condition::Opening => "tcp flags & (fin | syn | rst | ack) == syn".to_owned(),
        Condition::Answer => "ct direction reply".to_owned(),
    }
}

fn verdict_text(verdict: Verdict) -> String {
    match verdict {
        Verdict::Return => "return".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Redirect(port) => format!("redirect to :{port}"),
        Verdict::Tproxy(port) => format!("tproxy to :{port}"),
        Verdict::MarkConnection(mark) => format!("ct mark set {mark:#x}"),
        Verdict::Mark(mark) => format!("meta mark set {mark:#x}"),
        Verdict::ZoneOfOriginal(zone) => format!("ct original zone set {zone}"),
    }
}
