"""What the toolstack asks of a guest that dumps: it is said on the console, and the dump goes on.

A task beside the mode `dump` of main. Rules: nothing is acknowledged, so that xl gives up a save
after its 60 s and withdraws the request; no failure here is the reason that a dump fails; the dump
begins when this waits for the toolstack, so that its own requests to xenstore come in the same
order whatever time each takes.
Source: Xen tools/libs/light/libxl_dom_suspend.c.
"""

from xenpv.errors import XenError
from xenpv.text import printable

from .report import say

NODE = "control/shutdown"


async def listen(store, listens):
    """Say each request of the toolstack, until cancelled or until xenstore fails.

    Args:
        store: Xenstore.
        listens: Signal, set when this waits for the toolstack, or has given up.
    """
    try:
        watch = await store.watch(NODE)
        while True:
            # The first event tells that the watch is set.
            await watch.next(None)
            asked = await store.find(NODE)
            if asked:
                say("the toolstack asks for %s: not now, the dump goes on" % printable(asked[:16]))
            listens.set()
    except (XenError, MemoryError):
        listens.set()
