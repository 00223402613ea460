import attestry.interop.v1.InteropOuterClass.AwaitRequest;
import attestry.interop.v1.InteropOuterClass.AwaitResponse;
import attestry.interop.v1.InteropOuterClass.DrainRequest;
import attestry.interop.v1.InteropOuterClass.DrainResponse;
import attestry.interop.v1.InteropOuterClass.Request;
import attestry.interop.v1.InteropOuterClass.Response;
import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.ByteString;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCalls;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.IntFunction;

/** The client. Calls are made by the thread that reads the cases; a stream of requests has a thread of its own. */
final class PeerClient {
  private static final int MESSAGES_MAX = 1_000_000;

  /** A window that does not grow, so that a whole slow stream does not fit into it. */
  private static final int NARROW_WINDOW = 1024 * 1024;

  private static final Map<String, MethodType> TYPES =
      Map.of(
          "unary", MethodType.UNARY,
          "client_stream", MethodType.CLIENT_STREAMING,
          "server_stream", MethodType.SERVER_STREAMING,
          "bidi", MethodType.BIDI_STREAMING);

  private final String target;
  private final Channel plain;
  private final Channel narrow;
  private final Channel control;

  PeerClient(String target, String control) throws Exception {
    this.target = target;
    this.plain = builder(target).build();
    this.narrow = builder(target).flowControlWindow(NARROW_WINDOW).build();
    this.control = builder(control).build();
  }

  void converse() throws Exception {
    Gson gson = new Gson();
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      byte[] result = gson.toJson(run(JsonParser.parseString(line).getAsJsonObject())).getBytes(StandardCharsets.UTF_8);
      System.out.write(result);
      System.out.write('\n');
      System.out.flush();
    }
    System.exit(0);
  }

  private static NettyChannelBuilder builder(String target) throws Exception {
    String[] parts = target.split(":");
    NettyChannelBuilder builder =
        NettyChannelBuilder.forAddress(parts[0], Integer.parseInt(parts[1]))
            .overrideAuthority(Peer.AUTHORITY)
            .disableRetry()
            .maxInboundMessageSize(Integer.MAX_VALUE)
            .maxInboundMetadataSize(Peer.METADATA_BYTES_MAX);
    if (Peer.TLS_FOLDER == null) {
      return builder.usePlaintext();
    }
    return builder.sslContext(
        GrpcSslContexts.forClient()
            .trustManager(Peer.tlsFile("ca.pem"))
            .keyManager(Peer.tlsFile("cert.pem"), Peer.tlsFile("key.pem"))
            .build());
  }

  private <Q extends Message, A extends Message> A ask(String method, Q question, A answer) {
    var described = Peer.method(MethodType.UNARY, Peer.CONTROL + "/" + method, question, answer);
    return ClientCalls.blockingUnaryCall(control, described, CallOptions.DEFAULT, question);
  }

  private boolean await(JsonObject spec, AwaitRequest.State state) {
    String call = spec.getAsJsonObject("request").get("call").getAsString();
    return ask(
            "Await",
            AwaitRequest.newBuilder().setCall(call).setState(state).build(),
            AwaitResponse.getDefaultInstance())
        .getReached();
  }

  private JsonObject run(JsonObject spec) throws Exception {
    if (spec.has("concurrent")) {
      return runConcurrent(spec);
    }
    if (spec.has("soak")) {
      return runSoak(spec);
    }
    Call call = new Call(spec, flag(spec, "pause") ? narrow : plain);
    JsonObject result = new JsonObject();
    if (flag(spec, "cancel")) {
      await(spec, AwaitRequest.State.STARTED);
      if (!spec.has("cancel_after")) {
        call.cancel();
      }
    }
    if (flag(spec, "pause")) {
      result.addProperty("stalled", await(spec, AwaitRequest.State.STALLED));
    }
    call.result().entrySet().forEach(member -> result.add(member.getKey(), member.getValue()));
    if (flag(spec, "await_cancelled")) {
      result.addProperty("server_heard", await(spec, AwaitRequest.State.CANCELLED));
    }
    return result;
  }

  /** All calls at once; each has its seed. */
  private JsonObject runConcurrent(JsonObject spec) throws Exception {
    List<Call> running = new ArrayList<>();
    for (int seed = 0; seed < number(spec, "concurrent"); seed++) {
      running.add(new Call(seeded(spec, seed), plain));
    }
    return summed(running.size(), index -> running.get(index).result());
  }

  /** One call after another, each with its seed, and a connection of its own if the case says so. */
  private JsonObject runSoak(JsonObject spec) {
    return summed(
        number(spec, "soak"),
        seed -> {
          try {
            if (!flag(spec, "new_channel")) {
              return new Call(seeded(spec, seed), plain).result();
            }
            ManagedChannel own = builder(target).build();
            JsonObject result = new Call(seeded(spec, seed), own).result();
            own.shutdown().awaitTermination(10, TimeUnit.SECONDS);
            return result;
          } catch (Exception error) {
            throw new IllegalStateException(error);
          }
        });
  }

  private static JsonObject seeded(JsonObject spec, int seed) {
    JsonObject one = spec.deepCopy();
    one.getAsJsonObject("request").addProperty("seed", seed);
    return one;
  }

  private static JsonObject summed(int calls, IntFunction<JsonObject> result) {
    Map<String, Integer> codes = new TreeMap<>();
    MessageDigest all = Peer.sha256();
    for (int index = 0; index < calls; index++) {
      JsonObject one = result.apply(index);
      codes.merge(one.get("code").getAsString(), 1, Integer::sum);
      all.update(one.get("sha256").getAsString().getBytes(StandardCharsets.US_ASCII));
    }
    JsonObject sum = new JsonObject();
    sum.add("codes", new Gson().toJsonTree(codes));
    sum.addProperty("sha256", Peer.hex(all.digest()));
    return sum;
  }

  /** One call, and what came in over it. */
  private final class Call extends ClientCall.Listener<Response> {
    /** How a call ended. */
    private record End(Status status, Metadata trailers) {}

    private final JsonObject spec;
    private final ClientCall<Request, Response> call;
    private final LinkedBlockingQueue<Object> events = new LinkedBlockingQueue<>();
    private final MessageDigest sha256 = Peer.sha256();
    private volatile Metadata initial = new Metadata();
    private int answers;
    private boolean isEnded;
    private int messages;
    private long bytes;
    private Response last;

    Call(JsonObject spec, Channel channel) {
      this.spec = spec;
      CallOptions options = CallOptions.DEFAULT;
      if (spec.has("deadline_ms")) {
        options = options.withDeadlineAfter(number(spec, "deadline_ms"), TimeUnit.MILLISECONDS);
      }
      if (flag(spec, "gzip")) {
        options = options.withCompression("gzip");
      }
      MethodType type = TYPES.get(spec.get("shape").getAsString());
      String path = spec.get("path").getAsString().substring(1);
      call = channel.newCall(Peer.method(type, path, Request.getDefaultInstance(), Response.getDefaultInstance()), options);
      call.start(this, metadata());
      if (!flag(spec, "pause")) {
        call.request(1);
      }
      if (type.clientSendsOneMessage()) {
        call.sendMessage(requestOf(0));
        call.halfClose();
      } else {
        Thread sender = new Thread(this::send);
        sender.setDaemon(true);
        sender.start();
      }
    }

    private Metadata metadata() {
      Metadata metadata = new Metadata();
      for (JsonElement field : list("metadata")) {
        String name = field.getAsJsonArray().get(0).getAsString();
        String value = field.getAsJsonArray().get(1).getAsString();
        boolean isBinary = name.endsWith(Metadata.BINARY_HEADER_SUFFIX);
        Peer.add(metadata, name, isBinary ? HexFormat.of().parseHex(value) : value.getBytes(StandardCharsets.ISO_8859_1));
      }
      return metadata;
    }

    void cancel() {
      call.cancel("given up by the case", null);
    }

    @Override
    public void onHeaders(Metadata headers) {
      initial = headers;
    }

    @Override
    public void onMessage(Response answer) {
      events.add(answer);
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
      events.add(new End(status, trailers));
      synchronized (this) {
        isEnded = true;
        notifyAll();
      }
    }

    @Override
    public synchronized void onReady() {
      notifyAll();
    }

    /** Waits for the call's status. */
    JsonObject result() {
      try {
        if (flag(spec, "pause")) {
          call.request(1);
        }
        while (true) {
          Object event = events.take();
          if (event instanceof End end) {
            return resultOf(end);
          }
          add((Response) event);
        }
      } catch (InterruptedException error) {
        throw new IllegalStateException("nobody interrupts this thread", error);
      }
    }

    private void add(Response answer) {
      messages++;
      bytes += answer.getPayload().size();
      sha256.update(answer.getPayload().asReadOnlyByteBuffer());
      last = answer;
      synchronized (this) {
        answers++;
        notifyAll();
      }
      if (messages == number(spec, "cancel_after")) {
        cancel();
      }
      call.request(1);
    }

    /** The stream of requests: at once, or each after the answers to the one before (ping-pong). */
    private void send() {
      int count = spec.has("count") ? number(spec, "count") : MESSAGES_MAX;
      int perRequest = flag(spec, "ping_pong") ? number(spec.getAsJsonObject("request"), "response_count") : 0;
      for (int index = 0; index < count; index++) {
        if (!readyFor(index * perRequest)) {
          return;
        }
        if (index > 0 && index == number(spec, "drain_at")) {
          ask("Drain", DrainRequest.getDefaultInstance(), DrainResponse.getDefaultInstance());
        }
        call.sendMessage(requestOf(index));
      }
      if (!flag(spec, "hold_open")) {
        call.halfClose();
      }
    }

    /** Waits until so many answers came and the next message may go; false where the call has ended. */
    private synchronized boolean readyFor(int answersBefore) {
      try {
        while (!isEnded && (answers < answersBefore || !call.isReady())) {
          wait();
        }
        return !isEnded;
      } catch (InterruptedException error) {
        return false;
      }
    }

    private Request requestOf(int index) {
      JsonObject fields = spec.getAsJsonObject("request").deepCopy();
      int size = listed("payload_sizes", index, number(fields, "payload_size"));
      fields.addProperty("response_size", listed("answer_sizes", index, number(fields, "response_size")));
      String details = fields.has("status_details") ? fields.get("status_details").getAsString() : "";
      fields.remove("payload_size");
      fields.remove("status_details");
      Request.Builder request = Request.newBuilder();
      try {
        JsonFormat.parser().merge(fields.toString(), request);
      } catch (com.google.protobuf.InvalidProtocolBufferException error) {
        throw new IllegalStateException("the case's request is none of the schema's", error);
      }
      return request
          .setPayload(Peer.payload(request.getSeed(), index, size))
          .setStatusDetails(ByteString.copyFrom(HexFormat.of().parseHex(details)))
          .setAfterDrain(number(spec, "drain_at") > 0 && index >= number(spec, "drain_at"))
          .build();
    }

    private int listed(String name, int index, int otherwise) {
      JsonArray sizes = list(name);
      return index < sizes.size() ? sizes.get(index).getAsInt() : otherwise;
    }

    private JsonArray list(String name) {
      return spec.has(name) ? spec.getAsJsonArray(name) : new JsonArray();
    }

    private JsonObject resultOf(End end) {
      Metadata trailers = end.trailers();
      byte[] details = trailers.get(Peer.DETAILS);
      JsonObject result = new JsonObject();
      result.addProperty("code", end.status().getCode().value());
      result.addProperty("message", end.status().getDescription() == null ? "" : end.status().getDescription());
      result.addProperty("details", details == null ? "" : Peer.hex(details));
      result.add("initial", shown(Peer.fields(initial)));
      result.add("trailing", shown(Peer.fields(trailers)));
      result.addProperty("messages", messages);
      result.addProperty("bytes", bytes);
      result.addProperty("sha256", Peer.hex(sha256.digest()));
      result.add("last", report());
      return result;
    }

    private JsonObject report() {
      if (last == null || last.getReceivedSha256().isEmpty()) {
        return null;
      }
      List<Peer.Field> seen = new ArrayList<>();
      last.getSeenList().forEach(field -> seen.add(new Peer.Field(field.getName(), field.getValue().toByteArray())));
      JsonObject report = new JsonObject();
      report.addProperty("messages", last.getReceivedMessages());
      report.addProperty("bytes", last.getReceivedBytes());
      report.addProperty("sha256", last.getReceivedSha256());
      report.add("seen", shown(seen));
      return report;
    }
  }

  private static JsonArray shown(List<Peer.Field> fields) {
    JsonArray shown = new JsonArray();
    for (Peer.Field field : fields) {
      JsonArray pair = new JsonArray();
      pair.add(field.name());
      pair.add(field.shown());
      shown.add(pair);
    }
    return shown;
  }

  private static boolean flag(JsonObject object, String name) {
    return object.has(name) && object.get(name).getAsBoolean();
  }

  private static int number(JsonObject object, String name) {
    return object.has(name) ? object.get(name).getAsInt() : 0;
  }
}
