//! The tonic client of the interop tests, in the test's own process: makes one call as a case says and tells its result.
//!
//! What the other peers do, in tonic's words. All four shapes go through `Grpc::streaming`, on which tonic's own
//! unary and client-streaming calls are built; so initial and trailing metadata stay apart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{AsciiMetadataKey, BinaryMetadataKey, KeyAndValueRef, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::cases::{hex, payload};
use super::generated::{self as pb, await_request::State};
use super::tonic_server::{CONNECTION_WINDOW_BYTES, HEADER_LIST_BYTES_MAX};

const MESSAGES_MAX: u64 = 1_000_000;
const CANCELLED: i32 = 1;

/// A client with its own connection to the target and another, direct one for the side channel.
pub(super) struct TonicClient {
    runtime: Runtime,
    caller: Caller,
}

impl TonicClient {
    pub(super) fn start(target: SocketAddr, control: SocketAddr) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let caller = runtime
            .block_on(async { Caller { target, channel: channel_to(target), control: channel_to(control) } });
        Self { runtime, caller }
    }

    pub(super) fn run(&self, spec: &Value, bound: Duration) -> Value {
        self.runtime.block_on(async {
            let result = tokio::time::timeout(bound, self.caller.run(spec)).await;
            result.unwrap_or_else(|_| {
                panic!("the tonic client had no result within {bound:?} of {:.300}", spec.to_string())
            })
        })
    }
}

fn channel_to(addr: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{addr}"))
        .unwrap()
        .origin("http://interop.test".parse().unwrap())
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .connect_lazy()
}

#[derive(Clone)]
struct Caller {
    target: SocketAddr,
    channel: Channel,
    control: Channel,
}

impl Caller {
    async fn run(&self, spec: &Value) -> Value {
        if let Some(calls) = spec["concurrent"].as_u64() {
            return self.run_concurrent(spec, calls).await;
        }
        if let Some(calls) = spec["soak"].as_u64() {
            return self.run_soak(spec, calls).await;
        }
        let mut tally = Tally::default();
        let mut end = if spec["cancel"] == true && spec["cancel_after"].is_null() {
            tokio::select! {
                end = self.call(spec, &mut tally) => end,
                _ = self.wait_for(spec, State::Started) => End::code(CANCELLED),
            }
        } else {
            self.call(spec, &mut tally).await
        };
        if spec["await_cancelled"] == true {
            end.result["server_heard"] = json!(self.wait_for(spec, State::Cancelled).await);
        }
        tally.into_result(end)
    }

    /// All calls at once; each has its seed.
    async fn run_concurrent(&self, spec: &Value, calls: u64) -> Value {
        let start = |seed| {
            let (spec, caller) = (seeded(spec, seed), self.clone());
            tokio::spawn(async move { caller.run_one(&spec).await })
        };
        let running: Vec<_> = (0..calls).map(start).collect();
        let mut sum = Sum::default();
        for call in running {
            sum.add(&call.await.unwrap());
        }
        sum.into_result()
    }

    /// One call after another, each with its seed, and a connection of its own if the case says so.
    async fn run_soak(&self, spec: &Value, calls: u64) -> Value {
        let mut sum = Sum::default();
        for seed in 0..calls {
            let mut caller = self.clone();
            if spec["new_channel"] == true {
                caller.channel = channel_to(self.target);
            }
            sum.add(&caller.run_one(&seeded(spec, seed)).await);
        }
        sum.into_result()
    }

    async fn run_one(&self, spec: &Value) -> Value {
        let mut tally = Tally::default();
        let end = self.call(spec, &mut tally).await;
        tally.into_result(end)
    }

    /// Makes the call; the tally holds what came, also where this is dropped half-way.
    async fn call(&self, spec: &Value, tally: &mut Tally) -> End {
        let Requests { stream, answers, task: _sending } = Requests::start(spec, self.clone());
        let mut request = Request::new(ReceiverStream::new(stream));
        add_metadata(request.metadata_mut(), spec);
        if let Some(millis) = spec["deadline_ms"].as_u64() {
            request.set_timeout(Duration::from_millis(millis));
        }
        let mut grpc = unlimited(self.channel.clone());
        if spec["gzip"] == true {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        if let Err(error) = grpc.ready().await {
            return End::status(&Status::unavailable(error.to_string()));
        }
        let path = spec["path"].as_str().unwrap().parse().unwrap();
        let response =
            match grpc.streaming(request, path, ProstCodec::<pb::Request, pb::Response>::default()).await {
                Ok(response) => response,
                Err(status) => return End::status(&status),
            };
        tally.initial = fields(response.metadata());
        let mut end = End::ok();
        if spec["pause"] == true {
            end.result["stalled"] = json!(self.wait_for(spec, State::Stalled).await);
        }
        end.merge(read(spec, response.into_inner(), tally, &answers).await)
    }

    async fn wait_for(&self, spec: &Value, state: State) -> bool {
        let call = spec["request"]["call"].as_str().unwrap().to_owned();
        let request = pb::AwaitRequest { call, state: state.into() };
        self.ask::<_, pb::AwaitResponse>("Await", request).await.reached
    }

    async fn ask<Q, A>(&self, method: &str, question: Q) -> A
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.control.clone());
        grpc.ready().await.unwrap();
        let path = format!("/attestry.interop.v1.Control/{method}").parse().unwrap();
        grpc.unary(Request::new(question), path, ProstCodec::<Q, A>::default()).await.unwrap().into_inner()
    }
}

fn unlimited(channel: Channel) -> Grpc<Channel> {
    Grpc::new(channel)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX)
}

async fn read(
    spec: &Value,
    mut answers: Streaming<pb::Response>,
    tally: &mut Tally,
    gate: &Semaphore,
) -> End {
    loop {
        match answers.message().await {
            Ok(Some(answer)) => tally.add(answer),
            Ok(None) => break,
            Err(status) => return End::status(&status),
        }
        gate.add_permits(1);
        if spec["cancel_after"] == json!(tally.messages) {
            return End::code(CANCELLED);
        }
    }
    let trailing = answers.trailers().await.unwrap();
    End::ok().with("trailing", trailing.map_or(json!([]), |trailing| fields(&trailing)))
}

/// The stream of requests: at once, or each after the answers to the one before (ping-pong). The sending ends with this.
struct Requests {
    stream: mpsc::Receiver<pb::Request>,
    answers: Arc<Semaphore>,
    task: AbortOnDrop,
}

impl Requests {
    fn start(spec: &Value, caller: Caller) -> Self {
        let (sender, stream) = mpsc::channel(1);
        let answers = Arc::new(Semaphore::new(0));
        let task = tokio::spawn(send(spec.clone(), caller, sender, Arc::clone(&answers)));
        Self { stream, answers, task: AbortOnDrop(task.abort_handle()) }
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn send(spec: Value, caller: Caller, sender: mpsc::Sender<pb::Request>, answers: Arc<Semaphore>) {
    let per_request = u32::try_from(spec["request"]["response_count"].as_u64().unwrap_or(0)).unwrap();
    let drain_at = spec["drain_at"].as_u64();
    let sends_many = matches!(spec["shape"].as_str(), Some("client_stream" | "bidi"));
    let count = if sends_many { spec["count"].as_u64().unwrap_or(MESSAGES_MAX) } else { 1 };
    for index in 0..count {
        if index > 0 && spec["ping_pong"] == true {
            answers.acquire_many(per_request).await.unwrap().forget();
        }
        if drain_at == Some(index) {
            caller.ask::<_, pb::DrainResponse>("Drain", pb::DrainRequest {}).await;
        }
        let after_drain = drain_at.is_some_and(|drain_at| index >= drain_at);
        if sender.send(request_of(&spec, index, after_drain)).await.is_err() {
            return;
        }
    }
    if spec["hold_open"] == true {
        std::future::pending::<()>().await;
    }
}

fn request_of(spec: &Value, index: u64, after_drain: bool) -> pb::Request {
    let fields = &spec["request"];
    let number = |name: &str| u32::try_from(fields[name].as_u64().unwrap_or(0)).unwrap();
    let text = |name: &str| fields[name].as_str().unwrap_or("").to_owned();
    let flag = |name: &str| fields[name] == true;
    let index = usize::try_from(index).unwrap();
    let listed = |list: &str, otherwise: &str| {
        let size = spec[list].get(index).map(|size| u32::try_from(size.as_u64().unwrap()).unwrap());
        size.unwrap_or_else(|| number(otherwise))
    };
    let sizes = fields["response_sizes"].as_array().into_iter().flatten();
    pb::Request {
        call: text("call"),
        payload: payload(number("seed") as usize, index, listed("payload_sizes", "payload_size") as usize),
        response_count: number("response_count"),
        response_size: listed("answer_sizes", "response_size"),
        response_sizes: sizes.map(|size| u32::try_from(size.as_u64().unwrap()).unwrap()).collect(),
        seed: number("seed"),
        status_code: number("status_code").cast_signed(),
        status_message: text("status_message"),
        status_details: bytes_of_hex(&text("status_details")),
        echo_metadata: flag("echo_metadata"),
        end_after: number("end_after"),
        hang: flag("hang"),
        barrier: number("barrier"),
        report: flag("report"),
        gzip: flag("gzip"),
        after_drain,
    }
}

fn add_metadata(metadata: &mut MetadataMap, spec: &Value) {
    for field in spec["metadata"].as_array().into_iter().flatten() {
        let (name, value) = (field[0].as_str().unwrap(), field[1].as_str().unwrap());
        if name.ends_with("-bin") {
            let name: BinaryMetadataKey = name.parse().unwrap();
            metadata.append_bin(name, MetadataValue::from_bytes(&bytes_of_hex(value)));
        } else {
            let name: AsciiMetadataKey = name.parse().unwrap();
            metadata.append(name, value.parse().unwrap());
        }
    }
}

fn seeded(spec: &Value, seed: u64) -> Value {
    let mut spec = spec.clone();
    spec["request"]["seed"] = json!(seed);
    spec
}

/// Of many calls: how often each code came, and a digest over their digests.
struct Sum {
    codes: Value,
    all: Sha256,
}

impl Default for Sum {
    fn default() -> Self {
        Self { codes: json!({}), all: Sha256::new() }
    }
}

impl Sum {
    fn add(&mut self, result: &Value) {
        let code = result["code"].to_string();
        self.codes[&code] = json!(self.codes[&code].as_u64().unwrap_or(0) + 1);
        self.all.update(result["sha256"].as_str().unwrap());
    }

    fn into_result(self) -> Value {
        json!({"codes": self.codes, "sha256": hex(&self.all.finalize())})
    }
}

/// What came so far.
#[derive(Default)]
struct Tally {
    initial: Value,
    messages: u64,
    bytes: usize,
    sha256: Sha256,
    last: Option<pb::Response>,
}

impl Tally {
    fn add(&mut self, answer: pb::Response) {
        self.messages += 1;
        self.bytes += answer.payload.len();
        self.sha256.update(&answer.payload);
        self.last = Some(answer);
    }

    fn into_result(self, end: End) -> Value {
        let initial = if self.initial.is_null() { json!([]) } else { self.initial };
        end.with("initial", initial)
            .with("messages", json!(self.messages))
            .with("bytes", json!(self.bytes))
            .with("sha256", json!(hex(&self.sha256.finalize())))
            .with("last", self.last.as_ref().map_or(Value::Null, report))
            .result
    }
}

/// How the call ended: the members of the result that the status gives.
struct End {
    result: Value,
}

impl End {
    fn ok() -> Self {
        Self::code(0)
    }

    fn code(code: i32) -> Self {
        Self { result: json!({"code": code, "message": "", "details": "", "trailing": []}) }
    }

    fn status(status: &Status) -> Self {
        Self::code(status.code().into())
            .with("message", json!(status.message()))
            .with("details", json!(hex(status.details())))
            .with("trailing", fields(status.metadata()))
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.result[name] = value;
        self
    }

    /// Takes over what `later` says.
    fn merge(mut self, later: Self) -> Self {
        let Value::Object(members) = later.result else { return self };
        members.into_iter().for_each(|(name, value)| self.result[name] = value);
        self
    }
}

fn report(answer: &pb::Response) -> Value {
    if answer.received_sha256.is_empty() {
        return Value::Null;
    }
    let seen = answer.seen.iter().map(|field| {
        let value = if field.name.ends_with("-bin") { hex(&field.value) } else { latin1(&field.value) };
        json!([field.name, value])
    });
    json!({
        "messages": answer.received_messages,
        "bytes": answer.received_bytes,
        "sha256": answer.received_sha256,
        "seen": seen.collect::<Vec<_>>(),
    })
}

fn fields(metadata: &MetadataMap) -> Value {
    let field = |entry: KeyAndValueRef<'_>| match entry {
        KeyAndValueRef::Ascii(name, value) => json!([name.as_str(), latin1(value.as_encoded_bytes())]),
        KeyAndValueRef::Binary(name, value) => {
            json!([
                name.as_str(),
                value.to_bytes().map_or_else(|error| error.to_string(), |bytes| hex(&bytes))
            ])
        }
    };
    metadata.iter().map(field).collect::<Vec<_>>().into()
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn bytes_of_hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}
