#!/usr/bin/env python3
"""Accepts TCP connections and tells each client where it arrived; then repeats its lines; at the line
`reset` it resets the connection.

    acceptor.py LABEL PORT... [--transparent PORT] [--udp PORT]

The greeting is one line: LABEL PORT DESTINATION CLIENT. DESTINATION is what SO_ORIGINAL_DST says (for a transparent
port: the socket's own address), or `-` where that is the address that the connection was accepted on. A transparent
port behaves as a sidecar under TPROXY: it connects to the destination from the client's address, and passes the bytes
on both ways. A port for UDP answers
each datagram with LABEL PORT. Every port takes IPv4 and IPv6. Prints `ready` when it listens; ends with its standard input.
"""

import asyncio
import socket
import struct
import sys

SO_ORIGINAL_DST = 80
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75


def written(host, port):
    host = host.removeprefix("::ffff:")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def original_destination(sock):
    """What the kernel's NAT remembers; the call for IPv4 also on a socket for both versions."""
    try:
        if sock.getpeername()[0].startswith("::ffff:") or sock.family == socket.AF_INET:
            found = sock.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
            port, address = struct.unpack("!2xH4s8x", found)
            return socket.inet_ntop(socket.AF_INET, address), port
        found = sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
        port, address = struct.unpack("!2xH4x16s4x", found)
        return socket.inet_ntop(socket.AF_INET6, address), port
    except OSError:
        return None


def listener(port, transparent):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if transparent:
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    sock.bind(("::", port))
    return sock


async def repeat(reader, writer, label, port):
    sock = writer.get_extra_info("socket")
    accepted, client = sock.getsockname()[:2], sock.getpeername()[:2]
    original = original_destination(sock)
    if original is None or written(*original) == written(*accepted):
        destination = "-"
    else:
        destination = written(*original)
    writer.write(f"{label} {port} {destination} {written(client[0], 0)[:-2]}\n".encode())
    while line := await reader.readline():
        if line == b"reset\n":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return writer.transport.abort()
        writer.write(line)
    writer.close()


async def pass_on(reader, writer):
    sock = writer.get_extra_info("socket")
    (host, port), client = sock.getsockname()[:2], sock.getpeername()[0]
    mapped = host.startswith("::ffff:")
    upstream = socket.socket(socket.AF_INET if mapped else socket.AF_INET6, socket.SOCK_STREAM)
    level, option = (socket.IPPROTO_IP, IP_TRANSPARENT) if mapped else (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)
    upstream.setsockopt(level, option, 1)
    upstream.bind((client.removeprefix("::ffff:"), 0))
    upstream.setblocking(False)
    await asyncio.get_running_loop().sock_connect(upstream, (host.removeprefix("::ffff:"), port))
    up_reader, up_writer = await asyncio.open_connection(sock=upstream)

    async def copy(source, sink):
        while data := await source.read(65536):
            sink.write(data)
        sink.write_eof()

    await asyncio.gather(copy(reader, up_writer), copy(up_reader, writer))
    writer.close()
    up_writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer):
        self.answer = answer.encode()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, client):
        self.transport.sendto(self.answer, client)


async def main(label, arguments):
    arguments = iter(arguments)
    for argument in arguments:
        if argument == "--transparent":
            await asyncio.start_server(pass_on, sock=listener(int(next(arguments)), True))
        elif argument == "--udp":
            port = int(next(arguments))
            await asyncio.get_running_loop().create_datagram_endpoint(
                lambda port=port: Datagrams(f"{label} {port}"), local_addr=("::", port))
        else:
            port = int(argument)
            await asyncio.start_server(lambda r, w, port=port: repeat(r, w, label, port), sock=listener(port, False))
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2:]))
    except (ConnectionError, asyncio.CancelledError):
        pass
