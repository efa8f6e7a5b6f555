"""What the toolstack asks of a guest that dumps: it is said on the console, and the dump goes on.

A task beside the mode `dump` of main. Rule: nothing is acknowledged, so that xl gives up a save
after its 60 s and withdraws the request; no failure here is the reason that a dump fails.
Source: Xen tools/libs/light/libxl_dom_suspend.c.
"""

from xenpv.errors import XenError
from xenpv.text import printable

from .report import say

NODE = "control/shutdown"


async def listen(store):
    """Say each request of the toolstack, until cancelled or until xenstore fails."""
    try:
        watch = await store.watch(NODE)
        while True:
            asked = await store.find(NODE)
            if asked:
                say("the toolstack asks for %s: not now, the dump goes on" % printable(asked[:16]))
            await watch.next(None)
    except (XenError, MemoryError):
        pass
