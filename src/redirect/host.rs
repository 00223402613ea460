//! Runs the programs that change and list the rules of this host, or rather of the network namespace that it runs in.
//!
//! Invariants: an installation leaves the rules of exactly one back end; when it fails, those before it are in force
//! again. Each back end is asked only where it can have rules, so that listing makes no tables. Removing looks at every
//! back end that is here. What the rules say is in `rules`, how they are written in `nft`, `iptables` and `routes`.

use super::command::{Command, CommandError};
use super::iptables::{self, OwnRules};
use super::plan::Plan;
use super::ports::Family;
use super::{nft, routes};
use std::fmt;
use std::fs;
use std::io;

/// Seconds to wait for another user of the legacy iptables' lock.
const LOCK_WAIT_SECONDS_MAX: u32 = 5;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Which programs are to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Backend {
    /// nft where it works, else iptables.
    #[default]
    Auto,
    /// nftables.
    Nft,
    /// iptables as the system has chosen it.
    Iptables,
    /// iptables that writes to nftables.
    IptablesNft,
    /// iptables that writes to the kernel's older tables.
    IptablesLegacy,
}

/// Why rules could not be changed or listed.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// A program failed, and nothing was changed.
    #[error("{0}; {remedy}", remedy = remedy(&.0.to_string()))]
    Command(CommandError),
    /// The new rules are in force, and perhaps older ones of another back end beside them.
    #[error(
        "installed with {backend}, but older rules of another back end may still be there ({cause}): run `attestry redirect remove`, then install again"
    )]
    Leftover {
        /// What the new rules were installed with.
        backend: String,
        /// Why the others could not be looked for or removed.
        cause: CommandError,
    },
    /// No back end works here.
    #[error("the rules cannot be written here: {}; {remedy}", tried.join("; "), remedy = remedy(&tried.join(" ")))]
    NoBackend {
        /// Each that was tried, with what it said.
        tried: Vec<String>,
    },
    /// A change failed in the middle, and going back failed as well.
    #[error(
        "{cause}; and the rules before could not be put back ({going_back}): run `attestry redirect remove`, then install again"
    )]
    HalfDone {
        /// The first failure.
        cause: CommandError,
        /// The second.
        going_back: CommandError,
    },
}

// Not by `#[from]`: the message says the cause already, and a source would say it once more.
impl From<CommandError> for RedirectError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

fn remedy(complaint: &str) -> &'static str {
    let complaint = complaint.to_lowercase();
    if ["permi", "must be root", "denied"].iter().any(|word| complaint.contains(word)) {
        "run this as root, or with CAP_NET_ADMIN and CAP_NET_RAW"
    } else if complaint.contains("unable to initialize table") {
        "run this with CAP_NET_RAW too; if that is so, the kernel lacks this kind of tables: choose another --backend"
    } else if complaint.contains("zone") || complaint.contains("in table raw") {
        "the kernel or the program refuses the zone of connection tracking that keeps the sidecar's connections apart (CONFIG_NF_CONNTRACK_ZONES, for iptables xt_CT): load that module, or choose another --backend"
    } else if complaint.contains("not installed") {
        "install the package nftables or iptables (for TPROXY also iproute2), or choose another --backend"
    } else {
        "the rules in force are as they were; `--dry-run` prints what was to be done"
    }
}

/// The rules of one back end that are in force.
#[derive(Debug)]
pub struct Installed {
    /// The back end, with its version.
    pub backend: String,
    /// The options of `attestry redirect install` that make them.
    pub options: Vec<String>,
    /// The rules, as the back end prints them.
    pub listing: String,
}

/// Whether this host has IPv6.
pub fn has_ipv6() -> bool {
    fs::read_to_string("/proc/net/if_inet6").is_ok_and(|interfaces| !interfaces.is_empty())
}

/// Installs a plan in place of any that is there, and says with what.
pub fn install(plan: &Plan, backend: Backend) -> Result<String, RedirectError> {
    let chosen = choose(plan, backend)?;
    let had_routes = !routes_removal()?.is_empty();
    if let Err(error) = chosen.install(plan) {
        if !had_routes {
            remove_routes()?;
        }
        return Err(error);
    }
    // Only now, so that at no moment connections pass by: for a moment both are there, and the first one to see a
    // connection decides.
    remove_all_but(&chosen, plan)
        .map_err(|cause| RedirectError::Leftover { backend: chosen.to_string(), cause })?;
    Ok(chosen.to_string())
}

fn remove_all_but(chosen: &Program, plan: &Plan) -> Result<(), CommandError> {
    for other in present().into_iter().filter(|other| !other.is_same(chosen)) {
        other.remove()?;
    }
    if plan.needs_routes() { Ok(()) } else { remove_routes() }
}

/// Removes every rule of attestry's; the back ends that had some, and all that were looked at.
pub fn remove() -> Result<(Vec<String>, Vec<String>), RedirectError> {
    let (mut removed, mut looked_at) = (Vec::new(), Vec::new());
    for program in looked_at_or_nothing()? {
        looked_at.push(program.to_string());
        if program.remove()? {
            removed.push(program.to_string());
        }
    }
    remove_routes()?;
    Ok((removed, looked_at))
}

/// The rules in force, and all back ends that were looked at.
pub fn show() -> Result<(Vec<Installed>, Vec<String>), RedirectError> {
    let (mut installed, mut looked_at) = (Vec::new(), Vec::new());
    for program in looked_at_or_nothing()? {
        looked_at.push(program.to_string());
        installed.extend(program.installed()?);
    }
    Ok((installed, looked_at))
}

/// The commands that `install` would run where nothing is installed, as a script.
pub fn dry_install(plan: &Plan, backend: Backend) -> String {
    let program = match backend {
        Backend::Auto => present().into_iter().next().unwrap_or(Program::Nft { version: String::new() }),
        Backend::Nft => Program::Nft { version: String::new() },
        other => Program::Iptables(Iptables::named(suffixes(other)[0])),
    };
    let mut commands = Vec::new();
    if plan.needs_routes() {
        commands.extend(families(plan).flat_map(|family| routes::install(family, false)));
    }
    match program {
        Program::Nft { .. } => commands.push(nft_fed("", nft::install(plan))),
        Program::Iptables(iptables) => commands.extend(families(plan).map(|family| {
            let text = OwnRules::default().replaced_by(&OwnRules::of_plan(plan, family));
            iptables.restore(family, "", text)
        })),
    }
    commands.iter().map(ToString::to_string).collect()
}

/// The commands that `remove` would run, as a script, after reading what is there.
pub fn dry_remove() -> Result<String, RedirectError> {
    let mut commands = Vec::new();
    for program in looked_at_or_nothing()? {
        commands.extend(program.removal()?);
    }
    commands.extend(routes_removal()?);
    Ok(commands.iter().map(ToString::to_string).collect())
}

/// A back end that is here.
#[derive(Debug)]
enum Program {
    Nft { version: String },
    Iptables(Iptables),
}

/// One of the iptables: the programs `iptables{suffix}-restore` and so on.
#[derive(Debug)]
struct Iptables {
    suffix: &'static str,
    is_legacy: bool,
    version: String,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nft { version } => write!(f, "nft ({version})"),
            Self::Iptables(iptables) => {
                let kind = if iptables.is_legacy { "legacy" } else { "nf_tables" };
                write!(f, "iptables{} ({}, {kind})", iptables.suffix, iptables.version)
            }
        }
    }
}

impl Program {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nft { .. }, Self::Nft { .. }) => true,
            (Self::Iptables(one), Self::Iptables(other)) => one.is_legacy == other.is_legacy,
            _ => false,
        }
    }

    /// Whether a plan could be installed with it; changes nothing.
    fn check(&self, plan: &Plan) -> Result<(), CommandError> {
        match self {
            Self::Nft { .. } => nft_fed("--check ", nft::install(plan)).run().map(drop),
            Self::Iptables(iptables) => families(plan).try_for_each(|family| {
                let own = iptables.own_rules(family)?;
                let text = own.replaced_by(&OwnRules::of_plan(plan, family));
                iptables.restore(family, "--test ", text).run().map(drop)
            }),
        }
    }

    fn install(&self, plan: &Plan) -> Result<(), RedirectError> {
        if plan.needs_routes() {
            install_routes(plan)?;
        }
        match self {
            Self::Nft { .. } => nft_fed("", nft::install(plan)).run()?,
            Self::Iptables(iptables) => return iptables.install(plan),
        };
        Ok(())
    }

    fn installed(&self) -> Result<Option<Installed>, CommandError> {
        let backend = self.to_string();
        match self {
            Self::Nft { .. } => Ok(nft_listing()?.map(|listing| Installed {
                backend,
                options: nft::options(&listing),
                listing,
            })),
            Self::Iptables(iptables) => {
                let (v4, v6) = (iptables.own_rules(Family::V4)?, iptables.own_rules(Family::V6)?);
                if v4.is_empty() && v6.is_empty() {
                    return Ok(None);
                }
                let options = if v4.is_empty() { v6.options() } else { v4.options() };
                let heading = if v6.is_empty() { "" } else { "# IPv6\n" };
                let listing = format!("# IPv4\n{}{heading}{}", v4.listing(), v6.listing());
                Ok(Some(Installed { backend, options, listing }))
            }
        }
    }

    fn removal(&self) -> Result<Vec<Command>, CommandError> {
        match self {
            Self::Nft { .. } => Ok(nft_listing()?.map(|_| nft_fed("", nft::remove())).into_iter().collect()),
            Self::Iptables(iptables) => {
                let mut commands = Vec::new();
                for family in FAMILIES {
                    let own = iptables.own_rules(family)?;
                    if !own.is_empty() {
                        commands.push(iptables.restore(family, "", own.replaced_by(&OwnRules::default())));
                    }
                }
                Ok(commands)
            }
        }
    }

    /// Removes what is there; whether that was anything.
    fn remove(&self) -> Result<bool, CommandError> {
        let commands = self.removal()?;
        commands.iter().try_for_each(|command| command.run().map(drop))?;
        Ok(!commands.is_empty())
    }
}

impl Iptables {
    fn named(suffix: &'static str) -> Self {
        Self { suffix, is_legacy: suffix == "-legacy", version: String::new() }
    }

    /// One transaction per table and family; those that are done are undone when a later one fails.
    fn install(&self, plan: &Plan) -> Result<(), RedirectError> {
        let before = FAMILIES.map(|family| self.own_rules(family));
        for family in FAMILIES {
            let Err(cause) = self.turn_into(family, &OwnRules::of_plan(plan, family)) else { continue };
            for (family, before) in FAMILIES.into_iter().zip(before) {
                let back = before.and_then(|before| self.turn_into(family, &before));
                if let Err(going_back) = back {
                    return Err(RedirectError::HalfDone { cause, going_back });
                }
            }
            return Err(cause.into());
        }
        Ok(())
    }

    fn turn_into(&self, family: Family, new: &OwnRules) -> Result<(), CommandError> {
        let text = self.own_rules(family)?.replaced_by(new);
        if text.is_empty() { Ok(()) } else { self.restore(family, "", text).run().map(drop) }
    }

    /// Our rules of a family; none where its programs or its tables are not there.
    fn own_rules(&self, family: Family) -> Result<OwnRules, CommandError> {
        let mut saved = String::new();
        for table in iptables::TABLES {
            if self.is_legacy && !legacy_has(family, table) {
                continue;
            }
            match self.command(family, "save", &format!("-t {table}"), String::new()).run() {
                Err(error) if error.is_missing() && family == Family::V6 => {}
                other => saved.push_str(&other?),
            }
        }
        Ok(OwnRules::of_save(&saved))
    }

    fn restore(&self, family: Family, option: &str, text: String) -> Command {
        let wait = if self.is_legacy { format!("--wait {LOCK_WAIT_SECONDS_MAX} ") } else { String::new() };
        self.command(family, "restore", &format!("{option}{wait}--noflush"), text)
    }

    fn command(&self, family: Family, verb: &str, arguments: &str, input: String) -> Command {
        let name = if family == Family::V4 { "iptables" } else { "ip6tables" };
        Command::new(&format!("{name}{}-{verb}", self.suffix), arguments, input)
    }
}

/// The older tables come into being when they are first listed, so they are listed only where they are. Where that cannot be told,
/// they are listed too: a failure says more than silence about rules that may be there.
fn legacy_has(family: Family, table: &str) -> bool {
    let names = if family == Family::V4 { "/proc/net/ip_tables_names" } else { "/proc/net/ip6_tables_names" };
    match fs::read_to_string(names) {
        Ok(names) => names.lines().any(|name| name == table),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn families(plan: &Plan) -> impl Iterator<Item = Family> {
    FAMILIES.into_iter().filter(|family| *family == Family::V4 || plan.ipv6)
}

/// The first back end of those that are allowed which takes the plan.
fn choose(plan: &Plan, backend: Backend) -> Result<Program, RedirectError> {
    let mut tried = Vec::new();
    let candidates = match backend {
        Backend::Auto => nft_program().into_iter().chain(iptables_programs(suffixes(backend))).collect(),
        Backend::Nft => nft_program().into_iter().collect(),
        _ => iptables_programs(suffixes(backend)),
    };
    for program in candidates {
        match program.check(plan) {
            Ok(()) => return Ok(program),
            Err(error) => tried.push(error.to_string()),
        }
    }
    if tried.is_empty() {
        tried.push("its program is not installed, or not in PATH".to_owned());
    }
    Err(RedirectError::NoBackend { tried })
}

/// The programs to look for, the system's choice first.
fn suffixes(backend: Backend) -> &'static [&'static str] {
    match backend {
        Backend::IptablesNft => &["-nft"],
        Backend::IptablesLegacy => &["-legacy"],
        Backend::Auto | Backend::Nft | Backend::Iptables => &["", "-nft", "-legacy"],
    }
}

/// Every back end that is here.
fn present() -> Vec<Program> {
    nft_program().into_iter().chain(iptables_programs(suffixes(Backend::Auto))).collect()
}

fn looked_at_or_nothing() -> Result<Vec<Program>, RedirectError> {
    let programs = present();
    if programs.is_empty() {
        return Err(RedirectError::NoBackend {
            tried: vec!["nft and iptables are not installed, so that nobody can tell".to_owned()],
        });
    }
    Ok(programs)
}

fn nft_program() -> Option<Program> {
    let version = Command::new("nft", "--version", String::new()).run().ok()?;
    let version = version.split_whitespace().nth(1).unwrap_or("of unknown version").to_owned();
    Some(Program::Nft { version })
}

/// The iptables that are here, one of each kind.
fn iptables_programs(suffixes: &[&'static str]) -> Vec<Program> {
    let mut found: Vec<Program> = Vec::new();
    for suffix in suffixes {
        let asked = Iptables::named(suffix).command(Family::V4, "restore", "--version", String::new()).run();
        let Ok(said) = asked else { continue };
        let version = said.split_whitespace().nth(1).unwrap_or("of unknown version").to_owned();
        // Versions before 1.8 name no kind: there was only the one.
        let is_legacy = !said.contains("nf_tables");
        let program = Program::Iptables(Iptables { suffix, is_legacy, version });
        if !found.iter().any(|other| other.is_same(&program)) {
            found.push(program);
        }
    }
    found
}

fn nft_fed(option: &str, text: String) -> Command {
    Command::new("nft", &format!("{option}-f -"), text)
}

/// Our table as it is in force. All tables are listed first: to ask for one that is not there fails just as a missing
/// permission does.
fn nft_listing() -> Result<Option<String>, CommandError> {
    let tables = Command::new("nft", "list tables", String::new()).run()?;
    if !tables.lines().any(|line| line.trim() == format!("table {}", nft::TABLE)) {
        return Ok(None);
    }
    Command::new("nft", &format!("list table {}", nft::TABLE), String::new()).run().map(Some)
}

fn install_routes(plan: &Plan) -> Result<(), CommandError> {
    for family in families(plan) {
        let has_rule = routes::is_installed(&routes::show(family).run()?);
        routes::install(family, has_rule).iter().try_for_each(|command| command.run().map(drop))?;
    }
    Ok(())
}

fn remove_routes() -> Result<(), CommandError> {
    routes_removal()?.iter().try_for_each(|command| command.run().map(drop))
}

/// Where the program `ip` is not installed, no route of ours can have been.
fn routes_removal() -> Result<Vec<Command>, CommandError> {
    let mut commands = Vec::new();
    for family in FAMILIES.into_iter().filter(|family| *family == Family::V4 || has_ipv6()) {
        match routes::show(family).run() {
            Ok(shown) if routes::is_installed(&shown) => commands.extend(routes::remove(family)),
            Err(error) if !error.is_missing() => return Err(error),
            _ => {}
        }
    }
    Ok(commands)
}
