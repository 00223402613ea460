// The Node peer of the interop tests, on @grpc/grpc-js: `peer.js server`, or `peer.js client TARGET CONTROL`.
//
// The server prints `LISTENING <port>` and ends when its graceful shutdown is done or its standard input ends. The client
// reads one call as a line of JSON from standard input, makes it, and answers with its result as a line of JSON.
// `interop.proto` says what a request makes the server do; the other peers do the same in other words.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');
const { createRequire } = require('node:module');

// The packages stand in the working directory, where the test installed them, and not beside this file.
const installed = createRequire(path.join(process.cwd(), 'package.json'));
const grpc = installed('@grpc/grpc-js');
const loader = installed('@grpc/proto-loader');

const AWAIT_MS_MAX = 10000;
const STALL_SAMPLE_MS = 50;
const STALL_SAMPLES = 10;
const MESSAGES_MAX = 1000000;
const OPTIONS = {
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
};

const AUTHORITY = 'interop.test';
const CHANNEL_OPTIONS = {
  ...OPTIONS,
  'grpc.default_authority': AUTHORITY,
  'grpc.ssl_target_name_override': AUTHORITY,
  'grpc.enable_retries': 0,
};

const schema = grpc.loadPackageDefinition(
  loader.loadSync(path.join(__dirname, 'interop.proto'), { keepCase: true, longs: Number, defaults: true, enums: String }),
).attestry.interop.v1;

// With INTEROP_TLS, a folder, both sides show ca.pem's certificate cert.pem and ask the other for one.
function tlsFile(name) {
  return fs.readFileSync(path.join(process.env.INTEROP_TLS, name));
}

// Byte i is (seed + index + i) mod 256.
function payloadOf(seed = 0, index = 0, size = 0) {
  const pattern = Buffer.alloc(256);
  for (let i = 0; i < 256; i++) pattern[i] = (seed + index + i) & 255;
  return Buffer.alloc(size, pattern);
}

function once(emitter, event) {
  return new Promise((resolve) => emitter.once(event, resolve));
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

// A promise that is opened from outside, and knows whether it is open.
class Latch {
  constructor() {
    this.isOpen = false;
    this.opened = new Promise((resolve) => (this.resolve = resolve));
  }
  open() {
    this.isOpen = true;
    this.resolve();
  }
}

// What came in over one call.
class Received {
  constructor() {
    this.messages = 0;
    this.bytes = 0;
    this.sha256 = crypto.createHash('sha256');
  }
  add(request) {
    this.messages += 1;
    this.bytes += request.payload.length;
    this.sha256.update(request.payload);
  }
  enough(plan) {
    return plan.end_after > 0 && this.messages >= plan.end_after;
  }
  response(plan, call) {
    const response = { payload: payloadOf(plan.seed, 0, plan.response_size) };
    if (plan.report) {
      response.received_messages = this.messages;
      response.received_bytes = this.bytes;
      response.received_sha256 = this.sha256.digest('hex');
      response.seen = pairs(call.metadata).map(([name, value]) => ({ name, value: Buffer.from(value) }));
      response.seen.push({ name: ':authority', value: Buffer.from(call.getHost()) });
      if (call.getDeadline() !== Infinity) response.seen.push({ name: 'deadline', value: Buffer.from('set') });
    }
    return response;
  }
}

function pairs(metadata) {
  return Object.keys(metadata.toHttp2Headers()).flatMap((name) => metadata.get(name).map((value) => [name, value]));
}

function fields(metadata) {
  return pairs(metadata).map(([name, value]) => [name, Buffer.isBuffer(value) ? value.toString('hex') : value]);
}

class Service {
  constructor() {
    this.calls = new Map();
    this.draining = new Latch();
    this.barrier = new Latch();
    this.waiting = 0;
  }

  call(name) {
    if (!this.calls.has(name)) {
      this.calls.set(name, { started: new Latch(), cancelled: new Latch(), sent: 0, total: 0 });
    }
    return this.calls.get(name);
  }

  begun(plan, call) {
    const state = this.call(plan.call);
    state.started.open();
    if (call.cancelled) state.cancelled.open();
    call.once('cancelled', () => state.cancelled.open());
    return state;
  }

  async unary(call, callback) {
    const plan = call.request;
    const received = new Received();
    received.add(plan);
    this.begun(plan, call);
    if (plan.barrier) {
      this.waiting += 1;
      if (this.waiting >= plan.barrier) this.barrier.open();
      await this.barrier.opened;
    }
    if (plan.hang) return;
    this.answer(plan, received, call, callback);
  }

  clientStream(call, callback) {
    const received = new Received();
    let plan;
    let answered = false;
    const answer = () => {
      if (answered || plan?.hang) return;
      answered = true;
      this.answer(plan ?? {}, received, call, callback);
    };
    call.on('data', (request) => {
      if (answered) return;
      if (!plan) this.begun((plan = request), call);
      received.add(request);
      if (received.enough(plan)) answer();
    });
    call.on('end', answer);
    call.on('error', () => {});
  }

  async serverStream(call) {
    const plan = call.request;
    const state = this.begun(plan, call);
    const sizes = plan.response_sizes.length ? plan.response_sizes : Array(plan.response_count).fill(plan.response_size);
    state.total = sizes.length;
    echoInitial(plan, call);
    for (let index = 0; index < sizes.length && !call.cancelled; index++) {
      if (!call.write({ payload: payloadOf(plan.seed, index, sizes[index]) })) {
        await Promise.race([once(call, 'drain'), state.cancelled.opened]);
      }
      state.sent += 1;
    }
    if (!plan.hang) finish(plan, call);
  }

  async bidi(call) {
    const received = new Received();
    let plan;
    let index = 0;
    call.on('error', () => {});
    try {
      // The plain iterator would destroy the stream, and the answers with it, once the requests are read.
      for await (const request of call.iterator({ destroyOnReturn: false })) {
        if (!plan) {
          this.begun((plan = request), call);
          echoInitial(plan, call);
        }
        received.add(request);
        if (request.after_drain) await this.draining.opened;
        for (let k = 0; k < request.response_count; k++, index++) {
          if (!call.write({ payload: payloadOf(request.seed, index, request.response_size) })) await once(call, 'drain');
        }
        if (received.enough(plan)) break;
      }
    } catch {
      // The call was given up while a request was awaited.
      return;
    }
    if (!plan?.hang) finish(plan ?? {}, call);
  }

  answer(plan, received, call, callback) {
    echoInitial(plan, call);
    const trailing = trailingOf(plan, call);
    if (plan.status_code) callback({ code: plan.status_code, details: plan.status_message, metadata: trailing });
    else callback(null, received.response(plan, call), trailing);
  }

  async awaitState(call, callback) {
    const { call: name, state } = call.request;
    const watched = this.call(name);
    if (state === 'STALLED') return callback(null, { reached: await stalled(watched) });
    const latch = state === 'CANCELLED' ? watched.cancelled : watched.started;
    await Promise.race([latch.opened, pause(AWAIT_MS_MAX)]);
    return callback(null, { reached: latch.isOpen });
  }
}

async function stalled(call) {
  let still = 0;
  for (let n = 0; n < AWAIT_MS_MAX / STALL_SAMPLE_MS && still < STALL_SAMPLES; n++) {
    const before = call.sent;
    await pause(STALL_SAMPLE_MS);
    still = call.started.isOpen && call.sent === before ? still + 1 : 0;
  }
  return still === STALL_SAMPLES && call.sent < call.total;
}

function echoed(plan, call) {
  const metadata = new grpc.Metadata();
  if (plan.echo_metadata) {
    for (const [name, value] of pairs(call.metadata)) if (name.startsWith('x-')) metadata.add(name, value);
  }
  return metadata;
}

function echoInitial(plan, call) {
  if (plan.echo_metadata) call.sendMetadata(echoed(plan, call));
}

function trailingOf(plan, call) {
  const metadata = echoed(plan, call);
  if (plan.status_details?.length) metadata.set('grpc-status-details-bin', plan.status_details);
  return metadata;
}

function finish(plan, call) {
  const metadata = trailingOf(plan, call);
  if (plan.status_code) call.emit('error', { code: plan.status_code, details: plan.status_message, metadata });
  else call.end(metadata);
}

function serve() {
  const service = new Service();
  const server = new grpc.Server(OPTIONS);
  server.addService(schema.Interop.service, {
    Unary: (call, callback) => service.unary(call, callback),
    ClientStream: (call, callback) => service.clientStream(call, callback),
    ServerStream: (call) => service.serverStream(call),
    Bidi: (call) => service.bidi(call),
  });
  server.addService(schema.Control.service, {
    Await: (call, callback) => service.awaitState(call, callback),
    Drain: (_call, callback) => {
      callback(null, {});
      setImmediate(() => {
        server.tryShutdown(() => process.exit(0));
        service.draining.open();
      });
    },
  });
  server.bindAsync('127.0.0.1:0', serverCredentials(), (error, port) => {
    if (error) throw error;
    console.log(`LISTENING ${port}`);
  });
  process.stdin.resume();
  process.stdin.on('end', () => process.exit(0));
}

function serverCredentials() {
  if (!process.env.INTEROP_TLS) return grpc.ServerCredentials.createInsecure();
  const pair = { private_key: tlsFile('key.pem'), cert_chain: tlsFile('cert.pem') };
  return grpc.ServerCredentials.createSsl(tlsFile('ca.pem'), [pair], true);
}

function clientCredentials() {
  if (!process.env.INTEROP_TLS) return grpc.credentials.createInsecure();
  return grpc.credentials.createSsl(tlsFile('ca.pem'), tlsFile('key.pem'), tlsFile('cert.pem'));
}

function clientTo(target, more = {}) {
  return new grpc.Client(target, clientCredentials(), { ...CHANNEL_OPTIONS, ...more });
}

class Client {
  constructor(target, control) {
    this.target = target;
    this.plain = clientTo(target);
    this.control = new schema.Control(control, clientCredentials(), CHANNEL_OPTIONS);
    // Compression is an option of the channel here, and so these calls have a connection of their own.
    this.gzip = clientTo(target, { 'grpc.default_compression_algorithm': 2 });
  }

  awaitState(call, state) {
    return new Promise((resolve, reject) =>
      this.control.Await({ call, state }, (error, response) => (error ? reject(error) : resolve(response.reached))),
    );
  }

  drain() {
    return new Promise((resolve, reject) => this.control.Drain({}, (error) => (error ? reject(error) : resolve())));
  }

  async run(spec) {
    if (spec.concurrent) return this.runConcurrent(spec);
    if (spec.soak) return this.runSoak(spec);
    const name = spec.request.call;
    const result = {};
    const running = this.start(spec);
    if (spec.pause) running.call.pause();
    if (spec.cancel) await this.awaitState(name, 'STARTED');
    if (spec.pause) {
      result.stalled = await this.awaitState(name, 'STALLED');
      running.call.resume();
    }
    if (spec.cancel && !spec.cancel_after) running.call.cancel();
    Object.assign(result, await running.ended);
    if (spec.await_cancelled) result.server_heard = await this.awaitState(name, 'CANCELLED');
    return result;
  }

  // All calls at once; each has its seed.
  async runConcurrent(spec) {
    const running = seeded(spec, spec.concurrent).map((one) => this.start(one).ended);
    return summed(await Promise.all(running));
  }

  // One call after another, each with its seed, and a connection of its own if the case says so.
  async runSoak(spec) {
    const results = [];
    for (const one of seeded(spec, spec.soak)) {
      // A pool of its own, or grpc-js would share the connection of an equal channel.
      const own = spec.new_channel && clientTo(this.target, { 'grpc.use_local_subchannel_pool': 1 });
      results.push(await this.start(one, own || undefined).ended);
      if (own) own.close();
    }
    return summed(results);
  }

  // Starts the call; `ended` resolves to its result once its status is there.
  start(spec, client) {
    const tally = { messages: 0, bytes: 0, sha256: crypto.createHash('sha256'), last: null, initial: new grpc.Metadata() };
    const call = this.begin(spec, client, (response) => {
      tally.messages += 1;
      tally.bytes += response.payload.length;
      tally.sha256.update(response.payload);
      tally.last = response;
      call.emit('answered');
      if (tally.messages === spec.cancel_after) call.cancel();
    });
    call.on('metadata', (metadata) => (tally.initial = metadata));
    call.once('status', () => (call.hasEnded = true));
    // Where a call answers once, its answer comes by the callback, and may come after the status.
    const ended = Promise.all([once(call, 'status'), call.settled]).then(([status]) => resultOf(status, tally));
    if (spec.shape === 'client_stream' || spec.shape === 'bidi') this.send(spec, call);
    return { call, ended };
  }

  begin(spec, client = spec.gzip ? this.gzip : this.plain, answered) {
    const metadata = new grpc.Metadata();
    for (const [name, value] of spec.metadata ?? []) {
      metadata.add(name, name.endsWith('-bin') ? Buffer.from(value, 'hex') : value);
    }
    const options = spec.deadline_ms ? { deadline: Date.now() + spec.deadline_ms } : {};
    const method = schema.Interop.service[{ unary: 'Unary', client_stream: 'ClientStream', server_stream: 'ServerStream', bidi: 'Bidi' }[spec.shape]];
    const common = [spec.path, method.requestSerialize, method.responseDeserialize];
    if (spec.shape === 'unary' || spec.shape === 'client_stream') {
      let settle;
      const settled = new Promise((resolve) => (settle = resolve));
      const callback = (error, response) => {
        if (!error) answered(response);
        settle();
      };
      const call =
        spec.shape === 'unary'
          ? client.makeUnaryRequest(...common, requestOf(spec, 0), metadata, options, callback)
          : client.makeClientStreamRequest(...common, metadata, options, callback);
      call.settled = settled;
      call.on('error', () => {});
      return call;
    }
    const call =
      spec.shape === 'server_stream'
        ? client.makeServerStreamRequest(...common, requestOf(spec, 0), metadata, options)
        : client.makeBidiStreamRequest(...common, metadata, options);
    call.on('data', answered);
    call.on('error', () => {});
    return call;
  }

  // The stream of requests: at once, or each after the answers to the one before (ping-pong).
  async send(spec, call) {
    const ended = once(call, 'status');
    let answers = 0;
    call.on('answered', () => (answers += 1));
    for (let index = 0; index < (spec.count ?? MESSAGES_MAX) && !call.hasEnded; index++) {
      while (index && spec.ping_pong && answers < index * spec.request.response_count && !call.hasEnded) {
        await Promise.race([once(call, 'answered'), ended]);
      }
      if (index && index === spec.drain_at) await this.drain();
      if (!call.write(requestOf(spec, index))) await Promise.race([once(call, 'drain'), ended]);
    }
    if (!spec.hold_open) call.end();
  }
}

function seeded(spec, count) {
  return Array.from({ length: count }, (_, seed) => ({ ...spec, request: { ...spec.request, seed } }));
}

function summed(results) {
  const codes = {};
  const all = crypto.createHash('sha256');
  for (const result of results) {
    codes[result.code] = (codes[result.code] ?? 0) + 1;
    all.update(result.sha256);
  }
  return { codes, sha256: all.digest('hex') };
}

function requestOf(spec, index) {
  const { payload_size: size = 0, status_details: details = '', ...rest } = spec.request;
  return {
    ...rest,
    response_size: spec.answer_sizes?.[index] ?? rest.response_size,
    payload: payloadOf(rest.seed ?? 0, index, spec.payload_sizes?.[index] ?? size),
    status_details: Buffer.from(details, 'hex'),
    after_drain: spec.drain_at > 0 && index >= spec.drain_at,
  };
}

function resultOf(status, tally) {
  return {
    code: status.code,
    message: status.details,
    details: status.metadata.get('grpc-status-details-bin').map((value) => value.toString('hex'))[0] ?? '',
    initial: fields(tally.initial),
    trailing: fields(status.metadata),
    messages: tally.messages,
    bytes: tally.bytes,
    sha256: tally.sha256.digest('hex'),
    last: report(tally.last),
  };
}

function report(response) {
  if (!response?.received_sha256) return null;
  return {
    messages: response.received_messages,
    bytes: response.received_bytes,
    sha256: response.received_sha256,
    seen: response.seen.map(({ name, value }) => [name, name.endsWith('-bin') ? value.toString('hex') : value.toString('latin1')]),
  };
}

async function converse(target, control) {
  const client = new Client(target, control);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await client.run(JSON.parse(line))));
  }
  process.exit(0);
}

if (process.argv[2] === 'server') serve();
else converse(process.argv[3], process.argv[4]);
