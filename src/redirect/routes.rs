//! The routing that TPROXY needs beside its rules: packets that carry RETURNING_MARK go to the loopback interface.
//!
//! Invariants: one rule and one routing table per family, both found again by their numbers. Pure: the commands are run in `host`.
//! Which packets carry the mark stands in `rules`.

use super::command::Command;
use super::plan::RETURNING_MARK;
use super::ports::Family;

/// The routing table: far from the tables that systems and container networks use, which are small numbers.
const TABLE: u32 = RETURNING_MARK;

/// Shows the routing rules of a family.
pub(super) fn show(family: Family) -> Command {
    ip(family, "rule show")
}

/// Whether ours is in what `show` printed.
pub(super) fn is_installed(shown: &str) -> bool {
    let ours = selector();
    shown.lines().any(|line| line.trim_end().ends_with(&ours))
}

/// Makes the route, and then the rule that leads to it, in the order in which no packet meets a rule without a route.
pub(super) fn install(family: Family, has_rule: bool) -> Vec<Command> {
    let mut commands = vec![ip(family, &format!("route replace local default dev lo table {TABLE}"))];
    if !has_rule {
        commands.push(ip(family, &format!("rule add {}", selector())));
    }
    commands
}

/// Takes both away again.
pub(super) fn remove(family: Family) -> Vec<Command> {
    vec![ip(family, &format!("rule del {}", selector())), ip(family, &format!("route flush table {TABLE}"))]
}

fn selector() -> String {
    format!("fwmark {RETURNING_MARK:#x} lookup {TABLE}")
}

fn ip(family: Family, arguments: &str) -> Command {
    let family = if family == Family::V4 { "-4" } else { "-6" };
    Command::new("ip", &format!("{family} {arguments}"), String::new())
}
