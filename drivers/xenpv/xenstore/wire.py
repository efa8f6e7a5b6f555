"""Xenstore packets without I/O: bytes in, packets out.

Used by both ends of a connection, over a ring or a stream. A packet is a 16-byte header and at most
4096 bytes of payload; the parser holds the bytes that have come until a packet is whole. A header
that breaks a limit is the peer's fault and ends the connection. Rule: when memory runs out nothing
is lost; the same call may be made again.
Source: xen/include/public/io/xs_wire.h, docs/misc/xenstore.txt.
"""

import struct

from .. import abi
from ..errors import RingCorrupt
from ..text import printable

HEADER = "<IIII"
# These are newer than the headers that xenpv.abi is compared with.
XS_GET_FEATURE = 23
XS_SET_FEATURE = 24
XS_GET_QUOTA = 25
XS_SET_QUOTA = 26
SERVER_FEATURE_WATCHDEPTH = 4
PACKET_MAX = abi.XSD_SOCKMSG_SIZEOF + abi.XENSTORE_PAYLOAD_MAX

ERRORS = (
    "EINVAL EACCES EEXIST EISDIR ENOENT ENOMEM ENOSPC EIO ENOTEMPTY ENOSYS EROFS EBUSY EAGAIN "
    "EISCONN E2BIG EPERM EQUOTA"
).split()


class Packet:
    """One message. type (XS_*), req_id and tx_id: u32; payload: bytes."""

    def __init__(self, kind, req_id, tx_id, payload):
        self.type = kind
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
        """Return the packet's bytes. Raises ValueError if the payload is over its limit."""
        return header(self.type, self.req_id, self.tx_id, self.payload) + self.payload


def header(kind, req_id, tx_id, payload):
    """Return a packet's first 16 bytes. Raises ValueError if the payload is over its limit."""
    length = len(payload)
    if length > abi.XENSTORE_PAYLOAD_MAX:
        raise ValueError(
            "xenstore payload of %d bytes is over %d" % (length, abi.XENSTORE_PAYLOAD_MAX)
        )
    return struct.pack(HEADER, kind, req_id, tx_id, length)


class Buffer:
    """Bytes that have come and were not taken yet; it grows only if more is put in than fits."""

    def __init__(self, size):
        self._bytes = bytearray(size)
        self._head = 0
        self._tail = 0

    def __len__(self):
        return self._tail - self._head

    def room(self):
        """Return how many bytes can be put in without growing."""
        return len(self._bytes) - len(self)

    def put(self, data):
        """Add bytes at the end."""
        if len(data) > self.room():
            grown = bytearray(len(self) + len(data))
            grown[: len(self)] = self.view()
            self._bytes, self._tail, self._head = grown, len(self), 0
        elif self._tail + len(data) > len(self._bytes):
            held = len(self)
            self._bytes[:held] = self._bytes[self._head : self._tail]
            self._head, self._tail = 0, held
        self._bytes[self._tail : self._tail + len(data)] = data
        self._tail += len(data)

    def view(self):
        """Return a view of the bytes, valid until the next put()."""
        return memoryview(self._bytes)[self._head : self._tail]

    def drop(self, count):
        """Remove the first bytes."""
        self._head += count
        if self._head == self._tail:
            self._head = self._tail = 0


class Parser:
    """Packets out of a byte stream that comes in pieces of any size."""

    def __init__(self):
        self._held = Buffer(2 * PACKET_MAX)

    def room(self):
        """Return how many bytes feed() takes without asking for memory."""
        return self._held.room()

    def feed(self, data):
        """Take the next bytes of the stream."""
        self._held.put(data)

    def pending(self):
        """Return whether a part of a packet is held."""
        return len(self._held) > 0

    def next(self):
        """Return the next whole packet, None if more bytes are needed.

        Raises: RingCorrupt when the header announces a payload over XENSTORE_PAYLOAD_MAX.
        """
        size = len(self._held)
        if size < abi.XSD_SOCKMSG_SIZEOF:
            return None
        held = self._held.view()
        kind, req_id, tx_id, length = struct.unpack_from(HEADER, held, 0)
        if length > abi.XENSTORE_PAYLOAD_MAX:
            raise RingCorrupt(
                "xenstore packet: len %d is over %d (type %d, req_id %d)"
                % (length, abi.XENSTORE_PAYLOAD_MAX, kind, req_id)
            )
        end = abi.XSD_SOCKMSG_SIZEOF + length
        if size < end:
            return None
        packet = Packet(kind, req_id, tx_id, bytes(held[abi.XSD_SOCKMSG_SIZEOF : end]))
        self._held.drop(end)
        return packet


def strings(payload):
    """Return the NUL-terminated strings of a payload, list of bytes; the last may lack its NUL."""
    if not payload:
        return []
    parts = payload.split(b"\0")
    if parts[-1] == b"":
        parts.pop()
    return parts


def error_name(payload):
    """Return the error in an XS_ERROR payload, str: one of ERRORS, or the server's own word."""
    parts = strings(payload)
    name = printable(parts[0][:32]) if parts else ""
    return name or "(no error name)"
