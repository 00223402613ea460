//! One unary call that is looked at closely, before and behind each load: what h2load cannot see.
//!
//! h2load counts statuses and bytes; that the message came back as it was and that the trailers say `grpc-status: 0` is seen here.

use super::client::Client;
use anyhow::ensure;
use std::net::SocketAddr;

/// A length-prefixed message with a payload of `payload_bytes`.
pub(super) fn message(payload_bytes: u32) -> Vec<u8> {
    let payload = (0..payload_bytes).map(|at| (at.wrapping_mul(31) >> 3) as u8);
    [0].into_iter().chain(payload_bytes.to_be_bytes()).chain(payload).collect()
}

/// Calls the echo at `address` and compares everything that a gRPC client would; the connection stays open as long as what is returned.
pub(super) fn check(address: SocketAddr, message: &[u8]) -> anyhow::Result<Client> {
    let mut client = Client::connect(address)?;
    client.begin("/attestry.bench.Echo/Unary");
    client.send(message, true)?;
    let mut echoed = Vec::new();
    client.answer(|data| {
        echoed.extend_from_slice(data);
        Ok(())
    })?;
    ensure!(echoed == message, "of {} bytes came back {} that are not the same", message.len(), echoed.len());
    Ok(client)
}
