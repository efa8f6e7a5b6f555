"""A stream as a transport of the xenstore client: a unix socket, or /dev/xen/xenbus.

Used with xenpv.xenstore on a host. The rule: both ends of a socket see a stream, but the kernel's
device takes exactly one message per write, so a device is given one at a time.
Source: Linux drivers/xen/xenbus/xenbus_dev_frontend.c; Xen tools/libs/store/xs.c for the paths.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path

from xenpv import abi
from xenpv.errors import RingCorrupt, XenError
from xenpv.loop import Signal

from .selectloop import SelectLoop

SOCKET = Path("/run/xenstored/socket")
DEVICE = Path("/dev/xen/xenbus")


def default_path() -> Path:
    """Return the path of this machine's xenstore, chosen as libxenstore does."""
    if "XENSTORED_PATH" in os.environ:
        return Path(os.environ["XENSTORED_PATH"])
    # Path.exists() raises where this user may not look.
    return SOCKET if os.path.exists(SOCKET) else DEVICE  # noqa: PTH110


class StreamTransport:
    """A transport over a socket or device, with the attributes of the drivers' RingTransport.

    Args:
        loop: the loop of the client.
        path: of a unix socket or of a character device.
    """

    found = "connection made anew"
    stale = False

    def __init__(self, loop: SelectLoop, path: Path | str) -> None:
        self.loop = loop
        self.path = Path(path)
        self.signal = Signal()
        self.sent = 0  # writes
        self.updates = 0  # reads and writes
        self._fd = -1
        self._whole = False

    async def open(self) -> None:
        """Connect. Raises XenError if there is no server."""
        await self.close()
        try:
            self._whole = stat.S_ISCHR(self.path.stat().st_mode)
            if self._whole:
                self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            else:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                    connection.connect(str(self.path))
                    connection.setblocking(False)
                    self._fd = connection.detach()
        except OSError as error:
            raise XenError(
                f"no xenstore at {self.path}: {error.strerror}; name its socket, or set "
                f"XENSTORED_PATH"
            ) from None
        self.signal = self.loop.fd(self._fd)

    async def close(self) -> None:
        """Close the connection."""
        if self._fd >= 0:
            self.loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1

    def resets(self) -> bool:
        """Return True: a new connection has no watches and transactions."""
        return True

    def write(self, data: memoryview) -> int:
        """Send what the stream takes now. Returns the number of bytes taken."""
        if self._whole:
            (length,) = struct.unpack_from("<I", data, abi.XSD_SOCKMSG_LEN)
            data = data[: abi.XSD_SOCKMSG_SIZEOF + length]
        try:
            count = os.write(self._fd, data)
        except BlockingIOError:
            self.loop.want_write(self._fd, True)
            return 0
        except OSError as error:
            raise RingCorrupt(f"xenstore at {self.path}: writing: {error.strerror}") from None
        self.loop.want_write(self._fd, False)
        self.sent += 1
        self.updates += 1
        return count

    def read(self, limit: int) -> bytes:
        """Read up to limit bytes that have come."""
        try:
            data = os.read(self._fd, limit)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise RingCorrupt(f"xenstore at {self.path}: reading: {error.strerror}") from None
        if not data:
            raise RingCorrupt(f"xenstore at {self.path}: the server closed the connection")
        self.updates += 1
        return data

    def flush(self) -> None:
        """Do nothing: the kernel notifies the server."""

    def tell(self) -> None:
        """Do nothing: the kernel has notified the server."""

    def state(self) -> str:
        """Return the address of the connection, for messages."""
        return f"at {self.path}"
