//! One call, made with a real HTTP/2 client and looked at closely, before anything is measured: what h2load cannot see.
//!
//! h2load counts statuses and bytes; that the message came back as it was and that the trailers say `grpc-status: 0` is seen here.

use anyhow::{Context as _, ensure};
use hyper::Request;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Longest wait for the one call.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Of a stream and of the connection: more than any message here, since the backend answers with whole ones.
const WINDOW_BYTES: u32 = 2 << 20;

/// A length-prefixed message with a payload of `payload_bytes`.
pub(super) fn message(payload_bytes: u32) -> Vec<u8> {
    let payload = (0..payload_bytes).map(|at| (at.wrapping_mul(31) >> 3) as u8);
    [0].into_iter().chain(payload_bytes.to_be_bytes()).chain(payload).collect()
}

/// Calls the echo at `address` and compares everything that a gRPC client would.
pub(super) fn check(address: SocketAddr, message: &[u8]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let answer = tokio::time::timeout(WAIT_MAX, call(address, message));
        answer.await.with_context(|| format!("no answer within {WAIT_MAX:?}"))?
    })
}

async fn call(address: SocketAddr, message: &[u8]) -> anyhow::Result<()> {
    let tcp = TcpStream::connect(address).await?;
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .handshake::<_, bytes::Bytes>(tcp)
        .await?;
    tokio::spawn(connection);
    let request = Request::post(super::load::url(address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut body) = client.ready().await?.send_request(request, false)?;
    body.send_data(message.to_vec().into(), true)?;

    let response = response.await?;
    ensure!(response.status() == 200, "the answer's HTTP status is {}", response.status());
    let content_type = response.headers().get("content-type");
    ensure!(
        content_type.is_some_and(|value| value == "application/grpc"),
        "the answer's content type is {content_type:?}"
    );
    let mut body = response.into_body();
    let mut echoed = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        echoed.extend_from_slice(&data);
    }
    ensure!(echoed == message, "of {} bytes came back {} that are not the same", message.len(), echoed.len());
    let trailers = body.trailers().await?.context("the answer has no trailers")?;
    let status = trailers.get("grpc-status");
    ensure!(status.is_some_and(|value| value == "0"), "the answer's grpc-status is {status:?}");
    Ok(())
}
