"""`hw` for the client's end of the xenstore ring, which lets it touch nothing but what is its own.

Used with a server that lies: before each access somebody else has a turn at the page. What the
client may do: read the indexes and the server's fields, move its own two indexes, ask for a
reconnect, write requests and read replies, each within its bytes.
Source: xen/include/public/io/xs_wire.h.
"""

import contextlib
import inspect

from stores import PFN

import hw
from xenpv import abi, ring, xs_ring

PAGE = PFN * abi.PAGE_SIZE
INDEXES = range(PAGE + abi.XENSTORE_RING_REQ_CONS, PAGE + abi.XENSTORE_RING_RSP_PROD + 4, 4)
READABLE = {*INDEXES, *range(PAGE + abi.XENSTORE_RING_SERVER_FEATURES, PAGE + 2076, 4)}
REQ_PROD = PAGE + abi.XENSTORE_RING_REQ_PROD
RSP_CONS = PAGE + abi.XENSTORE_RING_RSP_CONS
CONNECTION = PAGE + abi.XENSTORE_RING_CONNECTION
REQUESTS = range(PAGE, PAGE + 1024)
REPLIES = range(PAGE + 1024, PAGE + 2048)
# No run takes so many, unless it has no end.
ACCESSES = 200000


class Guard:
    """`hw` for the client's end of the ring: each access is looked at, and may come too late."""

    def __init__(self, before):
        self._before = before
        self.accesses = 0

    def _access(self):
        self.accesses += 1
        assert self.accesses < ACCESSES, "the client goes on for ever"
        self._before()

    def rd32(self, addr):
        self._access()
        assert addr in READABLE, f"read of 0x{addr:x}"
        return hw.rd32(addr)

    def wr32(self, addr, value):
        self._access()
        assert addr in (REQ_PROD, RSP_CONS, CONNECTION), f"write to 0x{addr:x}"
        assert addr != CONNECTION or value == 1, f"`connection` set to {value}"
        hw.wr32(addr, value)

    def mem(self, addr, length):
        self._access()
        for part in (REQUESTS, REPLIES):
            if addr in part and length <= part.stop - addr:
                view = hw.mem(addr, length)
                return view.toreadonly() if part is REPLIES else view
        raise AssertionError(f"access to {length} bytes at 0x{addr:x}")

    mb, rmb, wmb = hw.mb, hw.rmb, hw.wmb


RING = compile(inspect.getsource(ring), ring.__file__, "exec")


@contextlib.contextmanager
def guarded(guard):
    """The client's ring goes through the guard; the server's does not."""
    names = dict(vars(ring))
    exec(RING, names)
    names["hw"] = guard
    before = xs_ring.hw, xs_ring.ByteRing
    xs_ring.hw, xs_ring.ByteRing = guard, names["ByteRing"]
    try:
        yield
    finally:
        xs_ring.hw, xs_ring.ByteRing = before
