//! Relays that lie, each in one way, and one that does not: they prove that the comparison sees such lies, and sees nothing where there is nothing.
//!
//! Each lie is one that real proxies tell. A lie about bytes is told of each read by itself, which is enough for the case that must uncover it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::duet::{Between, Played, addr_of, bind};

/// One way to lie.
#[derive(Clone, Copy)]
pub(crate) enum Lie {
    None,
    /// What becomes of the bytes of each read.
    Bytes(fn(&[u8]) -> Vec<u8>),
    /// A reset is passed on as an end in good order.
    ResetAsFin,
    /// An end in good order is passed on as a reset.
    FinAsReset,
    /// One side's end closes both directions.
    FinClosesBoth,
    /// One side's end is not passed on before the other's.
    FinWaits,
    /// The server's bytes wait for the client's first ones.
    ClientFirst,
}

/// The number of a lie among those of a test.
pub(crate) trait Lies {
    const LIES: &'static [Lie];
}

/// A relay that tells lie number `LIE` of `L`.
pub(crate) struct Crooked<L, const LIE: usize> {
    addr: SocketAddr,
    of: std::marker::PhantomData<L>,
}

impl<L: Lies, const LIE: usize> Between for Crooked<L, LIE> {
    fn start(upstream: SocketAddr) -> Self {
        let listener = bind();
        let addr = addr_of(&listener);
        // It ends with the test's process: nothing waits for it.
        thread::spawn(move || relay_all(&listener, upstream, L::LIES[LIE]));
        Self { addr, of: std::marker::PhantomData }
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn finish(self, _: &[Played]) -> Vec<String> {
        Vec::new()
    }
}

fn relay_all(listener: &TcpListener, upstream: SocketAddr, lie: Lie) {
    while let Ok((client, _)) = listener.accept() {
        let Ok(server) = TcpStream::connect(upstream) else { continue };
        let (client, server) = (Arc::new(client), Arc::new(server));
        for (from, to, is_client) in [(&client, &server, true), (&server, &client, false)] {
            let (from, to) = (Arc::clone(from), Arc::clone(to));
            let _ = to.set_nodelay(true);
            thread::spawn(move || {
                if matches!(lie, Lie::ClientFirst) && !is_client {
                    let _ = to.peek(&mut [0]);
                }
                pump(&from, &to, lie);
            });
        }
    }
}

/// Carries one direction to its end.
fn pump(mut from: &TcpStream, mut to: &TcpStream, lie: Lie) {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return ended(from, to, lie),
            Ok(count) => &buffer[..count],
            Err(error) => return broken(error.kind(), from, to, lie),
        };
        let written = if let Lie::Bytes(told) = lie { to.write_all(&told(read)) } else { to.write_all(read) };
        if written.is_err() {
            return reset(from, to);
        }
    }
}

fn ended(from: &TcpStream, to: &TcpStream, lie: Lie) {
    match lie {
        Lie::FinAsReset => reset(from, to),
        Lie::FinClosesBoth => {
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        }
        // Until it knows of the other side's end, or the test is over.
        Lie::FinWaits => while matches!(to.peek(&mut [0]), Ok(1)) {},
        _ => drop(to.shutdown(Shutdown::Write)),
    }
}

fn broken(error: ErrorKind, from: &TcpStream, to: &TcpStream, lie: Lie) {
    if error == ErrorKind::ConnectionReset && !matches!(lie, Lie::ResetAsFin) {
        reset(from, to);
    } else {
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Both);
    }
}

/// The reset leaves when the last handle goes: both threads have to let go, and a shutdown of what is read wakes the other one and puts nothing on the wire.
fn reset(from: &TcpStream, to: &TcpStream) {
    for socket in [from, to] {
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        let _ = socket.shutdown(Shutdown::Read);
    }
}
