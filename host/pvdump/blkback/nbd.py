"""A network block device: the client's side of the protocol, over TCP or a unix socket.

Used as a sink. One request is in flight at a time. The rules:
- Whatever the network does is Stalled, not an error for the guest: the connection is made again,
  at most once in REST_SECONDS, and the request is sent again, which does no harm to a read or a
  write. So it is with a server that is being shut down, that has not been started yet or does not
  have the export yet, or that is short of memory. The log has one line until a request is done.
- What the server acknowledged and has not flushed may be lost with it, so it is kept here until a
  flush, and written again after a reconnect. (A flush that failed would not do: Linux' blkfront
  takes that for a disk without flush, and says that all is well.)
- Requests keep within the server's block sizes.
Source: the NBD project's doc/proto.md (simple replies) and doc/uri.md.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from xenpv.abi import PAGE_SIZE

from .nbdhandshake import (
    NBD_FLAG_READ_ONLY,
    NBD_FLAG_SEND_FLUSH,
    NBD_FLAG_SEND_TRIM,
    Export,
    Handshake,
    NbdError,
)
from .ports import Stalled
from .sink import IOV_MAX, behind

PORT = 10809
SILENCE_SECONDS = 30.0  # a server that is silent for so long is lost
CONNECT_SECONDS = 5.0  # one that is silent for so long at connect is tried again
REST_SECONDS = 0.5
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698
READ, WRITE, DISC, FLUSH, TRIM = range(5)
REQUEST, REPLY = ">IHHQQI", ">IIQ"
PAYLOAD_MAX = 4 << 20  # bytes
TRIM_MAX = 1 << 30  # bytes
KEPT = 64 << 20  # bytes not flushed, at most; a write beyond them is flushed for first
UNIX_PATH_MAX = 107  # bytes
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """The address of an export.

    where: a path of a unix socket, or host and port.
    """

    where: str | tuple[str, int]
    export: bytes


def parse(text: str) -> Address:
    """Parse nbd://HOST[:PORT]/[EXPORT] or nbd+unix:///[EXPORT]?socket=PATH. Raises NbdError."""
    try:
        parts = urlsplit(text)
        export = unquote(parts.path[1:]).encode()
        if parts.scheme == "nbd+unix":
            (path,) = parse_qs(parts.query, errors="surrogateescape")["socket"]
            if 0 < len(os.fsencode(path)) <= UNIX_PATH_MAX and "\0" not in path:
                return Address(path, export)
        elif parts.scheme == "nbd" and parts.hostname:
            parts.hostname.encode("idna")
            return Address((parts.hostname, parts.port or PORT), export)
    except (KeyError, ValueError):
        pass
    raise NbdError("nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH expected")


class Nbd:
    """An export of an NBD server.

    Args:
        text: its address, as parse() takes it.
        readonly: whether it is only read.

    Raises: NbdError if the address is wrong or the server refuses; Stalled if there is no server.
    """

    direct: int | None = None

    def __init__(self, text: str, readonly: bool) -> None:
        self._text = text
        self._address = parse(text)
        self._readonly = readonly
        self._socket: socket.socket | None = None
        self._handle = 0
        self._kept: list[tuple[int, bytes]] = []  # written and not flushed: offset, data
        self._kept_size = 0  # bytes
        self._again = 0.0  # when the next connection may be tried
        self._why = ""  # the last one failed; the message
        self._awaited = ""  # what was logged to be tried again
        try:
            self._export = self._connect(None)
        except (OSError, EOFError) as problem:
            self._let_go()
            if isinstance(problem, NbdError):
                raise
            raise Stalled(_reason(problem)) from None

    @property
    def size(self) -> int:
        """Bytes of the export at the last connection."""
        return self._export.size

    @property
    def sector_size(self) -> int:
        """Bytes of the smallest read or write that the server takes."""
        return self._export.minimum

    @property
    def physical(self) -> int:
        """Bytes of a request that the server prefers, up to a page."""
        preferred, least = self._export.preferred, self._export.minimum
        if preferred & (preferred - 1):
            return least
        return max(min(preferred, PAGE_SIZE), least)

    @property
    def granularity(self) -> int:
        """Bytes of a discard, 0 if the server cannot."""
        return self.sector_size if self._export.has(NBD_FLAG_SEND_TRIM) else 0

    # The sink's side.

    def read(self, offset: int, buffers: list[memoryview]) -> None:
        """Read from the server, in portions that it takes."""
        self._ready()
        for at, part in self._portions(offset, buffers):
            self._ask(READ, at, sum(map(len, part)), part)

    def write(self, offset: int, buffers: list[memoryview]) -> None:
        """Write to the server, and keep a copy until the next flush if it has a cache."""
        self._ready()
        size = sum(map(len, buffers))
        if self._kept and self._kept_size + size > KEPT:
            self.flush()
        for at, part in self._portions(offset, buffers):
            self._ask(WRITE, at, sum(map(len, part)), part)
        # A write that is done in part is not acknowledged, and comes again.
        if self._export.has(NBD_FLAG_SEND_FLUSH):
            self._kept.append((offset, b"".join(buffers)))
            self._kept_size += size

    def flush(self) -> None:
        """Have the server store all writes, and drop the copies."""
        self._ready()
        if self._export.has(NBD_FLAG_SEND_FLUSH):
            self._ask(FLUSH, 0, 0)
        self._forget()

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_size = 0

    def discard(self, offset: int, length: int) -> None:
        """Discard a range. Raises OSError EOPNOTSUPP if the server cannot."""
        self._ready()
        if not self._export.has(NBD_FLAG_SEND_TRIM):
            raise OSError(errno.EOPNOTSUPP, "the server takes no trim")
        for at in range(offset, offset + length, TRIM_MAX):
            self._ask(TRIM, at, min(TRIM_MAX, offset + length - at))

    def measure(self) -> None:
        """Leave the size: a server tells it only when it is connected to."""

    def close(self) -> None:
        """Flush if possible, tell the server, and close the connection."""
        if self._socket is not None:
            with contextlib.suppress(OSError, Stalled):
                self.flush()
                self._socket.sendall(struct.pack(REQUEST, REQUEST_MAGIC, 0, DISC, 0, 0, 0))
            self._let_go()

    # Requests.

    def _ask(
        self, command: int, offset: int, length: int, buffers: Sequence[memoryview] = ()
    ) -> None:
        """Have one request done, with the memory that it writes or reads into, after _ready().

        Raises: Stalled when the connection is lost, OSError.
        """
        try:
            error = self._exchange(command, offset, length, buffers)
            if error == errno.ESHUTDOWN:
                raise ConnectionError("the server is being shut down")
        except (OSError, EOFError) as problem:
            raise self._lost(problem) from None
        if error == errno.ENOMEM:
            raise self._await(os.strerror(error))
        self._awaited = ""
        if error:
            raise OSError(error, f"{self._text}: {os.strerror(error)}")

    def _ready(self) -> None:
        """Have a connection. Raises Stalled, NbdError."""
        if self._socket is not None:
            return
        if time.monotonic() < self._again:
            raise Stalled(self._why)
        try:
            self._connect_again()
        except (OSError, EOFError) as problem:
            raise self._lost(problem) from None

    def _lost(self, problem: OSError | EOFError) -> Stalled | NbdError:
        """Let go of the connection. Returns what to raise: only a refusal is the guest's error."""
        self._let_go()
        if not isinstance(problem, NbdError):
            return self._await(_reason(problem))
        self._why = f"{self._text}: {problem.strerror}"
        return NbdError(self._why)

    def _await(self, reason: str) -> Stalled:
        """Say once why a request is tried again. Returns what to raise."""
        self._why = f"{self._text}: {reason}"
        if self._why != self._awaited:
            self._awaited = self._why
            log.error("%s; it is tried again", self._why)
        return Stalled(self._why)

    def _exchange(
        self, command: int, offset: int, length: int, buffers: Sequence[memoryview]
    ) -> int:
        """Send a request and take its reply. Returns the reply's error."""
        self._handle += 1
        head = struct.pack(REQUEST, REQUEST_MAGIC, 0, command, self._handle, offset, length)
        self._send([memoryview(head), *(buffers if command == WRITE else ())])
        magic, error, handle = struct.unpack(REPLY, self._take(struct.calcsize(REPLY)))
        if magic != REPLY_MAGIC or handle != self._handle:
            raise ConnectionError(f"a reply 0x{magic:x} to request {handle}")
        if error == 0 and command == READ:
            self._fill(list(buffers))
        return int(error)

    def _portions(
        self, offset: int, buffers: list[memoryview]
    ) -> list[tuple[int, list[memoryview]]]:
        """Cut buffers into portions that one request may carry, each with its offset."""
        known = self._export
        most = min(PAYLOAD_MAX, known.maximum) // known.minimum * known.minimum
        found: list[tuple[int, list[memoryview]]] = []
        while buffers:
            part: list[memoryview] = []
            size = 0
            for buffer in buffers:
                part.append(buffer[: most - size])
                size += len(part[-1])
                if size == most:
                    break
            found.append((offset, part))
            buffers = behind(buffers, size)
            offset += size
        return found

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

    def _connect_again(self) -> None:
        """Connect, and write again what a lost server may have lost."""
        self._again = time.monotonic() + REST_SECONDS
        self._export = self._connect(self._export)
        for offset, kept in self._kept:
            for at, part in self._portions(offset, [memoryview(kept)]):
                if self._exchange(WRITE, at, sum(map(len, part)), part):
                    raise ConnectionError("what it lost is not taken again")
        if not self._export.has(NBD_FLAG_SEND_FLUSH):
            # It has no cache; later writes are not kept, so older ones must not come behind them.
            self._forget()

    def _connect(self, before: Export | None) -> Export:
        """Connect to the server.

        before: what it had at the last connection. Returns: what it has.
        Raises: NbdError; OSError and EOFError of the network.
        """
        where = self._address.where
        if isinstance(where, str):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(SILENCE_SECONDS)
            self._socket.connect(where)
        else:
            self._socket = socket.create_connection(where, CONNECT_SECONDS)
            self._socket.settimeout(SILENCE_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        shake = Handshake(lambda data: self._send([memoryview(data)]), self._take)
        export = shake.choose(self._address.export)
        self._check(export, before)
        return export

    def _check(self, export: Export, before: Export | None) -> None:
        """Refuse an export that would break a promise to the guest. Raises NbdError."""
        if export.has(NBD_FLAG_READ_ONLY) and not self._readonly:
            raise NbdError("the server only lets it be read; attach it --readonly")
        if before is None:
            return
        if export.size < before.size:
            raise NbdError(f"came back with {export.size} bytes of {before.size}")
        if export.minimum > before.minimum:
            raise NbdError(
                f"came back with blocks of {export.minimum} bytes, not of {before.minimum}"
            )


def _reason(problem: OSError | EOFError) -> str:
    return str(problem) or type(problem).__name__
