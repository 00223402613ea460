//! The benchmark's own gRPC server: h2c, every unary call answered with its message and `grpc-status: 0`, and next to no cost of its own.
//!
//! It runs as a process of its own (the benchmark's binary, told so by a flag), a blocking thread for each connection, and says on request how many calls it
//! has answered. What it speaks on a connection is `conversation`'s.

use super::conversation::{CALLS, Conversation};
use std::io::BufRead as _;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::thread;

/// Serves until standard input ends; answers each line of it with the number of calls so far.
pub(super) fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("listening on {}", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let served = stream.set_nodelay(true).map_err(anyhow::Error::from);
                served.and_then(|()| Conversation::new(stream).run()).map_err(|error| eprintln!("{error:#}"))
            });
        }
    });
    for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
        println!("{}", CALLS.load(Ordering::Relaxed));
    }
    Ok(())
}
