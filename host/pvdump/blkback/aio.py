"""Linux's asynchronous I/O: many reads and writes of a block device under way for one worker.

A device makes it at connect for a disk that is opened past the page cache; on others the kernel
does one after the other. The system calls are used directly, so no library and no thread is needed;
each completion is counted in the eventfd on which the worker sleeps.
Source: Linux include/uapi/linux/aio_abi.h, arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from typing import Any

import cffi

from .ports import Stalled
from .transfer import JOINED, Transfer

DEPTH = 64
IO_SETUP, IO_DESTROY, IO_GETEVENTS, IO_SUBMIT = 206, 207, 208, 209
PREADV, PWRITEV = 7, 8
RESFD = 1
IOVEC = struct.Struct("=QQ")  # address, bytes
# data, key, rw_flags, opcode, priority, fd, buf, count, offset, reserved, flags, resfd
IOCB = struct.Struct("=QIIHhIQQqQII")
EVENT = struct.Struct("=QQqq")  # data, obj, res, res2
# Offsets in our memory of what the kernel reads and writes, each DEPTH times.
POINTERS = 0
BLOCKS = POINTERS + DEPTH * 8
EVENTS = BLOCKS + DEPTH * IOCB.size
VECTORS = EVENTS + DEPTH * EVENT.size
SIZE = VECTORS + DEPTH * JOINED * IOVEC.size
BUSY = (errno.EAGAIN, errno.ENOMEM)


class Aio:
    """A queue of transfers.

    fd: of the device; bell: an eventfd. Raises Stalled if the kernel refuses it.
    """

    depth = DEPTH

    def __init__(self, fd: int, bell: int) -> None:
        self._fd = fd
        self._bell = bell
        self._ffi: Any = cffi.FFI()
        # Its arguments are a word each, like those of any system call.
        self._ffi.cdef("long syscall(long, long, long, long, long, long);")
        self._libc: Any = self._ffi.dlopen(None)
        self._syscall: Any = self._libc.syscall
        context = self._ffi.new("unsigned long *")
        if self._syscall(IO_SETUP, DEPTH, self._address(context), 0, 0, 0) < 0:
            why = os.strerror(self._ffi.errno)
            raise Stalled(f"io_setup: {why} (the sysctl fs.aio-max-nr bounds it)")
        self._context = context[0]
        self._memory: Any = self._ffi.new("char[]", SIZE)
        self._view: Any = memoryview(self._ffi.buffer(self._memory))
        self._base = self._address(self._memory)
        blocks = range(self._base + BLOCKS, self._base + EVENTS, IOCB.size)
        self._view[POINTERS:BLOCKS] = struct.pack(f"={DEPTH}Q", *blocks)
        self._flying: dict[int, Transfer] = {}
        self._serial = 0

    def _address(self, memory: Any) -> int:
        return int(self._ffi.cast("uintptr_t", memory))

    def vector(self, memory: memoryview) -> bytes:
        """Return a struct iovec of memory."""
        return IOVEC.pack(self._address(self._ffi.from_buffer(memory)), len(memory))

    def begin(self, transfers: Sequence[Transfer]) -> int:
        """Begin up to DEPTH transfers, less those under way. Returns how many were begun."""
        block, at, serial = BLOCKS, VECTORS, self._serial
        for transfer in transfers:
            vectors = transfer.vectors or b"".join(map(self.vector, transfer.buffers))
            end = at + len(vectors)
            self._view[at:end] = vectors
            IOCB.pack_into(
                self._view,
                block,
                serial,
                0,
                0,
                PREADV if transfer.reads else PWRITEV,
                0,
                self._fd,
                self._base + at,
                len(vectors) // IOVEC.size,
                transfer.offset,
                0,
                RESFD,
                self._bell,
            )
            block, at, serial = block + IOCB.size, end, serial + 1
        # The kernel copies all of it.
        count = self._syscall(IO_SUBMIT, self._context, len(transfers), self._base, 0, 0)
        begun = transfers[: max(count, 0)]
        self._flying.update(enumerate(begun, self._serial))
        self._serial = serial
        return len(begun)

    def over(self) -> list[Transfer]:
        """Return the transfers that have ended since the last call."""
        if not self._flying:
            return []
        count = self._syscall(IO_GETEVENTS, self._context, 0, DEPTH, self._base + EVENTS, 0)
        end = EVENTS + max(count, 0) * EVENT.size
        found = []
        for serial, _, done, _ in EVENT.iter_unpack(self._view[EVENTS:end]):
            transfer = self._flying.pop(serial)
            found.append(transfer)
            if done < 0:
                what = os.strerror(-done)
                transfer.error = Stalled(what) if -done in BUSY else OSError(-done, what)
            elif done != transfer.size:
                transfer.do()
        return found

    def close(self) -> None:
        """Give the kernel's part back; it waits for what is under way."""
        self._syscall(IO_DESTROY, self._context, 0, 0, 0, 0)
