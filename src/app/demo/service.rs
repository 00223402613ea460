//! The sample service of the demo: a few accounts, one method of each shape, with health and reflection, on a port of its own.

use crate::generated::demo_v1::accounts_server::{Accounts, AccountsServer};
use crate::generated::demo_v1::{
    DepositRequest, DepositResponse, FILE_DESCRIPTOR_SET, GetBalanceRequest, GetBalanceResponse,
    StatementLine, StatementRequest, TransferRequest, TransferResponse,
};
use anyhow::Context as _;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// The lines of every statement.
const LINES: [(&str, i64); 3] = [("salary", 310_000), ("rent for November", -98_000), ("coffee", -430)];

/// Starts the service on the current runtime; returns its address.
pub(super) async fn start() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on 127.0.0.1")?;
    let address = listener.local_addr()?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<AccountsServer<Bank>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let server =
        Server::builder().add_service(AccountsServer::new(Bank)).add_service(health).add_service(reflection);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
    Ok(address)
}

/// The service. It keeps nothing: what it says depends on what it is asked alone.
struct Bank;

fn check(account: &str) -> Result<(), Status> {
    match account {
        "alice" | "bob" => Ok(()),
        _ => Err(Status::not_found(format!("no account \"{account}\""))),
    }
}

#[tonic::async_trait]
impl Accounts for Bank {
    type StatementStream = BoxStream<'static, Result<StatementLine, Status>>;
    type TransferStream = BoxStream<'static, Result<TransferResponse, Status>>;

    async fn get_balance(
        &self,
        request: Request<GetBalanceRequest>,
    ) -> Result<Response<GetBalanceResponse>, Status> {
        let account = request.into_inner().account;
        check(&account)?;
        Ok(Response::new(GetBalanceResponse { account, cents: LINES.iter().map(|line| line.1).sum() }))
    }

    async fn deposit(
        &self,
        request: Request<Streaming<DepositRequest>>,
    ) -> Result<Response<DepositResponse>, Status> {
        let mut requests = request.into_inner();
        let mut sum = DepositResponse { deposits: 0, cents: 0 };
        while let Some(deposit) = requests.message().await? {
            check(&deposit.account)?;
            sum.deposits += 1;
            sum.cents = sum.cents.saturating_add(deposit.cents);
        }
        Ok(Response::new(sum))
    }

    async fn statement(
        &self,
        request: Request<StatementRequest>,
    ) -> Result<Response<Self::StatementStream>, Status> {
        let StatementRequest { account, follow } = request.into_inner();
        check(&account)?;
        let lines = stream::iter((1..).zip(LINES))
            .map(|(line, (text, cents))| Ok(StatementLine { line, text: text.into(), cents }));
        Ok(Response::new(if follow { lines.chain(stream::pending()).boxed() } else { lines.boxed() }))
    }

    async fn transfer(
        &self,
        request: Request<Streaming<TransferRequest>>,
    ) -> Result<Response<Self::TransferStream>, Status> {
        Ok(Response::new(answers(request.into_inner()).boxed()))
    }
}

fn answers(
    requests: impl Stream<Item = Result<TransferRequest, Status>>,
) -> impl Stream<Item = Result<TransferResponse, Status>> {
    requests.map(|request| {
        let TransferRequest { from, to, cents } = request?;
        let refusal = check(&from).and_then(|()| check(&to)).err().map(|status| status.message().to_owned());
        let refusal = refusal.or_else(|| (cents <= 0).then(|| "a transfer moves more than nothing".into()));
        Ok(TransferResponse { accepted: refusal.is_none(), reason: refusal.unwrap_or_default() })
    })
}
