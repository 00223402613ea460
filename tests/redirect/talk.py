#!/usr/bin/env python3
"""Both ends of conversations in several protocols, each with a port of its own, each telling exactly which bytes it received.

    talk.py serve                     every port; after each connection a line: NAME PEER RECEIVED END
    talk.py call, then lines HOST NAME    has that conversation; prints: RECEIVED END

RECEIVED is the number and the SHA-256 of all bytes that came from the other side, END how it ended: `fin`, `reset` or
`refused`. Both are the same each time if nobody between changes a byte. The bytes of HTTP/2 are written out here: what stands
between may have no part in a library's choices. Ends with its standard input. Every wait is bounded.
"""

import hashlib
import random
import socket
import struct
import sys
import threading

PORTS = {"grpc": 5001, "http1": 5002, "greeting": 5003, "half-close": 5004, "bulk": 5005, "server-reset": 5006,
         "client-reset": 5007, "killed": 5008,
         "late": 5009}
WAIT_SECONDS_MAX = 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BULK_BYTES = 2 * 1024 * 1024


def say(line, lock=threading.Lock()):
    """print() of several threads would mix the lines."""
    with lock:
        print(line, flush=True)


class Talk:
    """One connection: what is read is counted and hashed."""

    def __init__(self, sock):
        self.sock, self.hash, self.count, self.pending = sock, hashlib.sha256(), 0, b""
        sock.settimeout(WAIT_SECONDS_MAX)

    def send(self, data):
        self.sock.sendall(data)

    def fill(self):
        data = self.sock.recv(65536)
        self.hash.update(data)
        self.count += len(data)
        self.pending += data
        return data

    def take(self, length):
        while len(self.pending) < length:
            if not self.fill():
                raise EOFError(f"{len(self.pending)} of {length} bytes")
        taken, self.pending = self.pending[:length], self.pending[length:]
        return taken

    def until(self, end):
        while end not in self.pending:
            if not self.fill():
                raise EOFError(f"no {end!r}")
        return self.take(self.pending.index(end) + len(end))

    def rest(self):
        while self.fill():
            self.pending = b""

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def received(self):
        return f"{self.count}:{self.hash.hexdigest()[:16]}"

    # HTTP/2

    def frame(self, kind, flags, stream, payload=b""):
        self.send(struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload)

    def read_frame(self):
        header = self.take(9)
        length = int.from_bytes(header[:3], "big")
        return header[3], header[4], self.take(length)


def fields(*pairs):
    """A header block of literals without indexing (RFC 7541 section 6.2.2)."""
    return b"".join(b"\0" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in pairs)


def bulk(seed):
    return random.Random(seed).randbytes(BULK_BYTES)


def serve_grpc(talk):
    talk.take(len(PREFACE))
    while True:
        kind, flags, _ = talk.read_frame()
        if kind == 4 and not flags & 1:
            talk.frame(4, 0, 0)
            talk.frame(4, 1, 0)
        if kind == 0 and flags & 1:
            break
    talk.frame(1, 4, 1, fields((":status", "200"), ("content-type", "application/grpc")))
    talk.frame(0, 0, 1, b"\0" + struct.pack("!I", 5) + b"world")
    talk.frame(1, 5, 1, fields(("grpc-status", "0")))
    talk.rest()


def call_grpc(talk):
    talk.send(PREFACE)
    talk.frame(4, 0, 0)
    talk.frame(1, 4, 1, fields((":method", "POST"), (":scheme", "http"), (":path", "/greeter.Greeter/Hello"),
                               (":authority", "greeter"), ("te", "trailers"), ("content-type", "application/grpc")))
    talk.frame(0, 1, 1, b"\0" + struct.pack("!I", 5) + b"hello")
    while True:
        kind, flags, _ = talk.read_frame()
        if kind == 4 and not flags & 1:
            talk.frame(4, 1, 0)
        if kind == 1 and flags & 1:
            break
    talk.frame(7, 0, 0, struct.pack("!II", 0, 0))
    talk.half_close()
    talk.rest()


def serve_http1(talk):
    talk.until(b"\r\n\r\n")
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
    talk.until(b"0\r\n\r\n")
    talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n")
    talk.rest()


def call_http1(talk):
    talk.send(b"GET /one HTTP/1.1\r\nHost: odd.Example\r\nX-Odd:   spaces  \r\n\r\n")
    talk.until(b"first")
    talk.send(b"POST /two HTTP/1.1\r\nhost: example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    talk.until(b"0\r\n\r\n")
    talk.half_close()
    talk.rest()


def serve_greeting(talk):
    talk.send(b"220 who are you?\r\n")
    talk.until(b"QUIT\r\n")
    talk.send(b"221 bye\r\n")


def call_greeting(talk):
    talk.until(b"\r\n")
    talk.send(b"QUIT\r\n")
    talk.rest()


def serve_half_close(talk):
    talk.rest()
    talk.send(b"heard you out: " + talk.received().encode())


def call_half_close(talk):
    talk.send(b"\x00\x01 neither HTTP nor TLS")
    talk.half_close()
    talk.rest()


def both_ways(talk, seed):
    sending = threading.Thread(target=lambda: (talk.send(bulk(seed)), talk.half_close()))
    sending.start()
    talk.rest()
    sending.join()


def serve_server_reset(talk):
    talk.until(b"\n")
    talk.reset()


def call_server_reset(talk):
    talk.send(b"\x01reset me\n")
    talk.rest()


def serve_client_reset(talk):
    talk.until(b"\n")
    talk.send(b"\x02go on")
    talk.rest()


def call_client_reset(talk):
    talk.send(b"\x01I shall break it\n")
    talk.take(6)
    talk.reset()


def serve_killed(talk):
    """Waits to be killed, with bytes in the socket that nobody has read: then the kernel resets the connection."""
    talk.until(b"\n")
    talk.send(b"\x02held")
    talk.sock.recv(6, socket.MSG_PEEK | socket.MSG_WAITALL)
    say("holding")
    threading.Event().wait()


def call_killed(talk):
    talk.send(b"\x01hold me\n")
    talk.take(5)
    talk.send(b"unread")
    talk.rest()


def serve_late(talk):
    """Answers long after the client has said its last: as long as its `late SECONDS` asks for."""
    seconds = float(talk.until(b"\n").split()[1])
    talk.rest()
    threading.Event().wait(seconds)
    talk.send(b"late, but here")


def call_late(talk):
    talk.send(b"\x01late 8\n")
    talk.half_close()
    talk.rest()


SERVE = {"grpc": serve_grpc, "http1": serve_http1, "greeting": serve_greeting, "half-close": serve_half_close,
         "bulk": lambda talk: both_ways(talk, 1), "server-reset": serve_server_reset, "client-reset": serve_client_reset,
         "killed": serve_killed, "late": serve_late}
CALL = {"grpc": call_grpc, "http1": call_http1, "greeting": call_greeting, "half-close": call_half_close,
        "bulk": lambda talk: both_ways(talk, 2), "server-reset": call_server_reset, "client-reset": call_client_reset,
        "killed": call_killed, "late": call_late}


def have(sock, conversation):
    """RECEIVED END of a conversation."""
    talk, end = Talk(sock), "fin"
    try:
        conversation(talk)
    except ConnectionError:
        end = "reset"
    except EOFError as error:
        end = f"early ({error})".replace(" ", "_")
    except TimeoutError:
        end = "stuck"
    said = f"{talk.received()} {end}"
    sock.close()
    return said


def serve_port(name, port):
    listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", port))
    listener.listen()

    def tell(sock, peer):
        said = have(sock, SERVE[name])
        say(f"{name} {peer.removeprefix('::ffff:')} {said}")

    def accept():
        while True:
            sock, peer = listener.accept()
            threading.Thread(target=tell, args=(sock, peer[0]), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def call(host, name):
    try:
        sock = socket.create_connection((host, PORTS.get(name) or int(name)), WAIT_SECONDS_MAX)
    except ConnectionRefusedError:
        return "0 refused"
    except ConnectionError:
        return "0 reset"
    return have(sock, CALL.get(name, Talk.rest))


if sys.argv[1] == "serve":
    for served in PORTS.items():
        serve_port(*served)
    say("ready")
    sys.stdin.read()
else:
    for line in sys.stdin:
        say(call(*line.split()))
