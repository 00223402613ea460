#!/usr/bin/env python3
"""Proves that tests/verifier.py finds what it must: builds ledgers by docs/ledger-format.md, and damages them.

The writer here is a third reading of that document and shares nothing with attestry, nor with the verifier but the
Python library. Damage comes in two kinds: bytes changed as they lie on the disk, which CRCs notice, and ledgers whose
writer (who holds the key, or mends the CRCs) lies, which only the checks behind the CRCs notice.
Run: python3 tests/verifier_selftest.py
"""

import base64
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from zlib import crc32

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import verifier  # noqa: E402

ORIGIN = "example.org/attestry-selftest"
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))
CALL, OTHER_CALL = b"c" * 16, b"d" * 16
TIME = 1_700_000_000_000_000_000
KINDS = {"head", "missing-entries", "key", "origin", "segment-header", "repeated-entries", "damaged-frame",
         "trailing-bytes", "entry-encoding", "entry-index", "entry-chain", "entry-time", "genesis", "payload-length",
         "payload-digest", "message-order", "entry-content", "verified-peer", "range", "checkpoint", "root", "signature", "truncated", "fork", "against",
         "rollback"}
KINDS_SEEN = set()


# --- The writer -------------------------------------------------------------------------------------------------


def H(data):
    return hashlib.sha256(data).digest()


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def v(number, value):
    """A varint field, left out where it is 0."""
    return varint(number << 3) + varint(int(value)) if value else b""


def f64(number, value):
    return varint(number << 3 | 1) + struct.pack("<Q", value)


def d(number, data):
    """A delimited field: bytes, string or message."""
    data = data.encode() if isinstance(data, str) else data
    return varint(number << 3 | 2) + varint(len(data)) + data


def key_id(signer, name):
    return H(name.encode() + b"\n\x01" + public(signer))[:4]


def public(signer):
    return signer.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def vkey(signer=SIGNER, name=ORIGIN):
    return f"{name}+{key_id(signer, name).hex()}+{base64.b64encode(bytes([1]) + public(signer)).decode()}"


def signed_note(text, signer=SIGNER, name=ORIGIN):
    blob = key_id(signer, name) + signer.sign(text.encode())
    return f"{text}\n\u2014 {name} {base64.b64encode(blob).decode()}\n".encode()


def checkpoint(size, root, origin=ORIGIN, **options):
    return signed_note(f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n", **options)


def tree_root(leaves):
    """RFC 6962 section 2.1, by its recursive definition."""
    if not leaves:
        return H(b"")
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return H(b"\x01" + tree_root(leaves[:half]) + tree_root(leaves[half:]))


def compact_range(leaves):
    hashes = []
    while leaves:
        half = 1 << len(leaves).bit_length() - 1
        hashes.append(tree_root(leaves[:half]))
        leaves = leaves[half:]
    return hashes


def opened(origin=ORIGIN, key=None, version=1):
    return d(4, d(1, origin) + d(2, key or vkey()) + v(3, version)), b""


def started():
    return d(5, d(1, "0.1.0") + d(2, H(b"config")) + d(3, d(1, "pod")) + v(4, 1)), b""


def stopped():
    return d(6, d(1, "asked to") + d(2, d(1, "calls") + v(2, 3))), b""


def gap(forwarded=True):
    return d(11, d(1, "disk full") + f64(2, TIME) + f64(3, TIME) + v(4, forwarded)), b""


def field(name, value):
    return d(1, name) + d(2, value)


def segment(number, message, start, end, stored=True, prefix=b"", **lies):
    """A MessageSegment event of the bytes start..end of a message, and its payload."""
    data = message[start:end]
    digest = lies.get("sha256", H(message[:end]) if stored else b"")
    body = v(1, number) + (d(2, prefix) if prefix else b"") + v(3, lies.get("offset", start)) + v(4, end - start)
    body += (d(5, digest) if digest else b"") + v(6, lies.get("ended", end == len(message))) + v(7, stored) + v(8, 1)
    return v(1, 3) + d(3, body), data if stored else b""


def header(beside=None, digest=None):
    if beside is None:
        return v(1, 1) + d(2, d(1, field(":path", "/a.B/C")) + d(1, field("te", "trailers"))), b""
    return v(1, 1) + d(2, v(2, len(beside)) + d(3, digest or H(beside))), beside


def marker(event_type):
    return v(1, event_type), b""


def call(*events, call_id=CALL, direction=1, protocol=1, peer=""):
    body = d(1, call_id) + f64(2, 7) + v(3, 1) + v(4, direction) + v(5, protocol) + v(6, 4) + v(7, 1) + f64(8, TIME)
    body += b"".join(d(9, event) for event, _ in events) + (d(10, peer) if peer else b"")
    return d(10, body), b"".join(p for _, p in events)


def connection_opened():
    return d(7, f64(1, 7) + v(2, 2) + d(3, "10.0.0.1:5") + v(9, 1) + d(10, "10.0.0.9:443")), b""


def connection_closed():
    return d(8, f64(1, 7) + d(3, "client closed") + v(8, 5_000_000)), b""


def connection_event(event):
    return d(9, f64(1, 7) + v(2, 1) + f64(3, TIME) + d(4, event)), b""


def spoken(protocol=1):
    return connection_event(v(1, 5) + d(7, "its first bytes") + v(12, protocol))


def first_bytes(length=5, digest=H(b"first"), stored=False):
    return connection_event(v(1, 7) + v(8, length) + d(9, digest) + v(10, stored))


PEER = "spiffe://example.org/client"


def tls(peer=PEER, side=1, terminated=True, fingerprint=H(b"certificate")):
    """A TLS event; without a verified peer where `peer` is None."""
    verified = b"" if peer is None else d(9, (d(1, peer) if peer else b"") + d(2, "URI:" + PEER) + d(4, fingerprint))
    return connection_event(v(1, 6) + d(13, v(1, side) + v(2, terminated) + d(7, "h2") + d(7, "http/1.1") + verified))


def notice():
    return d(13, v(1, 2) + d(2, "the new certificate has expired") + v(3, 2)), b""


def goaway(data, stored=True, digest=None):
    event = v(1, 1) + v(3, 5) + d(7, "bye") + v(8, len(data)) + d(9, digest or H(data)) + v(10, stored)
    return d(9, f64(1, 7) + v(2, 2) + f64(3, TIME) + d(4, event)), data if stored else b""


class Ledger:
    """Writes a ledger. Every method takes lies, which replace what the document asks for at that place."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(os.path.join(folder, "segments"))
        self.leaves, self.time, self.frames = [], TIME, []
        self.write("origin", ORIGIN.encode() + b"\n")

    def write(self, name, data):
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(data)

    def begin(self, **lies):
        self.segment = f"segments/{lies.get('name', len(self.leaves)):020d}.seg"
        head = b"ATSTRSEG" + struct.pack("<IIQ", lies.get("version", 1), 64, lies.get("first", len(self.leaves)))
        head += H(lies.get("origin", ORIGIN).encode()) + bytes(4)
        self.bytes = bytearray(head + struct.pack("<I", crc32(head)))
        self.write(self.segment, self.bytes)

    def frame(self, *bodies, entry_lies=None, **lies):
        """One commit of (body, payload) pairs; entry_lies: {index: {...}}."""
        first = len(self.leaves)
        before = list(self.leaves)
        entries, payloads = b"", b""
        for body, payload in bodies:
            lie = (entry_lies or {}).get(len(self.leaves), {})
            self.time = lie.get("time", self.time + 1)
            previous = lie.get("previous", self.leaves[-1] if self.leaves else bytes(32))
            entry = v(1, lie.get("index", len(self.leaves))) + d(2, previous) + f64(3, self.time) + body
            entry = lie.get("entry", entry)
            payload = lie.get("payload", payload)
            length = lie.get("entry_length", len(entry))
            entries += struct.pack("<II", length, lie.get("payload_length", len(payload))) + entry
            payloads += payload
            self.leaves.append(H(b"\x00" + entry))
        entries += lies.get("entries_surplus", b"")
        payloads += lies.get("payload_surplus", b"")
        hashes = lies.get("range", compact_range(before))
        first = lies.get("first", first)
        note = lies.get("note") or checkpoint(lies.get("size", len(self.leaves)),
                                              lies.get("root", tree_root(self.leaves)), **lies.get("signing", {}))
        length = 40 + 32 * len(hashes) + len(entries) + len(payloads) + len(note) + 4
        head = bytes.fromhex("8A4154535446520A") + struct.pack(
            "<IIQIIHH", length, len(bodies), first, len(entries), len(payloads), len(hashes), len(note))
        frame = head + struct.pack("<I", crc32(head)) + b"".join(hashes) + entries + payloads + note
        frame += struct.pack("<I", crc32(frame))
        self.frames.append((os.path.basename(self.segment), len(self.bytes), len(before), len(self.leaves), length))
        self.bytes += frame
        self.write(self.segment, self.bytes)
        return self

    def head(self, **lies):
        size = lies.get("size", len(self.leaves))
        leaves = self.leaves[:size]
        hashes = compact_range(leaves)
        name, offset, _, _, length = self.frames[-1]
        data = b"ATSTHEAD" + struct.pack("<Q", size) + lies.get("root", tree_root(leaves))
        data += struct.pack("<QQ", int(name[:20]), offset + length) + leaves[-1]
        data += struct.pack("<I", len(hashes)) + b"".join(hashes)
        self.write("head", data + struct.pack("<I", crc32(data)) + b"\0" * 16)


MESSAGE, SECOND = b"hello, " * 40, b"the second message"


GOOD_SIZE = 19  # entries of write_good


def write_good(ledger, with_head=True):
    """Three segments, the first and the last of several frames; each kind of payload."""
    ledger.begin()
    ledger.frame(opened(), started())
    ledger.frame(call(header(), segment(0, MESSAGE, 0, 0, prefix=b"\0\0\0")))
    ledger.frame(call(segment(0, MESSAGE, 0, 100, prefix=b"\1\x18")),
                 call(header(b"a field list that is beside the entry"), direction=2),
                 call(segment(0, MESSAGE, 100, 280), segment(1, SECOND, 0, 9)))
    ledger.frame(call(segment(1, SECOND, 9, 18), segment(2, b"", 0, 0), marker(5)),
                 call(segment(0, SECOND, 0, 4, stored=False), direction=2),
                 call(segment(0, SECOND, 4, 8, stored=False), marker(8), direction=2), goaway(b"debug data"),
                 goaway(b"not kept", stored=False), stopped())
    ledger.begin()
    ledger.frame(started(), call(segment(0, MESSAGE, 0, 50), call_id=OTHER_CALL))
    ledger.begin()
    ledger.frame(started(), gap())
    ledger.frame(call(segment(0, MESSAGE, 150, 280), segment(1, SECOND, 0, 18), call_id=OTHER_CALL))
    ledger.frame(d_unknown())
    ledger.frame(stopped())
    if with_head:
        ledger.head()


def d_unknown():
    """A body of a later schema, with a group and a fixed32 of a field that nobody knows."""
    return d(99, b"later") + varint(100 << 3 | 3) + v(1, 5) + varint(100 << 3 | 4) + varint(101 << 3 | 5) + bytes(4), b""


def write_small(ledger):
    """Two segments of little bytes, cleanly stopped: each bit of it matters."""
    ledger.begin()
    ledger.frame(opened())
    ledger.frame(call(segment(0, b"abc", 0, 3)))
    ledger.begin()
    ledger.frame(started())
    ledger.frame(stopped())
    ledger.head()


# --- The tests --------------------------------------------------------------------------------------------------


class LedgerTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.addCleanup(shutil.rmtree, self.folder)
        self.count = 0

    def new(self, write=None, **options):
        self.count += 1
        self.ledger = Ledger(os.path.join(self.folder, str(self.count)))
        if write:
            write(self.ledger, **options)
        return self.ledger

    def path(self, name):
        return os.path.join(self.ledger.folder, name)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def verify(self, key=True, against=()):
        return verifier.verify(self.ledger.folder, verifier.VerifierKey(vkey()) if key is True else key, against)

    def expect(self, verdict, *faults, key=True, against=()):
        """Faults are (kind, segment, offset, index, end), None for what must be absent."""
        report = self.verify(key, against)
        found = [tuple(f.get(k) for k in ("kind", "segment", "offset", "index", "end")) for f in report.faults]
        self.assertEqual((verdict, list(faults)), (report.verdict, found), report.as_text())
        KINDS_SEEN.update(f[0] for f in found)
        return report

    def change(self, name, at, data, cut=False):
        with open(self.path(name), "r+b") as file:
            if cut:
                file.truncate(at)
            file.seek(at)
            file.write(data)

    def frame_place(self, number, index, kind, end=None):
        """The expected fault `kind` at frame `number`."""
        name, offset = self.ledger.frames[number][:2]
        return kind, name, offset, index, end


class Intact(LedgerTest):
    def test_good_with_and_without_key_and_head(self):
        self.new(write_good)
        report = self.expect("intact")
        self.assertEqual((GOOD_SIZE, GOOD_SIZE), (report.known["entries"], report.known["size"]))
        self.assertEqual(base64.b64encode(tree_root(self.ledger.leaves)).decode(), report.known["root"])
        self.expect("intact", key=None)
        self.new(write_good, with_head=False)
        self.expect("intact")

    def test_zeros_behind_the_last_frame_of_any_segment_and_other_files(self):
        self.new(write_good)
        for name in os.listdir(self.path("segments")):
            with open(self.path("segments/" + name), "ab") as file:
                file.write(bytes(3_000_000))
        self.ledger.write("segments/spare", b"no segment")
        self.expect("intact")

    def test_unfinished_commit_is_a_remark_until_head_or_a_stop_says_otherwise(self):
        for torn in (b"\x8a", bytes(50) + b"x", b"\x8aATSTFR\n" + b"y" * 400):
            self.new(write_good)
            self.ledger.begin()
            self.ledger.frame(started())
            self.ledger.head()
            self.change(self.ledger.segment, len(self.ledger.bytes), torn)
            self.assertIn("unfinished", self.expect("intact").remarks[0])
            # The first commit of a writer whose predecessor stopped cleanly.
            self.new(write_good)
            self.ledger.begin()
            self.change(self.ledger.segment, 64, torn)
            self.assertIn("unfinished", self.expect("intact").remarks[0])

    def test_earlier_checkpoints(self):
        self.new(write_good)
        for size in (0, 1, 7, GOOD_SIZE):
            self.ledger.write("earlier", checkpoint(size, tree_root(self.ledger.leaves[:size])))
            self.expect("intact", against=[self.path("earlier")])

    def test_cosignatures_are_ignored(self):
        self.new(write_small)
        note = checkpoint(5, tree_root([*self.ledger.leaves, H(b"\0" + self.next_entry())]))
        note += checkpoint(1, bytes(32), signer=STRANGER, name="witness").split(b"\n\n")[1]
        self.ledger.begin()
        self.ledger.frame(stopped(), note=note)
        self.expect("intact")

    def next_entry(self):
        return v(1, len(self.ledger.leaves)) + d(2, self.ledger.leaves[-1]) + f64(3, self.ledger.time + 1) + stopped()[0]


class BitFlips(LedgerTest):
    def flip_all(self, name, masks, expected, key=True):
        data = bytearray(self.read(name))
        for at in range(len(data)):
            for mask in masks:
                data[at] ^= mask
                with open(self.path(name), "wb") as file:
                    file.write(data)
                data[at] ^= mask
                want = expected(at)
                if want is not None:
                    with self.subTest(file=name, byte=at, mask=mask):
                        self.expect("damaged", *want, key=key)
        self.ledger.write(name, data)

    def segment_expectation(self, name):
        frames = [f for f in self.ledger.frames if f[0] == name]

        def expected(at):
            if at < 64:
                return [("segment-header", name, 0, None, None)]
            (frame,) = [f for f in frames if f[1] <= at < f[1] + f[4]]
            return [("damaged-frame", name, frame[1], frame[2], frame[3])]

        return expected

    def test_every_bit_of_a_small_ledger(self):
        self.new(write_small)
        for name in sorted(os.listdir(self.path("segments"))):
            self.flip_all("segments/" + name, [1 << bit for bit in range(8)], self.segment_expectation(name))
        every_bit = [1 << bit for bit in range(8)]
        self.flip_all("origin", every_bit, lambda _: [("origin", None, None, None, None)])
        meant = os.path.getsize(self.path("head")) - 16
        self.flip_all("head", every_bit, lambda at: [("head", None, None, None, None)] if at < meant else None)
        self.expect("intact")

    def test_every_byte_without_a_key(self):
        self.new(write_small)
        first, second = sorted(os.listdir(self.path("segments")))
        by_key = self.segment_expectation(first)
        # With the frame of entry 0 the key is lost, so what stands behind it in the segment cannot be found again.
        lost = [("damaged-frame", first, 64, 0, 2)]
        end = 64 + self.ledger.frames[0][4]
        self.flip_all("segments/" + first, [0x10], lambda at: lost if 64 <= at < end else by_key(at), key=None)
        self.flip_all("segments/" + second, [0x10], self.segment_expectation(second), key=None)

    def test_every_byte_of_a_large_ledger(self):
        self.new(write_good)
        for name in sorted(os.listdir(self.path("segments"))):
            self.flip_all("segments/" + name, [0x04], self.segment_expectation(name))

    def test_every_truncation(self):
        self.new(write_small)
        *_, last = sorted(os.listdir(self.path("segments")))
        whole = self.read("segments/" + last)
        ends = {64: 2} | {f[1] + f[4]: f[3] for f in self.ledger.frames if f[0] == last}
        for length in range(len(whole)):
            self.ledger.write("segments/" + last, whole[:length])
            n = max((i for at, i in ends.items() if at <= length), default=2)
            place = max((at for at in ends if at <= length), default=0)
            if length < 64:
                want = [("segment-header", last, 0, None, None), ("truncated", None, None, 2, 4)]
            elif length in ends:
                want = [("truncated", None, None, n, 4)]
            else:
                want = [("damaged-frame", last, place, n, 4)]
            self.expect("damaged", *want)


class FilesDamaged(LedgerTest):
    def test_missing_segments(self):
        self.new(write_good)
        names = sorted(os.listdir(self.path("segments")))
        kept = {n: self.read("segments/" + n) for n in names}
        starts = [int(n[:20]) for n in names]
        os.remove(self.path("segments/" + names[1]))
        self.expect("damaged", ("missing-entries", names[2], 0, starts[1], starts[2]))
        os.remove(self.path("segments/" + names[2]))
        self.expect("damaged", ("truncated", None, None, starts[1], GOOD_SIZE))
        self.ledger.write("segments/" + names[2], kept[names[2]])
        os.remove(self.path("segments/" + names[0]))
        self.expect("damaged", ("missing-entries", names[2], 0, 0, starts[2]))
        self.expect("damaged", ("missing-entries", names[2], 0, 0, starts[2]), key=None)

    def test_missing_and_repeated_frames_within_a_segment(self):
        self.new(write_good)
        first, second = self.ledger.frames[1], self.ledger.frames[2]
        path = self.path("segments/" + first[0])
        whole = self.read("segments/" + first[0])
        with open(path, "wb") as file:
            file.write(whole[: first[1]] + whole[second[1] :])
        self.expect("damaged", ("missing-entries", first[0], first[1], first[2], first[3]))
        with open(path, "wb") as file:
            file.write(whole[: second[1]] + whole[first[1] :])
        self.expect("damaged", ("repeated-entries", first[0], second[1], first[2], first[3]))

    def test_repeated_segment(self):
        self.new(write_small)
        name = sorted(os.listdir(self.path("segments")))[0]
        data = bytearray(self.read("segments/" + name))
        struct.pack_into("<Q", data, 16, 1)
        struct.pack_into("<I", data, 60, crc32(data[:60]))
        frame = self.ledger.frames[1]
        self.ledger.write(f"segments/{1:020d}.seg", data[:64] + data[frame[1] : frame[1] + frame[4]])
        copy = f"{1:020d}.seg"
        self.expect("damaged", ("repeated-entries", copy, 0, 1, 2))

    def test_trailing_bytes(self):
        self.new(write_good)
        for name, end in {f[0]: f[1] + f[4] for f in self.ledger.frames}.items():
            self.change("segments/" + name, end, b"\0\0x")
            self.expect("damaged", ("trailing-bytes", name, end, None, None))
            self.change("segments/" + name, end, b"", cut=True)

    def test_garbage_between_frames_and_a_foreign_frame_in_it(self):
        self.new(write_good)
        foreign = self.new()
        foreign.leaves = [H(b"x")] * 5
        foreign.begin()
        foreign.frame(stopped(), signing={"signer": STRANGER})
        self.new(write_good)
        name, offset, first, end, length = self.ledger.frames[1]
        whole = self.read("segments/" + name)
        self.ledger.write("segments/" + name, whole[:offset] + b"!" * length + foreign.bytes[64:] + whole[offset + length :])
        self.expect("damaged", ("damaged-frame", name, offset, first, end))
        self.ledger.write("segments/" + name, whole[:offset] + b"!" + whole[offset:])
        self.expect("damaged", ("damaged-frame", name, offset, first, first))

    def test_head_behind_and_ahead_and_another(self):
        self.new(write_good)
        self.ledger.head(size=7)
        self.expect("intact")
        self.ledger.head(root=H(b"another"))
        self.expect("damaged", ("fork", None, None, None, GOOD_SIZE))
        self.ledger.head(size=7, root=H(b"another"))
        self.expect("damaged", ("fork", None, None, None, 7))
        self.ledger.write("head", b"ATSTHEAD")
        self.expect("damaged", ("head", None, None, None, None))

    def test_earlier_checkpoints_that_do_not_fit(self):
        self.new(write_good)
        against = [self.path("earlier")]
        self.ledger.write("earlier", checkpoint(GOOD_SIZE + 2, H(b"later")))
        self.expect("damaged", ("rollback", None, None, GOOD_SIZE, GOOD_SIZE + 2), against=against)
        self.ledger.write("earlier", checkpoint(7, H(b"another")))
        self.expect("damaged", ("fork", None, None, None, 7), against=against)
        root = tree_root(self.ledger.leaves[:7])
        for note in (checkpoint(7, root, signer=STRANGER), b"nothing", checkpoint(7, root, origin="other.example"),
                     checkpoint(7, root).replace(b"\n7\n", b"\n6\n"), signed_note(f"{ORIGIN}\n7\n")):
            self.ledger.write("earlier", note)
            self.expect("damaged", ("against", None, None, None, None), against=against)

    def test_a_checkpoint_inside_the_unknown_part_cannot_be_compared(self):
        self.new(write_good)
        name, offset, first, end, _ = self.ledger.frames[3]
        self.change("segments/" + name, offset + 50, b"????")
        self.ledger.write("earlier", checkpoint(first + 1, H(b"inside")))
        report = self.expect("damaged", ("damaged-frame", name, offset, first, end), against=[self.path("earlier")])
        self.assertEqual(1, len(report.missing))


class WriterLies(LedgerTest):
    """What is signed and has right CRCs, and is wrong. The lie stands in the frame of entries 2 and 3 (number 1)."""

    def lie(self, *expected, bodies=None, key=True, then=True, **lies):
        self.new()
        self.ledger.begin()
        self.ledger.frame(opened(), started())
        self.ledger.frame(*(bodies or (call(header(), segment(0, MESSAGE, 0, 100)), started())), **lies)
        if then:
            self.ledger.frame(stopped())
            self.ledger.head()
        verdict = "damaged" if expected else "intact"
        self.expect(verdict, *(self.frame_place(number, index, kind) for kind, number, index in expected), key=key)

    def test_entry_encoding(self):
        for entry in (b"", b"\x0a", b"\x08", b"\x0f", b"\x00\x00", d(2, b"x" * 65_536), v(4, 1), d(5, d(1, b"\xff")),
                      b"\x08" + b"\xff" * 10, varint(50 << 3 | 3), varint(50 << 3 | 4), d(10, d(9, b"\x12\x05"))):
            self.lie(("entry-encoding", 1, 3), entry_lies={3: {"entry": entry, "payload": b""}})
        self.lie(("entry-encoding", 1, 3), entries_surplus=b"12345678")
        self.lie(("entry-encoding", 1, 3), entry_lies={3: {"entry_length": 9999}})

    def test_entry_fields(self):
        self.lie(("entry-index", 1, 3), entry_lies={3: {"index": 4}})
        self.lie(("entry-chain", 1, 2), entry_lies={2: {"previous": H(b"x")}})
        self.lie(("entry-chain", 1, 3), entry_lies={3: {"previous": b""}})
        self.lie(("entry-time", 1, 3), entry_lies={3: {"time": TIME}})
        self.lie(("entry-index", 1, 3), ("entry-chain", 1, 3), ("entry-time", 1, 3),
                 entry_lies={3: {"index": 4, "previous": b"", "time": TIME}})

    def test_genesis(self):
        self.lie(("genesis", 1, 3), bodies=(started(), opened()))
        self.new()
        self.ledger.begin()
        self.ledger.frame(started())
        self.ledger.head()
        self.expect("damaged", self.frame_place(0, 0, "genesis"))

    def test_payload_length(self):
        self.lie(("payload-length", 1, 2), entry_lies={2: {"payload": MESSAGE[:99]}})
        self.lie(("payload-length", 1, 3), entry_lies={3: {"payload": b"of an entry that has none"}})
        self.lie(("payload-length", 1, 3), payload_surplus=b"left")
        self.lie(("payload-length", 1, 3), entry_lies={3: {"payload_length": 5}})

    def test_payload_digest(self):
        self.lie(("payload-digest", 1, 2), entry_lies={2: {"payload": b"x" * 100}})
        self.lie(("payload-digest", 1, 2), bodies=(call(header(b"list", digest=H(b"other"))), started()))
        self.lie(("payload-digest", 1, 2), bodies=(goaway(b"debug", digest=H(b"other")), started()))
        self.lie(("payload-digest", 1, 2), bodies=(call(segment(0, MESSAGE, 0, 9, sha256=b"")), started()))
        # The second segment's digest covers the first one too; the third cannot be checked after that.
        self.lie(("payload-digest", 1, 2), bodies=(call(segment(0, MESSAGE, 0, 9),
                                                        segment(0, MESSAGE, 9, 20, sha256=H(MESSAGE[9:20])),
                                                        segment(0, MESSAGE, 20, 280)), started()))
        self.lie(("payload-digest", 1, 2), ("payload-digest", 1, 2),
                 bodies=(call(header(b"list", digest=H(b"other")), segment(0, SECOND, 0, 9, sha256=H(b""))), started()))

    def test_message_order(self):
        self.lie(("message-order", 1, 2), bodies=(call(segment(0, MESSAGE, 9, 20)), started()))
        self.lie(("message-order", 1, 3), bodies=(call(segment(0, MESSAGE, 0, 9)), call(segment(0, MESSAGE, 10, 20))))
        self.lie(("message-order", 1, 2), bodies=(call(segment(0, MESSAGE, 0, 9), segment(1, SECOND, 0, 9)), started()))
        for ending in (13, 14):
            # In its own direction, and in the other one.
            self.lie(("message-order", 1, 3), bodies=(call(segment(0, MESSAGE, 0, 9), marker(ending)),
                                                      call(segment(0, MESSAGE, 9, 20))))
            self.lie(("message-order", 1, 4), bodies=(call(segment(0, MESSAGE, 0, 9)), call(marker(ending), direction=2),
                                                      call(segment(0, MESSAGE, 9, 20))))
        # A reset ends nothing: what was on the way when it was sent still counts, and must be in order.
        for reset in (7, 8):
            self.lie(("message-order", 1, 3), bodies=(call(segment(0, MESSAGE, 0, 9), marker(reset)),
                                                      call(segment(0, MESSAGE, 10, 20))))
            self.lie(bodies=(call(segment(0, MESSAGE, 0, 9), marker(reset)), call(segment(0, MESSAGE, 9, 20))))
        # A refused gap lost nothing, so it excuses nothing.
        self.lie(("message-order", 1, 3), bodies=(gap(forwarded=False), call(segment(0, MESSAGE, 9, 20))))

    def test_entry_content(self):
        for wrong in (spoken(protocol=0), connection_event(v(1, 6)), tls(side=0), tls(side=3), tls(terminated=False),
                      tls(fingerprint=b"short"), first_bytes(length=0), first_bytes(digest=b""),
                      call(segment(0, MESSAGE, 0, 9, prefix=bytes(5)), protocol=2),
                      call(segment(1, MESSAGE, 0, 9), protocol=2),
                      call(segment(0, MESSAGE, 0, 9, prefix=bytes(6))),
                      call(segment(0, MESSAGE, 0, 9, prefix=bytes(6)), protocol=3)):
            self.lie(("entry-content", 1, 2), bodies=(wrong, started()))
        self.lie(("payload-length", 1, 2), ("entry-content", 1, 2), bodies=(first_bytes(stored=True), started()))
        self.lie(bodies=(spoken(protocol=99), tls(peer=None, terminated=False), tls(), first_bytes(), notice(),
                         call(segment(0, MESSAGE, 0, 9), protocol=2),
                         call(segment(0, MESSAGE, 0, 9, prefix=bytes(5)), protocol=3, call_id=OTHER_CALL)))

    def test_verified_peer(self):
        asked, fingerprint = call(header(), peer=PEER), "sha256:" + H(b"certificate").hex()
        self.lie(bodies=(connection_opened(), tls(), asked))
        self.lie(bodies=(connection_opened(), tls(peer=""), call(header(), peer=fingerprint)))
        self.lie(bodies=(connection_opened(), tls(peer=None), call(header())))
        self.lie(("verified-peer", 1, 3), bodies=(connection_opened(), asked))
        self.lie(("verified-peer", 1, 4), bodies=(connection_opened(), tls(), call(header())))
        self.lie(("verified-peer", 1, 4), bodies=(connection_opened(), tls(side=2), asked))
        self.lie(("verified-peer", 1, 4), bodies=(connection_opened(), tls(), call(header(), peer=PEER + "2")))
        # Not known: before its beginning, behind its end, behind a gap and a start.
        self.lie(bodies=(asked, started()))
        for between in (connection_closed(), gap(), started()):
            self.lie(bodies=(connection_opened(), between, asked))
        self.lie(("verified-peer", 1, 4), bodies=(connection_opened(), gap(forwarded=False), asked))

    def test_range(self):
        leaf = H(b"x")
        self.lie(("range", 1, 2), range=[leaf, leaf])
        self.lie(("range", 1, 2), ("root", 1, 2), ("range", 2, 4), range=[leaf])

    def test_checkpoint(self):
        self.lie(("checkpoint", 1, 2), note=b"no note")
        self.lie(("checkpoint", 1, 2), note=signed_note(f"{ORIGIN}\n4\nAAAA\n"))
        self.lie(("checkpoint", 1, 2), note=signed_note(f"{ORIGIN}\n04\n{base64.b64encode(bytes(32)).decode()}\n"))
        self.lie(("checkpoint", 1, 2), size=5)
        self.lie(("checkpoint", 1, 2), signing={"origin": "other.example"})
        self.lie(("checkpoint", 1, 2), ("root", 1, 2), ("signature", 1, 2), size=5, root=H(b"x"),
                 signing={"signer": STRANGER})

    def test_root_and_signature(self):
        self.lie(("root", 1, 2), root=H(b"x"))
        self.lie(("signature", 1, 2), signing={"signer": STRANGER})
        self.lie(("signature", 1, 2), signing={"name": "other.example"})
        self.lie(("signature", 1, 2), signing={"signer": STRANGER}, key=None)

    def test_mended_crcs_do_not_hide_a_changed_entry(self):
        self.new(write_small)
        name, offset, first, _, length = self.ledger.frames[1]
        data = bytearray(self.read("segments/" + name))
        at = data.index(CALL, offset)
        data[at] ^= 1
        struct.pack_into("<I", data, offset + length - 4, crc32(data[offset : offset + length - 4]))
        self.ledger.write("segments/" + name, data)
        after = self.ledger.frames[2]
        self.expect("damaged", ("root", name, offset, first, None), ("entry-chain", after[0], 64, 2, None),
                    ("range", after[0], 64, 2, None))

    def test_key_and_origin(self):
        self.new(write_small)
        stranger = verifier.VerifierKey(vkey(STRANGER))
        report = self.verify(key=stranger)
        self.assertEqual([("key", 0)] + [("signature", i) for i in range(4)],
                         [(f["kind"], f["index"]) for f in report.faults])
        KINDS_SEEN.add("key")
        self.new()
        self.ledger.begin()
        self.ledger.frame(opened(key="nonsense"), stopped())
        self.ledger.head()
        self.expect("damaged", self.frame_place(0, 0, "key"), key=None)

    def test_segment_header(self):
        for lie in ({"first": 9}, {"origin": "other.example"}):
            self.new(write_small)
            self.ledger.begin(**lie)
            self.ledger.frame(stopped())
            self.ledger.head()
            self.expect("damaged", ("segment-header", os.path.basename(self.ledger.segment), 0, None, None))

    def test_frames_with_another_index(self):
        for first, kind, low, high in ((5, "missing-entries", 2, 5), (1, "repeated-entries", 1, 2)):
            self.new()
            self.ledger.begin()
            self.ledger.frame(opened(), started())
            self.ledger.frame(stopped(), first=first)
            report = self.verify()
            name, offset = self.ledger.frames[1][:2]
            place = {k: report.faults[0].get(k) for k in ("kind", "segment", "offset", "index", "end")}
            self.assertEqual({"kind": kind, "segment": name, "offset": offset, "index": low, "end": high}, place)


class CannotTell(LedgerTest):
    def test_nothing_there(self):
        self.new()
        self.expect("unknown")
        shutil.rmtree(self.path("segments"))
        self.expect("unknown")

    def test_no_entry_and_no_key(self):
        self.new()
        self.ledger.begin()
        self.expect("unknown", key=None)
        self.expect("intact")

    def test_unknown_version(self):
        self.new(write_small)
        self.ledger.begin(version=2)
        self.ledger.frame(stopped())
        self.ledger.head()
        self.expect("unknown")
        self.new()
        self.ledger.begin()
        self.ledger.frame(opened(version=2), stopped())
        self.expect("unknown")

    def test_unreadable_files(self):
        self.new(write_small)
        self.expect("unknown", against=[self.path("absent")])
        os.mkdir(self.path(f"segments/{4:020d}.seg"))
        self.expect("unknown")
        self.change("origin", 0, b"X")
        self.expect("damaged", ("origin", None, None, None, None))


class CommandLine(LedgerTest):
    def run_cli(self, *arguments):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "verifier.py")
        done = subprocess.run([sys.executable, "-B", script, *arguments], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout

    def test_exit_codes_and_outputs(self):
        self.new(write_good)
        code, out = self.run_cli(self.ledger.folder, "--key", vkey(), "-o", "json")
        self.assertEqual(0, code)
        report = json.loads(out)
        self.assertEqual({"verdict": "intact", "entries": GOOD_SIZE, "size": GOOD_SIZE, "origin": ORIGIN, "key": vkey(),
                          "key_given": True, "remarks": [], "faults": [],
                          "root": base64.b64encode(tree_root(self.ledger.leaves)).decode()}, report)
        name, offset, first, end, _ = self.ledger.frames[2]
        self.change("segments/" + name, offset + 90, b"\xff")
        code, out = self.run_cli(self.ledger.folder)
        self.assertEqual(3, code)
        self.assertIn(f"damaged-frame in segment {name}, offset {offset}, entries {first} up to but not with {end}: ", out)
        self.assertEqual(4, self.run_cli(self.path("nowhere"))[0])
        self.assertEqual(2, self.run_cli(self.ledger.folder, "--key", "nonsense")[0])
        self.assertEqual(2, self.run_cli()[0])

    def test_at_most_1000_faults_are_listed(self):
        self.new()
        self.ledger.begin()
        self.ledger.frame(opened(), *[stopped()] * 1_200, entry_lies={i: {"index": 0} for i in range(1, 1_201)})
        code, out = self.run_cli(self.ledger.folder, "-o", "json")
        self.assertEqual((3, 1_000), (code, len(json.loads(out)["faults"])))


class ZEveryKind(unittest.TestCase):
    """Runs last, by its name."""

    def test_each_kind_of_fault_was_expected_somewhere(self):
        if len(KINDS_SEEN) < 3:
            self.skipTest("only with all the others")
        self.assertEqual(set(), KINDS - KINDS_SEEN)


if __name__ == "__main__":
    unittest.main()
