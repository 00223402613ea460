//! `attestry redirect install`, `remove` and `show`: the kernel's rules that send this host's connections through the sidecar.
//!
//! Invariants: an option wins over the configuration's value; `--dry-run` of an installation reads and changes nothing. Exit code 2 where
//! what is asked for makes no sense, all its faults at once, 1 where it cannot be done. Rules and programs are `crate::redirect`'s.

use super::stdout;
use crate::config::{self, Config, Interception};
use crate::redirect::{self, Backend, InboundMode, Plan, PortRange, Wanted};
use clap::{Args, Subcommand};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code of a faulty request, the same as for a faulty command line.
const EXIT_FAULTY: u8 = 2;

/// What `attestry redirect` takes.
#[derive(Debug, Args)]
pub(super) struct RedirectArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Install the rules, in place of any that are there
    Install(Box<InstallArgs>),
    /// Remove the rules, with whatever they were installed
    Remove(RemoveArgs),
    /// Print the rules in force, and the options that make them
    Show,
}

#[derive(Debug, Args)]
struct InstallArgs {
    /// Take ports and modes from the sidecar's configuration; options win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
    /// The programs to install with
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
    /// Print what would be run, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    /// Print what would be run, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub(super) fn run(args: RedirectArgs) -> ExitCode {
    match args.action {
        Action::Install(args) => install(*args),
        Action::Remove(args) => remove(&args),
        Action::Show => show(),
    }
}

fn install(args: InstallArgs) -> ExitCode {
    let plan = match plan(args.wanted, args.config.as_deref()) {
        Ok(plan) => plan,
        Err(faults) => {
            for fault in &faults {
                eprintln!("{fault}");
            }
            return ExitCode::from(EXIT_FAULTY);
        }
    };
    stdout::run(|out| {
        if args.dry_run {
            return Ok(write!(out, "{}", redirect::dry_install(&plan, args.backend))?);
        }
        let backend = redirect::install(&plan, args.backend)?;
        Ok(writeln!(out, "installed with {backend}; `attestry redirect show` prints the rules")?)
    })
}

fn remove(args: &RemoveArgs) -> ExitCode {
    stdout::run(|out| {
        if args.dry_run {
            return Ok(write!(out, "{}", redirect::dry_remove()?)?);
        }
        let (removed, looked_at) = redirect::remove()?;
        if removed.is_empty() {
            return Ok(writeln!(out, "nothing was installed; looked at {}", looked_at.join(", "))?);
        }
        Ok(writeln!(out, "removed from {}", removed.join(", "))?)
    })
}

fn show() -> ExitCode {
    stdout::run(|out| {
        let (installed, looked_at) = redirect::show()?;
        if installed.is_empty() {
            writeln!(out, "nothing is installed; looked at {}", looked_at.join(", "))?;
        }
        for rules in installed {
            writeln!(out, "installed with {}\n\nplan:", rules.backend)?;
            for option in &rules.options {
                writeln!(out, "  {option}")?;
            }
            writeln!(out, "\nrules:\n{}", rules.listing)?;
        }
        Ok(())
    })
}

/// The plan, with its warnings said; or all faults, each a line.
fn plan(mut wanted: Wanted, config: Option<&Path>) -> Result<Plan, Vec<String>> {
    let config = config
        .map(|file| config::load(Some(file), config::process_env()))
        .transpose()
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    if let Some(config) = &config {
        fill_in(&mut wanted, config);
    }
    let host_has_ipv6 = redirect::has_ipv6();
    let plan = Plan::new(&wanted, host_has_ipv6)
        .map_err(|faults| faults.iter().map(|fault| format!("attestry: {fault}")).collect::<Vec<_>>())?;
    for warning in plan.warnings(host_has_ipv6) {
        eprintln!("attestry: {warning}");
    }
    let unreachable = config.iter().flat_map(|config| unreachable_listeners(config, plan.redirects_ipv6()));
    for warning in unreachable {
        eprintln!("attestry: {warning}");
    }
    Ok(plan)
}

/// Fills in from the configuration what no option has said.
fn fill_in(wanted: &mut Wanted, config: &Config) {
    let ports = |ports: &std::collections::BTreeSet<u16>| {
        ports.iter().filter_map(|port| PortRange::single(*port)).collect::<Vec<_>>()
    };
    if let Some(inbound) = &config.inbound {
        wanted.inbound_port.get_or_insert(inbound.listen.port());
        wanted.inbound_mode.get_or_insert(match inbound.mode {
            Interception::Redirect => InboundMode::Redirect,
            Interception::Tproxy => InboundMode::Tproxy,
        });
        if wanted.skip_inbound_ports.is_empty() {
            wanted.skip_inbound_ports = ports(&inbound.skip_ports);
        }
    }
    if let Some(outbound) = &config.outbound {
        wanted.outbound_port.get_or_insert(outbound.listen.port());
        if wanted.skip_outbound_ports.is_empty() {
            wanted.skip_outbound_ports = ports(&outbound.skip_ports);
        }
    }
    let others = [config.proxy.fixed.as_ref().map(|fixed| fixed.listen), config.admin.listen];
    let others = others.into_iter().flatten().filter_map(|address| PortRange::single(address.port()));
    wanted.own_ports.extend(others);
}

/// Redirected connections arrive at the address of their interface, those of this host at localhost; a listener elsewhere refuses them.
fn unreachable_listeners(config: &Config, with_ipv6: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let listeners = [
        ("inbound", config.inbound.as_ref().map(|inbound| inbound.listen), false),
        ("outbound", config.outbound.as_ref().map(|outbound| outbound.listen), true),
    ];
    for (section, listen, is_from_localhost) in listeners {
        let Some(listen) = listen else { continue };
        let port = listen.port();
        let arrives = listen.ip().is_unspecified() || (is_from_localhost && listen.ip().is_loopback());
        if !arrives {
            warnings.push(format!(
                "[{section}] listen is {listen}, where redirected connections do not arrive: they will be refused; write \"[::]:{port}\""
            ));
        } else if with_ipv6 && listen != SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)) {
            warnings.push(format!(
                "[{section}] listen is {listen}, which takes one version of IP: connections over the other will be refused; write \"[::]:{port}\""
            ));
        }
    }
    warnings
}
