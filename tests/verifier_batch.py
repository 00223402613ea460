#!/usr/bin/env python3
"""Answers many requests to verify in one process: a JSON object per line in ({"ledger", "key", "against"}), a report per line out."""

import json
import sys

import verifier

for line in sys.stdin:
    request = json.loads(line)
    key = verifier.VerifierKey(request["key"]) if request["key"] else None
    report = verifier.verify(request["ledger"], key, request["against"])
    print(json.dumps(report.as_json()), flush=True)
