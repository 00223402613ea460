//! A plaintext gRPC service, and a client of it, over TLS by `openssl s_client` or without.

use attestry::generated::demo_v1::accounts_client::AccountsClient;
use attestry::generated::demo_v1::accounts_server::{Accounts, AccountsServer};
use attestry::generated::demo_v1::{
    DepositRequest, DepositResponse, GetBalanceRequest, GetBalanceResponse, StatementLine, StatementRequest,
    TransferRequest, TransferResponse,
};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::thread;
use tokio::process::Command;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::{BOUND, Scene};

pub(super) type Client = AccountsClient<Channel>;

/// Starts the service on a thread of its own, which ends with the tests.
pub(super) fn start() -> SocketAddr {
    let (ready, address) = channel();
    thread::spawn(move || {
        run(async move {
            let incoming =
                TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_nodelay(Some(true));
            ready.send(incoming.local_addr().unwrap()).unwrap();
            Server::builder()
                .add_service(AccountsServer::new(Bank))
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
    });
    address.recv_timeout(BOUND).unwrap()
}

/// Runs a client's part of a test.
pub(super) fn run<T>(part: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(part)
}

/// Runs it bounded.
pub(super) fn run_bounded<T>(part: impl Future<Output = T>) -> T {
    run(async { tokio::time::timeout(BOUND, part).await.expect("the test must end by itself") })
}

pub(super) async fn plaintext(address: SocketAddr) -> Client {
    Client::new(Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap())
}

/// A client whose bytes OpenSSL carries in TLS with ALPN h2.
pub(super) async fn over_tls(scene: &Scene, address: SocketAddr, arguments: &[&str]) -> Client {
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-quiet",
        "-connect",
        &address.to_string(),
        "-servername",
        "a.example",
        "-alpn",
        "h2",
    ]);
    command
        .args(["-CAfile", scene.authority.certificate.to_str().unwrap(), "-verify_return_error"])
        .args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = Some(command);
    let connector = tower::service_fn(move |_| {
        let spawned = child.take().map(|mut command| command.spawn().unwrap());
        async move {
            let mut spawned = spawned.ok_or_else(|| io::Error::other("a second connection"))?;
            let stream = tokio::io::join(spawned.stdout.take().unwrap(), spawned.stdin.take().unwrap());
            // It lives as long as its streams: at their end it ends by itself.
            tokio::spawn(async move { spawned.wait().await });
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://a.example");
    Client::new(endpoint.connect_with_connector(connector).await.unwrap())
}

/// One call of each shape that a test needs, checked.
pub(super) async fn calls(client: &mut Client) {
    let balance =
        client.get_balance(GetBalanceRequest { account: "alice".into() }).await.unwrap().into_inner();
    assert_eq!(balance.cents, 5);
    let missing = client.get_balance(GetBalanceRequest { account: "nobody".into() }).await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (tonic::Code::NotFound, "no account nobody"));
    let large = "x".repeat(300_000);
    let transfers: Vec<_> = (1..4).map(|cents| transfer(&large, cents)).collect();
    let mut answers = client.transfer(futures_util::stream::iter(transfers)).await.unwrap().into_inner();
    for _ in 0..3 {
        assert_eq!(answers.message().await.unwrap().unwrap().reason, large);
    }
    assert!(answers.message().await.unwrap().is_none());
}

pub(super) fn transfer(from: &str, cents: i64) -> TransferRequest {
    TransferRequest { from: from.into(), to: String::new(), cents }
}

/// Answers each transfer with its own text.
struct Bank;

#[tonic::async_trait]
impl Accounts for Bank {
    type StatementStream = BoxStream<'static, Result<StatementLine, Status>>;
    type TransferStream = BoxStream<'static, Result<TransferResponse, Status>>;

    async fn get_balance(
        &self,
        request: Request<GetBalanceRequest>,
    ) -> Result<Response<GetBalanceResponse>, Status> {
        let account = request.into_inner().account;
        if account == "nobody" {
            return Err(Status::not_found("no account nobody"));
        }
        Ok(Response::new(GetBalanceResponse { account, cents: 5 }))
    }

    async fn deposit(
        &self,
        _: Request<Streaming<DepositRequest>>,
    ) -> Result<Response<DepositResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }

    async fn statement(
        &self,
        _: Request<StatementRequest>,
    ) -> Result<Response<Self::StatementStream>, Status> {
        Err(Status::unimplemented("not used"))
    }

    async fn transfer(
        &self,
        request: Request<Streaming<TransferRequest>>,
    ) -> Result<Response<Self::TransferStream>, Status> {
        let answers = request
            .into_inner()
            .map(|request| Ok(TransferResponse { accepted: true, reason: request?.from }));
        Ok(Response::new(answers.boxed()))
    }
}
