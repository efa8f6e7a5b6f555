"""Our own server for the conformance suite: as a guest sees it, and as domain 0 does over a socket.

Each function runs all cases and returns what was seen, by case.
"""

import threading

from pvdump.xenstore.selectloop import SelectLoop
from pvdump.xenstore.stream import StreamTransport
from pvdump.xenstored.server import Xenstored
from pvdump.xenstored.unix import UnixTransport
from pvxen.guest import EmbeddedGuest
from xenpv.evtchn import EventChannels
from xenpv.hypercall import Hypercalls
from xenpv.pollloop import PollLoop
from xenpv.xenstore.client import Xenstore
from xenpv.xenstore.ring import RingTransport

from .suite import stage
from .suite.all import DOM0, GUEST, run


def over_the_ring(**options):
    """options: of pvxen.guest.EmbeddedGuest."""
    guest = EmbeddedGuest(server_features=7, **options)
    top = f"{guest.home}/{stage.TOP}"
    for name, value, perms in stage.NODES:
        perms = perms.replace("%d", str(guest.domid))
        guest.store.write(f"{top}/{name}" if name else top, value, perms)
    guest.store.write(f"{top}/many", "", f"n0 r{guest.domid}")
    for name in stage.many():
        guest.store.write(f"{top}/many/{name}", "")
    xen = Hypercalls()
    loop = PollLoop(xen, EventChannels(xen))
    return observe(loop, RingTransport(xen, loop), GUEST, "data/conf", guest.domid)


def over_the_socket(path):
    """path: where the socket is to be."""
    with UnixTransport(Xenstored(), path) as unix:
        thread = threading.Thread(target=unix.run)
        thread.start()
        loop = SelectLoop()
        try:
            return observe(loop, StreamTransport(loop, path), DOM0, "/conf", 0)
        finally:
            loop.close()
            unix.stop()
            thread.join()


def observe(loop, transport, role, top, domid):
    """What the cases of a role see on a transport, by name."""
    store = Xenstore(loop, transport)
    seen = {}

    async def main():
        await store.connect()
        await run(store, role, top, domid, seen.__setitem__)
        await store.close()

    loop.run(main())
    return seen
