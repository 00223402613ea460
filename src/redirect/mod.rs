//! The kernel's rules that send a host's connections through the sidecar: made, shown and taken away again.
//!
//! The parts, from what is asked for to what is run: `ports` and `plan` (checked input), `rules` (which packets, once
//! for all back ends), `nft`, `iptables` and `routes` (how that is written), `command` and `host` (what runs it).
//! Everything but the last two is pure. Invariants: nothing but attestry's own table or chains is changed; a change that
//! fails leaves the rules before it in force. What accepts the redirected connections is `crate::proxy`; the command is
//! in `crate::cli`.

mod command;
mod host;
mod iptables;
mod nft;
mod plan;
mod ports;
mod routes;
mod rules;

pub use command::CommandError;
pub use host::{Backend, Installed, RedirectError, dry_install, dry_remove, has_ipv6, install, remove, show};
pub use plan::{InboundMode, Ipv6, Mark, Plan, PlanFault, Wanted};
pub use ports::{Network, NetworkError, PortRange, PortRangeError};
