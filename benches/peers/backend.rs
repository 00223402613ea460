//! The benchmark's own gRPC servers, each on a port of its own, over h2c and at next to no cost: an echo of unary calls, a stream of messages, a sink for uploads.
//!
//! They run as one process (the benchmark's binary, told so by a flag), a blocking thread for each connection, which says on request how many unary calls it
//! has answered. What the echo speaks on a connection is `conversation`'s; the others are in `bulk_service`.

use super::bulk_service::{Bulk, BulkService};
use super::conversation::{CALLS, Conversation};
use std::io::BufRead as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;

/// What a port serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Echo,
    Stream,
    Sink,
}

const SERVICES: [Service; 3] = [Service::Echo, Service::Stream, Service::Sink];

/// Serves until standard input ends; answers each line of it with the number of unary calls so far.
pub(super) fn serve() -> anyhow::Result<()> {
    let mut addresses = Vec::new();
    for service in SERVICES {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        addresses.push(listener.local_addr()?.to_string());
        thread::spawn(move || accept(&listener, service));
    }
    println!("listening on {}", addresses.join(" "));
    for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
        println!("{}", CALLS.load(Ordering::Relaxed));
    }
    Ok(())
}

fn accept(listener: &TcpListener, service: Service) {
    for stream in listener.incoming().map_while(Result::ok) {
        thread::spawn(move || answer(stream, service).map_err(|error| eprintln!("{service:?}: {error:#}")));
    }
}

fn answer(stream: TcpStream, service: Service) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    match service {
        Service::Echo => Conversation::new(stream).run(),
        Service::Stream => BulkService::new(stream, Bulk::Stream).run(),
        Service::Sink => BulkService::new(stream, Bulk::Sink).run(),
    }
}
