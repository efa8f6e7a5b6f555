"""What an earlier kernel asked of a disk's backend, and has no answer to: it ends first.

Used before a connection that an earlier kernel left is closed. Where nothing was reset, the backend
still serves the ring of the kernel that died, and a backend may not survive that its front end says
Closed then: QEMU takes the ring away while another thread of its writes answers there. The ring is
found by that kernel's grant. The rule: what is read there is any bytes, and decides no more than
how long is waited, which is bounded.
Source: xen/include/public/io/ring.h, blkif.h; QEMU hw/block/dataplane/xen-block.c
(xen_block_dataplane_stop), seen in 7.2.
"""

import struct

from .. import abi
from ..errors import HypercallError
from ..loop import SECOND
from ..text import decimal
from ..xenbus import EARLIER_TIMEOUT, POLL_PERIOD, POLL_PERIOD_MAX
from .blkif import X86_64
from .ring import PAGES_MAX, U32, slots

# States of a backend that serves a ring.
SERVING = (abi.XenbusStateConnected, abi.XenbusStateClosing)
RING_REF = ("ring-ref", "ring-ref0")
# It is told again of what it may not have heard of, once in so long.
TELL_AGAIN = SECOND


async def ended(loop, grants, device, tell):
    """Wait until each request of an earlier kernel is answered, for EARLIER_TIMEOUT at most.

    loop: Loop; grants: GrantTable; device: xenbus.Device, found; tell: a function that is given
    lines. Raises XenError when xenstore does not answer.
    """
    if await device.backend_state() not in SERVING:
        return
    try:
        gfn = await _ring(grants, device)
    except (HypercallError, MemoryError) as e:
        tell("the earlier kernel's ring cannot be looked at: %s" % e)
        return
    if gfn is None:
        return
    port = await _number(device, "event-channel")
    began = told = loop.now()
    period = POLL_PERIOD
    _kick(loop, port)
    while True:
        count = _unanswered(grants.xen.peek(gfn, abi.SRING_RSP_EVENT))
        if count == 0 or await device.backend_state() not in SERVING:
            return
        if loop.now() >= began + EARLIER_TIMEOUT:
            tell(
                "%d requests of the earlier kernel have no answer after %d s; closed all the same"
                % (count, EARLIER_TIMEOUT // SECOND)
            )
            return
        if loop.now() >= told + TELL_AGAIN:
            if told == began:
                tell("waiting for the answers to %d requests of the earlier kernel" % count)
            told = loop.now()
            _kick(loop, port)
        await loop.sleep(period)
        period = min(2 * period, POLL_PERIOD_MAX)


async def _ring(grants, device):
    """The frame of the ring that an earlier kernel lent to the backend, its first; or None."""
    for key in RING_REF:
        ref = await _number(device, key)
        entry = None if ref is None else grants.lent(ref)
        if entry is not None and entry[0] == device.backend_id:
            return entry[1]
    return None


async def _number(device, key):
    """What a key of the front end says, None for no u32."""
    text = await device.store.read_text(device.path + "/" + key, "")
    return decimal(text, 0, U32)


def _unanswered(head):
    """How many requests have no answer; 0 where this is no ring.

    head: the first bytes of its page, or None.
    """
    if head is None:
        return 0
    prod = struct.unpack_from("<I", head, abi.SRING_REQ_PROD)[0]
    answered = struct.unpack_from("<I", head, abi.SRING_RSP_PROD)[0]
    count = (prod - answered) & U32
    return count if count <= slots(PAGES_MAX, X86_64.stride) else 0


def _kick(loop, port):
    """The earlier kernel may have died before it told the backend."""
    try:
        if port is not None:
            loop.evtchn.send(port)
    except HypercallError:
        # There is no such channel any more.
        pass
