"""The beginning of a connection to an NBD server: the choice of an export and its properties.

Used by nbd.py at each connection. The rules: a server that speaks the fixed newstyle protocol is
asked with NBD_OPT_GO, which tells its limits; one that does not know that option, or speaks the
newstyle protocol before it was fixed, is asked with NBD_OPT_EXPORT_NAME. What it answers is checked
before it is used. Two refusals pass by themselves and count as faults of the network: a server that
is being shut down, and one without the export, which may be added to it later.
Source: the NBD project's doc/proto.md (NBD_OPT_GO, NBD_INFO_BLOCK_SIZE, "Block size constraints").
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass

from xenpv.abi import PAGE_SIZE
from xenpv.block.blkif import SECTOR
from xenpv.text import printable

NBDMAGIC, IHAVEOPT, REPLYMAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
NBD_FLAG_FIXED_NEWSTYLE, NBD_FLAG_NO_ZEROES = 1, 2
NBD_OPT_EXPORT_NAME, NBD_OPT_GO = 1, 7
NBD_REP_ACK, NBD_REP_INFO = 1, 3
NBD_REP_ERR_UNSUP, NBD_REP_ERR_UNKNOWN, NBD_REP_ERR_SHUTDOWN = 0x80000001, 0x80000006, 0x80000007
NBD_INFO_EXPORT, NBD_INFO_BLOCK_SIZE = 0, 3
NBD_FLAG_READ_ONLY, NBD_FLAG_SEND_FLUSH, NBD_FLAG_SEND_TRIM = 2, 4, 32
OPTION_REPLY, EXPORT, BLOCK_SIZE = ">QIII", ">QH", ">III"
OPTION_MAX = 1 << 16  # bytes of a reply to an option
ZEROES = 124  # bytes behind the answer to NBD_OPT_EXPORT_NAME, unless it was agreed to leave them
NO_MAXIMUM = 32 << 20  # bytes; what every server takes that names no maximum


class NbdError(OSError):
    """The server refuses what is wanted, or speaks another protocol; the message says which.

    Whoever opened or asked names the server.
    """

    def __init__(self, message: str) -> None:
        super().__init__(errno.EIO, message)


@dataclass(frozen=True)
class Export:
    """A server's export.

    size: its bytes; minimum, preferred, maximum: bytes of a request.
    """

    size: int
    flags: int
    minimum: int = SECTOR
    preferred: int = PAGE_SIZE
    maximum: int = NO_MAXIMUM

    def has(self, flag: int) -> bool:
        """Return whether the server set one of NBD_FLAG_*."""
        return bool(self.flags & flag)


class Handshake:
    """One handshake.

    Args:
        send: sends bytes to the server.
        take: waits for so many bytes of the server and returns them.

    Raises: NbdError and ConnectionError from its methods, and what send() and take() raise.
    """

    def __init__(self, send: Callable[[bytes], None], take: Callable[[int], bytes]) -> None:
        self._send = send
        self._take = take
        self._zeroes = ZEROES

    def choose(self, name: bytes) -> Export:
        """Choose an export by its name. Returns what the server says of it."""
        magic, option, flags = struct.unpack(">QQH", self._take(18))
        if (magic, option) != (NBDMAGIC, IHAVEOPT):
            raise NbdError("no newstyle NBD server")
        self._send(struct.pack(">I", flags & (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)))
        if flags & NBD_FLAG_NO_ZEROES:
            self._zeroes = 0
        export = self._go(name) if flags & NBD_FLAG_FIXED_NEWSTYLE else None
        export = export or self._export_name(name)
        if not export.size:
            raise NbdError("the server does not say the export's size")
        if not self._is_possible(export):
            raise NbdError(
                f"the server's blocks of {export.minimum} to {export.maximum} bytes: a power of "
                f"two up to {PAGE_SIZE} expected, and a larger one"
            )
        return export

    def _is_possible(self, export: Export) -> bool:
        least = export.minimum
        return least & (least - 1) == 0 and SECTOR <= least <= PAGE_SIZE and least <= export.maximum

    def _option(self, option: int, data: bytes) -> None:
        self._send(struct.pack(">QII", IHAVEOPT, option, len(data)) + data)

    def _go(self, name: bytes) -> Export | None:
        """Ask with NBD_OPT_GO. Returns None if the server does not know that option."""
        asked = struct.pack(">I", len(name)) + name
        self._option(NBD_OPT_GO, asked + struct.pack(">HH", 1, NBD_INFO_BLOCK_SIZE))
        about: tuple[int, ...] = (0, 0)
        sizes: tuple[int, ...] = (SECTOR, PAGE_SIZE, NO_MAXIMUM)
        while True:
            kind, data = self._reply(NBD_OPT_GO)
            if kind == NBD_REP_ACK:
                minimum, preferred, maximum = sizes
                size, flags = about
                return Export(size, flags, max(minimum, SECTOR), preferred, maximum)
            if kind == NBD_REP_ERR_UNSUP:
                return None
            if kind == NBD_REP_ERR_SHUTDOWN:
                raise ConnectionError("the server is being shut down")
            if kind == NBD_REP_ERR_UNKNOWN:
                raise ConnectionError("the server does not have the export")
            if kind != NBD_REP_INFO:
                raise NbdError(f"export refused, 0x{kind:x} {printable(data)}")
            info, rest = data[:2], data[2:]
            if info == struct.pack(">H", NBD_INFO_EXPORT):
                about = self._unpack(EXPORT, rest)
            elif info == struct.pack(">H", NBD_INFO_BLOCK_SIZE):
                sizes = self._unpack(BLOCK_SIZE, rest)

    def _reply(self, option: int) -> tuple[int, bytes]:
        """Take a reply to an option. Returns its kind and its data."""
        head = self._take(struct.calcsize(OPTION_REPLY))
        magic, answered, kind, length = struct.unpack(OPTION_REPLY, head)
        if magic != REPLYMAGIC or answered != option or length > OPTION_MAX:
            raise NbdError(
                f"0x{magic:x} of {length} bytes is no reply to option {option} of up to "
                f"{OPTION_MAX} bytes"
            )
        return kind, self._take(length)

    def _unpack(self, form: str, data: bytes) -> tuple[int, ...]:
        if len(data) != struct.calcsize(form):
            raise NbdError(f"an information of {len(data)} bytes")
        return struct.unpack(form, data)

    def _export_name(self, name: bytes) -> Export:
        """Ask with NBD_OPT_EXPORT_NAME; a server without the export ends the connection."""
        self._option(NBD_OPT_EXPORT_NAME, name)
        size, flags = struct.unpack(EXPORT, self._take(struct.calcsize(EXPORT)))
        self._take(self._zeroes)
        return Export(size, flags)
