//! The admin endpoints: `/livez`, `/readyz`, `/startupz`, and `POST /drain`, over HTTP/1.1 on `[admin] listen`.
//!
//! Invariants: it has a thread and a runtime of its own, so that no probe waits behind traffic and no traffic behind a
//! probe; one request for each connection, its head bounded in bytes and time, its body never read; connections are
//! bounded, and one over the bound is closed. Nothing here ends the process or a connection of the data path: `/drain`
//! takes readiness away, no more. What the answers mean is in `life`; who asks on the command line is in `cli::probe`.

use super::life::{Life, Readiness};
use crate::limits;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The admin's thread; it ends when this is dropped.
pub struct Admin {
    closing: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Answers on `address` from now on. Start it first: `/startupz` tells of the start.
    pub fn start(address: SocketAddr, life: Arc<Life>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let closing = CancellationToken::new();
        let closed = closing.clone();
        let run = move || {
            let tasks = LocalSet::new();
            // What is still open when this ends goes with it: nobody asks a process that has ended.
            let _ = tasks.block_on(&runtime, closed.run_until_cancelled(accept(listener, life)));
        };
        let thread = Some(thread::Builder::new().name("admin".into()).spawn(run)?);
        tracing::info!(%address, "admin endpoints");
        Ok(Self { closing, thread })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.closing.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, life: Arc<Life>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin endpoints cannot be served"),
    };
    let places = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without a place it is closed at once; a probe that finds no place asks again.
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let life = Arc::clone(&life);
                tokio::task::spawn_local(async move {
                    serve(stream, life).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "an admin connection could not be accepted");
                sleep(Duration::from_millis(limits::ADMIN_ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

/// One connection, one request. The longest answer is that to a `/drain` that waits.
async fn serve(stream: TcpStream, life: Arc<Life>) {
    let service = service_fn(move |request| {
        let life = Arc::clone(&life);
        async move { Ok::<_, Infallible>(answer(&life, &request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits::ADMIN_REQUEST_MS))
        .max_buf_size(limits::ADMIN_REQUEST_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let limit = Duration::from_millis(limits::PRE_STOP_WAIT_MS_MAX + 2 * limits::ADMIN_REQUEST_MS);
    match timeout(limit, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection ended"),
        Err(_) => tracing::debug!("an admin connection was ended: it took too long"),
    }
}

async fn answer(life: &Life, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/livez" | "/readyz" | "/startupz" if !is_get => not_allowed("GET, HEAD"),
        "/drain" if request.method() != Method::POST => not_allowed("POST"),
        "/livez" => text(StatusCode::OK, "alive"),
        "/startupz" if life.has_started() => text(StatusCode::OK, "started"),
        "/startupz" => text(StatusCode::SERVICE_UNAVAILABLE, "starting"),
        "/readyz" => readiness(&life.readiness()),
        "/drain" => match Wait::parse(request.uri().query().unwrap_or_default()) {
            Ok(wait) => drain(life, wait).await,
            Err(problem) => text(StatusCode::BAD_REQUEST, &problem),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz, /startupz and POST /drain"),
    }
}

fn readiness(readiness: &Readiness) -> Response<Full<Bytes>> {
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(status, &readiness.to_string())
}

/// What a `/drain` waits for: no inbound connection open for `quiet`, or `most` over.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wait {
    most: Duration,
    quiet: Duration,
}

impl Wait {
    /// `wait_ms=N&quiet_ms=N`, both zero where absent.
    fn parse(query: &str) -> Result<Self, String> {
        let mut wait = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let millis = value.parse().ok().filter(|millis| *millis <= limits::PRE_STOP_WAIT_MS_MAX);
            let most = limits::PRE_STOP_WAIT_MS_MAX;
            let millis = millis.ok_or_else(|| format!("{name} must be from 0 to {most} milliseconds"));
            match name {
                "wait_ms" => wait.most = Duration::from_millis(millis?),
                "quiet_ms" => wait.quiet = Duration::from_millis(millis?),
                _ => return Err("the parameters of /drain are wait_ms and quiet_ms".to_owned()),
            }
        }
        Ok(wait)
    }
}

async fn drain(life: &Life, wait: Wait) -> Response<Full<Bytes>> {
    life.drain();
    if wait.most > Duration::ZERO {
        // Whether it became quiet or not, the caller goes on.
        let _ = timeout(wait.most, life.inbound_is_quiet(wait.quiet)).await;
    }
    text(StatusCode::OK, &format!("draining; {} inbound connections are open", life.inbound_open()))
}

fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &format!("allowed here: {methods}"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{line}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_of_a_drain_is_strict_and_bounded() {
        let millis = Duration::from_millis;
        assert_eq!(Wait::parse("").unwrap(), Wait::default());
        let both = Wait { most: millis(10), quiet: millis(5) };
        assert_eq!(Wait::parse("wait_ms=10&quiet_ms=5").unwrap(), both);
        for wrong in ["wait_ms", "wait_ms=", "wait_ms=-1", "wait_ms=1s", "wait=1", "wait_ms=99999999"] {
            assert!(Wait::parse(wrong).is_err(), "{wrong}");
        }
    }
}
