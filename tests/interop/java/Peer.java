import com.google.protobuf.ByteString;
import com.google.protobuf.Message;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.protobuf.ProtoUtils;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.TreeSet;

/**
 * The Java peer of the interop tests, on grpc-java with Netty: {@code Peer server}, or {@code Peer client TARGET CONTROL}.
 *
 * <p>The server prints {@code LISTENING <port>} and ends when its graceful shutdown is done or its standard input ends.
 * The client reads one call as a line of JSON from standard input, makes it, and answers with its result as a line of
 * JSON. {@code interop.proto} says what a request makes the server do; the other peers do the same in other words. Here
 * stands what both parts share; they themselves are in PeerServer and PeerClient.
 */
final class Peer {
  static final String SERVICE = "attestry.interop.v1.Interop";
  static final String CONTROL = "attestry.interop.v1.Control";

  /** The name that clients ask for, and that the server's certificate has. */
  static final String AUTHORITY = "interop.test";

  static final int METADATA_BYTES_MAX = 256 * 1024;
  static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  /** With INTEROP_TLS, a folder, both sides show ca.pem's certificate cert.pem and ask the other for one. */
  static final String TLS_FOLDER = System.getenv("INTEROP_TLS");

  public static void main(String[] arguments) throws Exception {
    if (arguments[0].equals("server")) {
      new PeerServer().serve();
    } else {
      new PeerClient(arguments[1], arguments[2]).converse();
    }
  }

  static File tlsFile(String name) {
    return new File(TLS_FOLDER, name);
  }

  static <Q extends Message, A extends Message> MethodDescriptor<Q, A> method(
      MethodType type, String path, Q question, A answer) {
    return MethodDescriptor.<Q, A>newBuilder()
        .setType(type)
        .setFullMethodName(path)
        .setRequestMarshaller(ProtoUtils.marshaller(question))
        .setResponseMarshaller(ProtoUtils.marshaller(answer))
        .build();
  }

  /** Byte i is (seed + index + i) mod 256. */
  static ByteString payload(int seed, int index, int size) {
    byte[] payload = new byte[size];
    for (int i = 0; i < size; i++) {
      payload[i] = (byte) (seed + index + i);
    }
    return ByteString.copyFrom(payload);
  }

  static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (java.security.NoSuchAlgorithmException error) {
      throw new IllegalStateException("every Java has SHA-256", error);
    }
  }

  static String hex(byte[] bytes) {
    return HexFormat.of().formatHex(bytes);
  }

  /** One field of metadata. */
  record Field(String name, byte[] value) {
    /** Binary values as hex. */
    String shown() {
      return name.endsWith(Metadata.BINARY_HEADER_SUFFIX) ? hex(value) : new String(value, StandardCharsets.ISO_8859_1);
    }
  }

  /** The fields by name, as grpc-java keeps no order between names; the values of one name stand in theirs. */
  static List<Field> fields(Metadata metadata) {
    List<Field> fields = new ArrayList<>();
    for (String name : new TreeSet<>(metadata.keys())) {
      if (name.endsWith(Metadata.BINARY_HEADER_SUFFIX)) {
        metadata.getAll(Metadata.Key.of(name, Metadata.BINARY_BYTE_MARSHALLER)).forEach(value -> fields.add(new Field(name, value)));
      } else {
        metadata.getAll(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER))
            .forEach(value -> fields.add(new Field(name, value.getBytes(StandardCharsets.ISO_8859_1))));
      }
    }
    return fields;
  }

  static void add(Metadata metadata, String name, byte[] value) {
    if (name.endsWith(Metadata.BINARY_HEADER_SUFFIX)) {
      metadata.put(Metadata.Key.of(name, Metadata.BINARY_BYTE_MARSHALLER), value);
    } else {
      metadata.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), new String(value, StandardCharsets.ISO_8859_1));
    }
  }

  private Peer() {}
}
