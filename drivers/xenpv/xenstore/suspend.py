"""Suspension of the xenstore client: it leaves its transport, and comes back with its watches.

Used by xenpv.suspend; a module of its own, since a crash kernel is never suspended. Rules: what is
asked for meanwhile waits, and is sent afterwards; a watch stays the same object with the same
token, and its first event afterwards says that anything may have changed; a transaction ends with
EAGAIN, since its number may be another's then.
"""

from .. import abi
from ..errors import XenError, XenstoreError
from ..loop import Signal
from .client import RESETS_WATCHES
from .nodes import NodeOperations


class _Direct(NodeOperations):
    """The operations on nodes of a client that is suspended."""

    def __init__(self, store):
        super().__init__()
        self.request = store.send


async def suspend(store):
    """Leave the transport until resume(). Requests in flight are waited for.

    Args:
        store: client.Xenstore.

    Raises: XenError when the server does not do its part; the transport is left all the same.
    """
    store.gate = Signal()
    try:
        await store.answered()
    finally:
        store.stop("xenstore: suspended")
        if store.transport.signal is not None:
            await store.transport.close()


async def resume(store):
    """Connect again after suspend(), and set all watches again.

    Raises: as connect(); requests fail then, and it may be called again.
    """
    store.age += 1
    direct = _Direct(store)
    try:
        await store.begin()
        if store.transport.stale and await direct.read_text(RESETS_WATCHES, "0") == "1":
            await direct.request(abi.XS_RESET_WATCHES, b"\0", "reset_watches")
        for watch in list(store.watches.values()):
            await _set(store, direct, watch)
    except XenError as e:
        store.stop(str(e))
        raise
    finally:
        gate = store.gate
        store.gate = None
        if gate is not None:
            gate.set()


async def _set(store, direct, watch):
    """Set a watch again; one that the server refuses now has ended."""
    try:
        await direct.ask(abi.XS_WATCH, watch.path, watch.rest)
    except XenstoreError as e:
        # The same domain went on, and the server has kept the watch.
        if e.code != "EEXIST":
            store.watches.pop(watch.token.encode(), None)
            watch.signal.set()
