//! The tonic server of the interop tests, in the test's own process: `interop.proto` says what a request makes it do.
//!
//! What the other peers do, in tonic's words. It answers compressed where the request's metadata has `x-gzip-answers`,
//! as tonic knows no compression per call but what the client accepts.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};

use super::cases::{hex, payload};
use super::generated::control_server::{Control, ControlServer};
use super::generated::interop_server::{Interop, InteropServer};
use super::generated::{self as pb, await_request::State};

const AWAIT_BOUND: Duration = Duration::from_secs(10);
const STALL_SAMPLE: Duration = Duration::from_millis(50);
const STALL_SAMPLES: u32 = 10;
/// Room for the 60 KiB of metadata that a case sends.
pub(super) const HEADER_LIST_BYTES_MAX: u32 = 256 * 1024;
/// h2 ends a connection (ENHANCE_YOUR_CALM, too_many_data_frames) over unread small DATA frames, at 256 bytes less their
/// size each, once they use up half of this. At hyper's 1 MiB, 2,300 small messages that are read at once are too many,
/// with or without a relay; at this, the 63,000 frames of `no_df_padding_sanity_test` pass.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 40 * 1024 * 1024;
/// More than the 500 calls that a case opens at once; hyper's own limit is 200.
const STREAMS_MAX: u32 = 1000;

/// The metadata of a call whose answers are to be compressed.
pub(super) const GZIP_ANSWERS: &str = "x-gzip-answers";

/// A running server; it ends when it is dropped, or with its graceful shutdown.
pub(super) struct TonicServer {
    pub(super) addr: SocketAddr,
    ended: Receiver<()>,
    _stop: oneshot::Sender<()>,
}

impl TonicServer {
    pub(super) fn start() -> Self {
        let (ready, listening) = channel();
        let (end, ended) = channel();
        let (stop, stopped) = oneshot::channel();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async move {
                let incoming =
                    TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_nodelay(Some(true));
                ready.send(incoming.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = serve(incoming) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
            // Nobody listens any more where the test is over.
            let _ = end.send(());
        });
        Self { addr: listening.recv().unwrap(), ended, _stop: stop }
    }

    /// Waits until the graceful shutdown is done.
    pub(super) fn wait(&self, bound: Duration) {
        self.ended.recv_timeout(bound).expect("the tonic server ends its graceful shutdown within the bound");
    }
}

async fn serve(incoming: TcpIncoming) {
    let service = Arc::new(Service::default());
    let draining = Arc::clone(&service);
    let interop = InteropServer::from_arc(Arc::clone(&service))
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    tonic::transport::Server::builder()
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .layer(tower::util::MapRequestLayer::new(prepare))
        .add_service(interop)
        .add_service(ControlServer::from_arc(service))
        .serve_with_incoming_shutdown(incoming, async move { draining.draining.opened().await })
        .await
        .unwrap();
}

/// What a handler cannot see or say itself: the authority, and whether answers are compressed.
fn prepare<Body>(mut request: tonic::codegen::http::Request<Body>) -> tonic::codegen::http::Request<Body> {
    if let Some(authority) = request.uri().authority().map(|authority| Authority(authority.to_string())) {
        request.extensions_mut().insert(authority);
    }
    if !request.headers().contains_key(GZIP_ANSWERS) {
        request.headers_mut().remove("grpc-accept-encoding");
    }
    request
}

#[derive(Clone)]
struct Authority(String);

/// Opens once; may be waited for from anywhere.
struct Latch(watch::Sender<bool>);

impl Default for Latch {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Latch {
    fn open(&self) {
        self.0.send_replace(true);
    }

    fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    async fn opened(&self) {
        let mut latch = self.0.subscribe();
        latch.wait_for(|&open| open).await.expect("the sender stands beside this receiver");
    }
}

/// What the side channel tells of one call.
#[derive(Default)]
struct Call {
    started: Latch,
    cancelled: Latch,
    sent: AtomicU64,
    total: AtomicU64,
}

/// Notes a call as cancelled if it is dropped before its handler was done.
struct Watched {
    call: Arc<Call>,
    is_done: bool,
}

impl Watched {
    fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.is_done {
            self.call.cancelled.open();
        }
    }
}

#[derive(Default)]
struct Service {
    calls: Mutex<HashMap<String, Arc<Call>>>,
    draining: Latch,
    barrier: watch::Sender<u32>,
}

impl Service {
    fn call(&self, name: &str) -> Arc<Call> {
        Arc::clone(self.calls.lock().unwrap().entry(name.to_owned()).or_default())
    }

    fn begun(&self, plan: &pb::Request) -> Watched {
        let call = self.call(&plan.call);
        call.started.open();
        call.total.store(sizes(plan).len() as u64, Ordering::Relaxed);
        Watched { call, is_done: false }
    }

    async fn pass_barrier(&self, width: u32) {
        self.barrier.send_modify(|waiting| *waiting += 1);
        let mut waiting = self.barrier.subscribe();
        waiting.wait_for(|&waiting| waiting >= width).await.expect("the sender stands in the service");
    }
}

/// What came in over one call.
struct Received {
    seen: Vec<pb::Field>,
    metadata: MetadataMap,
    messages: u64,
    bytes: u64,
    sha256: Sha256,
}

impl Received {
    fn new<T>(request: &Request<T>) -> Self {
        let mut seen: Vec<pb::Field> = request.metadata().iter().map(|entry| field(&entry)).collect();
        if let Some(Authority(authority)) = request.extensions().get() {
            seen.push(pb::Field { name: ":authority".to_owned(), value: authority.clone().into_bytes() });
        }
        Self { seen, metadata: request.metadata().clone(), messages: 0, bytes: 0, sha256: Sha256::new() }
    }

    fn add(&mut self, request: &pb::Request) {
        self.messages += 1;
        self.bytes += request.payload.len() as u64;
        self.sha256.update(&request.payload);
    }

    fn enough(&self, plan: &pb::Request) -> bool {
        plan.end_after > 0 && self.messages >= plan.end_after.into()
    }

    /// Request metadata named x-*, if it is to go back.
    fn echo(&self, plan: &pb::Request) -> MetadataMap {
        let mut headers = self.metadata.clone().into_headers();
        let others: Vec<_> =
            headers.keys().filter(|name| !name.as_str().starts_with("x-")).cloned().collect();
        for name in others {
            headers.remove(name);
        }
        if plan.echo_metadata { MetadataMap::from_headers(headers) } else { MetadataMap::new() }
    }

    fn response(self, plan: &pb::Request) -> pb::Response {
        let answer = pb::Response { payload: answer_payload(plan, 0), ..pb::Response::default() };
        if !plan.report {
            return answer;
        }
        pb::Response {
            received_messages: self.messages,
            received_bytes: self.bytes,
            received_sha256: hex(&self.sha256.finalize()),
            seen: self.seen,
            ..answer
        }
    }

    /// The call's end as the plan wants it; one that hangs never comes.
    async fn end(&self, plan: &pb::Request) -> Result<(), Status> {
        if plan.hang {
            std::future::pending::<()>().await;
        }
        if plan.status_code == 0 {
            return Ok(());
        }
        let details = plan.status_details.clone().into();
        let code = Code::from_i32(plan.status_code);
        Err(Status::with_details_and_metadata(code, plan.status_message.clone(), details, self.echo(plan)))
    }
}

fn answer_payload(plan: &pb::Request, index: usize) -> Vec<u8> {
    payload(plan.seed as usize, index, plan.response_size as usize)
}

/// The sizes of the answers of a ServerStream.
fn sizes(plan: &pb::Request) -> Vec<u32> {
    if plan.response_sizes.is_empty() {
        vec![plan.response_size; plan.response_count as usize]
    } else {
        plan.response_sizes.clone()
    }
}

fn field(entry: &KeyAndValueRef<'_>) -> pb::Field {
    match entry {
        KeyAndValueRef::Ascii(name, value) => {
            pb::Field { name: name.to_string(), value: value.as_encoded_bytes().to_vec() }
        }
        KeyAndValueRef::Binary(name, value) => {
            // A value that is not base64 is shown as it came.
            let value = value.to_bytes().unwrap_or_else(|_| value.as_encoded_bytes().to_vec().into());
            pb::Field { name: name.to_string(), value: value.to_vec() }
        }
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<pb::Response, Status>> + Send>>;

#[tonic::async_trait]
impl Interop for Service {
    async fn unary(&self, request: Request<pb::Request>) -> Result<Response<pb::Response>, Status> {
        let mut received = Received::new(&request);
        let plan = request.into_inner();
        received.add(&plan);
        let watched = self.begun(&plan);
        if plan.barrier > 0 {
            self.pass_barrier(plan.barrier).await;
        }
        let ended = received.end(&plan).await;
        watched.done();
        answer_once(&plan, received, ended)
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<pb::Request>>,
    ) -> Result<Response<pb::Response>, Status> {
        let mut received = Received::new(&request);
        let mut requests = request.into_inner();
        let plan = requests.message().await?.inspect(|plan| received.add(plan)).unwrap_or_default();
        let watched = self.begun(&plan);
        while !received.enough(&plan) {
            let Some(request) = requests.message().await? else { break };
            received.add(&request);
        }
        let ended = received.end(&plan).await;
        watched.done();
        answer_once(&plan, received, ended)
    }

    type ServerStreamStream = Answers;

    async fn server_stream(&self, request: Request<pb::Request>) -> Result<Response<Answers>, Status> {
        let received = Received::new(&request);
        let plan = request.into_inner();
        let watched = self.begun(&plan);
        let call = Arc::clone(&watched.call);
        let echo = received.echo(&plan);
        let ending = plan.clone();
        let answers = stream::iter(sizes(&plan).into_iter().enumerate()).map(move |(index, size)| {
            call.sent.fetch_add(1, Ordering::Relaxed);
            let payload = payload(plan.seed as usize, index, size as usize);
            Ok(pb::Response { payload, ..pb::Response::default() })
        });
        let end = stream::once(async move {
            let ended = received.end(&ending).await;
            watched.done();
            ended.err()
        });
        let answers = answers.chain(end.filter_map(|error| std::future::ready(error.map(Err))));
        Ok(with_metadata(Box::pin(answers) as Answers, echo))
    }

    type BidiStream = Answers;

    async fn bidi(&self, request: Request<Streaming<pb::Request>>) -> Result<Response<Answers>, Status> {
        let mut received = Received::new(&request);
        let mut requests = request.into_inner();
        let plan = requests.message().await?.inspect(|plan| received.add(plan));
        let echo = received.echo(&plan.clone().unwrap_or_default());
        let watched = self.begun(&plan.clone().unwrap_or_default());
        let draining = self.draining.0.subscribe();
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            if converse(plan, requests, received, draining, &answers).await.is_some() {
                watched.done();
            }
        });
        Ok(with_metadata(Box::pin(ReceiverStream::new(stream)) as Answers, echo))
    }
}

/// The answers of one Bidi call; nothing is returned where the caller has gone.
async fn converse(
    first: Option<pb::Request>,
    mut requests: Streaming<pb::Request>,
    mut received: Received,
    mut draining: watch::Receiver<bool>,
    answers: &mpsc::Sender<Result<pb::Response, Status>>,
) -> Option<()> {
    let plan = first.clone().unwrap_or_default();
    let mut next = first;
    let mut index = 0;
    while let Some(request) = next {
        if request.after_drain {
            draining.wait_for(|&open| open).await.ok()?;
        }
        for _ in 0..request.response_count {
            let payload = answer_payload(&request, index);
            answers.send(Ok(pb::Response { payload, ..pb::Response::default() })).await.ok()?;
            index += 1;
        }
        if received.enough(&plan) {
            break;
        }
        next = requests.message().await.ok()?.inspect(|request| received.add(request));
    }
    tokio::select! {
        ended = received.end(&plan) => match ended {
            Ok(()) => Some(()),
            Err(status) => answers.send(Err(status)).await.ok(),
        },
        () = answers.closed() => None,
    }
}

fn answer_once(
    plan: &pb::Request,
    received: Received,
    ended: Result<(), Status>,
) -> Result<Response<pb::Response>, Status> {
    let echo = received.echo(plan);
    ended.map(|()| with_metadata(received.response(plan), echo))
}

fn with_metadata<T>(answer: T, metadata: MetadataMap) -> Response<T> {
    Response::from_parts(metadata, answer, tonic::Extensions::default())
}

#[tonic::async_trait]
impl Control for Service {
    async fn r#await(
        &self,
        request: Request<pb::AwaitRequest>,
    ) -> Result<Response<pb::AwaitResponse>, Status> {
        let request = request.into_inner();
        let call = self.call(&request.call);
        let reached = match request.state() {
            State::Stalled => stalled(&call).await,
            State::Started => tokio::time::timeout(AWAIT_BOUND, call.started.opened()).await.is_ok(),
            State::Cancelled => tokio::time::timeout(AWAIT_BOUND, call.cancelled.opened()).await.is_ok(),
        };
        Ok(Response::new(pb::AwaitResponse { reached }))
    }

    async fn drain(
        &self,
        _request: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainResponse>, Status> {
        self.draining.open();
        Ok(Response::new(pb::DrainResponse {}))
    }
}

async fn stalled(call: &Call) -> bool {
    let sent = || call.sent.load(Ordering::Relaxed);
    let mut still = 0;
    let mut samples = AWAIT_BOUND.as_millis() / STALL_SAMPLE.as_millis();
    while still < STALL_SAMPLES && samples > 0 {
        let before = sent();
        tokio::time::sleep(STALL_SAMPLE).await;
        still = if call.started.is_open() && sent() == before { still + 1 } else { 0 };
        samples -= 1;
    }
    still == STALL_SAMPLES && sent() < call.total.load(Ordering::Relaxed)
}
