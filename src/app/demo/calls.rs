//! The demo's calls: all four shapes through the sidecar, two that fail, and one that the client gives up.

use crate::generated::demo_v1::accounts_client::AccountsClient;
use crate::generated::demo_v1::{DepositRequest, GetBalanceRequest, StatementRequest, TransferRequest};
use anyhow::{Context as _, ensure};
use futures_util::stream;
use std::net::SocketAddr;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

type Client = AccountsClient<Channel>;

/// Makes the calls, and checks that they end as they would without a sidecar.
pub(super) async fn make(sidecar: SocketAddr) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(format!("http://{sidecar}"))?
        .connect()
        .await
        .context("cannot connect to the sidecar")?;
    let mut client = Client::new(channel);
    unary(&mut client).await?;
    streams(&mut client).await?;
    failures(&mut client).await?;
    cancelled(&mut client).await
}

async fn unary(client: &mut Client) -> anyhow::Result<()> {
    let mut request = Request::new(GetBalanceRequest { account: "alice".into() });
    // A secret, to be seen as a digest in the ledger, and something that is none.
    request.metadata_mut().insert("authorization", MetadataValue::from_static("Bearer alice-s-token"));
    request.metadata_mut().insert("x-request-purpose", MetadataValue::from_static("demo"));
    let balance = client.get_balance(request).await?.into_inner();
    ensure!(balance.account == "alice", "another account's balance came back");
    Ok(())
}

async fn streams(client: &mut Client) -> anyhow::Result<()> {
    let deposits = [12_00, 30_00, 5_50].map(|cents| DepositRequest { account: "bob".into(), cents });
    let sum = client.deposit(stream::iter(deposits)).await?.into_inner();
    ensure!((sum.deposits, sum.cents) == (3, 47_50), "the deposits were not summed");

    let request = StatementRequest { account: "alice".into(), follow: false };
    let mut lines = client.statement(request).await?.into_inner();
    let mut count = 0;
    while lines.message().await?.is_some() {
        count += 1;
    }
    ensure!(count == 3, "the statement has {count} lines");

    let transfers = [("alice", "bob", 700), ("bob", "nobody", 1)].map(|(from, to, cents)| TransferRequest {
        from: from.into(),
        to: to.into(),
        cents,
    });
    let mut answers = client.transfer(stream::iter(transfers)).await?.into_inner();
    let accepted = [answers.message().await?, answers.message().await?]
        .map(|answer| answer.is_some_and(|answer| answer.accepted));
    ensure!(accepted == [true, false], "the transfers were answered {accepted:?}");
    ensure!(answers.message().await?.is_none(), "more answers than transfers");
    Ok(())
}

async fn failures(client: &mut Client) -> anyhow::Result<()> {
    let unknown = client.get_balance(GetBalanceRequest { account: "mallory".into() }).await;
    ensure!(unknown.is_err_and(|status| status.code() == Code::NotFound), "an unknown account was found");
    let request = StatementRequest { account: "mallory".into(), follow: true };
    let unknown = client.statement(request).await;
    ensure!(
        unknown.is_err_and(|status| status.code() == Code::NotFound),
        "an unknown account has a statement"
    );
    Ok(())
}

/// A stream that the client leaves while the server would go on for ever.
async fn cancelled(client: &mut Client) -> anyhow::Result<()> {
    let request = StatementRequest { account: "bob".into(), follow: true };
    let mut lines = client.statement(request).await?.into_inner();
    ensure!(lines.message().await?.is_some(), "a statement without a line");
    drop(lines);
    // One more call on the same connection: its frames come behind the reset, so the reset is in the ledger when it is answered.
    client.get_balance(GetBalanceRequest { account: "bob".into() }).await?;
    Ok(())
}
