//! What is spoken on a connection, found without delaying it: whoever speaks first decides.
//!
//! ```text
//!   client's bytes:  none ──▶ undecided (a beginning of HTTP/2's preface, of an HTTP/1 request line, of a ClientHello) ──▶ decided
//!   server's bytes:  none ──▶ a beginning of SETTINGS ──▶ SETTINGS: HTTP/2, unless the client is deciding     anything else ──▶ opaque, at once
//! ```
//! A protocol is found by its complete beginning, never by one read. While none of either side is decided, nothing goes on, so the wait is bounded in bytes and in
//! time, counted from the first byte; then the connection is opaque, and the record says why. A connection on which nobody speaks costs no time: there is nothing to hold.

use super::link::Link;
use super::stack::DrainSignals;
use crate::http2::{FrameHeader, PREFACE, frame};
use crate::limits::{DRAIN_QUIET_MS, TLS_GRACE_MS};
use crate::tls::{self, ClientHello};
use bytes::BytesMut;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// Room for each read while nothing is decided.
const READ_BYTES: usize = 16 * 1024;

/// A method's longest name: the registered ones have at most 17 letters.
const METHOD_BYTES_MAX: usize = 32;

/// SETTINGS of a server that are worth waiting for: there are some ten parameters.
const SETTINGS_BYTES_MAX: u32 = 1_024;

/// Octets of one entry of SETTINGS (RFC 9113 section 6.5.1).
const SETTING_BYTES: u32 = 6;

/// The bounds of an undecided connection.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From the first byte on.
    pub timeout: Duration,
    /// Of each side.
    pub bytes_max: usize,
}

/// What was read before anything was decided: it belongs to the relay.
#[derive(Default)]
pub(super) struct Early {
    pub(super) client: BytesMut,
    pub(super) server: BytesMut,
}

/// What a connection was found to be.
pub(super) enum Found {
    Http2 {
        by: &'static str,
    },
    Http1,
    Tls(Box<ClientHello>),
    /// None of them, and why that is believed.
    Opaque(String),
    /// Nothing was said, and attestry is stopping; or its time for that is over.
    Drained,
    /// One side broke the connection before it was known.
    Broken {
        by_client: bool,
        error: io::Error,
    },
}

/// What a server decides that speaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerFirst {
    /// What is spoken.
    Decides,
    /// The same, if the client says nothing in the time for it: where a client's TLS is opened, a server's first words may belong inside of it.
    AfterTimeout,
    /// Nothing: the client must speak TLS, and all that the server says is inside of it.
    Never,
}

/// Finds out, reading both sides into `early`. Without a server, or with one that cannot speak yet, the client alone decides, and the time runs from the beginning:
/// it may wait for what the server does not say.
pub(super) async fn detect(
    client: &Link,
    server: Option<&Link>,
    server_first: ServerFirst,
    early: &mut Early,
    bounds: Bounds,
    drain: &DrainSignals,
) -> Found {
    let timer = server.is_none().then(|| Box::pin(sleep(bounds.timeout)));
    let stop = async {
        drain.started.cancelled().await;
        sleep(Duration::from_millis(DRAIN_QUIET_MS)).await;
    };
    let (stop, expired) = (pin!(stop), pin!(drain.expired.cancelled()));
    Detection { client, server, server_first, early, bounds, timer, server_has_ended: false, stop, expired }
        .run()
        .await
}

struct Detection<'a, S, E> {
    client: &'a Link,
    server: Option<&'a Link>,
    server_first: ServerFirst,
    early: &'a mut Early,
    bounds: Bounds,
    timer: Option<Pin<Box<Sleep>>>,
    /// It has ended, and it is the client's to decide what that means.
    server_has_ended: bool,
    stop: Pin<&'a mut S>,
    expired: Pin<&'a mut E>,
}

enum Ready {
    Client,
    Server,
    TimedOut,
    Drained,
}

impl<S: Future<Output = ()>, E: Future<Output = ()>> Detection<'_, S, E> {
    async fn run(mut self) -> Found {
        loop {
            if let Some(found) = self.judge() {
                return found;
            }
            let ended = match poll_fn(|cx| self.ready(cx)).await {
                Ready::Drained => return Found::Drained,
                Ready::TimedOut => {
                    let limit = self.bounds.timeout.as_millis();
                    let Early { client, server } = &*self.early;
                    let undecided = format!(
                        "undecided for {limit} ms (detect.timeout_ms), with {} bytes of the client and {} of the server",
                        client.len(),
                        server.len()
                    );
                    let by_server = client.is_empty().then(|| judge_server(server)).flatten();
                    return by_server.unwrap_or(Found::Opaque(undecided));
                }
                Ready::Client => read(self.client, &mut self.early.client)
                    .map_err(|error| Found::Broken { by_client: true, error })
                    .map(|ended| ended.then_some("the client")),
                Ready::Server => self
                    .server
                    .map_or(Ok(false), |server| read(server, &mut self.early.server))
                    .map_err(|error| Found::Broken { by_client: false, error })
                    .map(|ended| ended.then_some("the server")),
            };
            match ended {
                Err(broken) => return broken,
                Ok(Some("the server")) if self.server_first != ServerFirst::Decides => {
                    self.server_has_ended = true;
                }
                // What came before the end may just have decided it.
                Ok(Some(side)) => {
                    let reason = || Found::Opaque(format!("{side} ended before a protocol showed"));
                    return self.judge().unwrap_or_else(reason);
                }
                Ok(None) => {}
            }
        }
    }

    fn judge(&self) -> Option<Found> {
        let Early { client, server } = &*self.early;
        if client.is_empty() {
            return judge_server(server).filter(|_| self.server_first == ServerFirst::Decides);
        }
        let found = judge(client)?;
        match found {
            Judgement::Undecided if client.len() < self.bounds.bytes_max => None,
            Judgement::Undecided => {
                let limit = self.bounds.bytes_max;
                Some(Found::Opaque(format!("undecided after {limit} bytes (detect.bytes_max)")))
            }
            Judgement::Found(found) => Some(found),
        }
    }

    /// Where TLS is opened, a greeting may belong inside of it: then the client's first message is on its way already. SETTINGS hold up nobody, since every client of
    /// HTTP/2 speaks without waiting for them.
    fn patience(&self) -> Duration {
        let greets = self.early.client.is_empty()
            && matches!(judge_server(&self.early.server), Some(Found::Opaque(_)));
        if greets && self.server_first == ServerFirst::AfterTimeout {
            return self.bounds.timeout.min(Duration::from_millis(TLS_GRACE_MS));
        }
        self.bounds.timeout
    }

    fn ready(&mut self, cx: &mut Context<'_>) -> Poll<Ready> {
        // The server first: what it says before the client's bytes are read is said without being asked.
        if self.early.server.len() < self.bounds.bytes_max
            && !self.server_has_ended
            && self.server.is_some_and(|server| server.poll_read_ready(cx).is_ready())
        {
            return Poll::Ready(Ready::Server);
        }
        if self.client.poll_read_ready(cx).is_ready() {
            return Poll::Ready(Ready::Client);
        }
        if self.expired.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ready::Drained);
        }
        // What never decides is not waited for either.
        let server_is_silent = self.early.server.is_empty() || self.server_first == ServerFirst::Never;
        let is_silent = self.early.client.is_empty() && server_is_silent;
        if is_silent && self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ready::Drained);
        }
        if self.timer.is_none() && is_silent {
            return Poll::Pending;
        }
        let limit = self.patience();
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        timer.as_mut().poll(cx).map(|()| Ready::TimedOut)
    }
}

/// Reads once; says whether the peer has ended.
fn read(link: &Link, buffer: &mut BytesMut) -> io::Result<bool> {
    buffer.reserve(READ_BYTES);
    match link.try_read(buffer) {
        Ok(read) => Ok(read == 0),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

enum Judgement {
    Undecided,
    Found(Found),
}

/// What the client's bytes are; `None` before the first of them.
fn judge(client: &[u8]) -> Option<Judgement> {
    if client.is_empty() {
        return None;
    }
    let length = client.len().min(PREFACE.len());
    if client[..length] == PREFACE[..length] {
        let is_whole = length == PREFACE.len();
        let http2 = || Judgement::Found(Found::Http2 { by: "the client's preface" });
        return Some(if is_whole { http2() } else { Judgement::Undecided });
    }
    Some(match tls::client_hello(client) {
        tls::Read::Hello(hello) => Judgement::Found(Found::Tls(Box::new(hello))),
        tls::Read::Incomplete => Judgement::Undecided,
        tls::Read::NotTls => request_line(client),
    })
}

/// A request line is decided when it is whole (RFC 9112 section 3), and excluded by the first byte that none can have there.
fn request_line(bytes: &[u8]) -> Judgement {
    let opaque = |why: &str| Judgement::Found(Found::Opaque(format!("the client's first bytes are {why}")));
    // Empty lines before a request are passed over, as servers do.
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let line = &bytes[begin..];
    let end = line.iter().position(|&byte| byte == b'\n');
    let text = &line[..end.unwrap_or(line.len())];
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let method = text.iter().position(|&byte| byte == b' ').unwrap_or(text.len());
    if method > METHOD_BYTES_MAX || !text[..method].iter().copied().all(is_token) {
        return opaque("no request line of HTTP/1, no preface of HTTP/2 and no ClientHello of TLS");
    }
    if text[method..].iter().any(|&byte| byte < b' ' || byte == 0x7f) {
        return opaque("a line with a control character");
    }
    if end.is_none() {
        return Judgement::Undecided;
    }
    let version = text.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    let begin_of_target = text.get(method + 1..).unwrap_or_default();
    if method > 0 && begin_of_target.contains(&b' ') && matches!(version, b"HTTP/1.0" | b"HTTP/1.1") {
        Judgement::Found(Found::Http1)
    } else {
        opaque("a line that names no version of HTTP/1")
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a server's bytes are that has spoken first: of the known protocols only HTTP/2 lets it, with SETTINGS (RFC 9113 section 3.4).
fn judge_server(server: &[u8]) -> Option<Found> {
    let is_settings = match server.first_chunk::<{ frame::HEADER_LEN }>() {
        // The first byte of the length, of a frame below 65,536 bytes, and the type tell it from text.
        None => {
            server.first().is_none_or(|&byte| byte == 0)
                && server.get(3).is_none_or(|&kind| kind == frame::kind::SETTINGS)
        }
        Some(header) => {
            let FrameHeader { length, kind, flags, stream } = FrameHeader::parse(header);
            let settings = kind == frame::kind::SETTINGS && flags == 0 && stream == 0;
            if settings && length.is_multiple_of(SETTING_BYTES) && length <= SETTINGS_BYTES_MAX {
                let is_whole = server.len() >= frame::HEADER_LEN + length as usize;
                return is_whole.then_some(Found::Http2 { by: "the server's SETTINGS" });
            }
            false
        }
    };
    (!is_settings).then(|| Found::Opaque("the server spoke first".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(bytes: &[u8]) -> &'static str {
        match judge(bytes) {
            None => "nothing",
            Some(Judgement::Undecided) => "undecided",
            Some(Judgement::Found(Found::Http2 { .. })) => "http2",
            Some(Judgement::Found(Found::Http1)) => "http1",
            Some(Judgement::Found(Found::Tls(_))) => "tls",
            Some(Judgement::Found(_)) => "opaque",
        }
    }

    /// Each byte of the beginning comes by itself, and no shorter beginning decides otherwise.
    #[test]
    fn a_beginning_is_undecided_until_it_is_whole() {
        let requests: [&[u8]; 4] = [
            b"GET / HTTP/1.1\n",
            b"\r\nPRINT /a%20b?c=d HTTP/1.0\r\n",
            b"M-SEARCH * HTTP/1.1\r\n",
            b"PRI /not-the-preface HTTP/1.1\r\n",
        ];
        for whole in requests {
            for cut in 1..whole.len() {
                assert_eq!(name(&whole[..cut]), "undecided", "{:?}", &whole[..cut]);
            }
            assert_eq!(name(whole), "http1");
        }
        for cut in 1..PREFACE.len() {
            assert_eq!(name(&PREFACE[..cut]), "undecided");
        }
        assert_eq!(name(PREFACE), "http2");
        assert_eq!(name(b""), "nothing");
    }

    #[test]
    fn what_no_known_protocol_begins_with_is_opaque_at_its_first_telling_byte() {
        let telling: [(&[u8], usize); 7] = [
            (b"*3\r\n$3\r\nSET", 4),
            (b"EHLO mail.example\r\n", 19),
            (b"PING\r\n", 6),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", 1),
            (b"\x16\x02", 2),
            (b"GET /\x01", 6),
            (b"GET / HTTP/2.0\r\n", 16),
        ];
        for (bytes, at) in telling {
            assert_eq!(name(&bytes[..at - 1]), if at == 1 { "nothing" } else { "undecided" }, "{bytes:?}");
            assert_eq!(name(&bytes[..at]), "opaque", "{bytes:?}");
        }
    }

    #[test]
    fn only_settings_may_come_before_the_client_speaks() {
        let settings = frame::settings(&[(3, 100), (4, 65_535)]);
        for cut in 0..settings.len() {
            assert!(judge_server(&settings[..cut]).is_none(), "{cut}");
        }
        assert!(matches!(judge_server(&settings), Some(Found::Http2 { .. })));
        let ack = frame::settings_ack();
        let others: [&[u8]; 5] =
            [b"220 mail.example ESMTP\r\n", b"+OK", b"J\0\0\0\x0a8.0.36", b"\0\0\x05\x04\0\0\0\0\0", &ack];
        for other in others {
            assert!(matches!(judge_server(other), Some(Found::Opaque(_))), "{other:?}");
        }
    }
}
