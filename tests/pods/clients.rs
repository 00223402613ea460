//! The clients of the thousand: each slot has one connection at a time, calls on it without a pause, and connects anew where it has to.
//!
//! A call carries an id that no other has: the path of gRPC, the target of HTTP/1, a text of the others. Nothing is tried twice under one id. How a failure
//! is to be judged is the test's; here it is only told apart by what the client can know.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::kinds::Kind;
use super::tally::{CONNECT, Failure, Line, Tally};
use super::wire::{Counted, Stream, Tls, Wire};

/// The longest that a call may take; connections of a thousand others may be in its way.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two attempts to connect where nobody listens.
const RETRY: Duration = Duration::from_millis(20);

/// Calls on a connection that is brief.
const BRIEF_CALLS: u64 = 4;

/// Messages of a stream.
const STREAM_MESSAGES: usize = 3;

/// Connections that are begun at a time: more would measure the backlog of the listeners.
const CONNECTING_MAX: usize = 128;

/// What all slots share.
pub(crate) struct Clients {
    pub(crate) tally: Tally,
    /// Where each kind is dialled.
    pub(crate) address: fn(Kind) -> SocketAddr,
    pub(crate) sealed: Arc<ClientConfig>,
    pub(crate) secure: Arc<ClientConfig>,
    pub(crate) connecting: Semaphore,
}

impl Clients {
    pub(crate) fn places() -> Semaphore {
        Semaphore::new(CONNECTING_MAX)
    }
}

/// One connection, while it is used.
struct Session {
    clients: Rc<Clients>,
    slot: usize,
    kind: Kind,
    /// Names calls.
    next: Rc<Cell<u64>>,
    /// Calls completed on this connection.
    calls: Cell<u64>,
}

/// A failure that has been told already, or an end that is none.
struct Over;

/// How a sidecar that was dialled itself begins to say, by UNAVAILABLE, that it cannot connect, in place of a refused connection: nobody was there,
/// or the service's sidecar, which had nobody behind it, reset the connection before TLS was up.
const NO_UPSTREAM: [&str; 2] = ["attestry: upstream ", "the TLS handshake with the server failed: "];

/// How a call was answered.
enum Answer {
    Right,
    NoUpstream,
    Wrong(String),
}

/// One slot, until it is told to stop.
pub(crate) async fn run(clients: Rc<Clients>, slot: usize) {
    let (kind, next) = (Kind::of(slot), Rc::new(Cell::new(0)));
    while !clients.tally.is_stopping() {
        let place = clients.connecting.acquire().await.unwrap();
        let connected = timeout(PATIENCE, TcpStream::connect((clients.address)(kind))).await;
        let socket = match connected.unwrap_or(Err(io::ErrorKind::TimedOut.into())) {
            Ok(socket) => socket,
            Err(error) => {
                let failure = match error.kind() {
                    io::ErrorKind::ConnectionRefused => Failure::Refused,
                    // Accepted and reset before this was noticed here.
                    io::ErrorKind::ConnectionReset => Failure::NotServed,
                    _ => Failure::Wrong,
                };
                clients.tally.failed(kind, failure, CONNECT, error.to_string());
                drop(place);
                sleep(RETRY).await;
                continue;
            }
        };
        drop(place);
        let session =
            Session { clients: Rc::clone(&clients), slot, kind, next: Rc::clone(&next), calls: Cell::new(0) };
        if session.run(socket).await == 0 {
            sleep(RETRY).await;
        }
    }
}

impl Session {
    /// Uses the connection to its end; how many calls were completed on it.
    async fn run(self, socket: TcpStream) -> u64 {
        socket.set_nodelay(true).unwrap();
        let (stream, count) = Counted::new(socket);
        let is_clean = match self.kind {
            Kind::Sealed => match self.open(stream, &self.clients.sealed).await {
                Ok(stream) => self.talk(stream).await.is_ok(),
                Err(Over) => false,
            },
            Kind::Secure => match self.open(stream, &self.clients.secure).await {
                Ok(stream) => self.talk(stream).await.is_ok(),
                Err(Over) => false,
            },
            _ => self.talk(stream).await.is_ok(),
        };
        let (kind, calls, [sent, received]) = (self.kind, self.calls.get(), [count[0].get(), count[1].get()]);
        self.clients.tally.connection(Line::Connection { kind, sent, received, calls, is_clean });
        calls
    }

    async fn open(&self, stream: Counted, config: &Arc<ClientConfig>) -> Result<Tls<Counted>, Over> {
        let connecting = Tls::connect(stream, Arc::clone(config), "pods.example");
        match timeout(PATIENCE, connecting).await.unwrap_or(Err(io::ErrorKind::TimedOut.into())) {
            Ok(tls) => {
                if self.kind == Kind::Secure {
                    self.clients.tally.certificate(tls.peer().unwrap());
                }
                Ok(tls)
            }
            Err(error) => Err(self.broken("handshake", &error)),
        }
    }

    async fn talk<S: Stream>(&self, stream: S) -> Result<(), Over> {
        match self.kind {
            Kind::Grpc | Kind::Secure | Kind::Mesh => self.grpc(stream).await,
            Kind::Http1 => self.http1(Wire::new(stream)).await,
            Kind::Greeting => self.greeting(Wire::new(stream)).await,
            Kind::Chatter | Kind::Sealed => self.chatter(Wire::new(stream)).await,
        }
    }

    /// Whether another call is made on this connection.
    fn goes_on(&self) -> bool {
        let is_over = self.kind.is_brief() && self.calls.get() >= BRIEF_CALLS;
        !is_over && !self.clients.tally.is_stopping()
    }

    fn name(&self) -> String {
        let number = self.next.replace(self.next.get() + 1);
        format!("{}-{}-{number}", self.kind, self.slot)
    }

    fn completed(&self, id: String) {
        self.calls.set(self.calls.get() + 1);
        self.clients.tally.completed(self.slot, self.kind, id);
    }

    fn failed(&self, failure: Failure, id: &str, why: String) -> Over {
        self.clients.tally.failed(self.kind, failure, id, why);
        Over
    }

    /// The connection broke.
    fn broken(&self, id: &str, error: &io::Error) -> Over {
        let is_end = matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
        );
        let failure = match self.calls.get() {
            _ if !is_end => Failure::Wrong,
            0 => Failure::NotServed,
            _ => Failure::InFlight,
        };
        self.failed(failure, id, error.to_string())
    }

    async fn bounded<T>(&self, id: &str, step: impl Future<Output = io::Result<T>>) -> Result<T, Over> {
        let step = timeout(PATIENCE, step).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
        step.map_err(|error| self.broken(id, &error))
    }

    fn compare(&self, id: &str, answer: &[u8], expected: &[u8]) -> Result<(), Over> {
        if answer == expected {
            return Ok(());
        }
        let answer = String::from_utf8_lossy(answer);
        Err(self.failed(Failure::Wrong, id, format!("answered with {answer:?}")))
    }

    async fn http1<S: Stream>(&self, mut wire: Wire<S>) -> Result<(), Over> {
        while self.goes_on() {
            let id = self.name();
            let before = wire.received;
            let answer =
                timeout(PATIENCE, get(&mut wire, &id)).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
            let (head, body) = match answer {
                // RFC 9112 section 9.3.1: a connection may end between two requests, and one that was just sent is tried again.
                Err(error)
                    if error.kind() != io::ErrorKind::TimedOut
                        && self.calls.get() > 0
                        && wire.received == before =>
                {
                    return Err(self.failed(Failure::TryAgain, &id, error.to_string()));
                }
                answer => answer.map_err(|error| self.broken(&id, &error))?,
            };
            self.compare(&id, head.as_bytes().get(..15).unwrap_or_default(), b"HTTP/1.1 200 OK")?;
            self.compare(&id, &body, format!("/{id}").as_bytes())?;
            self.completed(id);
        }
        self.bounded("end", async {
            wire.stream.shutdown().await?;
            wire.end().await
        })
        .await
    }

    async fn greeting<S: Stream>(&self, mut wire: Wire<S>) -> Result<(), Over> {
        let greeting = self.bounded("greeting", wire.until(b"\r\n")).await?;
        self.compare("greeting", &greeting, b"220 pods\r\n")?;
        while self.goes_on() {
            let id = self.name();
            let answer = self.bounded(&id, async {
                wire.send(format!("NOOP {id}\r\n").as_bytes()).await?;
                wire.until(b"\r\n").await
            });
            self.compare(&id, &answer.await?, format!("250 NOOP {id}\r\n").as_bytes())?;
            self.completed(id);
        }
        let farewell = self.bounded("end", async {
            wire.send(b"QUIT\r\n").await?;
            let farewell = wire.until(b"\r\n").await?;
            wire.end().await.map(|()| farewell)
        });
        self.compare("end", &farewell.await?, b"221 bye\r\n")
    }

    async fn chatter<S: Stream>(&self, mut wire: Wire<S>) -> Result<(), Over> {
        while self.goes_on() {
            let id = self.name();
            let answer = self.bounded(&id, async {
                let length = u16::try_from(id.len()).unwrap().to_be_bytes();
                wire.send(&[&length, id.as_bytes()].concat()).await?;
                wire.take(2 + id.len()).await
            });
            self.compare(&id, &answer.await?[2..], id.as_bytes())?;
            self.completed(id);
        }
        let told = self.bounded("end", async {
            wire.stream.shutdown().await?;
            let told = wire.take(4).await?;
            wire.end().await.map(|()| told)
        });
        self.compare("end", &told.await?, &u32::try_from(self.calls.get()).unwrap().to_be_bytes())
    }

    /// A unary call and a stream at a time.
    async fn grpc<S: Stream>(&self, stream: S) -> Result<(), Over> {
        let handshake = timeout(PATIENCE, h2::client::handshake(stream)).await;
        let (requests, connection) = match handshake {
            Ok(Ok(ends)) => ends,
            Ok(Err(error)) => return Err(self.h2_failed("handshake", &error)),
            Err(_) => return Err(self.failed(Failure::Wrong, "handshake", "not done in time".into())),
        };
        let connection = spawn_local(connection);
        let mut outcome = Ok(());
        while outcome.is_ok() && self.goes_on() {
            // An end between two calls is nobody's failure.
            let Ok(requests) = requests.clone().ready().await else { break };
            let (unary, stream) =
                tokio::join!(self.call(requests.clone(), 1), self.call(requests, STREAM_MESSAGES));
            outcome = unary.and(stream);
        }
        drop(requests);
        // How it ended the calls have told.
        let ended = timeout(PATIENCE, connection).await;
        if ended.is_err() {
            return Err(self.failed(Failure::Wrong, "end", "the connection does not end".into()));
        }
        outcome
    }

    async fn call(&self, requests: SendRequest<Bytes>, messages: usize) -> Result<(), Over> {
        let id = self.name();
        match timeout(PATIENCE, exchange(requests, &id, messages)).await {
            Ok(Ok(Answer::Right)) => {
                self.completed(id);
                Ok(())
            }
            Ok(Ok(Answer::NoUpstream)) => Err(self.failed(Failure::Refused, &id, "UNAVAILABLE".into())),
            Ok(Ok(Answer::Wrong(wrong))) => Err(self.failed(Failure::Wrong, &id, wrong)),
            Ok(Err(error)) => Err(self.h2_failed(&id, &error)),
            Err(_) => Err(self.failed(Failure::Wrong, &id, "no end in time".into())),
        }
    }

    fn h2_failed(&self, id: &str, error: &h2::Error) -> Over {
        if let Some(error) = error.get_io() {
            return self.broken(id, error);
        }
        let may_retry = error.reason().is_some_and(|reason| {
            (error.is_go_away() && reason == h2::Reason::NO_ERROR)
                || (error.is_reset() && reason == h2::Reason::REFUSED_STREAM)
        });
        let failure = if may_retry { Failure::TryAgain } else { Failure::Wrong };
        self.failed(failure, id, error.to_string())
    }
}

/// The head of an answer, and its body.
async fn get<S: Stream>(wire: &mut Wire<S>, id: &str) -> io::Result<(String, Vec<u8>)> {
    wire.send(format!("GET /{id} HTTP/1.1\r\nHost: pods.example\r\n\r\n").as_bytes()).await?;
    let head = String::from_utf8(wire.until(b"\r\n\r\n").await?).map_err(io::Error::other)?;
    if head.contains("chunked") {
        let body = wire.until(b"\r\n0\r\n\r\n").await?;
        let from = body.windows(2).position(|end| end == b"\r\n").unwrap_or(0) + 2;
        return Ok((head, body[from..body.len() - 7].to_vec()));
    }
    let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let length = length
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no length in {head}")))?;
    Ok((head, wire.take(length).await?))
}

/// A call that echoes so many messages, each sent when the one before has come back; says what is wrong with the answer.
async fn exchange(mut requests: SendRequest<Bytes>, id: &str, messages: usize) -> Result<Answer, h2::Error> {
    let request = Request::builder().method("POST").uri(format!("http://pods.example/pods.Echo/{id}"));
    let request =
        request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap();
    let (response, mut body) = requests.send_request(request, false)?;
    drop(requests);
    let length = u32::try_from(id.len()).unwrap().to_be_bytes();
    let message = Bytes::from([&[0], &length[..], id.as_bytes()].concat());
    // Where the stream has ended already, the response says how.
    let _ = body.send_data(message.clone(), messages == 1);
    let response = response.await?;
    if response
        .headers()
        .get("grpc-message")
        .and_then(|message| message.to_str().ok())
        .is_some_and(|message| NO_UPSTREAM.iter().any(|beginning| message.starts_with(beginning)))
    {
        return Ok(Answer::NoUpstream);
    }
    if response.status() != 200 || response.headers().contains_key("grpc-status") {
        return Ok(Answer::Wrong(format!("{response:?}")));
    }
    let mut answer = response.into_body();
    for number in 1..=messages {
        let mut received = Vec::new();
        while received.len() < message.len() {
            let Some(piece) = answer.data().await else {
                return Ok(Answer::Wrong(format!("ended after {number} messages")));
            };
            let piece = piece?;
            answer.flow_control().release_capacity(piece.len())?;
            received.extend_from_slice(&piece);
        }
        if received != message {
            return Ok(Answer::Wrong(format!("answered with {received:?}")));
        }
        if number < messages {
            let _ = body.send_data(message.clone(), number + 1 == messages);
        }
    }
    let trailers = answer.trailers().await?.unwrap_or_default();
    let is_well = trailers.get("grpc-status").is_some_and(|status| status == "0");
    Ok(if is_well { Answer::Right } else { Answer::Wrong(format!("{trailers:?}")) })
}
