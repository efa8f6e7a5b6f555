"""A network block device: the client's side of the protocol, over TCP or a unix socket.

Used as a sink. One request is in flight at a time, as the worker wants it. The rules: a connection
that is lost is made again, and what was asked is asked again, which does no harm to a read or a
write; what the server acknowledged and had not flushed may be lost with it, so it is kept here
until a flush and written again first. (A flush that failed instead would not do: Linux' blkfront
takes that for a disk that knows no flush, and tells whoever waits that all is well.)
Source: the NBD project's doc/proto.md (fixed newstyle, NBD_OPT_GO, simple replies) and doc/uri.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Sequence
from urllib.parse import parse_qs, unquote, urlsplit

from xenpv.block.blkif import SECTOR

from .ports import Stalled
from .sink import IOV_MAX, behind

PORT = 10809
SECONDS = 30.0  # a server that is silent for so long is lost
NBDMAGIC, IHAVEOPT, REPLYMAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698
NBD_FLAG_FIXED_NEWSTYLE, NBD_FLAG_NO_ZEROES = 1, 2
NBD_OPT_GO, NBD_REP_ACK, NBD_REP_INFO, NBD_INFO_EXPORT, NBD_INFO_BLOCK_SIZE = 7, 1, 3, 0, 3
NBD_FLAG_READ_ONLY, NBD_FLAG_SEND_FLUSH, NBD_FLAG_SEND_TRIM = 2, 4, 32
READ, WRITE, DISC, FLUSH, TRIM = range(5)
REQUEST, REPLY = ">IHHQQI", ">IIQ"
OPTION_MAX = 1 << 16
PAYLOAD_MAX = 4 << 20
KEPT = 64 << 20  # bytes not flushed; more are flushed unasked
BROKEN = (ConnectionError, TimeoutError, EOFError)


class NbdError(OSError):
    """The server refuses, or speaks something else."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EIO, message)


class Nbd:
    """address: nbd://host[:port]/[export] or nbd+unix:///[export]?socket=PATH.

    Raises OSError: there is no such server or export.
    """

    direct: int | None = None
    physical = SECTOR

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._handle = 0
        self._kept: list[tuple[int, bytes]] = []  # written and not flushed: offset, data
        self._kept_size = 0  # bytes
        self._flags = 0
        self.size = 0
        self.sector_size = SECTOR
        self._connect()
        self.granularity = self.sector_size if self._flags & NBD_FLAG_SEND_TRIM else 0

    # The sink's side.

    def read(self, offset: int, buffers: list[memoryview]) -> None:
        for at, part in _portions(offset, buffers):
            self._ask(READ, at, sum(map(len, part)), part)

    def write(self, offset: int, buffers: list[memoryview]) -> None:
        for at, part in _portions(offset, buffers):
            self._ask(WRITE, at, sum(map(len, part)), part)
            if self._flags & NBD_FLAG_SEND_FLUSH:
                self._kept.append((at, b"".join(part)))
                self._kept_size += len(self._kept[-1][1])
        if self._kept_size > KEPT:
            self.flush()

    def flush(self) -> None:
        if self._flags & NBD_FLAG_SEND_FLUSH:
            self._ask(FLUSH, 0, 0)
        self._kept.clear()
        self._kept_size = 0

    def discard(self, offset: int, length: int) -> None:
        if not self._flags & NBD_FLAG_SEND_TRIM:
            raise OSError(errno.EOPNOTSUPP, "the server takes no trim")
        most = 1 << 30
        for at in range(offset, offset + length, most):
            self._ask(TRIM, at, min(most, offset + length - at))

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError, Stalled):
                self.flush()
                self._socket.sendall(struct.pack(REQUEST, REQUEST_MAGIC, 0, DISC, 0, 0, 0))
            self._let_go()

    # Requests.

    def _ask(
        self, command: int, offset: int, length: int, buffers: Sequence[memoryview] = ()
    ) -> None:
        """One request, with the memory it writes or reads into, and its reply.

        Raises Stalled when the connection is lost, OSError.
        """
        try:
            if self._socket is None:
                self._connect()
                for at, kept in self._kept:
                    if self._exchange(WRITE, at, len(kept), [memoryview(kept)]):
                        raise ConnectionError("what it lost is not taken again")
            error = self._exchange(command, offset, length, buffers)
        except BROKEN as problem:
            self._let_go()
            raise Stalled(f"{self._address}: {problem}") from None
        if error:
            raise OSError(error, f"{self._address}: {os.strerror(error)}")

    def _exchange(
        self, command: int, offset: int, length: int, buffers: Sequence[memoryview]
    ) -> int:
        """Send a request and take its reply. Returns the reply's error. Raises one of BROKEN."""
        self._handle += 1
        head = struct.pack(REQUEST, REQUEST_MAGIC, 0, command, self._handle, offset, length)
        self._send([memoryview(head), *(buffers if command == WRITE else ())])
        magic, error, handle = struct.unpack(REPLY, self._take(struct.calcsize(REPLY)))
        if magic != REPLY_MAGIC or handle != self._handle:
            raise ConnectionError(f"a reply 0x{magic:x} to request {handle}")
        if error == 0 and command == READ:
            self._fill(list(buffers))
        return int(error)

    def _send(self, buffers: list[memoryview]) -> None:
        assert self._socket is not None
        while buffers:
            buffers = behind(buffers, self._socket.sendmsg(buffers[:IOV_MAX]))

    def _fill(self, buffers: list[memoryview]) -> None:
        assert self._socket is not None
        while buffers:
            taken = self._socket.recvmsg_into(buffers[:IOV_MAX])[0]
            if not taken:
                raise EOFError("the server hung up")
            buffers = behind(buffers, taken)

    def _take(self, size: int) -> bytes:
        data = bytearray(size)
        if size:
            self._fill([memoryview(data)])
        return bytes(data)

    # Connecting.

    def _let_go(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> None:
        parts = urlsplit(self._address)
        export = unquote(parts.path[1:]).encode()
        try:
            if parts.scheme == "nbd+unix":
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.settimeout(SECONDS)
                self._socket.connect(parse_qs(parts.query)["socket"][0])
            elif parts.scheme == "nbd" and parts.hostname:
                where = parts.hostname, parts.port or PORT
                self._socket = socket.create_connection(where, SECONDS)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            else:
                raise NbdError(f"{self._address}: nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=")
            size = self.size
            self._shake_hands(export)
            if size and self.size < size:
                raise NbdError(f"{self._address}: came back with {self.size} bytes of {size}")
        except KeyError:
            raise NbdError(f"{self._address}: ?socket=PATH expected") from None
        except FileNotFoundError as problem:
            self._let_go()
            # A server that is started again makes its socket anew.
            raise (ConnectionError(str(problem)) if self.size else problem) from None
        except EOFError as problem:
            self._let_go()
            raise ConnectionError(str(problem)) from None
        except OSError:
            self._let_go()
            raise

    def _shake_hands(self, export: bytes) -> None:
        magic, option, flags = struct.unpack(">QQH", self._take(18))
        if (magic, option) != (NBDMAGIC, IHAVEOPT) or not flags & NBD_FLAG_FIXED_NEWSTYLE:
            raise NbdError(f"{self._address}: no fixed newstyle NBD server")
        asked = struct.pack(">I", len(export)) + export
        asked += struct.pack(">HH", 1, NBD_INFO_BLOCK_SIZE)
        go = struct.pack(">QII", IHAVEOPT, NBD_OPT_GO, len(asked)) + asked
        self._send([memoryview(struct.pack(">I", flags & NBD_FLAG_NO_ZEROES | 1) + go)])
        while True:
            magic, _, kind, length = struct.unpack(">QIII", self._take(20))
            if magic != REPLYMAGIC or length > OPTION_MAX:
                raise NbdError(f"{self._address}: 0x{magic:x} is no reply to an option")
            data = self._take(length)
            if kind == NBD_REP_ACK:
                break
            if kind != NBD_REP_INFO:
                text = data.decode(errors="replace")
                raise NbdError(f"{self._address}: export refused, 0x{kind:x} {text}")
            if data[:2] == struct.pack(">H", NBD_INFO_EXPORT):
                self.size, self._flags = struct.unpack(">QH", data[2:12])
            elif data[:2] == struct.pack(">H", NBD_INFO_BLOCK_SIZE):
                self.sector_size = max(struct.unpack(">I", data[2:6])[0], SECTOR)
        if not self.size:
            raise NbdError(f"{self._address}: the server does not say the export's size")


def _portions(offset: int, buffers: list[memoryview]) -> list[tuple[int, list[memoryview]]]:
    """Buffers in portions that one request may carry, each with its offset."""
    found: list[tuple[int, list[memoryview]]] = []
    while buffers:
        part: list[memoryview] = []
        size = 0
        for buffer in buffers:
            if part and size + len(buffer) > PAYLOAD_MAX:
                break
            part.append(buffer[:PAYLOAD_MAX])
            size += len(part[-1])
        found.append((offset, part))
        buffers = behind(buffers, size)
        offset += size
    return found
