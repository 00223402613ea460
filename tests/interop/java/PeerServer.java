import attestry.interop.v1.InteropOuterClass.AwaitRequest;
import attestry.interop.v1.InteropOuterClass.AwaitResponse;
import attestry.interop.v1.InteropOuterClass.DrainRequest;
import attestry.interop.v1.InteropOuterClass.DrainResponse;
import attestry.interop.v1.InteropOuterClass.Field;
import attestry.interop.v1.InteropOuterClass.Request;
import attestry.interop.v1.InteropOuterClass.Response;
import com.google.protobuf.ByteString;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.netty.shaded.io.netty.handler.ssl.ClientAuth;
import io.grpc.stub.ServerCalls;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.security.MessageDigest;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** The server. Each call runs on a thread of its own, so that it may wait where it stands. */
final class PeerServer {
  /** grpc-java counts a call that it ended within a request as running for as long as the connection stands. */
  private static final int GRACE_SECONDS = 3;

  private static final int AWAIT_MS_MAX = 10_000;
  private static final int STALL_SAMPLE_MS = 50;
  private static final int STALL_SAMPLES = 10;

  private final Map<String, CallState> calls = new ConcurrentHashMap<>();
  private final CountDownLatch draining = new CountDownLatch(1);
  private int waiting;
  private Server server;

  /** What the side channel tells of one call. */
  private static final class CallState {
    final CountDownLatch started = new CountDownLatch(1);
    final CountDownLatch cancelled = new CountDownLatch(1);
    volatile int sent;
    volatile int total;
  }

  /** The caller has gone. */
  private static final class Gone extends Exception {
    private static final long serialVersionUID = 1;
  }

  /** What a call does between its first request and its end. */
  private interface Body {
    void run(Exchange exchange) throws Gone, InterruptedException;
  }

  void serve() throws IOException, InterruptedException {
    NettyServerBuilder builder =
        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0))
            .maxInboundMessageSize(Integer.MAX_VALUE)
            .maxInboundMetadataSize(Peer.METADATA_BYTES_MAX)
            .addService(interop())
            .addService(control());
    if (Peer.TLS_FOLDER != null) {
      builder.sslContext(
          GrpcSslContexts.forServer(Peer.tlsFile("cert.pem"), Peer.tlsFile("key.pem"))
              .trustManager(Peer.tlsFile("ca.pem"))
              .clientAuth(ClientAuth.REQUIRE)
              .build());
    }
    server = builder.build().start();
    System.out.println("LISTENING " + server.getPort());
    Thread stdin = new Thread(this::endWithStandardInput);
    stdin.setDaemon(true);
    stdin.start();
    draining.await();
    server.awaitTermination(GRACE_SECONDS, TimeUnit.SECONDS);
    System.exit(0);
  }

  private void endWithStandardInput() {
    try {
      System.in.transferTo(java.io.OutputStream.nullOutputStream());
    } catch (IOException error) {
      // An input that cannot be read has ended too.
    }
    System.exit(0);
  }

  private ServerServiceDefinition interop() {
    ServerServiceDefinition.Builder service = ServerServiceDefinition.builder(Peer.SERVICE);
    add(service, "Unary", MethodType.UNARY, this::unary);
    add(service, "ClientStream", MethodType.CLIENT_STREAMING, this::clientStream);
    add(service, "ServerStream", MethodType.SERVER_STREAMING, this::serverStream);
    add(service, "Bidi", MethodType.BIDI_STREAMING, this::bidi);
    return service.build();
  }

  private void add(ServerServiceDefinition.Builder service, String name, MethodType type, Body body) {
    service.addMethod(
        Peer.method(type, Peer.SERVICE + "/" + name, Request.getDefaultInstance(), Response.getDefaultInstance()),
        (call, metadata) -> {
          Exchange exchange = new Exchange(call, metadata);
          Thread thread = new Thread(() -> exchange.run(body));
          thread.setDaemon(true);
          thread.start();
          return exchange;
        });
  }

  private ServerServiceDefinition control() {
    return ServerServiceDefinition.builder(Peer.CONTROL)
        .addMethod(
            Peer.method(MethodType.UNARY, Peer.CONTROL + "/Await", AwaitRequest.getDefaultInstance(), AwaitResponse.getDefaultInstance()),
            ServerCalls.asyncUnaryCall(
                (request, answer) -> {
                  answer.onNext(AwaitResponse.newBuilder().setReached(await(request)).build());
                  answer.onCompleted();
                }))
        .addMethod(
            Peer.method(MethodType.UNARY, Peer.CONTROL + "/Drain", DrainRequest.getDefaultInstance(), DrainResponse.getDefaultInstance()),
            ServerCalls.asyncUnaryCall(
                (request, answer) -> {
                  answer.onNext(DrainResponse.getDefaultInstance());
                  answer.onCompleted();
                  server.shutdown();
                  draining.countDown();
                }))
        .build();
  }

  private void unary(Exchange exchange) throws Gone, InterruptedException {
    if (exchange.plan.getBarrier() > 0) {
      passBarrier(exchange.plan.getBarrier());
    }
    exchange.answerOnce();
  }

  private void clientStream(Exchange exchange) throws Gone, InterruptedException {
    while (!exchange.enough() && exchange.next() != null) {}
    exchange.answerOnce();
  }

  private void serverStream(Exchange exchange) throws Gone, InterruptedException {
    Request plan = exchange.plan;
    boolean isListed = plan.getResponseSizesCount() > 0;
    int count = isListed ? plan.getResponseSizesCount() : plan.getResponseCount();
    exchange.state.total = count;
    exchange.echoInitial();
    for (int index = 0; index < count; index++) {
      exchange.send(index, isListed ? plan.getResponseSizes(index) : plan.getResponseSize(), plan.getSeed());
      exchange.state.sent = index + 1;
    }
    exchange.finish();
  }

  private void bidi(Exchange exchange) throws Gone, InterruptedException {
    exchange.echoInitial();
    int index = 0;
    for (Request request = exchange.messages > 0 ? exchange.plan : null; request != null; request = exchange.next()) {
      if (request.getAfterDrain()) {
        draining.await();
      }
      for (int k = 0; k < request.getResponseCount(); k++) {
        exchange.send(index++, request.getResponseSize(), request.getSeed());
      }
      if (exchange.enough()) {
        break;
      }
    }
    exchange.finish();
  }

  private CallState call(String name) {
    return calls.computeIfAbsent(name, unused -> new CallState());
  }

  private synchronized void passBarrier(int width) throws InterruptedException {
    waiting++;
    notifyAll();
    while (waiting < width) {
      wait();
    }
  }

  private boolean await(AwaitRequest request) {
    CallState call = call(request.getCall());
    try {
      return switch (request.getState()) {
        case STALLED -> stalled(call);
        case CANCELLED -> call.cancelled.await(AWAIT_MS_MAX, TimeUnit.MILLISECONDS);
        default -> call.started.await(AWAIT_MS_MAX, TimeUnit.MILLISECONDS);
      };
    } catch (InterruptedException error) {
      return false;
    }
  }

  private static boolean stalled(CallState call) throws InterruptedException {
    int still = 0;
    for (int n = 0; n < AWAIT_MS_MAX / STALL_SAMPLE_MS && still < STALL_SAMPLES; n++) {
      int before = call.sent;
      Thread.sleep(STALL_SAMPLE_MS);
      still = call.started.getCount() == 0 && call.sent == before ? still + 1 : 0;
    }
    return still == STALL_SAMPLES && call.sent < call.total;
  }

  /** One call, and what came in over it. */
  private final class Exchange extends ServerCall.Listener<Request> {
    /** In the queue, what stands for the half-close and for the caller's going. */
    private static final Object HALF_CLOSE = new Object();
    private static final Object GONE = new Object();

    private final ServerCall<Request, Response> call;
    private final Metadata metadata;
    private final boolean hasDeadline = Context.current().getDeadline() != null;
    private final LinkedBlockingQueue<Object> events = new LinkedBlockingQueue<>();
    private final MessageDigest sha256 = Peer.sha256();
    private volatile boolean isGone;
    private volatile CallState state;
    private boolean hasSentHeaders;
    private boolean hasHalfClosed;
    private Request plan = Request.getDefaultInstance();
    private long messages;
    private long bytes;

    Exchange(ServerCall<Request, Response> call, Metadata metadata) {
      this.call = call;
      this.metadata = metadata;
    }

    @Override
    public void onMessage(Request request) {
      events.add(request);
    }

    @Override
    public void onHalfClose() {
      events.add(HALF_CLOSE);
    }

    @Override
    public void onCancel() {
      events.add(GONE);
      synchronized (this) {
        isGone = true;
        notifyAll();
      }
      if (state != null) {
        state.cancelled.countDown();
      }
    }

    @Override
    public synchronized void onReady() {
      notifyAll();
    }

    void run(Body body) {
      try {
        Request first = next();
        plan = first == null ? plan : first;
        if (plan.getGzip()) {
          call.setCompression("gzip");
          call.setMessageCompression(true);
        }
        state = call(plan.getCall());
        state.started.countDown();
        if (isGone) {
          state.cancelled.countDown();
        }
        body.run(this);
      } catch (Gone | InterruptedException error) {
        // Nobody is left to be told.
      } catch (RuntimeException error) {
        error.printStackTrace();
        System.exit(1);
      }
    }

    /** The next request; none after the half-close. */
    Request next() throws Gone, InterruptedException {
      if (hasHalfClosed) {
        return null;
      }
      call.request(1);
      Object event = events.take();
      if (event == GONE) {
        throw new Gone();
      }
      if (event == HALF_CLOSE) {
        hasHalfClosed = true;
        return null;
      }
      Request request = (Request) event;
      messages++;
      bytes += request.getPayload().size();
      sha256.update(request.getPayload().asReadOnlyByteBuffer());
      return request;
    }

    boolean enough() {
      return plan.getEndAfter() > 0 && messages >= plan.getEndAfter();
    }

    void send(int index, int size, int seed) throws Gone, InterruptedException {
      send(Response.newBuilder().setPayload(Peer.payload(seed, index, size)).build());
    }

    private void send(Response answer) throws Gone, InterruptedException {
      sendHeaders(new Metadata());
      synchronized (this) {
        while (!call.isReady() && !isGone) {
          wait();
        }
      }
      if (isGone) {
        throw new Gone();
      }
      call.sendMessage(answer);
    }

    void echoInitial() {
      if (plan.getEchoMetadata()) {
        sendHeaders(echoed());
      }
    }

    private void sendHeaders(Metadata headers) {
      if (!hasSentHeaders) {
        hasSentHeaders = true;
        call.sendHeaders(headers);
      }
    }

    private Metadata echoed() {
      Metadata echoed = new Metadata();
      for (Peer.Field field : Peer.fields(metadata)) {
        if (plan.getEchoMetadata() && field.name().startsWith("x-")) {
          Peer.add(echoed, field.name(), field.value());
        }
      }
      return echoed;
    }

    void answerOnce() throws Gone, InterruptedException {
      echoInitial();
      hangIfPlanned();
      if (plan.getStatusCode() == 0) {
        send(response());
      }
      finish();
    }

    private void hangIfPlanned() throws Gone, InterruptedException {
      if (plan.getHang()) {
        while (events.take() != GONE) {}
        throw new Gone();
      }
    }

    /** Ends the call as the plan says; one that hangs never ends. */
    void finish() throws Gone, InterruptedException {
      hangIfPlanned();
      Metadata trailers = echoed();
      if (!plan.getStatusDetails().isEmpty()) {
        trailers.put(Peer.DETAILS, plan.getStatusDetails().toByteArray());
      }
      Status status = Status.fromCodeValue(plan.getStatusCode());
      call.close(plan.getStatusMessage().isEmpty() ? status : status.withDescription(plan.getStatusMessage()), trailers);
    }

    private Response response() {
      Response.Builder response = Response.newBuilder().setPayload(Peer.payload(plan.getSeed(), 0, plan.getResponseSize()));
      if (!plan.getReport()) {
        return response.build();
      }
      for (Peer.Field field : Peer.fields(metadata)) {
        response.addSeen(seen(field.name(), ByteString.copyFrom(field.value())));
      }
      response.addSeen(seen(":authority", ByteString.copyFromUtf8(call.getAuthority())));
      if (hasDeadline) {
        response.addSeen(seen("deadline", ByteString.copyFromUtf8("set")));
      }
      return response
          .setReceivedMessages(messages)
          .setReceivedBytes(bytes)
          .setReceivedSha256(Peer.hex(sha256.digest()))
          .build();
    }

    private static Field seen(String name, ByteString value) {
      return Field.newBuilder().setName(name).setValue(value).build();
    }
  }
}
