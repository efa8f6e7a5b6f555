"""Xenstore packets without I/O: bytes in, packets out.

Used by both ends of a connection, over a ring or a stream. A packet is a 16-byte header and at
most 4096 bytes of payload; the parser holds what has come so far and says nothing until one is
whole. A header that breaks a limit is the peer's fault and ends the connection it came on.
Source: xen/include/public/io/xs_wire.h, docs/misc/xenstore.txt.
"""

import struct

from . import abi
from .errors import RingCorrupt

HEADER = "<IIII"

ERRORS = (
    "EINVAL EACCES EEXIST EISDIR ENOENT ENOMEM ENOSPC EIO ENOTEMPTY ENOSYS EROFS EBUSY EAGAIN "
    "EISCONN E2BIG EPERM EQUOTA"
).split()


class Packet:
    """One message: type, req_id and tx_id (u32), payload (bytes)."""

    def __init__(self, type, req_id, tx_id, payload):
        self.type = type
        self.req_id = req_id
        self.tx_id = tx_id
        self.payload = payload

    def __repr__(self):
        return "Packet(type=%d, req_id=%d, tx_id=%d, payload=%r)" % (
            self.type,
            self.req_id,
            self.tx_id,
            self.payload,
        )

    def encode(self):
        """The packet's bytes. Raises ValueError when the payload is over XENSTORE_PAYLOAD_MAX."""
        length = len(self.payload)
        if length > abi.XENSTORE_PAYLOAD_MAX:
            raise ValueError(
                "xenstore payload of %d bytes is over %d" % (length, abi.XENSTORE_PAYLOAD_MAX)
            )
        return struct.pack(HEADER, self.type, self.req_id, self.tx_id, length) + self.payload


class Parser:
    """Packets out of a byte stream, whatever the pieces it comes in."""

    def __init__(self):
        self._held = bytearray()

    def feed(self, data):
        """Take the next bytes of the stream."""
        self._held.extend(data)

    def pending(self):
        """True while part of a packet is held."""
        return len(self._held) > 0

    def next(self):
        """The next whole packet, or None when more bytes are needed.

        Raises RingCorrupt when the header announces a payload over XENSTORE_PAYLOAD_MAX.
        """
        held = self._held
        if len(held) < abi.XSD_SOCKMSG_SIZEOF:
            return None
        type, req_id, tx_id, length = struct.unpack_from(HEADER, held, 0)
        if length > abi.XENSTORE_PAYLOAD_MAX:
            raise RingCorrupt(
                "xenstore packet: len %d is over %d (type %d, req_id %d)"
                % (length, abi.XENSTORE_PAYLOAD_MAX, type, req_id)
            )
        end = abi.XSD_SOCKMSG_SIZEOF + length
        if len(held) < end:
            return None
        payload = bytes(memoryview(held)[abi.XSD_SOCKMSG_SIZEOF : end])
        self._held = bytearray(memoryview(held)[end:])
        return Packet(type, req_id, tx_id, payload)


def strings(payload):
    """The NUL-terminated strings of a payload, as a list of bytes; the last may lack its NUL."""
    if not payload:
        return []
    parts = payload.split(b"\0")
    if parts[-1] == b"":
        parts.pop()
    return parts


def error_name(payload):
    """The error in an XS_ERROR payload: one of ERRORS, or the server's own word made printable."""
    parts = strings(payload)
    name = "".join(chr(c) if 32 < c < 127 else "?" for c in parts[0][:32]) if parts else ""
    return name or "(no error name)"
