//! The three listeners, `[proxy]`'s fixed one, `[inbound]` and `[outbound]`: what each is told, and what fits together.
//!
//! Invariants: there is at least one listener; no two share a port, the admin's included; nothing is forwarded back to
//! a listener; keys of a listener that is off are at their defaults. The keys that all three have are read by one
//! function. What `[tls]` must hold for them is in `tls`; where connections are accepted, in `proxy`.

use super::fault::Problem;
use super::settings::{KnownKey, Settings};
use super::values::{
    Optional, choice, listen, parse_ports, parse_spiffe_id, parse_tls_name, parse_upstream, unfit,
};
use super::{Proxy, Upstream};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// The listener whose connections all go to one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// Address to accept connections on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The one peer that every connection is forwarded to.
    pub upstream: Upstream,
    /// Which side of the sidecar the clients are on.
    pub traffic: Traffic,
    /// How its connections are served.
    pub rules: Rules,
}

/// Which way calls go, seen from the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Traffic {
    /// From elsewhere to the service in this pod.
    #[default]
    Inbound,
    /// From the service in this pod to elsewhere.
    Outbound,
}

/// Section `[inbound]`: connections to this pod that the kernel redirects here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// Address that they are redirected to; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// How the kernel hands them over.
    pub mode: Interception,
    /// Destination ports that are not redirected.
    pub skip_ports: BTreeSet<u16>,
    /// How its connections are served.
    pub rules: Rules,
}

/// How the kernel hands over a connection that was meant for another address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interception {
    /// REDIRECT: the destination is rewritten, and `SO_ORIGINAL_DST` tells what it was.
    #[default]
    Redirect,
    /// TPROXY: nothing is rewritten, and the service sees the client's own address.
    Tproxy,
}

/// Section `[outbound]`: connections out of this pod that the kernel redirects here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// Address that they are redirected to; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Destination ports that are not redirected.
    pub skip_ports: BTreeSet<u16>,
    /// How its connections are served.
    pub rules: Rules,
}

/// How the connections of one listener are served: the keys that all listeners have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Destination ports whose connections are relayed without a look at what they speak.
    pub opaque_ports: BTreeSet<u16>,
    /// What is done with a client that speaks TLS.
    pub client_tls: ClientTls,
    /// Whether such a client must show a certificate.
    pub client_certificates: ClientCertificates,
    /// When TLS is spoken to the upstream.
    pub upstream_tls: UpstreamTls,
    /// The name to ask the upstream for, and to verify; `None` is the client's SNI, else the upstream's host.
    pub upstream_name: Option<String>,
    /// The SPIFFE id that the upstream must have, instead of a name.
    pub upstream_id: Option<String>,
    /// What requests call the way to the upstream.
    pub scheme: Scheme,
}

/// The `:scheme` of requests over HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// What the client says.
    #[default]
    Keep,
    /// What is so: https where TLS is spoken to the upstream, else http.
    Upstream,
}

/// What is done with a client that speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientTls {
    /// It is relayed unopened.
    #[default]
    Passthrough,
    /// It is terminated; clients without TLS are served too.
    Terminate,
    /// It is terminated, and clients without TLS are refused.
    Require,
}

/// Whether a client whose TLS is terminated must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// None is asked for.
    #[default]
    None,
    /// One is asked for, and verified where it is shown.
    Optional,
    /// Without one that verifies the handshake fails.
    Required,
}

/// When TLS is spoken to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamTls {
    /// Never; TLS that is not terminated passes as it is.
    #[default]
    None,
    /// Where the client's TLS was terminated.
    AsClient,
    /// Always, but for TLS that passes as it is.
    Originate,
}

pub(super) const TRAFFICS: [(&str, Traffic); 2] =
    [("inbound", Traffic::Inbound), ("outbound", Traffic::Outbound)];
pub(super) const INTERCEPTIONS: [(&str, Interception); 2] =
    [("redirect", Interception::Redirect), ("tproxy", Interception::Tproxy)];
pub(super) const CLIENT_TLS: [(&str, ClientTls); 3] = [
    ("passthrough", ClientTls::Passthrough),
    ("terminate", ClientTls::Terminate),
    ("require", ClientTls::Require),
];
pub(super) const CLIENT_CERTIFICATES: [(&str, ClientCertificates); 3] = [
    ("none", ClientCertificates::None),
    ("optional", ClientCertificates::Optional),
    ("required", ClientCertificates::Required),
];
pub(super) const UPSTREAM_TLS: [(&str, UpstreamTls); 3] = [
    ("none", UpstreamTls::None),
    ("as_client", UpstreamTls::AsClient),
    ("originate", UpstreamTls::Originate),
];

pub(super) const SCHEMES: [(&str, Scheme); 2] = [("keep", Scheme::Keep), ("upstream", Scheme::Upstream)];

pub(super) const FIXED: KnownKey = ("proxy", "listen");
const UPSTREAM: KnownKey = ("proxy", "upstream");
pub(super) const INBOUND: KnownKey = ("inbound", "listen");
pub(super) const OUTBOUND: KnownKey = ("outbound", "listen");
const LISTEN_EXAMPLE: &str = "\"127.0.0.1:15001\"";

/// The fixed listener's own keys, which stand first in `[proxy]`.
pub(super) struct FixedKeys {
    listen: Option<Optional<SocketAddr>>,
    upstream: Option<Optional<Upstream>>,
    traffic: Option<Traffic>,
}

pub(super) fn fixed_keys(s: &mut Settings) -> FixedKeys {
    FixedKeys {
        listen: listen(s, FIXED),
        upstream: s.optional(UPSTREAM, Optional(None), parse_upstream),
        traffic: choice(s, ("proxy", "traffic"), Traffic::default(), &TRAFFICS),
    }
}

/// The fixed listener from its own keys and the shared ones, which stand last in `[proxy]`.
pub(super) fn fixed(s: &mut Settings, keys: FixedKeys) -> Option<Optional<Fixed>> {
    let rules = rules(s, "proxy");
    let (Optional(listen), Optional(upstream), traffic, rules) =
        (keys.listen?, keys.upstream?, keys.traffic?, rules?);
    match (listen, upstream) {
        (Some(listen), Some(upstream)) => Some(Optional(Some(Fixed { listen, upstream, traffic, rules }))),
        (Some(_), None) => {
            s.missing(UPSTREAM, "is needed beside proxy.listen", "\"127.0.0.1:50051\"");
            None
        }
        (None, Some(_)) => {
            s.missing(FIXED, "is needed beside proxy.upstream", LISTEN_EXAMPLE);
            None
        }
        (None, None) => off(s, FIXED, traffic == Traffic::default() && rules == Rules::default()),
    }
}

pub(super) fn inbound(s: &mut Settings) -> Option<Optional<Inbound>> {
    let listen = listen(s, INBOUND);
    let mode = choice(s, ("inbound", "mode"), Interception::default(), &INTERCEPTIONS);
    let skip_ports = s.optional(("inbound", "skip_ports"), BTreeSet::new(), parse_ports);
    let rules = rules(s, "inbound");
    let (Optional(listen), mode, skip_ports, rules) = (listen?, mode?, skip_ports?, rules?);
    match listen {
        Some(listen) => Some(Optional(Some(Inbound { listen, mode, skip_ports, rules }))),
        None => off(
            s,
            INBOUND,
            mode == Interception::default() && skip_ports.is_empty() && rules == Rules::default(),
        ),
    }
}

pub(super) fn outbound(s: &mut Settings) -> Option<Optional<Outbound>> {
    let listen = listen(s, OUTBOUND);
    let skip_ports = s.optional(("outbound", "skip_ports"), BTreeSet::new(), parse_ports);
    let rules = rules(s, "outbound");
    let (Optional(listen), skip_ports, rules) = (listen?, skip_ports?, rules?);
    match listen {
        Some(listen) => Some(Optional(Some(Outbound { listen, skip_ports, rules }))),
        None => off(s, OUTBOUND, skip_ports.is_empty() && rules == Rules::default()),
    }
}

/// The keys that every listener has.
fn rules(s: &mut Settings, section: &'static str) -> Option<Rules> {
    let opaque_ports = s.optional((section, "opaque_ports"), BTreeSet::new(), parse_ports);
    let client_tls = choice(s, (section, "client_tls"), ClientTls::default(), &CLIENT_TLS);
    let client_certificates =
        choice(s, (section, "client_certificates"), ClientCertificates::default(), &CLIENT_CERTIFICATES);
    let upstream_tls = choice(s, (section, "upstream_tls"), UpstreamTls::default(), &UPSTREAM_TLS);
    let upstream_name = s.optional((section, "upstream_name"), None, parse_tls_name);
    let upstream_id = s.optional((section, "upstream_id"), None, parse_spiffe_id);
    let scheme = choice(s, (section, "scheme"), Scheme::default(), &SCHEMES);
    Some(Rules {
        opaque_ports: opaque_ports?,
        client_tls: client_tls?,
        client_certificates: client_certificates?,
        upstream_tls: upstream_tls?,
        upstream_name: upstream_name?,
        upstream_id: upstream_id?,
        scheme: scheme?,
    })
}

/// A listener that is off. Keys that were set for it would do nothing, which their author does not expect.
fn off<T>(s: &mut Settings, key: KnownKey, rest_is_default: bool) -> Option<Optional<T>> {
    if rest_is_default {
        return Some(Optional(None));
    }
    s.missing(key, "is needed beside the other keys of this listener", LISTEN_EXAMPLE);
    None
}

/// What the three must be to each other, and to the admin's address; `None` where a section has faults already.
pub(super) fn check(
    s: &mut Settings,
    proxy: Option<&Proxy>,
    inbound: Option<&Optional<Inbound>>,
    outbound: Option<&Optional<Outbound>>,
    admin: Option<SocketAddr>,
) {
    let fixed = proxy.and_then(|proxy| proxy.fixed.as_ref());
    let mut own: Vec<(KnownKey, SocketAddr)> = Vec::new();
    own.extend(fixed.map(|fixed| (FIXED, fixed.listen)));
    own.extend(inbound.and_then(Optional::value).map(|inbound| (INBOUND, inbound.listen)));
    own.extend(outbound.and_then(Optional::value).map(|outbound| (OUTBOUND, outbound.listen)));
    if own.is_empty() && proxy.is_some() && inbound.is_some() && outbound.is_some() {
        let remedy = "write listen and upstream in [proxy], or listen in [inbound] or [outbound]";
        s.nothing_given(FIXED, "no listener is given", remedy);
    }
    if let Some(fixed) = fixed {
        for (key, listen) in &own {
            check_no_loop(s, *key, *listen, &fixed.upstream);
        }
    }
    own.extend(admin.map(|admin| (("admin", "listen"), admin)));
    check_ports_differ(s, &own);
}

/// A connection that is forwarded to a listener here would open the next one, and so on to `connections_max`.
fn check_no_loop(s: &mut Settings, (section, key): KnownKey, listen: SocketAddr, upstream: &Upstream) {
    if upstream.loops_to(listen) {
        let reason = format!("which leads back to {section}.{key} ({listen})");
        let remedy = "write the address of the service behind this sidecar";
        s.fault_in(UPSTREAM, unfit(&upstream.to_string(), &reason, remedy));
    }
}

/// Redirection goes by port alone, and so does the guard against one's own: a port has one meaning on all addresses.
fn check_ports_differ(s: &mut Settings, own: &[(KnownKey, SocketAddr)]) {
    for (position, (key, address)) in own.iter().enumerate() {
        let same =
            |(_, other): &&(KnownKey, SocketAddr)| address.port() != 0 && other.port() == address.port();
        if let Some(((section, name), _)) = own[..position].iter().find(same) {
            let problem: Problem = unfit(
                &address.to_string(),
                &format!("whose port {section}.{name} has already"),
                "give each listener a port of its own",
            );
            s.fault_in(*key, problem);
        }
    }
}
