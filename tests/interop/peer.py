"""The Python peer of the interop tests, on grpcio: `peer.py server`, or `peer.py client TARGET CONTROL`.

The server prints `LISTENING <port>` and ends when its graceful shutdown is done or its standard input ends. The client
reads one call as a line of JSON from standard input, makes it, and answers with its result as a line of JSON.
`interop.proto` says what a request makes the server do; `peer.js` and the tonic peer do the same in other words.
"""

import asyncio
import hashlib
import json
import os
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
        call.total = request.response_count
        await echo_initial(request, context)
        for index in range(request.response_count):
            await context.write(pb.Response(payload=payload_of(request.seed, index, request.response_size)))
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
    if plan.echo_metadata:
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
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"LISTENING {port}", flush=True)
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True).start()
    await ended.wait()


class Client:
    def __init__(self, target, control):
        options = OPTIONS + [("grpc.default_authority", "interop.test"), ("grpc.enable_retries", 0)]
        self.channel = grpc.insecure_channel(target, options=options)
        # After 64 MiB in one go the probe of bandwidth opens windows in which a whole slow stream would fit.
        self.narrow = grpc.insecure_channel(target, options=options + [("grpc.http2.bdp_probe", 0)])
        self.control = grpc.insecure_channel(control)

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

    def start(self, spec, gate):
        path, kind = spec["path"], spec["shape"]
        channel = self.narrow if spec.get("pause") else self.channel
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
        calls = []
        for index in range(spec["concurrent"]):
            one = dict(spec, request=dict(spec["request"], seed=index))
            calls.append((one, self.start(one, None)))
        all_results = hashlib.sha256()
        codes = {}
        for one, call in calls:
            result = self.collect(one, call, Gate(one, self))
            codes[str(result["code"])] = codes.get(str(result["code"]), 0) + 1
            all_results.update(result["sha256"].encode())
        return {"codes": codes, "sha256": all_results.hexdigest()}


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
    size = fields_of.pop("payload_size", 0)
    details = bytes.fromhex(fields_of.pop("status_details", ""))
    after_drain = bool(spec.get("drain_at")) and index >= spec["drain_at"]
    payload = payload_of(fields_of.get("seed", 0), index, size)
    return pb.Request(payload=payload, status_details=details, after_drain=after_drain, **fields_of)


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
