//! What entries say of connections and of the peers of calls, held against the format and against each other (section 2).
//!
//! `contradictions` looks at one entry and nothing around it, on any thread. `Peers` remembers who was verified on each connection that is
//! open, and must be given the entries in the order of the log. Invariant: at most [`CONNECTIONS_KNOWN_MAX`] connections are remembered.
//! Not here: the bytes of messages and payloads (`content`, `messages`).

use super::fault::hex;
use crate::generated::v1::{self, Protocol, Side, connection_event::Type};
use std::collections::HashMap;
use v1::entry::Body;

/// Connections whose peer is known at a time: a log that opens more than it closes must not fill the memory.
const CONNECTIONS_KNOWN_MAX: usize = 1 << 18;

/// The longest prefix of a message in gRPC and gRPC-Web.
const PREFIX_BYTES_MAX: usize = 5;

const SHA256_BYTES: usize = 32;

/// What the entry says that the format does not allow, with the number of the event that says it; at most one for each event.
pub(super) fn contradictions(body: &Body) -> Vec<(usize, String)> {
    match body {
        Body::ConnectionEvents(events) => {
            let problem = |(number, event)| {
                let problem = in_connection_event(event)?;
                let connection = events.connection;
                Some((number, format!("connection {connection:016x}: event {number} {problem}")))
            };
            events.events.iter().enumerate().filter_map(problem).collect()
        }
        Body::CallEvents(call) => {
            let problem = |(number, event): (usize, &v1::Event)| {
                let problem = in_segment(call.protocol(), event.message.as_ref()?)?;
                Some((number, format!("call {}: event {number} {problem}", hex(&call.call))))
            };
            call.events.iter().enumerate().filter_map(problem).collect()
        }
        _ => Vec::new(),
    }
}

fn in_connection_event(event: &v1::ConnectionEvent) -> Option<String> {
    let digest = event.payload_sha256.len();
    match event.r#type() {
        // The number as it stands: a protocol of a later schema is a protocol.
        Type::Protocol if event.protocol == 0 => Some("is PROTOCOL and names none".into()),
        Type::Tls => in_tls(event.tls.as_ref()),
        Type::FirstBytes if event.payload_stored => {
            Some("is FIRST_BYTES and says that they are stored".into())
        }
        Type::FirstBytes if event.payload_length == 0 => Some("is FIRST_BYTES of no bytes".into()),
        Type::FirstBytes if digest != SHA256_BYTES => {
            Some(format!("is FIRST_BYTES with a digest of {digest} bytes, expected {SHA256_BYTES}"))
        }
        _ => None,
    }
}

fn in_tls(tls: Option<&v1::Tls>) -> Option<String> {
    let Some(tls) = tls else { return Some("is TLS and says nothing of it".into()) };
    if !matches!(tls.side(), Side::Client | Side::Server) {
        return Some(format!("is TLS of the side {}, expected that of the client or the server", tls.side));
    }
    let peer = tls.verified_peer.as_ref()?;
    if !tls.terminated {
        return Some("names a verified peer of TLS that was passed on unopened".into());
    }
    let length = peer.certificate_sha256.len();
    (length != SHA256_BYTES).then(|| {
        format!("names a verified peer with a fingerprint of {length} bytes, expected {SHA256_BYTES}")
    })
}

fn in_segment(protocol: Protocol, segment: &v1::MessageSegment) -> Option<String> {
    let (message, prefix) = (segment.message, segment.prefix.len());
    match protocol {
        Protocol::Http if prefix > 0 || message > 0 => Some(format!(
            "is of message {message} of HTTP with a prefix of {prefix} bytes, expected 0 and none"
        )),
        Protocol::Grpc | Protocol::GrpcWeb if prefix > PREFIX_BYTES_MAX => {
            Some(format!("has a prefix of {prefix} bytes, expected at most {PREFIX_BYTES_MAX}"))
        }
        _ => None,
    }
}

/// The verified client of each connection whose beginning is known; empty where it has proved nothing.
#[derive(Debug, Default)]
pub(super) struct Peers(HashMap<u64, String>);

impl Peers {
    /// Something is missing: what was known of connections may be out of date.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// Takes the next entry; returns what is wrong with the peer that it names.
    pub fn take(&mut self, body: &Body) -> Option<String> {
        match body {
            // A writer that died left its connections without an end.
            Body::Started(_) => self.forget(),
            Body::Gap(gap) if gap.forwarded => self.forget(),
            Body::ConnectionOpened(opened) if self.0.len() < CONNECTIONS_KNOWN_MAX => {
                self.0.insert(opened.connection, String::new());
            }
            Body::ConnectionClosed(closed) => {
                self.0.remove(&closed.connection);
            }
            Body::ConnectionEvents(events) => self.connection(events),
            Body::CallEvents(call) => {
                let expected = self.0.get(&call.connection)?;
                let named = &call.verified_peer;
                return (named != expected).then(|| {
                    format!("call {} is of the peer {named:?}, expected {expected:?}", hex(&call.call))
                });
            }
            _ => {}
        }
        None
    }

    fn connection(&mut self, events: &v1::ConnectionEvents) {
        let Some(known) = self.0.get_mut(&events.connection) else { return };
        let verified = |event: &v1::ConnectionEvent| {
            let tls = event.tls.as_ref().filter(|_| event.r#type() == Type::Tls)?;
            tls.verified_peer.as_ref().filter(|_| tls.side() == Side::Client).map(name)
        };
        if let Some(name) = events.events.iter().filter_map(verified).next_back() {
            *known = name;
        }
    }
}

/// A peer as the entries of its calls name it.
fn name(peer: &v1::VerifiedPeer) -> String {
    if peer.spiffe_id.is_empty() {
        format!("sha256:{}", hex(&peer.certificate_sha256))
    } else {
        peer.spiffe_id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_connections_are_remembered_than_may_be() {
        let mut peers = Peers::default();
        let call = |connection| {
            let verified_peer = "spiffe://a/b".to_owned();
            Body::CallEvents(v1::CallEvents { connection, verified_peer, ..Default::default() })
        };
        let last = CONNECTIONS_KNOWN_MAX as u64;
        for connection in 0..=last {
            peers.take(&Body::ConnectionOpened(v1::ConnectionOpened { connection, ..Default::default() }));
        }
        assert!(peers.take(&call(last - 1)).is_some(), "known, and nobody was verified on it");
        assert_eq!(peers.take(&call(last)), None, "one too many: not known");
        peers.take(&Body::ConnectionClosed(v1::ConnectionClosed { connection: 0, ..Default::default() }));
        peers.take(&Body::ConnectionOpened(v1::ConnectionOpened { connection: last, ..Default::default() }));
        assert!(peers.take(&call(last)).is_some(), "room again");
    }
}
