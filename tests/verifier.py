#!/usr/bin/env python3
"""Verifies an attestry ledger from its published format alone (docs/ledger-format.md and the schema of its entries).

It is written from those two texts and shares no code with attestry, so that each can be held against the other.
It only reads, takes no lock, and holds one frame in memory at a time. The section numbers below are those of
docs/ledger-format.md. What is not here: the lookup tables in db/, which are no evidence.
"""

import argparse
import base64
import binascii
import hashlib
import json
import os
import re
import struct
import sys
from collections import OrderedDict
from zlib import crc32

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT_VERSION = 1
ENTRY_LENGTH_MAX_BYTES = 65_535
FAULTS_LISTED_MAX = 1_000
OPEN_MESSAGES_MAX = 1 << 18  # beyond it the oldest is forgotten, as a gap would make us forget it
READ_CHUNK_BYTES = 1 << 20
SMALL_FILE_MAX_BYTES = 1 << 20  # head, origin and earlier checkpoints
EXIT_CODES = {"intact": 0, "damaged": 3, "unknown": 4}

SEGMENT_MAGIC = b"ATSTRSEG"
SEGMENT_HEADER_BYTES = 64
FRAME_MARKER = bytes.fromhex("8A 41 54 53 54 46 52 0A")
FRAME_HEADER = struct.Struct("<8sIIQIIHHI")
HEAD_MAGIC = b"ATSTHEAD"


# ---------------------------------------------------------------------------------------------------------------
# Protobuf: a generic wire decoder, and the schema of entries as tables.


class Undecodable(Exception):
    """The bytes are no encoded message of this schema."""


VARINT, FIXED64, DELIMITED, GROUP_START, GROUP_END, FIXED32 = range(6)
WIRE_TYPES = {"varint": VARINT, "enum": VARINT, "bool": VARINT, "fixed64": FIXED64, "bytes": DELIMITED, "string": DELIMITED}

# Per message: "number kind name", where a kind may be followed by * (repeated).
SCHEMA_TEXT = {
    "Entry": """1 varint index, 2 bytes previous, 3 fixed64 committed, 4 Opened opened, 5 Started started,
        6 Stopped stopped, 7 ConnectionOpened connection_opened, 8 ConnectionClosed connection_closed,
        9 ConnectionEvents connection_events, 10 CallEvents call_events, 11 Gap gap, 12 Damage damage,
        13 Notice notice""",
    "Opened": "1 string origin, 2 string verifier_key, 3 varint format_version",
    "Started": """1 string attestry_version, 2 bytes config_sha256, 3 Identity identity,
        4 bool previous_stop_was_clean, 5 varint torn_bytes_cut""",
    "Identity": "1 string pod, 2 string namespace, 3 string node, 4 string service_account",
    "Stopped": "1 string reason, 2 Counter* counters",
    "Counter": "1 string name, 2 varint value",
    "ConnectionOpened": """1 fixed64 connection, 2 enum interception, 3 string client_address,
        4 string listener_address, 5 string upstream, 6 string upstream_address, 7 fixed64 captured,
        8 string local_reason, 9 enum traffic, 10 string original_destination""",
    "ConnectionClosed": """1 fixed64 connection, 2 fixed64 captured, 3 string reason, 4 enum side,
        5 varint bytes_to_server, 6 varint bytes_to_client, 7 varint calls, 8 varint duration""",
    "ConnectionEvents": "1 fixed64 connection, 2 enum direction, 3 fixed64 captured, 4 ConnectionEvent* events",
    "ConnectionEvent": """1 enum type, 2 varint stream, 3 varint last_stream, 4 varint code, 5 varint frame_type,
        6 varint frame_flags, 7 string reason, 8 varint payload_length, 9 bytes payload_sha256,
        10 bool payload_stored, 11 varint count, 12 enum protocol, 13 Tls tls""",
    "Tls": """1 enum side, 2 bool terminated, 3 string version, 4 string cipher_suite, 5 string server_name,
        6 string alpn, 7 string* alpn_offered, 8 string ja4, 9 VerifiedPeer verified_peer, 10 string failure""",
    "VerifiedPeer": """1 string spiffe_id, 2 string* subject_alternative_names, 3 string subject,
        4 bytes certificate_sha256, 5 string root_subject, 6 bytes root_key_sha256, 7 varint not_after""",
    "CallEvents": """1 bytes call, 2 fixed64 connection, 3 varint stream, 4 enum direction, 5 enum protocol,
        6 enum level, 7 varint sequence, 8 fixed64 captured, 9 Event* events, 10 string verified_peer""",
    "Event": """1 enum type, 2 HeaderBlock header, 3 MessageSegment message, 4 varint code, 5 enum side,
        6 string note, 7 varint promised_stream""",
    "HeaderBlock": "1 Field* fields, 2 varint beside_length, 3 bytes beside_sha256, 4 string malformed",
    "Field": "1 bytes name, 2 bytes value, 3 bytes keyed_digest, 4 bool never_indexed, 5 varint known",
    "MessageSegment": """1 varint message, 2 bytes prefix, 3 varint offset, 4 varint length, 5 bytes sha256,
        6 bool end, 7 bool stored, 8 varint frames, 9 varint whole""",
    "Gap": """1 string reason, 2 fixed64 from, 3 fixed64 to, 4 bool forwarded, 5 varint forwarded_submissions,
        6 varint forwarded_bytes, 7 varint refused_submissions""",
    "Damage": "1 string reason, 2 varint first_index, 3 varint end_index, 4 string segment, 5 varint offset",
    "Notice": "1 enum type, 2 string reason, 3 varint count, 4 fixed64 from, 5 fixed64 to",
}


def _schema():
    schema = {}
    for message, text in SCHEMA_TEXT.items():
        schema[message] = {}
        for field in text.split(","):
            number, kind, name = field.split()
            schema[message][int(number)] = (kind.rstrip("*"), name, kind.endswith("*"))
    return schema


SCHEMA = _schema()
BODIES = [name for number, (_, name, _) in SCHEMA["Entry"].items() if number >= 4]


def read_varint(data, at):
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Undecodable("a varint is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise Undecodable("a varint is wider than 64 bits")
            return value, at
    raise Undecodable("a varint is longer than 10 bytes")


def wire_fields(data):
    """Yields (number, wire type, value) of each field; a group's value is None."""
    at = 0
    while at < len(data):
        number, wire, value, at = read_field(data, at)
        if wire == GROUP_END:
            raise Undecodable("a group ends that did not begin")
        if wire == GROUP_START:
            at = skip_group(data, at, number)
        yield number, wire, value


def read_field(data, at):
    tag, at = read_varint(data, at)
    number, wire = tag >> 3, tag & 7
    if not 1 <= number < 1 << 29:
        raise Undecodable(f"field number {number} is not allowed")
    if wire == VARINT:
        value, at = read_varint(data, at)
        return number, wire, value, at
    if wire in (GROUP_START, GROUP_END):
        return number, wire, None, at
    if wire == DELIMITED:
        length, at = read_varint(data, at)
    elif wire in (FIXED64, FIXED32):
        length = 8 if wire == FIXED64 else 4
    else:
        raise Undecodable(f"field {number} has the unknown wire type {wire}")
    if length > len(data) - at:
        raise Undecodable(f"field {number} is cut off")
    value = data[at : at + length]
    return number, wire, value if wire == DELIMITED else int.from_bytes(value, "little"), at + length


def skip_group(data, at, number):
    open_groups = [number]
    while open_groups:
        if at >= len(data) or len(open_groups) > 100:
            raise Undecodable("a group is not closed, or too deep")
        number, wire, _, at = read_field(data, at)
        if wire == GROUP_START:
            open_groups.append(number)
        elif wire == GROUP_END and open_groups.pop() != number:
            raise Undecodable("a group is closed by the end of another")
    return at


def decode(message, data, into=None):
    """Decodes as proto3 asks: unknown fields skipped, the last scalar wins, a repeated single message is merged."""
    result = {} if into is None else into
    fields = SCHEMA[message]
    for number, wire, value in wire_fields(data):
        if number not in fields:
            continue
        kind, name, repeated = fields[number]
        if wire != WIRE_TYPES.get(kind, DELIMITED):
            raise Undecodable(f"field {message}.{name} has the wire type {wire}")
        if message == "Entry" and name in BODIES:
            for other in BODIES:
                if other != name:
                    result.pop(other, None)
        if repeated:
            one = decode(kind, value) if kind in SCHEMA else scalar(kind, value)
            result.setdefault(name, []).append(one)
        elif kind in SCHEMA:
            result[name] = decode(kind, value, result.get(name))
        else:
            result[name] = scalar(kind, value)
    return result


def scalar(kind, value):
    if kind == "bool":
        return value != 0
    if kind == "enum":
        return value & 0xFFFF_FFFF  # an enum has 32 bits, whatever its varint has
    if kind == "bytes":
        return bytes(value)
    if kind == "string":
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError as error:
            raise Undecodable("a string is not UTF-8") from error
    return value


# ---------------------------------------------------------------------------------------------------------------
# The Merkle tree of RFC 6962, as compact ranges (section 2).


def sha256(data):
    return hashlib.sha256(data).digest()


def leaf_hash(entry):
    return sha256(b"\x00" + bytes(entry))


def append_leaf(hashes, size, leaf):
    """Appends a leaf to the compact range of a tree of `size` leaves, in place."""
    hashes.append(leaf)
    while size & 1:
        right = hashes.pop()
        hashes[-1] = sha256(b"\x01" + hashes[-1] + right)
        size >>= 1


def root_of(hashes):
    if not hashes:
        return sha256(b"")
    accumulator = hashes[-1]
    for left in reversed(hashes[:-1]):
        accumulator = sha256(b"\x01" + left + accumulator)
    return accumulator


# ---------------------------------------------------------------------------------------------------------------
# Signed notes, verifier keys and checkpoints (section 5; c2sp.org/signed-note, c2sp.org/tlog-checkpoint).


class Malformed(Exception):
    """A note, checkpoint, key or head is not of its format; the text says how."""


def b64(data):
    return base64.b64encode(data).decode()


def unbase64(text):
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"{text!r} is not base64") from error
    if b64(data) != text:
        raise Malformed(f"{text!r} is not canonical base64")
    return data


class VerifierKey:
    def __init__(self, text):
        parts = text.split("+", 2)
        if len(parts) != 3 or not parts[0] or re.search(r"\s", parts[0]):
            raise Malformed("a verifier key reads NAME+keyid+base64")
        self.text, self.name = text, parts[0]
        material = unbase64(parts[2])
        if len(material) != 33 or material[0] != 1:
            raise Malformed("the verifier key is not of type 1 (Ed25519) with 32 bytes")
        self.id = sha256(self.name.encode() + b"\n" + material)[:4]
        if parts[1] != self.id.hex():
            raise Malformed(f"the verifier key's id is {parts[1]}, and {self.id.hex()} by its name and bytes")
        self._public = Ed25519PublicKey.from_public_bytes(material[1:])

    def fault_of(self, note):
        """Why the note is not signed by this key; None where it is."""
        mine = [s for name, key_id, s in note.signatures if name == self.name and key_id == self.id]
        if not mine:
            return f"it has no signature of {self.name}+{self.id.hex()}"
        for signature in mine:
            try:
                self._public.verify(signature, note.text.encode())
            except InvalidSignature:
                return f"the signature of {self.name}+{self.id.hex()} does not verify"
        return None


class Note:
    def __init__(self, data):
        try:
            whole = bytes(data).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("the note is not UTF-8") from error
        if any(c < " " and c != "\n" for c in whole):
            raise Malformed("the note has control characters")
        cut = whole.rfind("\n\n")
        if cut < 0 or not whole.endswith("\n") or cut + 2 == len(whole):
            raise Malformed("the note has no empty line with signature lines behind it")
        self.text = whole[: cut + 1]
        self.signatures = [signature_line(line) for line in whole[cut + 2 : -1].split("\n")]


def signature_line(line):
    match = re.fullmatch(r"\u2014 ([^\s+]+) (\S+)", line)
    if not match:
        raise Malformed(f"{line!r} is no signature line")
    blob = unbase64(match[2])
    if len(blob) < 5:
        raise Malformed(f"the signature in {line!r} is too short")
    return match[1], blob[:4], blob[4:]


class Checkpoint:
    def __init__(self, note):
        lines = note.text.split("\n")
        if len(lines) != 4 or not lines[0]:
            raise Malformed("the checkpoint does not consist of three lines")
        if not re.fullmatch(r"0|[1-9][0-9]{0,19}", lines[1], re.ASCII):
            raise Malformed(f"the tree size {lines[1]!r} is no decimal number")
        self.origin, self.size, self.root = lines[0], int(lines[1]), unbase64(lines[2])
        if len(self.root) != 32:
            raise Malformed(f"the root has {len(self.root)} bytes, not 32")


# ---------------------------------------------------------------------------------------------------------------
# The files of a ledger (sections 1, 3, 4 and 7).


def read_small_file(path):
    """The file's first bytes; None where it is absent. Other errors are the caller's."""
    try:
        with open(path, "rb") as file:
            return file.read(SMALL_FILE_MAX_BYTES)
    except FileNotFoundError:
        return None


class Head:
    def __init__(self, data):
        if len(data) < 104:
            raise Malformed(f"it has {len(data)} bytes, expected at least 104")
        if data[:8] != HEAD_MAGIC:
            raise Malformed(f"it begins with {data[:8].hex()}, expected {HEAD_MAGIC.hex()}")
        self.size, self.root = int.from_bytes(data[8:16], "little"), data[16:48]
        end = 100 + 32 * int.from_bytes(data[96:100], "little")
        if len(data) < end + 4:
            raise Malformed(f"it has {len(data)} bytes, expected at least {end + 4}")
        found, expected = int.from_bytes(data[end : end + 4], "little"), crc32(data[:end])
        if found != expected:
            raise Malformed(f"its CRC is {found:08x}, expected {expected:08x}")


class Frame:
    """A well-formed frame: marker, CRCs and lengths are right; its content is not checked yet."""

    def __init__(self, offset, data, fields):
        _, self.length, self.count, self.first, entries, payloads, hashes, note, _ = fields
        self.offset = offset
        view = memoryview(data)
        at = FRAME_HEADER.size
        self.hashes = [bytes(view[at + 32 * i : at + 32 * (i + 1)]) for i in range(hashes)]
        at += 32 * hashes
        self.entries = view[at : at + entries]
        at += entries
        self.payloads = view[at : at + payloads]
        at += payloads
        self.note = bytes(view[at : at + note])

    def split(self):
        """Yields (entry, payload length) for each entry; raises Undecodable where the section does not divide."""
        at = 0
        for _ in range(self.count):
            if len(self.entries) - at < 8:
                raise Undecodable("the entries section ends before the entry's lengths")
            length, payload = struct.unpack_from("<II", self.entries, at)
            at += 8
            if length > len(self.entries) - at:
                raise Undecodable(f"the entry is to have {length} bytes, and the section has {len(self.entries) - at}")
            yield self.entries[at : at + length], payload
            at += length
        if at != len(self.entries):
            raise Undecodable(f"{len(self.entries) - at} bytes are left in the entries section behind the last entry")


class Segment:
    """An open segment file. Read by pread, not mapped: a writer may cut its zeros while we read."""

    def __init__(self, path, number):
        self.name, self.number = os.path.basename(path), number
        self._file = open(path, "rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def close(self):
        self._file.close()

    def read(self, offset, length):
        parts, wanted = [], max(0, min(length, self.size - offset))
        while wanted:
            part = os.pread(self._file.fileno(), min(wanted, 1 << 30), offset)
            if not part:
                break
            parts.append(part)
            offset, wanted = offset + len(part), wanted - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def frame_fields(self, offset):
        """The header fields of the frame at `offset`, where marker, header CRC and lengths are right; else None."""
        header = self.read(offset, FRAME_HEADER.size)
        if len(header) < FRAME_HEADER.size:
            return None
        fields = FRAME_HEADER.unpack(header)
        marker, length, count, _, entries, payloads, hashes, note, header_crc = fields
        right = marker == FRAME_MARKER and header_crc == crc32(header[:36]) and count > 0
        right = right and length == 40 + 32 * hashes + entries + payloads + note + 4
        return fields if right and length <= self.size - offset else None

    def frame_at(self, offset):
        """The well-formed frame at `offset`, or None."""
        fields = self.frame_fields(offset)
        if fields is None:
            return None
        data = self.read(offset, fields[1])
        if len(data) < fields[1] or crc32(memoryview(data)[:-4]) != int.from_bytes(data[-4:], "little"):
            return None
        return Frame(offset, data, fields)

    def only_zeros_from(self, offset):
        while chunk := self.read(offset, READ_CHUNK_BYTES):
            if chunk.count(0) != len(chunk):
                return False
            offset += len(chunk)
        return True

    def find_frame(self, start, first_min, key):
        """The next well-formed frame from `start` on with a first index >= `first_min`, signed by the key; or None.

        The signature is looked at before the CRC of the whole: a payload may be full of forged frame headers, and
        each would otherwise cost a read of all that it claims to span.
        """
        offset = start
        while chunk := self.read(offset, READ_CHUNK_BYTES):
            at = chunk.find(FRAME_MARKER)
            while at >= 0:
                fields = self.frame_fields(offset + at)
                if fields and fields[3] >= first_min and self._signed(offset + at, fields, key):
                    frame = self.frame_at(offset + at)
                    if frame:
                        return frame
                at = chunk.find(FRAME_MARKER, at + 1)
            if len(chunk) < len(FRAME_MARKER):
                break
            offset += len(chunk) - len(FRAME_MARKER) + 1
        return None

    def _signed(self, offset, fields, key):
        length, note_length = fields[1], fields[7]
        try:
            note = Note(self.read(offset + length - 4 - note_length, note_length))
            Checkpoint(note)
        except Malformed:
            return False
        return key.fault_of(note) is None


# ---------------------------------------------------------------------------------------------------------------
# What was found.


class Report:
    def __init__(self):
        self.faults, self.remarks, self.missing = [], [], []
        self.faults_found = 0
        self.known = {}  # entries, size, root, origin, key, key_given

    def fault(self, kind, message, segment=None, offset=None, index=None, end=None):
        self.faults_found += 1
        if len(self.faults) < FAULTS_LISTED_MAX:
            place = {"segment": segment, "offset": offset, "index": index, "end": end}
            fault = {"kind": kind} | {k: v for k, v in place.items() if v is not None}
            self.faults.append(fault | {"message": message})

    def cannot_tell(self, text):
        self.missing.append(text)

    @property
    def verdict(self):
        return "damaged" if self.faults_found else "unknown" if self.missing else "intact"

    def as_json(self):
        remarks = [f"Cannot tell: {text}" for text in self.missing] + self.remarks
        if self.faults_found > len(self.faults):
            remarks.append(f"{self.faults_found} faults were found; the first {len(self.faults)} are listed.")
        return {"verdict": self.verdict} | self.known | {"remarks": remarks, "faults": self.faults}

    def as_text(self):
        report = self.as_json()
        lines = [fault_sentence(fault) for fault in self.faults] + report["remarks"]
        lines.append(f"{self.verdict}: {report['entries']} entries read, tree size {report['size']}, "
                     f"root {report.get('root', 'not known')}, origin {report.get('origin', 'not known')}, "
                     f"key {report.get('key', 'not known')}")
        return "\n".join(lines)


def fault_sentence(fault):
    place = []
    if "segment" in fault:
        place.append(f"segment {fault['segment']}")
    if "offset" in fault:
        place.append(f"offset {fault['offset']}")
    if "index" in fault and "end" in fault:
        place.append(f"entries {fault['index']} up to but not with {fault['end']}")
    elif "index" in fault:
        place.append(f"entry {fault['index']}")
    return f"{fault['kind']}" + (f" in {', '.join(place)}" if place else "") + f": {fault['message']}."


# ---------------------------------------------------------------------------------------------------------------
# Messages over several segments (section 6).

LOCAL_ANSWER, ABANDONED = 13, 14
CLIENT_TO_SERVER, SERVER_TO_CLIENT = 1, 2


class OpenMessages:
    """The message that is open in each direction of each call: its number, where it goes on, its digest so far.

    The digest is None where it is not known: below the level that stores, or behind a gap or a fault.
    """

    def __init__(self):
        self._open = OrderedDict()
        self._lossy = False  # something was forgotten: a segment may lack its predecessor without a fault
        self._gaps = 0  # behind one, a segment may lack its predecessor; one that lacks none must still match

    def forget(self):
        self._open.clear()
        self._lossy = True

    def gap(self):
        self._gaps += 1
        self._lossy = True

    def end_call(self, call):
        for direction in (CLIENT_TO_SERVER, SERVER_TO_CLIENT):
            self._open.pop((call, direction), None)

    def end_connection(self, connection):
        for key in [key for key, message in self._open.items() if message[4] == connection]:
            del self._open[key]

    def segment(self, call, connection, direction, segment, data):
        """Takes a segment (data is None where its bytes are not at hand); returns (digest fault, order fault)."""
        number, offset = segment.get("message", 0), segment.get("offset", 0)
        previous = self._open.pop((call, direction), None)
        order, digest = self._order_fault(previous, number, offset), None
        if previous and previous[:2] == (number, offset):
            digest = previous[2]
        elif offset == 0:
            digest = hashlib.sha256()
        wrong = None
        if data is None:
            digest = None
        elif digest is not None:
            digest.update(data)
            if digest.digest() != segment.get("sha256", b""):
                wrong = (f"message {number} of call {call.hex()} has the digest {digest.hexdigest()} up to byte "
                         f"{offset + len(data)}, and its segment says {segment.get('sha256', b'').hex() or 'nothing'}")
                digest = None
        if not segment.get("end", False):
            self._open[(call, direction)] = (
                number, offset + segment.get("length", 0), digest, self._gaps, connection)
            if len(self._open) > OPEN_MESSAGES_MAX:
                self._open.popitem(last=False)
                self._lossy = True
        return wrong, order

    def _order_fault(self, previous, number, offset):
        if previous is None:
            expected = 0 if offset and not self._lossy else offset
        elif previous[3] != self._gaps:
            expected = offset
        elif previous[0] != number:
            return f"a segment of message {number} stands where message {previous[0]} has not ended"
        else:
            expected = previous[1]
        if offset == expected:
            return None
        return f"a segment of message {number} has the offset {offset}, expected {expected}"


# ---------------------------------------------------------------------------------------------------------------
# What entries say of connections and calls (section 2).

HTTP, GRPC, GRPC_WEB = 2, 1, 3
PROTOCOL, TLS, FIRST_BYTES = 5, 6, 7
SIDE_CLIENT, SIDE_SERVER = 1, 2
CONNECTIONS_KNOWN_MAX = 1 << 18


def contradictions(entry):
    """Yields what an entry says that the format does not allow, at most one sentence for each event."""
    for number, event in enumerate(entry.get("connection_events", {}).get("events", [])):
        wrong = wrong_in_connection_event(event)
        if wrong:
            yield f"event {number} of the connection {wrong}"
    calls = entry.get("call_events", {})
    for number, event in enumerate(calls.get("events", [])):
        wrong = wrong_in_segment(calls.get("protocol", 0), event["message"]) if "message" in event else None
        if wrong:
            yield f"call {calls.get('call', b'').hex()}: event {number} {wrong}"


def spell_out(entry):
    """Section 10, as far as a verifier needs it: what `whole` stands for."""
    for event in entry.get("call_events", {}).get("events", []):
        segment = event.get("message", {})
        if segment.get("whole", 0):
            length = segment.get("length", 0)
            if length < 1 << 32:
                segment["prefix"] = b"\0" + length.to_bytes(4, "big")
            segment.update(end=True, frames=1)
            if segment["whole"] == 2:
                segment["stored"] = True


def wrong_in_connection_event(event):
    kind = event.get("type", 0)
    if kind == PROTOCOL and event.get("protocol", 0) == 0:
        return "is PROTOCOL and names none"
    if kind == TLS:
        return wrong_in_tls(event.get("tls"))
    if kind == FIRST_BYTES:
        if event.get("payload_stored", False):
            return "is FIRST_BYTES and says that they are stored"
        if event.get("payload_length", 0) == 0:
            return "is FIRST_BYTES of no bytes"
        if len(event.get("payload_sha256", b"")) != 32:
            return f"is FIRST_BYTES with a digest of {len(event.get('payload_sha256', b''))} bytes, expected 32"
    return None


def wrong_in_tls(tls):
    if tls is None:
        return "is TLS and says nothing of it"
    if tls.get("side", 0) not in (SIDE_CLIENT, SIDE_SERVER):
        return f"is TLS of the side {tls.get('side', 0)}, expected that of the client or the server"
    if "verified_peer" in tls:
        if not tls.get("terminated", False):
            return "names a verified peer of TLS that was passed on unopened"
        length = len(tls["verified_peer"].get("certificate_sha256", b""))
        if length != 32:
            return f"names a verified peer with a fingerprint of {length} bytes, expected 32"
    return None


def wrong_in_segment(protocol, segment):
    prefix = len(segment.get("prefix", b""))
    if protocol == HTTP and (prefix or segment.get("message", 0)):
        return f"is of message {segment.get('message', 0)} of HTTP with a prefix of {prefix} bytes, expected 0 and none"
    if protocol in (GRPC, GRPC_WEB) and prefix > 5:
        return f"has a prefix of {prefix} bytes, expected at most 5"
    return None


class Peers:
    """The verified client of each connection whose beginning is known."""

    def __init__(self):
        self._known = {}

    def forget(self):
        self._known.clear()

    def take(self, entry):
        """Takes the next entry; returns what is wrong with the peer that it names."""
        if "connection_opened" in entry:
            if len(self._known) < CONNECTIONS_KNOWN_MAX:
                self._known[entry["connection_opened"].get("connection", 0)] = ""
        elif "connection_closed" in entry:
            self._known.pop(entry["connection_closed"].get("connection", 0), None)
        elif "started" in entry or entry.get("gap", {}).get("forwarded", False):
            self.forget()
        elif "connection_events" in entry:
            self._tls(entry["connection_events"])
        elif "call_events" in entry:
            named = entry["call_events"].get("verified_peer", "")
            peer = self._known.get(entry["call_events"].get("connection", 0), named)
            if named != peer:
                return f"call {entry['call_events'].get('call', b'').hex()} is of the peer {named!r}, expected {peer!r}"
        return None

    def _tls(self, body):
        connection = body.get("connection", 0)
        for event in body.get("events", []):
            tls = event.get("tls", {}) if event.get("type", 0) == TLS else {}
            if connection in self._known and tls.get("side", 0) == SIDE_CLIENT and "verified_peer" in tls:
                peer = tls["verified_peer"]
                fingerprint = "sha256:" + peer.get("certificate_sha256", b"").hex()
                self._known[connection] = peer.get("spiffe_id", "") or fingerprint


# ---------------------------------------------------------------------------------------------------------------
# Verifying (section 8).


class Verifier:
    def __init__(self, folder, key=None, against=()):
        self.folder, self.given_key, self.against_paths = folder, key, list(against)
        self.report = Report()
        self.head, self.key, self.origin = None, key, None
        self.n = 0  # the index expected next
        self.tree = []  # compact range of the entries so far; None behind something unknown
        self.previous_leaf = None  # None: not known
        self.last_time, self.newest_body, self.entries_read = None, None, 0
        self.end_is_known = True  # False where the last segment could not be read
        self.messages, self.peers = OpenMessages(), Peers()
        self.roots = {0: root_of([])}  # of the sizes that head and the earlier checkpoints name, and of 0
        self.sizes_wanted = set()
        self.reported_ranges = []  # what damaged-frame and missing-entries said, merged at their ends

    def run(self):
        self.read_head()
        segments = self.list_segments()
        self.read_opened(segments)
        earlier = [self.read_against(path) for path in self.against_paths]
        self.sizes_wanted |= {c.size for _, c, _ in earlier if c}
        for position, number in enumerate(segments):
            if position == 0 and number > 0:
                self.range_fault("missing-entries", 0, number, "the first segment does not begin at entry 0",
                                 segment_name(number), 0)
                self.continue_unknown(number)
            following = segments[position + 1] if position + 1 < len(segments) else None
            self.walk_or_skip(number, following)
        self.check_head()
        for path, checkpoint, fault in earlier:
            self.check_against(path, checkpoint, fault)
        self.fill_in_report()
        return self.report

    # Steps 1 to 3: head, segments, key and origin.

    def read_head(self):
        try:
            data = read_small_file(os.path.join(self.folder, "head"))
        except OSError as error:
            return self.report.cannot_tell(f"the file head cannot be read: {error}")
        if data is None:
            return self.report.remarks.append("There is no head file: entries cut off at the end would not be noticed.")
        try:
            self.head = Head(data)
            self.sizes_wanted.add(self.head.size)
        except Malformed as error:
            self.report.fault("head", f"the file head cannot be used: {error}")

    def list_segments(self):
        try:
            names = os.listdir(os.path.join(self.folder, "segments"))
        except OSError as error:
            self.report.cannot_tell(f"the folder segments cannot be read: {error}")
            return []
        numbers = sorted(int(n[:20]) for n in names if re.fullmatch(r"[0-9]{20}\.seg", n, re.ASCII))
        if not numbers:
            self.report.cannot_tell("the folder segments holds no segment")
        return numbers

    def read_opened(self, segments):
        opened = self.opened_entry(segments)
        place = {"segment": segment_name(0), "offset": SEGMENT_HEADER_BYTES, "index": 0}
        if opened is None:
            if self.given_key:
                self.origin = self.given_key.name
            else:
                self.report.cannot_tell("no key was given, and entry 0, which names one, cannot be read")
            return
        self.origin = opened.get("origin", "")
        written = opened.get("verifier_key", "")
        if opened.get("format_version", 0) != FORMAT_VERSION:
            self.report.cannot_tell(f"entry 0 is of the unknown format version {opened.get('format_version', 0)}")
        if self.given_key and written != self.given_key.text:
            self.report.fault("key", f"entry 0 names the key {written!r}, expected {self.given_key.text!r}", **place)
        if not self.given_key:
            self.take_key(written, place)
        self.check_origin_file()

    def take_key(self, written, place):
        self.report.remarks.append("No key was given: the verdict holds only as far as the key in entry 0 is trusted.")
        try:
            self.key = VerifierKey(written)
        except Malformed as error:
            self.report.fault("key", f"the key in entry 0 cannot be used: {error}", **place)
            return
        if self.key.name != self.origin:
            self.report.fault("key", f"the key in entry 0 is named {self.key.name!r}, expected {self.origin!r}", **place)

    def opened_entry(self, segments):
        """The body of entry 0, where it can be read at its place."""
        if not segments or segments[0] != 0:
            return None
        try:
            segment = self.open_segment(0)
            try:
                frame = segment.frame_at(SEGMENT_HEADER_BYTES)
            finally:
                segment.close()
            if frame is None or frame.first != 0:
                return None
            entry, _ = next(frame.split())
            return decode("Entry", entry).get("opened")
        except (OSError, Undecodable):
            return None

    def check_origin_file(self):
        try:
            data = read_small_file(os.path.join(self.folder, "origin"))
        except OSError as error:
            return self.report.cannot_tell(f"the file origin cannot be read: {error}")
        expected = self.origin.encode() + b"\n"
        if data is not None and data != expected:
            self.report.fault("origin", f"the file origin holds {data!r}, expected {expected!r}")

    def open_segment(self, number):
        return Segment(os.path.join(self.folder, "segments", segment_name(number)), number)

    # Steps 4 and 5: segments and their frames.

    def walk_or_skip(self, number, following):
        try:
            segment = self.open_segment(number)
            try:
                return self.walk(segment, following)
            finally:
                segment.close()
        except OSError as error:
            self.report.cannot_tell(f"segment {segment_name(number)} cannot be read: {error}")
        self.skip_to(following)

    def skip_to(self, following):
        self.end_is_known = following is not None
        self.continue_unknown(self.n if following is None else following)

    def walk(self, segment, following):
        self.newest_body = None
        version = self.check_segment_header(segment)
        if version != FORMAT_VERSION:
            self.report.cannot_tell(f"segment {segment.name} is of the unknown format version {version}")
            return self.skip_to(following)
        reported = segment.size >= SEGMENT_HEADER_BYTES and self.walk_frames(segment, following)
        if following is None or (following == self.n and not reported):
            return
        if following > self.n and not reported:
            self.range_fault("missing-entries", self.n, following, "a segment ends before the next one begins",
                             segment_name(following), 0)
        elif following < self.n:
            self.range_fault("repeated-entries", following, self.n, "a segment begins before the one before it ends",
                             segment_name(following), 0)
        self.continue_unknown(following)

    def check_segment_header(self, segment):
        """Reports what is wrong; returns the format version to go on with."""
        header = segment.read(0, SEGMENT_HEADER_BYTES)
        if len(header) < SEGMENT_HEADER_BYTES:
            self.report.fault("segment-header", f"the segment has {len(header)} bytes, expected at least 64",
                              segment.name, 0)
            return FORMAT_VERSION
        magic, version, length, first, origin, zero, crc = struct.unpack("<8sIIQ32sII", header)
        crc_right = crc == crc32(header[:60])
        if magic == SEGMENT_MAGIC and crc_right and version != FORMAT_VERSION:
            return version
        wrong = []
        for what, found, expected in (("magic", magic.hex(), SEGMENT_MAGIC.hex()), ("version", version, FORMAT_VERSION),
                                      ("header length", length, SEGMENT_HEADER_BYTES),
                                      ("first index", first, segment.number), ("reserved field", zero, 0),
                                      ("CRC", f"{crc:08x}", f"{crc32(header[:60]):08x}")):
            if found != expected:
                wrong.append(f"its {what} is {found}, expected {expected}")
        if self.origin is not None and origin != sha256(self.origin.encode()):
            wrong.append(f"its origin's hash is {origin.hex()}, expected {sha256(self.origin.encode()).hex()}")
        if wrong:
            self.report.fault("segment-header", "the segment's header is wrong: " + "; ".join(wrong), segment.name, 0)
        return FORMAT_VERSION

    def walk_frames(self, segment, following):
        """Returns whether the entries up to the next segment were reported as damaged."""
        offset = SEGMENT_HEADER_BYTES
        while True:
            frame = segment.frame_at(offset)
            if frame is None:
                if segment.only_zeros_from(offset):
                    return False
                frame = segment.find_frame(offset + 1, self.n, self.key) if self.key else None
                if frame is None:
                    return self.tail(segment, offset, following)
                self.range_fault("damaged-frame", self.n, frame.first, "there is no well-formed frame here; the next "
                                 f"one stands at {frame.offset}", segment.name, offset)
                self.continue_unknown(frame.first)
            elif frame.first != self.n:
                kind = "missing-entries" if frame.first > self.n else "repeated-entries"
                low, high = sorted((self.n, frame.first))
                self.range_fault(kind, low, high, f"the frame begins with entry {frame.first}, expected {self.n}",
                                 segment.name, offset)
                self.continue_unknown(frame.first)
            self.check_frame(segment, frame)
            offset = frame.offset + frame.length

    def tail(self, segment, offset, following):
        """What stands behind the last frame that could be found and is not zero."""
        due = following if following is not None else self.head.size if self.head else None
        # A clean stop ends its segment. So only a `stopped` in this very segment says that nothing may follow it.
        if following is None and (due is None or self.n >= due) and self.newest_body != "stopped":
            self.report.remarks.append(f"Behind offset {offset} of segment {segment.name} stands an unfinished commit, "
                                       "of which nothing was released.")
            return False
        if due is not None and self.n < due:
            self.range_fault("damaged-frame", self.n, due, "there is no well-formed frame here, nor behind it",
                             segment.name, offset)
            return True
        self.report.fault("trailing-bytes", "bytes that are no frame stand behind the last one", segment.name, offset)
        return False

    def range_fault(self, kind, low, high, message, segment, offset):
        self.report.fault(kind, message, segment, offset, low, high)
        if kind != "repeated-entries" and low < high:
            if self.reported_ranges and self.reported_ranges[-1][1] == low:
                low = self.reported_ranges.pop()[0]
            self.reported_ranges = self.reported_ranges[-FAULTS_LISTED_MAX:] + [(low, high)]

    def continue_unknown(self, n):
        self.n, self.tree, self.previous_leaf = n, None, None
        self.forget()

    def forget(self):
        self.messages.forget()
        self.peers.forget()

    def gap(self):
        self.messages.gap()
        self.peers.forget()

    # Step 6: the entries of a frame.

    def check_frame(self, segment, frame):
        leaves = self.check_entries(segment, frame)
        self.check_tree(segment, frame, leaves)

    def check_entries(self, segment, frame):
        """Returns the leaf hashes, as many as the entries section could be divided into."""
        leaves, payload_at = [], 0
        try:
            for entry, payload_length in frame.split():
                payload = frame.payloads[payload_at : payload_at + payload_length]
                payload_at += payload_length
                leaf = leaf_hash(entry)

                def fault(kind, message, index=frame.first + len(leaves)):
                    self.report.fault(kind, message, segment.name, frame.offset, index)

                self.check_entry(frame.first + len(leaves), entry, payload, payload_length, fault)
                leaves.append(leaf)
                self.previous_leaf = leaf
        except Undecodable as error:
            self.report.fault("entry-encoding", str(error), segment.name, frame.offset,
                              frame.first + min(len(leaves), frame.count - 1))
            self.forget()
        else:
            if payload_at < len(frame.payloads):
                self.report.fault("payload-length", f"{len(frame.payloads) - payload_at} bytes are left in the payload "
                                  "section behind the last entry's", segment.name, frame.offset,
                                  frame.first + frame.count - 1)
        self.entries_read += len(leaves)
        return leaves

    def check_entry(self, index, data, payload, payload_length, fault):
        self.newest_body = None
        if not 1 <= len(data) <= ENTRY_LENGTH_MAX_BYTES:
            self.gap()
            return fault("entry-encoding", f"the entry has {len(data)} bytes, expected 1 to {ENTRY_LENGTH_MAX_BYTES}")
        try:
            entry = decode("Entry", data)
        except Undecodable as error:
            self.gap()
            return fault("entry-encoding", f"the entry does not decode: {error}")
        spell_out(entry)
        self.newest_body = next((body for body in BODIES if body in entry), None)
        if entry.get("index", 0) != index:
            fault("entry-index", f"the entry says index {entry.get('index', 0)}, expected {index}")
        expected = bytes(32) if index == 0 else self.previous_leaf
        if expected is not None and entry.get("previous", b"") != expected:
            fault("entry-chain", f"the entry names {entry.get('previous', b'').hex() or 'nothing'} as the leaf before "
                  f"it, expected {expected.hex()}")
        time = entry.get("committed", 0)
        if self.last_time is not None and time < self.last_time:
            fault("entry-time", f"the entry was committed at {time}, expected at least {self.last_time}")
        self.last_time = time
        if (self.newest_body == "opened") != (index == 0):
            fault("genesis", f"the entry's body is {self.newest_body}, and only entry 0 is and must be `opened`")
        self.check_payload(entry, payload, payload_length, fault)
        for wrong in contradictions(entry):
            fault("entry-content", wrong)
        wrong = self.peers.take(entry)
        if wrong:
            fault("verified-peer", wrong)
        if entry.get("gap", {}).get("forwarded", False):
            self.messages.gap()
        if self.newest_body == "connection_closed":
            self.messages.end_connection(entry["connection_closed"].get("connection", 0))

    def check_payload(self, entry, payload, payload_length, fault):
        calls = entry.get("call_events", {})
        pieces = list(call_pieces(calls)) + list(connection_pieces(entry.get("connection_events", {})))
        expected = sum(length for _, length, _ in pieces)
        whole = expected == payload_length == len(payload)
        if not whole:
            fault("payload-length", f"the payload has {payload_length} bytes, of which {len(payload)} are in its "
                  f"section, expected {expected}")
        at, orders = 0, []
        for role, length, item in pieces:
            piece = payload[at : at + length] if whole else None
            at += length
            if role == "segment":
                data = piece if item.get("stored", False) else None
                wrong, order = self.messages.segment(
                    calls.get("call", b""), calls.get("connection", 0), calls.get("direction", 0), item, data)
                if wrong:
                    fault("payload-digest", wrong)
                if order:
                    orders.append(f"call {calls.get('call', b'').hex()}: {order}")
            elif role == "end of call":
                self.messages.end_call(calls.get("call", b""))
            elif whole and sha256(piece) != item:
                fault("payload-digest", f"{role} has the digest {sha256(piece).hex()}, expected {item.hex() or 'one'}")
        for order in orders:
            fault("message-order", order)

    # Step 7: what a frame says of the tree.

    def check_tree(self, segment, frame, leaves):
        def fault(kind, message):
            self.report.fault(kind, message, segment.name, frame.offset, frame.first)

        base = self.check_range(frame, fault)
        self.n = frame.first + frame.count
        checkpoint, signature_fault = self.check_checkpoint(frame, fault)
        if base is None or len(leaves) != frame.count:
            self.continue_unknown(self.n)
        else:
            self.append(frame.first, base, leaves)
            if checkpoint and checkpoint.root != root_of(self.tree):
                fault("root", f"the checkpoint signs the root {b64(checkpoint.root)}, expected {b64(root_of(self.tree))}")
        if signature_fault:
            fault("signature", signature_fault)

    def check_range(self, frame, fault):
        """The range to append the frame's leaves to; None where none is known."""
        expected = frame.first.bit_count()
        if len(frame.hashes) != expected:
            fault("range", f"the frame's range has {len(frame.hashes)} hashes, expected {expected}")
            return self.tree
        if self.tree is not None and frame.hashes != self.tree:
            fault("range", f"the frame's range gives the root {b64(root_of(frame.hashes))}, expected "
                  f"{b64(root_of(self.tree))}")
        return frame.hashes

    def append(self, size, base, leaves):
        self.tree = list(base)
        self.note_root(size)
        for leaf in leaves:
            append_leaf(self.tree, size, leaf)
            size += 1
            self.note_root(size)

    def note_root(self, size):
        if size in self.sizes_wanted:
            self.roots[size] = root_of(self.tree)

    def check_checkpoint(self, frame, fault):
        """Returns the checkpoint, where it parses, and what is wrong with its signature, where it has one."""
        try:
            note = Note(frame.note)
        except Malformed as error:
            fault("checkpoint", f"the checkpoint does not parse: {error}")
            return None, None
        signature_fault = self.key and self.key.fault_of(note)
        try:
            checkpoint = Checkpoint(note)
        except Malformed as error:
            fault("checkpoint", f"the checkpoint does not parse: {error}")
            return None, signature_fault
        wrong = []
        if self.origin is not None and checkpoint.origin != self.origin:
            wrong.append(f"origin is {checkpoint.origin!r}, expected {self.origin!r}")
        if checkpoint.size != self.n:
            wrong.append(f"size is {checkpoint.size}, expected {self.n}")
        if wrong:
            fault("checkpoint", "the checkpoint's " + "; its ".join(wrong))
        return checkpoint, signature_fault

    # Step 8: the tree's end, head and earlier checkpoints.

    def check_head(self):
        if self.head is None:
            return
        if self.head.size > self.n:
            known = any(low <= self.n and high >= self.head.size for low, high in self.reported_ranges)
            if not known and self.end_is_known:
                self.report.fault("truncated", f"head names the tree size {self.head.size}, and the segments end at "
                                  f"{self.n}", index=self.n, end=self.head.size)
        else:
            self.compare_root("the file head", self.head.size, self.head.root)

    def compare_root(self, source, size, root):
        if size not in self.roots:
            self.report.cannot_tell(f"the root of tree size {size}, which {source} names, is not known")
        elif self.roots[size] != root:
            self.report.fault("fork", f"the root of tree size {size} is {b64(self.roots[size])}, and {source} says "
                              f"{b64(root)}", end=size)

    def read_against(self, path):
        """(path, checkpoint, fault): what an earlier checkpoint says, or why it cannot be used."""
        try:
            data = read_small_file(path)
            if data is None:
                raise FileNotFoundError(2, "there is no such file", path)
            note = Note(data)
            checkpoint = Checkpoint(note)
        except OSError as error:
            self.report.cannot_tell(f"the earlier checkpoint {path} cannot be read: {error}")
            return path, None, None
        except Malformed as error:
            return path, None, str(error)
        fault = self.key and self.key.fault_of(note)
        if not fault and self.origin is not None and checkpoint.origin != self.origin:
            fault = f"its origin is {checkpoint.origin!r}, expected {self.origin!r}"
        return path, None if fault else checkpoint, fault

    def check_against(self, path, checkpoint, fault):
        if fault:
            return self.report.fault("against", f"the earlier checkpoint {path} is none of this log: {fault}")
        if checkpoint is None:
            return None
        if checkpoint.size <= self.n:
            return self.compare_root(f"the earlier checkpoint {path}", checkpoint.size, checkpoint.root)
        if not self.end_is_known:
            return self.report.cannot_tell(f"{path} names the tree size {checkpoint.size}, and the end cannot be read")
        return self.report.fault("rollback", f"the earlier checkpoint {path} is of the tree size {checkpoint.size}, and "
                                 f"the segments end at {self.n}", index=self.n, end=checkpoint.size)

    def fill_in_report(self):
        root = None if self.tree is None else b64(root_of(self.tree))
        known = {"entries": self.entries_read, "size": self.n, "root": root, "origin": self.origin,
                 "key": self.key and self.key.text, "key_given": self.given_key is not None}
        self.report.known = {k: v for k, v in known.items() if v is not None}


def segment_name(number):
    return f"{number:020d}.seg"


def call_pieces(body):
    """(role, payload bytes, item) of a CallEvents body, in order: besides, segments, and ends of the call."""
    for event in body.get("events", []):
        header = event.get("header", {})
        if header.get("beside_length", 0) > 0:
            yield "a field list", header["beside_length"], header.get("beside_sha256", b"")
        if "message" in event:
            segment = event["message"]
            yield "segment", segment.get("length", 0) if segment.get("stored", False) else 0, segment
        if event.get("type", 0) in (LOCAL_ANSWER, ABANDONED):
            yield "end of call", 0, None


def connection_pieces(body):
    for event in body.get("events", []):
        if event.get("payload_stored", False):
            yield "a connection event", event.get("payload_length", 0), event.get("payload_sha256", b"")


def verify(folder, key=None, against=()):
    return Verifier(folder, key, against).run()


def main():
    parser = argparse.ArgumentParser(description="Verifies an attestry ledger. Exit code 0: intact, 3: damaged, "
                                     "4: cannot tell, 2: wrong usage.")
    parser.add_argument("ledger", help="the ledger's folder")
    parser.add_argument("--key", help="the log's verifier key: NAME+keyid+base64")
    parser.add_argument("--against", action="append", default=[], metavar="FILE",
                        help="an earlier checkpoint (signed note) that the log must still contain")
    parser.add_argument("-o", "--output", choices=("json", "text"), default="text")
    arguments = parser.parse_args()
    try:
        key = VerifierKey(arguments.key) if arguments.key is not None else None
    except Malformed as error:
        parser.error(f"--key: {error}")
    report = verify(arguments.ledger, key, arguments.against)
    print(json.dumps(report.as_json(), indent=2, ensure_ascii=False) if arguments.output == "json" else report.as_text())
    return EXIT_CODES[report.verdict]


if __name__ == "__main__":
    sys.exit(main())
