#!/usr/bin/env python3
"""Sends two mails over one SMTP connection, one of them large: mail.py HOST PORT plain|starttls. Prints the server's answers."""

import smtplib
import ssl
import sys

WAIT_SECONDS_MAX = 30
LINE = "0123456789" * 7 + "\r\n"

host, port, security = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with smtplib.SMTP(host, port, local_hostname="client.example", timeout=WAIT_SECONDS_MAX) as server:
    if security == "starttls":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        print(server.starttls(context=context)[0])
    for lines in (3, 30_000):
        refused = server.sendmail("a@client.example", ["b@pods.example"], "Subject: pods\r\n\r\n" + LINE * lines)
        print("refused" if refused else "accepted", lines)
