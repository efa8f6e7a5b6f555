"""Linux's asynchronous I/O: many reads and writes of a block device under way for one worker.

Made at connect for a disk that is opened past the page cache; with others the kernel would do them
one after the other. The kernel's own calls are used, which need no library and no thread; each
completion is counted in the eventfd on which the worker sleeps.
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
from .transfer import Transfer

DEPTH = 64
IO_SETUP, IO_DESTROY, IO_GETEVENTS, IO_SUBMIT = 206, 207, 208, 209
PREADV, PWRITEV = 7, 8
RESFD = 1
IOVEC = struct.Struct("=QQ")  # address, bytes
CDEF = """
struct iocb {
    uint64_t data; uint32_t key, rw_flags; uint16_t opcode; int16_t priority; uint32_t fd;
    uint64_t buf, count; int64_t offset; uint64_t reserved; uint32_t flags, resfd;
};
struct io_event { uint64_t data, obj; int64_t res, res2; };
long syscall(long number, ...);
"""
BUSY = (errno.EAGAIN, errno.ENOMEM)


class Aio:
    """fd: of the device; bell: an eventfd. Raises Stalled."""

    depth = DEPTH

    def __init__(self, fd: int, bell: int) -> None:
        self._fd = fd
        self._bell = bell
        self._ffi: Any = cffi.FFI()
        self._ffi.cdef(CDEF)
        self._libc: Any = self._ffi.dlopen(None)
        context = self._ffi.new("unsigned long *")
        if self._call(IO_SETUP, DEPTH, context) < 0:
            raise Stalled(f"io_setup: {os.strerror(self._ffi.errno)}")
        self._context = context[0]
        self._events = self._ffi.new("struct io_event[]", DEPTH)
        self._flying: dict[int, Transfer] = {}
        self._serial = 0

    def _call(self, number: int, first: int, *args: Any) -> int:
        cast = self._ffi.cast
        words = [cast("long", arg) if isinstance(arg, int) else arg for arg in args]
        return int(self._libc.syscall(number, cast("long", first), *words))

    def begin(self, transfers: Sequence[Transfer]) -> int:
        """Begin up to DEPTH transfers, less those under way. Returns how many were begun."""
        ffi = self._ffi
        kept = [self._block(transfer) for transfer in transfers]
        blocks = ffi.new("struct iocb *[]", [block for block, _ in kept])
        begun = max(self._call(IO_SUBMIT, self._context, len(kept), blocks), 0)
        for (block, _), transfer in zip(kept[:begun], transfers, strict=False):
            self._flying[block.data] = transfer
        return begun

    def vector(self, memory: memoryview) -> bytes:
        """A struct iovec."""
        address = int(self._ffi.cast("uintptr_t", self._ffi.from_buffer(memory)))
        return IOVEC.pack(address, len(memory))

    def _block(self, transfer: Transfer) -> tuple[Any, Any]:
        """The control block of a transfer, and what it points to."""
        ffi = self._ffi
        self._serial += 1
        vectors = transfer.vectors or b"".join(map(self.vector, transfer.buffers))
        pointer = ffi.from_buffer(vectors)
        block = ffi.new("struct iocb *")
        block.data = self._serial
        block.opcode = PREADV if transfer.reads else PWRITEV
        block.fd = self._fd
        block.buf = ffi.cast("uintptr_t", pointer)
        block.count = len(vectors) // IOVEC.size
        block.offset = transfer.offset
        block.flags = RESFD
        block.resfd = self._bell
        return block, pointer

    def over(self) -> list[Transfer]:
        """The transfers that have ended since this was last asked."""
        if not self._flying:
            return []
        none = self._ffi.NULL
        count = self._call(IO_GETEVENTS, self._context, 0, DEPTH, self._events, none)
        found = []
        for event in self._events[0 : max(count, 0)]:
            transfer = self._flying.pop(event.data)
            found.append(transfer)
            if event.res < 0:
                what = os.strerror(-event.res)
                busy = -event.res in BUSY
                transfer.error = Stalled(what) if busy else OSError(-event.res, what)
            elif event.res != sum(map(len, transfer.buffers)):
                transfer.do()
        return found

    def close(self) -> None:
        self._call(IO_DESTROY, self._context)
