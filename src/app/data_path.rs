//! From the configuration to what the data path is told: its listeners, and its options.

use crate::capture::{Level, Limits, OnUnreadable, Policy, Redactor};
use crate::clock::Clock;
use crate::config::{self, CaptureLevel, Config, Rules, Upstream};
use crate::counters::Counters;
use crate::credentials::{
    ClientCertificates, Credentials, Expect, Files, Options as CredentialsOptions, Source,
};
use crate::generated::v1::{self, Traffic};
use crate::http2::UnitLimits;
use crate::ledger::{Ledger, LedgerHandle};
use crate::proxy::{
    self, Bounds, ClientTls, DrainSignals, Entrance, Role, Route, TcpOptions, TlsTerms, TurnedAway,
    UpstreamTls,
};
use anyhow::Context as _;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// Opens a socket for each listener that is configured, the fixed one first.
pub(super) fn entrances(config: &Config, credentials: Option<&Credentials>) -> anyhow::Result<Vec<Entrance>> {
    let mut wanted = Vec::new();
    if let Some(fixed) = &config.proxy.fixed {
        let route = Route::Fixed(upstream(&fixed.upstream));
        wanted.push(("proxy", fixed.listen, route, traffic(fixed.traffic), &fixed.rules));
    }
    if let Some(inbound) = &config.inbound {
        let route = match inbound.mode {
            config::Interception::Redirect => Route::Redirect,
            config::Interception::Tproxy => Route::Tproxy,
        };
        wanted.push(("inbound", inbound.listen, route, Traffic::Inbound, &inbound.rules));
    }
    if let Some(outbound) = &config.outbound {
        wanted.push(("outbound", outbound.listen, Route::Redirect, Traffic::Outbound, &outbound.rules));
    }
    let open = |(section, address, route, traffic, rules): (&str, SocketAddr, Route, Traffic, &Rules)| {
        let socket = proxy::bind(address, &route).with_context(|| {
            let remedy = match route {
                Route::Tproxy => "; mode = \"tproxy\" takes the capability NET_ADMIN, \"redirect\" does not",
                Route::Fixed(_) | Route::Redirect => "",
            };
            format!("cannot listen on {address} ([{section}] listen){remedy}")
        })?;
        let tls = terms(rules, config, credentials);
        tls.check().with_context(|| format!("[{section}] cannot speak TLS as it is told"))?;
        let role = Role {
            route,
            traffic,
            opaque_ports: rules.opaque_ports.iter().copied().collect(),
            tls,
            drain: DrainSignals::default(),
            open: watch::Sender::new(0),
        };
        Ok(Entrance { socket, role: Arc::new(role) })
    };
    wanted.into_iter().map(open).collect()
}

/// Loads certificates and authorities, if any listener needs some.
pub(super) fn credentials(config: &Config) -> anyhow::Result<Option<Credentials>> {
    let source = match &config.tls.credentials {
        config::Credentials::Spiffe(socket) => Source::Spiffe { socket: socket.clone() },
        config::Credentials::Files(files) => {
            let own = files.certificate.as_ref();
            if own.is_none() && files.authorities.is_none() {
                return Ok(None);
            }
            Source::Files(Files {
                certificate: own.map(|own| own.certificate.clone()),
                key: own.map(|own| own.key.clone()),
                authorities: files.authorities.clone(),
                revocation: files.revocation.clone(),
            })
        }
    };
    let credentials = Credentials::load(CredentialsOptions { source, alpn: alpn(config) })?;
    Ok(Some(credentials))
}

/// What is configured never to come here: the ledger says so, since it will not say anything else of it.
pub(super) fn bypassed(config: &Config) -> Option<v1::Notice> {
    let ports = |name: &str, ports: &std::collections::BTreeSet<u16>| {
        let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
        (!ports.is_empty()).then(|| format!("{name} {}", ports.join(", ")))
    };
    let inbound = config.inbound.as_ref().and_then(|inbound| ports("inbound", &inbound.skip_ports));
    let outbound = config.outbound.as_ref().and_then(|outbound| ports("outbound", &outbound.skip_ports));
    let skipped: Vec<_> = inbound.into_iter().chain(outbound).collect();
    (!skipped.is_empty()).then(|| v1::Notice {
        r#type: v1::notice::Type::Bypassed.into(),
        reason: format!(
            "ports that are configured not to be redirected (skip_ports): {}",
            skipped.join("; ")
        ),
        ..Default::default()
    })
}

/// What all listeners have in common.
pub(super) fn options(
    config: &Config,
    ledger: &Ledger,
    entrances: &[Entrance],
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
) -> anyhow::Result<proxy::Options<LedgerHandle>> {
    let own: Result<Vec<SocketAddr>, _> =
        entrances.iter().map(|entrance| entrance.socket.local_addr()).collect();
    Ok(proxy::Options {
        connect_timeout: config.proxy.connect_timeout,
        handshake_timeout: config.tls.handshake_timeout,
        half_close_timeout: config.tcp.half_close_timeout,
        hold_bytes_max: config.limits.hold_bytes_max,
        limits: limits(config),
        connections_max: config.limits.connections_max.get(),
        handshakes: Arc::new(Semaphore::new(config.limits.handshakes_max.get())),
        detect: Bounds { timeout: config.detect.timeout, bytes_max: config.detect.bytes_max },
        on_unreadable: match config.detect.on_unreadable {
            config::OnUnreadable::Forward => OnUnreadable::Forward,
            config::OnUnreadable::Refuse => OnUnreadable::Refuse,
        },
        tcp: TcpOptions {
            keepalive: config.tcp.keepalive,
            user_timeout: config.tcp.user_timeout,
            mark: config.tcp.mark,
        },
        own_addresses: own?.into(),
        policy: Policy {
            level: level(config.capture.level),
            redactor: Redactor::new(ledger.redaction_key()),
        },
        port: ledger.handle(),
        clock,
        counters,
        turned_away: Arc::new(TurnedAway::default()),
    })
}

fn terms(rules: &Rules, config: &Config, credentials: Option<&Credentials>) -> TlsTerms {
    TlsTerms {
        client: match rules.client_tls {
            config::ClientTls::Passthrough => ClientTls::Passthrough,
            config::ClientTls::Terminate => ClientTls::Terminate,
            config::ClientTls::Require => ClientTls::Require,
        },
        client_certificates: match rules.client_certificates {
            config::ClientCertificates::None => ClientCertificates::None,
            config::ClientCertificates::Optional => ClientCertificates::Optional,
            config::ClientCertificates::Required => ClientCertificates::Required,
        },
        upstream: match rules.upstream_tls {
            config::UpstreamTls::None => UpstreamTls::None,
            config::UpstreamTls::AsClient => UpstreamTls::AsClient,
            config::UpstreamTls::Originate => UpstreamTls::Originate,
        },
        upstream_name: rules.upstream_name.clone().unwrap_or_default(),
        expect: rules.upstream_id.clone().map_or(Expect::Name, Expect::SpiffeId),
        alpn: alpn(config),
        says_scheme: rules.scheme == config::Scheme::Upstream,
        credentials: credentials.cloned(),
    }
}

fn alpn(config: &Config) -> Vec<Vec<u8>> {
    config.tls.alpn.iter().map(|name| name.clone().into_bytes()).collect()
}

fn traffic(traffic: config::Traffic) -> Traffic {
    match traffic {
        config::Traffic::Inbound => Traffic::Inbound,
        config::Traffic::Outbound => Traffic::Outbound,
    }
}

fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        units: UnitLimits {
            frame_bytes_max: limits.frame_bytes_max,
            header_list_bytes_max: limits.header_list_bytes_max,
            continuations_max: limits.continuations_max,
        },
        streams_max: limits.streams_max.get(),
    }
}

fn level(level: CaptureLevel) -> Level {
    match level {
        CaptureLevel::RequestResponse => Level::RequestResponse,
        CaptureLevel::Request => Level::Request,
        CaptureLevel::Metadata => Level::Metadata,
        CaptureLevel::None => Level::None,
    }
}

fn upstream(upstream: &Upstream) -> proxy::Upstream {
    match upstream {
        Upstream::Address(address) => proxy::Upstream::Address(*address),
        Upstream::Name { host, port } => proxy::Upstream::Name(host.clone(), *port),
    }
}
