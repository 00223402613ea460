#!/usr/bin/env python3
"""Dials, and prints the greeting of whoever accepts, or how it failed. Serves many dials, one per line of its input.

    dialer.py, then lines of: HOST PORT [uid=N] [gid=N] [mark=N] [from=PORT] [hold] [reset] [udp] | echo TEXT | forge

`reset` asks the acceptor to reset the connection, and waits for that. `hold` keeps the connection for the lines `echo TEXT`, which prints what comes back, and `forge`, which sends a segment of the
held connection from far outside of its window, with a raw socket, as late or duplicated packets are.
"""

import encodings.idna  # Names need it, and another user may not be allowed to read it.
import os
import socket
import struct
import sys

SO_MARK = 36
WAIT_SECONDS_MAX = 10
ETH_P_ALL = 3


def dial(words):
    if "udp" in words:
        return datagram(words)
    options = dict(word.split("=") for word in words[2:] if "=" in word)
    if "uid" in options or "gid" in options:
        return in_child(words, options)
    return connect_and_read(words, options, "hold" in words)


def datagram(words):
    family, _, _, _, address = socket.getaddrinfo(words[0], int(words[1]), type=socket.SOCK_DGRAM)[0]
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(WAIT_SECONDS_MAX)
    try:
        sock.connect(address)
        sock.send(b"?")
        return sock.recv(100).decode()
    except OSError as error:
        return f"failed: {error}"


def in_child(words, options):
    """Dials as another user, which this process could not undo."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(int(options.get("gid", os.getgid())))
        os.setuid(int(options.get("uid", os.getuid())))
        os.write(writer, connect_and_read(words, options, False).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def connect_and_read(words, options, hold):
    global held
    family, _, _, _, address = socket.getaddrinfo(words[0], int(words[1]), type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(WAIT_SECONDS_MAX)
    if "from" in options:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", int(options["from"])))
    if "mark" in options:
        sock.setsockopt(socket.SOL_SOCKET, SO_MARK, int(options["mark"], 0))
    sniffer = None
    if hold:
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        sniffer.settimeout(WAIT_SECONDS_MAX)
    try:
        sock.connect(address)
        stream = sock.makefile("rwb")
        line = stream.readline().decode().strip()
        if "reset" in words:
            return line if was_reset(stream) else "not reset"
    except ConnectionRefusedError:
        return "refused"
    except ConnectionError as error:
        return f"ended: {error.strerror}"
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return f"failed: {error.strerror}"
    if hold:
        held = (sock, stream, sniffer)
    else:
        sock.close()
    return line or "closed"


def was_reset(stream):
    try:
        stream.write(b"reset\n")
        stream.flush()
        stream.readline()
        return False
    except ConnectionResetError:
        return True


def echo(text):
    sock, stream, _ = held
    try:
        stream.write(text.encode() + b"\n")
        stream.flush()
        return stream.readline().decode().strip() or "closed"
    except ConnectionError as error:
        return f"ended: {error.strerror}"
    except TimeoutError:
        return "no answer"


def forge():
    """An acknowledgement of all that was received, at a place in the stream where nobody can be. IPv4 alone."""
    sock, _, sniffer = held
    (here, port), (there, their_port) = sock.getsockname(), sock.getpeername()
    received = newest_from(sniffer, their_port, port)
    sequence = (received[0] + 0x50000000) & 0xFFFFFFFF
    segment = tcp_segment(here, there, port, their_port, sequence, received[1])
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    raw.sendto(segment, (there, 0))
    return "forged"


def newest_from(sniffer, source, destination):
    """(what they acknowledged, what is next of theirs), from their packets so far: at least their greeting is among them."""
    newest = None
    sniffer.setblocking(False)
    while True:
        try:
            packet = sniffer.recv(65536)
        except BlockingIOError:
            return newest
        header = (packet[0] & 15) * 4
        if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
            continue
        ports, sequence, acknowledged = struct.unpack_from("!III", packet, header)
        offset = (packet[header + 12] >> 4) * 4
        length = struct.unpack_from("!H", packet, 2)[0] - header - offset
        if ports == source << 16 | destination and not packet[header + 13] & 2:
            newest = (acknowledged, (sequence + length) & 0xFFFFFFFF)


def tcp_segment(here, there, port, their_port, sequence, acknowledged):
    ack_flag, words_of_header = 0x10, 5

    def header(checksum):
        return struct.pack(
            "!HHIIBBHHH", port, their_port, sequence, acknowledged, words_of_header << 4, ack_flag, 512, checksum, 0
        )

    pseudo = socket.inet_aton(here) + socket.inet_aton(there) + struct.pack("!BBH", 0, socket.IPPROTO_TCP, 20)
    total = sum(struct.unpack("!16H", pseudo + header(0)))
    total = (total & 0xFFFF) + (total >> 16)
    return header(~(total + (total >> 16)) & 0xFFFF)


held = None
for line in sys.stdin:
    words = line.split()
    if words[0] == "echo":
        print(echo(words[1]), flush=True)
    elif words[0] == "forge":
        print(forge(), flush=True)
    else:
        print(dial(words), flush=True)
