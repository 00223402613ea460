//! Local answers: a connection whose calls attestry answers itself, because the ledger does not commit or the upstream cannot be reached.
//!
//! A small HTTP server over the same pipe as the relay's, whose far end is the client again: each call is recorded, then answered. Nothing goes upstream. The client is told
//! to open a new connection after its first answer, and the connection ends soon, so that the next one tries again. Where no answer can be given (an HTTP/1 response
//! has begun, or the protocol is opaque), the caller resets the connection.

use super::CommitPort;
use super::answers::Dialect;
use super::link::Link;
use super::pipe::{Pipe, Ready};
use super::session::{Session, Taken};
use crate::capture::{Direction, Milestone};
use crate::http2::{code, frame};
use crate::limits::{LINGER_BYTES_MAX, LINGER_MS, LOCAL_ANSWERS_MS};
use bytes::BytesMut;
use std::future::{Future as _, poll_fn};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// Calls are answered on a new connection, whose client has nothing yet and has sent `early`.
pub(super) async fn answer_new<C: CommitPort>(
    session: &mut Session<C>,
    client: &Link,
    early: BytesMut,
    reason: &str,
) -> u64 {
    let mut pipe = Pipe::new(session.options.port.clone(), session.options.hold_bytes_max, early);
    pipe.inject(session.answers.preamble());
    answer(session, client, pipe, reason).await
}

/// Calls are answered from here on, on a connection that was relayed: its open calls first, behind what the client was being sent.
pub(super) async fn answer_rest<C: CommitPort>(
    session: &mut Session<C>,
    client: &Link,
    mut pipe: Pipe<C>,
    reason: &str,
) -> u64 {
    if pipe.written == 0 && pipe.is_empty() {
        pipe.inject(session.answers.preamble());
    }
    answer(session, client, pipe, reason).await
}

/// Returns the bytes that the client was sent.
async fn answer<C: CommitPort>(
    session: &mut Session<C>,
    client: &Link,
    mut pipe: Pipe<C>,
    reason: &str,
) -> u64 {
    let mut deadline = Box::pin(sleep(Duration::from_millis(LOCAL_ANSWERS_MS)));
    let mut told = false;
    answer_open(session, &mut pipe, reason, &mut told);
    loop {
        if pipe.is_ended && pipe.is_empty() && client.is_flushed() {
            return pipe.written;
        }
        // The deadline first: a client that never stops sending must not keep it from being looked at.
        let next = |cx: &mut Context<'_>| match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => {
                // What TLS could not send is written again with the next bytes, or found missing at the end.
                let _ = client.poll_flush(cx);
                pipe.poll(cx, client, client, true).map(Some)
            }
        };
        let result = match poll_fn(next).await {
            // It has had its GOAWAY, and does not read it.
            None if pipe.is_ended => return pipe.written,
            None => {
                pipe.end();
                pipe.inject(session.answers.goaway_finally(code::NO_ERROR, reason));
                deadline.as_mut().reset(Instant::now() + Duration::from_millis(LINGER_MS));
                Ok(())
            }
            // Recorded or not, the answer is attestry's own: nothing of the peers' is released by it.
            Some(Ready::Receipt(_)) => {
                pipe.release();
                Ok(())
            }
            Some(Ready::Write) => pipe.write(client),
            Some(Ready::More) => {
                observe(session, &mut pipe, reason, &mut told);
                Ok(())
            }
            Some(Ready::Read) => read(session, client, &mut pipe, reason, &mut told),
        };
        match result {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return pipe.written,
            _ => {}
        }
    }
}

fn read<C: CommitPort>(
    session: &mut Session<C>,
    client: &Link,
    pipe: &mut Pipe<C>,
    reason: &str,
    told: &mut bool,
) -> io::Result<()> {
    let direction = Direction::ClientToServer;
    let wanted = session.bytes_wanted(direction, pipe.buffered());
    let read = pipe.read(client, wanted);
    if !matches!(read, Ok(1..)) {
        pipe.give_place_back();
    }
    if read? == 0 {
        pipe.is_ended = true;
    } else {
        observe(session, pipe, reason, told);
    }
    Ok(())
}

fn observe<C: CommitPort>(session: &mut Session<C>, pipe: &mut Pipe<C>, reason: &str, told: &mut bool) {
    let direction = Direction::ClientToServer;
    while let Some(Taken { observed, .. }) = session.observe(pipe, direction) {
        let mut reply = Vec::new();
        for milestone in observed.milestones {
            match milestone {
                Milestone::Settings => reply.extend(frame::settings_ack()),
                Milestone::Ping(opaque) => reply.extend(frame::ping(true, opaque)),
                other => session.answers.apply(other),
            }
        }
        pipe.hold(reply.into(), 0, observed.submission, Vec::new());
        answer_open(session, pipe, reason, told);
        if let Some(failure) = observed.failure {
            pipe.end();
            if session.speaks_http2() {
                pipe.inject(session.answers.goaway_finally(failure.code, &failure.reason));
            }
            break;
        }
    }
}

/// Answers what is open, once the ledger has it (or cannot have it), and tells the client to connect anew.
fn answer_open<C: CommitPort>(session: &mut Session<C>, pipe: &mut Pipe<C>, reason: &str, told: &mut bool) {
    let streams = session.answers.streams();
    if streams.is_empty() {
        return;
    }
    session.options.counters.refused_calls.add(streams.len() as u64);
    let submission = session.answered(&streams, reason);
    let mut reply = session.answers.answer_all(reason);
    if session.answers.dialect() == Dialect::Http1 {
        pipe.hold(reply.into(), 0, submission, Vec::new());
        return pipe.end();
    }
    if !std::mem::replace(told, true) {
        reply.extend(session.answers.goaway_gracefully(reason));
    }
    pipe.hold(reply.into(), 0, submission, Vec::new());
}

/// Lets the client read what it was sent last: closing a socket with unread bytes in it would take the answer back.
pub(super) async fn linger(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
    let drain = async {
        let (mut sink, mut taken) = (vec![0; 16 * 1024], 0);
        while taken < LINGER_BYTES_MAX && stream.readable().await.is_ok() {
            match stream.try_read(&mut sink) {
                Ok(0) => break,
                Ok(read) => taken += read,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(LINGER_MS), drain).await;
}
