//! What is known of connections, in words: names of protocols and ways, TLS sessions, peers.
//!
//! All text is safe for a terminal.

use super::connections::{Connection, ConnectionState};
use super::text::{hex, printable};
use crate::generated::v1::connection_opened::Interception;
use crate::generated::v1::{self, Side, Traffic, WireProtocol};

/// The word for a way; `None` where the ledger does not say.
pub(super) fn traffic_name(traffic: Traffic) -> Option<&'static str> {
    match traffic {
        Traffic::Inbound => Some("inbound"),
        Traffic::Outbound => Some("outbound"),
        Traffic::Unspecified => None,
    }
}

/// The word for how a connection came.
pub(super) fn interception_name(interception: Interception) -> Option<&'static str> {
    match interception {
        Interception::Fixed => Some("fixed"),
        Interception::Redirect => Some("redirect"),
        Interception::Tproxy => Some("tproxy"),
        Interception::Unspecified => None,
    }
}

/// The name of what is spoken on a connection.
pub(super) fn wire_protocol_name(protocol: WireProtocol) -> &'static str {
    match protocol {
        WireProtocol::Http2 => "http2",
        WireProtocol::Http1 => "http1",
        WireProtocol::Opaque => "opaque",
        WireProtocol::TlsPassthrough => "tls_passthrough",
        WireProtocol::Unspecified => "unknown",
    }
}

/// The word for how far a connection came.
pub(super) fn connection_state_name(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Open => "open",
        ConnectionState::Closed => "closed",
        ConnectionState::Abandoned => "abandoned",
    }
}

/// The protocols found, one after the other, such as `http1>opaque`; empty where none was.
pub(super) fn protocols(connection: &Connection) -> String {
    let names: Vec<&str> = connection.found.iter().map(|found| wire_protocol_name(found.protocol)).collect();
    names.join(">")
}

/// The server name that the client asked for, where it spoke TLS.
pub(super) fn server_name(connection: &Connection) -> &str {
    connection.tls[0].as_ref().map_or("", |tls| &tls.server_name)
}

/// A verified peer in one string, as `CallEvents.verified_peer` has it (docs/ledger-format.md section 2).
pub(super) fn peer_name(peer: &v1::VerifiedPeer) -> String {
    if peer.spiffe_id.is_empty() {
        format!("sha256:{}", hex(&peer.certificate_sha256))
    } else {
        peer.spiffe_id.clone()
    }
}

/// The client of a connection as TLS has verified it; empty where it has proved nothing.
pub(super) fn verified_client(connection: &Connection) -> String {
    let peer = connection.tls[0].as_ref().and_then(|tls| tls.verified_peer.as_ref());
    peer.map(peer_name).unwrap_or_default()
}

/// A TLS session, or the attempt at one.
pub(super) fn tls_in_words(tls: &v1::Tls) -> String {
    let with = match (tls.terminated, tls.side()) {
        (false, _) if tls.failure.is_empty() => "passed on unopened",
        (_, Side::Server) => "with the server",
        _ => "with the client",
    };
    let named = |name: &str, value: &str| (!value.is_empty()).then(|| format!("{name}{}", printable(value)));
    let peer = tls.verified_peer.as_ref().map(peer_in_words);
    let offered = tls.alpn_offered.join(" ");
    let parts = [
        named("failed: ", &tls.failure),
        named("", &tls.version),
        named("", &tls.cipher_suite),
        named("server name ", &tls.server_name),
        named("ALPN ", &tls.alpn),
        named("offered ", if tls.alpn.is_empty() { &offered } else { "" }),
        named("JA4 ", &tls.ja4),
        peer,
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { with.to_owned() } else { format!("{with}: {}", parts.join(", ")) }
}

fn peer_in_words(peer: &v1::VerifiedPeer) -> String {
    let names = peer.subject_alternative_names.join(" ");
    let name = if !peer.spiffe_id.is_empty() {
        &peer.spiffe_id
    } else if !names.is_empty() {
        &names
    } else {
        &peer.subject
    };
    format!("verified {} (certificate {})", printable(name), hex(&peer.certificate_sha256))
}
