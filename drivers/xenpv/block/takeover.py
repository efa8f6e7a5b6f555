"""Take-over of a disk: the connection that the crashed kernel left is ended as it would have done.

Used before a disk is connected. Where nothing was reset, the backend still serves the crashed
kernel's ring, so take_over() first waits until it has answered what is in there, then goes through
Closing, Closed and Initialising. A backend may not survive Closed with requests unanswered: QEMU
unmaps the ring while another thread of its writes answers there. The ring is found by the crashed
kernel's grant. The rule: what is read there is any bytes, and decides no more than how long the
wait is, which is bounded.
Source: xen/include/public/io/ring.h, blkif.h; Linux drivers/xen/xenbus/xenbus_probe_frontend.c
(xenbus_reset_frontend, the order of states); QEMU hw/block/dataplane/xen-block.c
(xen_block_dataplane_stop), seen in 7.2.
"""

import struct

from .. import abi
from ..errors import HypercallError, Timeout
from ..loop import SECOND
from ..text import decimal
from ..xenbus import poll_period, seconds
from .blkif import X86_64
from .ring import PAGES_MAX, U32, slots

# States of a backend that serves a ring, and of one that had a front end: it must see that close.
SERVING = (abi.XenbusStateConnected, abi.XenbusStateClosing)
LEFT = SERVING + (abi.XenbusStateClosed,)
RING_REF = ("ring-ref", "ring-ref0")
# How long answers to the crashed kernel's requests are waited for, ns.
ANSWERS_TIMEOUT = 60 * SECOND
# The event is sent again so often, ns: it may be lost, or the crashed kernel did not send it.
SEND_AGAIN = SECOND


async def take_over(loop, grants, device, tell):
    """End the connection that the crashed kernel left, if there is one.

    Args:
        loop: Loop.
        grants: GrantTable.
        device: xenbus.Device, found, its deadline set.
        tell: a function that is given lines.

    Returns: whether there was one.

    Raises: Timeout, XenstoreError.
    """
    await _answered(loop, grants, device, tell)
    return await end_connection(device)


async def end_connection(device):
    """Go through Closing, Closed and Initialising if an earlier connection is not ended yet.

    Returns: whether that was so.

    Raises: Timeout, XenstoreError.
    """
    ours, backends = await device.state(), await device.backend_state()
    if ours == abi.XenbusStateInitialising and backends not in LEFT:
        return False
    if backends != abi.XenbusStateInitWait:
        await device.shut("taking over from the crashed kernel")
    await device.set_state(abi.XenbusStateInitialising)
    return True


async def _answered(loop, grants, device, tell):
    """Wait until each request of the crashed kernel is answered, for ANSWERS_TIMEOUT at most."""
    if await device.backend_state() not in SERVING:
        return
    try:
        gfn = await _ring(grants, device)
    except (HypercallError, MemoryError) as e:
        tell("the crashed kernel's ring cannot be looked at: %s" % e)
        return
    if gfn is None:
        return
    port = await _number(device, "event-channel")
    began = sent = loop.now()
    _send(loop, port)
    while True:
        count = _unanswered(grants.xen.peek(gfn, abi.SRING_RSP_EVENT))
        if count == 0 or await device.backend_state() not in SERVING:
            return
        now = loop.now()
        # The deadline may be moved meanwhile.
        end = min(began + ANSWERS_TIMEOUT, device.deadline)
        if now >= end:
            why = "%d requests of the crashed kernel have no answer after %d s" % (
                count,
                seconds(now - began),
            )
            if now >= device.deadline:
                raise Timeout("%s: %s" % (device.path, why))
            tell(why + "; closed all the same")
            return
        if now >= sent + SEND_AGAIN:
            if sent == began:
                tell("waiting for the answers to %d requests of the crashed kernel" % count)
            sent = now
            _send(loop, port)
        await loop.sleep(min(poll_period(now - began), end - now))


async def _ring(grants, device):
    """Return the first frame of the ring that the crashed kernel lent to the backend, or None."""
    for key in RING_REF:
        ref = await _number(device, key)
        entry = None if ref is None else grants.lent(ref)
        if entry is not None and entry[0] == device.backend_id:
            return entry[1]
    return None


async def _number(device, key):
    """Return the value of a key of the front end, None if it is no u32."""
    return decimal(await device.store.read_text(device.path + "/" + key, ""), 0, U32)


def _unanswered(head):
    """Return the number of requests without an answer; 0 if this is no ring.

    head: the first bytes of its page, or None.
    """
    if head is None:
        return 0
    prod = struct.unpack_from("<I", head, abi.SRING_REQ_PROD)[0]
    answered = struct.unpack_from("<I", head, abi.SRING_RSP_PROD)[0]
    count = (prod - answered) & U32
    return count if count <= slots(PAGES_MAX, X86_64.stride) else 0


def _send(loop, port):
    """Send the event that says that there are requests, if there is such a channel."""
    try:
        if port is not None:
            loop.evtchn.send(port)
    except HypercallError:
        pass
