//! TLS on both legs of one connection: opened, spoken, or passed on, as its listener is told.
//!
//! The upstream's handshake comes first, and the client is answered with the protocol that the upstream chose, so that it sees what it would have seen without
//! attestry. What is spoken inside is found out anew. Handshakes themselves are `tls`'s.

use super::CommitPort;
use super::detect::{Early, Found, ServerFirst, detect};
use super::link::Link;
use super::session::Session;
use super::tls::{self, TlsFailed};
use crate::credentials::{ClientCertificates, Credentials, CredentialsError, Expect};
use crate::generated::v1;
use crate::tls::ClientHello;
use rustls::AlertDescription;
use std::sync::Arc;
use tokio::net::TcpStream;

/// What a listener does with TLS.
#[derive(Clone)]
pub struct TlsTerms {
    /// With TLS that a client speaks.
    pub client: ClientTls,
    /// With the certificates of clients.
    pub client_certificates: ClientCertificates,
    /// Towards the upstream.
    pub upstream: UpstreamTls,
    /// The name to ask the upstream for; empty: what the client asked for, else the upstream's host.
    pub upstream_name: String,
    /// By what the upstream must prove itself.
    pub expect: Expect,
    /// What a client is offered where the upstream does not choose, best first (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
    /// Whether requests are told what is so on the way to the upstream, whatever the client said.
    pub says_scheme: bool,
    /// Certificates and authorities; `None` where neither leg speaks TLS with attestry.
    pub credentials: Option<Credentials>,
}

/// What happens to a client's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientTls {
    /// It is passed on unopened.
    Passthrough,
    /// It ends here; a client without TLS is served as well.
    Terminate,
    /// It ends here; a client without TLS is refused.
    Require,
}

/// Whether attestry speaks TLS to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Never.
    None,
    /// Where the client's TLS ended here.
    AsClient,
    /// Always.
    Originate,
}

/// A connection whose TLS is settled.
pub(super) struct Secured {
    pub(super) client: Link,
    pub(super) upstream: Link,
    pub(super) found: Found,
}

/// A connection that ended before it was.
pub(super) enum Insecure {
    /// A handshake has failed: both sides are told, and it is noted.
    Failed(String),
    /// The upstream's handshake has failed, and a client without TLS waits to be told.
    Unreachable { reason: String, client: TcpStream, found: Found },
    /// Handshakes take all places that there are.
    NoPlace,
}

impl TlsTerms {
    /// Whether the credentials serve what they will be used for: better known at the start than at the first connection.
    pub fn check(&self) -> Result<(), CredentialsError> {
        let Some(credentials) = &self.credentials else { return Ok(()) };
        if self.client != ClientTls::Passthrough {
            credentials.server(self.client_certificates)?;
        }
        if self.upstream != UpstreamTls::None {
            credentials.client(self.expect.clone())?;
        }
        Ok(())
    }
}

/// Which legs attestry speaks TLS on.
#[derive(Clone, Copy)]
pub(super) struct Handshakes {
    terminates: bool,
    originates: bool,
}

impl Handshakes {
    /// For a connection on which `found` was found.
    pub(super) fn of(terms: &TlsTerms, found: &Found) -> Self {
        let is_tls = matches!(found, Found::Tls(_));
        let terminates = is_tls && terms.client != ClientTls::Passthrough;
        let originates = match terms.upstream {
            UpstreamTls::None => false,
            UpstreamTls::AsClient => terminates,
            // A client that speaks TLS with the upstream itself is not wrapped in another.
            UpstreamTls::Originate => terminates || !is_tls,
        };
        Self { terminates, originates }
    }

    /// There is one at all.
    pub(super) fn any(self) -> bool {
        self.terminates || self.originates
    }
}

/// Settles TLS on both legs of a connection on which `found` was found.
pub(super) async fn secure<C: CommitPort>(
    session: &mut Session<C>,
    client: TcpStream,
    upstream: TcpStream,
    upstream_host: &str,
    found: Found,
    early: &mut Early,
) -> Result<Secured, Insecure> {
    let role = Arc::clone(&session.role);
    let terms = &role.tls;
    let Handshakes { terminates, originates } = Handshakes::of(terms, &found);
    if !(originates || terminates) {
        return Ok(Secured { client: Link::Plain(client), upstream: Link::Plain(upstream), found });
    }
    let places = Arc::clone(&session.options.handshakes);
    let Ok(place) = places.try_acquire() else { return Err(Insecure::NoPlace) };
    let hello = match &found {
        Found::Tls(hello) if terminates => Some(hello.as_ref()),
        _ => None,
    };
    let mut alpn = offered(&found, hello);
    let upstream = if originates {
        let name = [
            terms.upstream_name.as_str(),
            hello.and_then(|hello| hello.server_name.as_deref()).unwrap_or(""),
        ];
        let name = name.into_iter().find(|name| !name.is_empty()).unwrap_or(upstream_host);
        match originate(session, terms, upstream, name, alpn).await {
            Ok((link, chosen)) => {
                alpn = chosen.into_iter().collect();
                link
            }
            Err(failed) => {
                let alert = failed.alert;
                let reason = note_failure(session, failed);
                let Some(hello) = hello else { return Err(Insecure::Unreachable { reason, client, found }) };
                let refused = tls::refuse(client, hello, alert, "the upstream's handshake failed").await;
                session.note_tls(*refused.tls);
                return Err(Insecure::Failed(reason));
            }
        }
    } else {
        alpn.clone_from(&terms.alpn);
        Link::Plain(upstream)
    };
    let Some(hello) = hello else { return Ok(Secured { client: Link::Plain(client), upstream, found }) };
    let client = accept(session, terms, client, hello, &alpn, early).await?;
    // What is spoken inside may take its time, and no place.
    drop(place);
    let bounds = session.options.detect;
    let found = detect(&client, Some(&upstream), ServerFirst::Decides, early, bounds, &role.drain).await;
    Ok(Secured { client, upstream, found })
}

/// What the upstream is offered: what the client offers, or what it was found to speak.
fn offered(found: &Found, hello: Option<&ClientHello>) -> Vec<Vec<u8>> {
    match (hello, found) {
        (Some(hello), _) => hello.alpn.clone(),
        (None, Found::Http2 { .. }) => vec![b"h2".to_vec()],
        (None, Found::Http1) => vec![b"http/1.1".to_vec()],
        (None, _) => Vec::new(),
    }
}

async fn originate<C: CommitPort>(
    session: &mut Session<C>,
    terms: &TlsTerms,
    upstream: TcpStream,
    name: &str,
    alpn: Vec<Vec<u8>>,
) -> Result<(Link, Option<Vec<u8>>), TlsFailed> {
    let limit = session.options.handshake_timeout;
    let side = side(terms, |credentials| credentials.client(terms.expect.clone()));
    let side = side.map_err(|reason| unprepared(v1::Side::Server, reason))?;
    let (link, tls) = tls::originate(upstream, &side, name, alpn, limit).await?;
    let chosen = Some(tls.alpn.clone().into_bytes()).filter(|alpn| !alpn.is_empty());
    session.note_tls(tls);
    Ok((Link::Tls(Box::new(link)), chosen))
}

async fn accept<C: CommitPort>(
    session: &mut Session<C>,
    terms: &TlsTerms,
    client: TcpStream,
    hello: &ClientHello,
    alpn: &[Vec<u8>],
    early: &mut Early,
) -> Result<Link, Insecure> {
    let limit = session.options.handshake_timeout;
    let side = side(terms, |credentials| credentials.server(terms.client_certificates));
    let accepted = match side {
        Ok(side) => tls::accept(client, &std::mem::take(&mut early.client), &side, alpn, hello, limit).await,
        Err(reason) => Err(tls::refuse(client, hello, AlertDescription::InternalError, &reason).await),
    };
    match accepted {
        Ok((link, tls)) => {
            session.note_tls(tls);
            Ok(Link::Tls(Box::new(link)))
        }
        Err(failed) => Err(Insecure::Failed(note_failure(session, failed))),
    }
}

fn side<T>(
    terms: &TlsTerms,
    make: impl FnOnce(&Credentials) -> Result<T, CredentialsError>,
) -> Result<T, String> {
    let credentials = terms.credentials.as_ref().ok_or("no certificates are configured ([tls])")?;
    make(credentials).map_err(|error| error.to_string())
}

fn unprepared(side: v1::Side, failure: String) -> TlsFailed {
    let tls = v1::Tls { side: side.into(), terminated: true, failure, ..Default::default() };
    TlsFailed { tls: Box::new(tls), alert: AlertDescription::InternalError }
}

fn note_failure<C: CommitPort>(session: &mut Session<C>, failed: TlsFailed) -> String {
    session.options.counters.tls_handshake_failures.add(1);
    let side = if failed.tls.side() == v1::Side::Client { "client" } else { "server" };
    let reason = format!("the TLS handshake with the {side} failed: {}", failed.tls.failure);
    session.note_tls(*failed.tls);
    reason
}

/// Notes TLS that is passed on unopened.
pub(super) fn note_passthrough<C: CommitPort>(session: &mut Session<C>, hello: &ClientHello) {
    session.note_tls(tls::described(hello));
}
