//! The rules as iptables-save and iptables-restore write them: chains of our own, and the jumps that lead to them.
//!
//! Invariants: `OwnRules` holds what is attestry's and nothing else; the text of a change touches no other chain but for the
//! jumps, and each table in it is one transaction. A change is always from what is there to what shall be there, so install, replace,
//! remove and going back are one function. Pure: who runs the programs is in `host`.

use super::plan::Plan;
use super::ports::Family;
use super::rules::{self, Condition, Hook, Rule, Table, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What every chain of ours begins with.
const PREFIX: &str = "ATTESTRY_";
/// The chain that keeps the plan and that nothing jumps to.
const PLAN_CHAIN: &str = "ATTESTRY_PLAN";
/// The tables that we write to, in this order: no connection begins outside of the zone that the next packet of it is looked for in.
pub(super) const TABLES: [&str; 3] = ["raw", "mangle", "nat"];

/// Our rules of one family, by table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OwnRules(BTreeMap<String, OwnTable>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OwnTable {
    /// Jumps from the kernel's chains, as `CHAIN -j OURS`; one that stands there twice is here twice.
    jumps: Vec<String>,
    /// Rules by chain, each without its `-A CHAIN`.
    chains: BTreeMap<String, Vec<String>>,
}

impl OwnRules {
    /// The rules of a plan for one family.
    pub(super) fn of_plan(plan: &Plan, family: Family) -> Self {
        let mut own = Self::default();
        if family == Family::V6 && !plan.ipv6 {
            return own;
        }
        let comment = |option: String| format!("-m comment --comment \"{option}\"");
        let options = plan.to_options().into_iter().map(comment).collect();
        own.table("nat").chains.insert(PLAN_CHAIN.to_owned(), options);
        for chain in rules::chains(plan) {
            let (table, hook) = (table_name(chain.table), hook_name(chain.hook));
            let rules = chain.rules.iter().filter(|rule| is_for(rule, family)).map(rule_text).collect();
            let table = own.table(table);
            table.jumps.push(format!("{hook} -j {PREFIX}{hook}"));
            table.chains.insert(format!("{PREFIX}{hook}"), rules);
        }
        own
    }

    /// What is ours in the output of iptables-save.
    pub(super) fn of_save(saved: &str) -> Self {
        let (mut own, mut table) = (Self::default(), String::new());
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
            } else if let Some(chain) = line.strip_prefix(':').and_then(|line| line.split(' ').next()) {
                if chain.starts_with(PREFIX) {
                    own.table(&table).chains.entry(chain.to_owned()).or_default();
                }
            } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|line| line.split_once(' '))
            {
                if chain.starts_with(PREFIX) {
                    own.table(&table).chains.entry(chain.to_owned()).or_default().push(rule.to_owned());
                } else if rule.contains(&format!("-j {PREFIX}")) {
                    own.table(&table).jumps.push(format!("{chain} {rule}"));
                }
            }
        }
        own
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The options of the plan that is kept here.
    pub(super) fn options(&self) -> Vec<String> {
        let plan = self.0.values().filter_map(|table| table.chains.get(PLAN_CHAIN)).flatten();
        let comments = plan.filter_map(|rule| rule.split_once("--comment "));
        comments.map(|(_, comment)| comment.trim_matches('"').to_owned()).collect()
    }

    /// What `iptables-restore --noflush` is fed to turn these rules into `new` ones; empty where neither has any.
    pub(super) fn replaced_by(&self, new: &Self) -> String {
        let (nothing, mut text) = (OwnTable::default(), String::new());
        for name in TABLES.into_iter().filter(|name| self.0.contains_key(*name) || new.0.contains_key(*name))
        {
            let old = self.0.get(name).unwrap_or(&nothing);
            let new = new.0.get(name).unwrap_or(&nothing);
            text.push_str(&old.replaced_by(new, name));
        }
        text
    }

    /// The rules as iptables-save would print them.
    pub(super) fn listing(&self) -> String {
        let mut text = String::new();
        for (name, table) in &self.0 {
            push(&mut text, format_args!("*{name}\n"));
            for jump in &table.jumps {
                push(&mut text, format_args!("-A {jump}\n"));
            }
            for (chain, rules) in table.chains.iter().filter(|(chain, _)| *chain != PLAN_CHAIN) {
                for rule in rules {
                    push(&mut text, format_args!("-A {chain} {rule}\n"));
                }
            }
        }
        text
    }

    fn table(&mut self, name: &str) -> &mut OwnTable {
        self.0.entry(name.to_owned()).or_default()
    }
}

impl OwnTable {
    fn replaced_by(&self, new: &Self, name: &str) -> String {
        let mut text = format!("*{name}\n");
        // Under --noflush a chain that is declared is emptied if it is there and made if it is not.
        for chain in self.chains.keys().chain(new.chains.keys()).collect::<BTreeSet<_>>() {
            push(&mut text, format_args!(":{chain} - [0:0]\n"));
        }
        for jump in &self.jumps {
            push(&mut text, format_args!("-D {jump}\n"));
        }
        for (chain, rules) in &new.chains {
            for rule in rules {
                push(&mut text, format_args!("-A {chain} {rule}\n"));
            }
        }
        // First in the kernel's chain, so that no rule from elsewhere lets a connection pass by unseen.
        for (chain, rule) in new.jumps.iter().filter_map(|jump| jump.split_once(' ')) {
            push(&mut text, format_args!("-I {chain} 1 {rule}\n"));
        }
        for chain in self.chains.keys().filter(|chain| !new.chains.contains_key(*chain)) {
            push(&mut text, format_args!("-X {chain}\n"));
        }
        text.push_str("COMMIT\n");
        text
    }
}

/// Writing to a String cannot fail.
fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
}

fn table_name(table: Table) -> &'static str {
    match table {
        Table::Raw => "raw",
        Table::Mangle => "mangle",
        Table::Nat => "nat",
    }
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "PREROUTING",
        Hook::Output => "OUTPUT",
    }
}

fn is_for(rule: &Rule, family: Family) -> bool {
    rule.conditions.iter().all(|condition| match condition {
        Condition::Family(of) => *of == family,
        Condition::To(network) => network.family() == family,
        _ => true,
    })
}

fn rule_text(rule: &Rule) -> String {
    let conditions: String = rule.conditions.iter().map(|condition| condition_text(*condition)).collect();
    format!("-p tcp{conditions} -m comment --comment \"{}\" -j {}", rule.why, verdict_text(rule.verdict))
}

fn condition_text(condition: Condition) -> String {
    match condition {
        // The program is of one family already.
        Condition::Family(_) => String::new(),
        Condition::To(network) => format!(" -d {network}"),
        Condition::ToPorts(ports) => format!(" --dport {}", ports.with_separator(':')),
        Condition::ToElsewhere => " -m addrtype ! --dst-type LOCAL".to_owned(),
        Condition::FromElsewhere => " -m addrtype ! --src-type LOCAL".to_owned(),
        Condition::FromLoopback => " -i lo".to_owned(),
        Condition::ToLoopback => " -o lo".to_owned(),
        Condition::Uid(uid) => format!(" -m owner --uid-owner {uid}"),
        Condition::Gid(gid) => format!(" -m owner --gid-owner {gid}"),
        Condition::Mark(mark) => format!(" -m mark --mark {mark:#x}"),
        Condition::ConnectionMark(mark) => format!(" -m connmark --mark {mark:#x}"),
        Condition::Invalid => " -m conntrack --ctstate INVALID".to_owned(),
        Condition::Opening => " --syn".to_owned(),
        Condition::Answer => " -m conntrack --ctdir REPLY".to_owned(),
    }
}

fn verdict_text(verdict: Verdict) -> String {
    match verdict {
        Verdict::Return => "RETURN".to_owned(),
        Verdict::Drop => "DROP".to_owned(),
        Verdict::Redirect(port) => format!("REDIRECT --to-ports {port}"),
        Verdict::Tproxy(port) => format!("TPROXY --on-port {port}"),
        Verdict::MarkConnection(mark) => format!("CONNMARK --set-mark {mark:#x}"),
        Verdict::Mark(mark) => format!("MARK --set-mark {mark:#x}"),
        Verdict::ZoneOfOriginal(zone) => format!("CT --zone-orig {zone}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::Wanted;

    const SAVED: &str = "# Generated by iptables-save\n*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:DOCKER - [0:0]\n\
        :ATTESTRY_OUTPUT - [0:0]\n:ATTESTRY_PLAN - [0:0]\n-A PREROUTING -j DOCKER\n-A OUTPUT -j ATTESTRY_OUTPUT\n\
        -A OUTPUT -j ATTESTRY_OUTPUT\n-A DOCKER -i docker0 -j RETURN\n-A ATTESTRY_OUTPUT -o lo -j RETURN\n\
        -A ATTESTRY_PLAN -m comment --comment \"--outbound-port 15001\"\nCOMMIT\n";

    #[test]
    fn what_is_ours_is_told_from_what_is_not() {
        let own = OwnRules::of_save(SAVED);
        assert_eq!(own.options(), ["--outbound-port 15001"]);
        assert!(!own.listing().contains("DOCKER") && !own.is_empty());
        assert!(OwnRules::of_save("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n").is_empty());
    }

    #[test]
    fn a_removal_takes_each_jump_and_names_no_chain_of_others() {
        assert_eq!(
            OwnRules::of_save(SAVED).replaced_by(&OwnRules::default()),
            "*nat\n:ATTESTRY_OUTPUT - [0:0]\n:ATTESTRY_PLAN - [0:0]\n-D OUTPUT -j ATTESTRY_OUTPUT\n\
             -D OUTPUT -j ATTESTRY_OUTPUT\n-X ATTESTRY_OUTPUT\n-X ATTESTRY_PLAN\nCOMMIT\n"
        );
        assert_eq!(OwnRules::default().replaced_by(&OwnRules::default()), "");
    }

    #[test]
    fn each_family_gets_the_networks_of_its_own() {
        let wanted = Wanted {
            outbound_port: Some(15001),
            uid: Some(7),
            skip_outbound_networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ..Wanted::default()
        };
        let plan = Plan::new(&wanted, true).unwrap();
        let (v4, v6) = (OwnRules::of_plan(&plan, Family::V4), OwnRules::of_plan(&plan, Family::V6));
        assert!(v4.listing().contains("-d 10.0.0.0/8") && !v4.listing().contains("-d fd00::/8"));
        assert!(v6.listing().contains("-d fd00::/8") && !v6.listing().contains("-d 10.0.0.0/8"));
        assert!(OwnRules::of_plan(&Plan::new(&wanted, false).unwrap(), Family::V6).is_empty());
    }
}
