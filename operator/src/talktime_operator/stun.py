"""STUN Binding as ICE uses it (RFC 8489; RFC 8445 section 7.1): one request, one answer. Pure."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import struct

COOKIE = 0x2112A442
REQUEST, SUCCESS = 0x0001, 0x0101
USERNAME, INTEGRITY, PRIORITY, FINGERPRINT = 0x0006, 0x0008, 0x0024, 0x8028
CONTROLLED, CONTROLLING = 0x8029, 0x802A
HEADER = 20
HOST_PRIORITY = 0x6E001EFF
"""Of a peer-reflexive candidate; any would do."""


def binding(transaction: bytes, username: str, password: str, role: int) -> bytes:
    """A check. `transaction`: 12 bytes; the password is the other side's; `role`: CONTROLLED or CONTROLLING, what the
    other side is not, else it answers 487."""
    body = _attribute(USERNAME, username.encode())
    body += _attribute(PRIORITY, struct.pack("!I", HOST_PRIORITY)) + _attribute(role, transaction[:8])
    # Both are counted in the length they are computed over (RFC 8489 sections 14.5 and 14.7).
    signed = _head(REQUEST, len(body) + 24, transaction) + body
    body += _attribute(INTEGRITY, hmac.new(password.encode(), signed, hashlib.sha1).digest())
    checked = _head(REQUEST, len(body) + 8, transaction) + body
    return checked + _attribute(FINGERPRINT, struct.pack("!I", binascii.crc32(checked) ^ 0x5354554E))


def answers(datagram: bytes, transaction: bytes, password: str) -> bool:
    """Whether this is the success response to our check, signed with the other side's password."""
    if len(datagram) < HEADER:
        return False
    kind, length, cookie = struct.unpack("!HHI", datagram[:8])
    if kind != SUCCESS or cookie != COOKIE or datagram[8:HEADER] != transaction or length != len(datagram) - HEADER:
        return False
    at = HEADER
    while at + 4 <= len(datagram):
        attribute, size = struct.unpack("!HH", datagram[at : at + 4])
        if attribute == INTEGRITY:
            signed = _head(kind, at - HEADER + 24, transaction) + datagram[HEADER:at]
            wanted = hmac.new(password.encode(), signed, hashlib.sha1).digest()
            return hmac.compare_digest(wanted, datagram[at + 4 : at + 4 + size])
        at += 4 + size + (-size % 4)
    return False


def _head(kind: int, length: int, transaction: bytes) -> bytes:
    return struct.pack("!HHI", kind, length, COOKIE) + transaction


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + b"\0" * (-len(value) % 4)
