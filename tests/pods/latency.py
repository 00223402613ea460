#!/usr/bin/env python3
"""Times from connect to the first answer, for each server: latency.py HOST. Prints the medians in milliseconds, one line.

MariaDB and SMTP greet by themselves; Redis is asked PING and PostgreSQL whether it speaks TLS (SSLRequest).
"""

import socket
import statistics
import struct
import sys
import time

ROUNDS = 31
WAIT_SECONDS_MAX = 30
ASKED = {"mariadb": (5306, b""), "smtp": (5025, b""), "redis": (5379, b"PING\r\n"),
         "postgresql": (5432, struct.pack("!II", 8, 80877103))}


def once(address, question):
    begin = time.perf_counter()
    with socket.create_connection(address, WAIT_SECONDS_MAX) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(question)
        if not sock.recv(4096):
            sys.exit(f"{address} said nothing")
        return (time.perf_counter() - begin) * 1000


print(*(f"{name} {statistics.median(once((sys.argv[1], port), question) for _ in range(ROUNDS)):.2f}"
        for name, (port, question) in ASKED.items()))
