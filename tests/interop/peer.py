"""The Python peer of the interop tests, on grpcio: `peer.py server`, or `peer.py client TARGET CONTROL`.

The server prints `LISTENING <port>` and ends when its graceful shutdown is done or its standard input ends. The client
reads one call as a line of JSON from standard input, makes it, and answers with its result as a line of JSON.
`interop.proto` says what a request makes the server do; the other peers do the same in other words.
"""

import asyncio
import hashlib
import json
import os
import pathlib
import sys
import threading

import grpc
import interop_pb2 as pb

SERVICE = "attestry.interop.v1.Interop"
CONTROL = "attestry.interop.v1.Control"
AWAIT_SECONDS_MAX = 10
STALL_SAMPLE_SECONDS = 0.05
STALL_SAMPLES = 10
MESSAGES_MAX = 1_000_000
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 256 * 1024),
    ("grpc.absolute_max_metadata_size", 256 * 1024),
]


AUTHORITY = "interop.test"


def tls_files():
    """With INTEROP_TLS, a folder, both sides show ca.pem's certificate cert.pem and ask the other for one."""
    folder = pathlib.Path(os.environ["INTEROP_TLS"])
    return [(folder / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem")]


def has_tls():
    return bool(os.environ.get("INTEROP_TLS"))


def payload_of(seed, index, size):
    """Byte i is (seed + index + i) mod 256."""
    start = (seed + index) % 256
    pattern = bytes((start + i) % 256 for i in range(256))
    return (pattern * (size // 256 + 1))[:size]


class CallState:
    """What the side channel tells of one call."""

    def __init__(self):
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.sent = 0
        self.total = 0


class Server:
    """The service, on grpc.aio: one thread, so its state needs no lock."""

    def __init__(self):
        self.calls = {}
        self.draining = asyncio.Event()
        self.waiting = 0
        self.barrier_open = asyncio.Event()

    def call(self, name):
        return self.calls.setdefault(name, CallState())

    async def unary(self, request, context):
        received = Received()
        received.add(request)
        self.begun(request, context)
        if request.barrier:
            await self.pass_barrier(request.barrier)
        await echo_initial(request, context)
        await finish(request, context)
        return received.response(request, context)

    async def client_stream(self, requests, context):
        received = Received()
        plan = await received.plan(requests)
        self.begun(plan, context)
        while not received.enough(plan):
            request = await anext(requests, None)
            if request is None:
                break
            received.add(request)
        await echo_initial(plan, context)
        await finish(plan, context)
        return received.response(plan, context)

    async def server_stream(self, request, context):
        call = self.begun(request, context)
        sizes = request.response_sizes or [request.response_size] * request.response_count
        call.total = len(sizes)
        await echo_initial(request, context)
        for index, size in enumerate(sizes):
            await context.write(pb.Response(payload=payload_of(request.seed, index, size)))
            call.sent += 1
        await finish(request, context)

    async def bidi(self, requests, context):
        received = Received()
        plan = await received.plan(requests)
        self.begun(plan, context)
        await echo_initial(plan, context)
        request, index = plan, 0
        while request is not None:
            if request.after_drain:
                await self.draining.wait()
            for _ in range(request.response_count):
                await context.write(pb.Response(payload=payload_of(request.seed, index, request.response_size)))
                index += 1
            if received.enough(plan):
                break
            request = await anext(requests, None)
            if request is not None:
                received.add(request)
        await finish(plan, context)

    def begun(self, plan, context):
        if plan.gzip:
            context.set_compression(grpc.Compression.Gzip)
        call = self.call(plan.call)
        call.started.set()
        # A call that is done without having been answered was given up by its caller.
        context.add_done_callback(lambda ended: ended.done() or call.cancelled.set())
        return call

    async def pass_barrier(self, width):
        self.waiting += 1
        if self.waiting >= width:
            self.barrier_open.set()
        await self.barrier_open.wait()

    async def await_state(self, request, _context):
        call = self.call(request.call)
        if request.state == pb.AwaitRequest.STALLED:
            return pb.AwaitResponse(reached=await stalled(call))
        event = call.cancelled if request.state == pb.AwaitRequest.CANCELLED else call.started
        try:
            await asyncio.wait_for(event.wait(), AWAIT_SECONDS_MAX)
            return pb.AwaitResponse(reached=True)
        except asyncio.TimeoutError:
            return pb.AwaitResponse(reached=False)


class Received:
    """What came in over one call."""

    def __init__(self):
        self.messages = 0
        self.bytes = 0
        self.sha256 = hashlib.sha256()

    async def plan(self, requests):
        request = await anext(requests, None)
        if request is None:
            return pb.Request()
        self.add(request)
        return request

    def add(self, request):
        self.messages += 1
        self.bytes += len(request.payload)
        self.sha256.update(request.payload)

    def enough(self, plan):
        return plan.end_after and self.messages >= plan.end_after

    def response(self, plan, context):
        response = pb.Response(payload=payload_of(plan.seed, 0, plan.response_size))
        if plan.report:
            response.received_messages = self.messages
            response.received_bytes = self.bytes
            response.received_sha256 = self.sha256.hexdigest()
            for name, value in context.invocation_metadata():
                response.seen.add(name=name, value=value.encode() if isinstance(value, str) else value)
            if context.time_remaining() is not None:
                response.seen.add(name="deadline", value=b"set")
        return response


async def stalled(call):
    still = 0
    for _ in range(int(AWAIT_SECONDS_MAX / STALL_SAMPLE_SECONDS)):
        before = call.sent
        await asyncio.sleep(STALL_SAMPLE_SECONDS)
        still = still + 1 if call.sent == before and call.started.is_set() else 0
        if still == STALL_SAMPLES:
            break
    return still == STALL_SAMPLES and call.sent < call.total


def echoed(plan, context):
    if not plan.echo_metadata:
        return ()
    return tuple((name, value) for name, value in context.invocation_metadata() if name.startswith("x-"))


async def echo_initial(plan, context):
    # Without initial metadata of its own, grpcio forgets the compression of a call that answers once.
    if plan.echo_metadata or plan.gzip:
        await context.send_initial_metadata(echoed(plan, context))


async def finish(plan, context):
    """Sets the trailing metadata, and ends the call here if it ends with an error, or never does."""
    if plan.hang:
        await asyncio.Event().wait()
    trailing = echoed(plan, context)
    if plan.status_details:
        trailing += (("grpc-status-details-bin", plan.status_details),)
    if plan.status_code:
        code = next(code for code in grpc.StatusCode if code.value[0] == plan.status_code)
        await context.abort(code, plan.status_message, trailing)
    if trailing:
        context.set_trailing_metadata(trailing)


async def serve():
    service = Server()
    server = grpc.aio.server(options=OPTIONS)

    def method(kind, handler, request=pb.Request, response=pb.Response):
        return kind(handler, request_deserializer=request.FromString, response_serializer=response.SerializeToString)

    async def drain(_request, _context):
        asyncio.get_running_loop().call_soon(begin_drain)
        return pb.DrainResponse()

    ended = asyncio.Event()

    def begin_drain():
        async def stop():
            stopping = asyncio.ensure_future(server.stop(grace=60))
            await asyncio.sleep(0)
            service.draining.set()
            await stopping
            ended.set()

        service.drain_task = asyncio.ensure_future(stop())

    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                SERVICE,
                {
                    "Unary": method(grpc.unary_unary_rpc_method_handler, service.unary),
                    "ClientStream": method(grpc.stream_unary_rpc_method_handler, service.client_stream),
                    "ServerStream": method(grpc.unary_stream_rpc_method_handler, service.server_stream),
                    "Bidi": method(grpc.stream_stream_rpc_method_handler, service.bidi),
                },
            ),
            grpc.method_handlers_generic_handler(
                CONTROL,
                {
                    "Await": method(
                        grpc.unary_unary_rpc_method_handler, service.await_state, pb.AwaitRequest, pb.AwaitResponse
                    ),
                    "Drain": method(grpc.unary_unary_rpc_method_handler, drain, pb.DrainRequest, pb.DrainResponse),
                },
            ),
        )
    )
    if has_tls():
        authorities, key, certificate = tls_files()
        credentials = grpc.ssl_server_credentials([(key, certificate)], authorities, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"LISTENING {port}", flush=True)
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True).start()
    await ended.wait()


class Client:
    def __init__(self, target, control):
        self.target = target
        self.channel = channel_to(target)
        # After 64 MiB in one go the probe of bandwidth opens windows in which a whole slow stream would fit.
        self.narrow = channel_to(target, ("grpc.http2.bdp_probe", 0))
        self.control = channel_to(control)

    def ask(self, method, request, response):
        stub = self.control.unary_unary(
            f"/{CONTROL}/{method}", request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
        )
        return stub(request)

    def await_state(self, name, state):
        return self.ask("Await", pb.AwaitRequest(call=name, state=state), pb.AwaitResponse).reached

    def run(self, spec):
        if spec.get("concurrent"):
            return self.run_concurrent(spec)
        if spec.get("soak"):
            return self.run_soak(spec)
        gate = Gate(spec, self)
        call = self.start(spec, gate)
        result = {}
        if spec.get("cancel"):
            self.await_state(spec["request"]["call"], pb.AwaitRequest.STARTED)
        if spec.get("pause"):
            result["stalled"] = self.await_state(spec["request"]["call"], pb.AwaitRequest.STALLED)
        if spec.get("cancel") and not spec.get("cancel_after"):
            call.cancel()
        result.update(self.collect(spec, call, gate))
        if spec.get("await_cancelled"):
            result["server_heard"] = self.await_state(spec["request"]["call"], pb.AwaitRequest.CANCELLED)
        return result

    def start(self, spec, gate, channel=None):
        path, kind = spec["path"], spec["shape"]
        channel = channel or (self.narrow if spec.get("pause") else self.channel)
        kinds = {
            "unary": channel.unary_unary,
            "client_stream": channel.stream_unary,
            "server_stream": channel.unary_stream,
            "bidi": channel.stream_stream,
        }
        stub = kinds[kind](
            path, request_serializer=pb.Request.SerializeToString, response_deserializer=pb.Response.FromString
        )
        many = kind in ("client_stream", "bidi")
        start = stub.future if kind in ("unary", "client_stream") else stub
        return start(
            gate.requests() if many else request_of(spec, 0),
            metadata=[(name, bytes.fromhex(value) if name.endswith("-bin") else value) for name, value in spec.get("metadata", [])],
            timeout=spec["deadline_ms"] / 1000 if spec.get("deadline_ms") else None,
            compression=grpc.Compression.Gzip if spec.get("gzip") else None,
        )

    def collect(self, spec, call, gate):
        messages, size, sha256, last = 0, 0, hashlib.sha256(), None
        try:
            for response in [call.result()] if spec["shape"] in ("unary", "client_stream") else call:
                messages, size, last = messages + 1, size + len(response.payload), response
                sha256.update(response.payload)
                gate.answered(messages)
                if messages == spec.get("cancel_after"):
                    call.cancel()
        except (grpc.RpcError, grpc.FutureCancelledError):
            pass
        trailing = list(call.trailing_metadata() or ())
        return {
            "code": call.code().value[0],
            "message": call.details() or "",
            "details": next((v.hex() for k, v in trailing if k == "grpc-status-details-bin"), ""),
            "initial": fields(call.initial_metadata() or ()),
            "trailing": fields(trailing),
            "messages": messages,
            "bytes": size,
            "sha256": sha256.hexdigest(),
            "last": report(last),
        }

    def run_concurrent(self, spec):
        """All calls at once; each has its seed."""
        calls = [(one, self.start(one, None)) for one in seeded(spec, spec["concurrent"])]
        return summed(self.collect(one, call, Gate(one, self)) for one, call in calls)

    def run_soak(self, spec):
        """One call after another, each with its seed, and a connection of its own if the case says so."""
        return summed(self.run_one_of_soak(one) for one in seeded(spec, spec["soak"]))

    def run_one_of_soak(self, spec):
        if not spec.get("new_channel"):
            return self.collect(spec, self.start(spec, None), Gate(spec, self))
        # The channel's own pool of connections, or grpcio would share the connection of an equal channel.
        with channel_to(self.target, ("grpc.use_local_subchannel_pool", 1)) as channel:
            return self.collect(spec, self.start(spec, None, channel), Gate(spec, self))


def channel_to(target, *more):
    options = OPTIONS + [("grpc.default_authority", AUTHORITY), ("grpc.enable_retries", 0), *more]
    if not has_tls():
        return grpc.insecure_channel(target, options=options)
    credentials = grpc.ssl_channel_credentials(*tls_files())
    return grpc.secure_channel(target, credentials, options + [("grpc.ssl_target_name_override", AUTHORITY)])


def seeded(spec, count):
    return [dict(spec, request=dict(spec["request"], seed=seed)) for seed in range(count)]


def summed(results):
    codes, every = {}, hashlib.sha256()
    for result in results:
        codes[str(result["code"])] = codes.get(str(result["code"]), 0) + 1
        every.update(result["sha256"].encode())
    return {"codes": codes, "sha256": every.hexdigest()}


class Gate:
    """The stream of requests: at once, or each after the answers to the one before (ping-pong)."""

    def __init__(self, spec, client):
        self.spec = spec
        self.client = client
        self.ended = False
        self.answers = threading.Semaphore(0)

    def answered(self, _messages):
        self.answers.release()

    def requests(self):
        spec = self.spec
        for index in range(spec.get("count", MESSAGES_MAX)):
            if index and spec.get("ping_pong"):
                for _ in range(spec["request"]["response_count"]):
                    self.answers.acquire()
            if index and index == spec.get("drain_at"):
                self.client.ask("Drain", pb.DrainRequest(), pb.DrainResponse)
            yield request_of(spec, index)
        if spec.get("hold_open"):
            threading.Event().wait()


def request_of(spec, index):
    fields_of = dict(spec["request"])
    size = listed(spec, "payload_sizes", index, fields_of.pop("payload_size", 0))
    fields_of["response_size"] = listed(spec, "answer_sizes", index, fields_of.get("response_size", 0))
    details = bytes.fromhex(fields_of.pop("status_details", ""))
    after_drain = bool(spec.get("drain_at")) and index >= spec["drain_at"]
    payload = payload_of(fields_of.get("seed", 0), index, size)
    return pb.Request(payload=payload, status_details=details, after_drain=after_drain, **fields_of)


def listed(spec, name, index, otherwise):
    sizes = spec.get(name, [])
    return sizes[index] if index < len(sizes) else otherwise


def fields(metadata):
    return [[name, value.hex() if isinstance(value, bytes) else value] for name, value in metadata]


def report(response):
    if response is None or not response.received_sha256:
        return None
    return {
        "messages": response.received_messages,
        "bytes": response.received_bytes,
        "sha256": response.received_sha256,
        "seen": [[f.name, f.value.hex() if f.name.endswith("-bin") else f.value.decode("latin-1")] for f in response.seen],
    }


def converse(target, control):
    client = Client(target, control)
    for line in sys.stdin:
        print(json.dumps(client.run(json.loads(line))), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        asyncio.run(serve())
    else:
        converse(sys.argv[2], sys.argv[3])
        # A stream of requests that is held open keeps a thread of grpcio waiting; it has nothing left to say.
        os._exit(0)
