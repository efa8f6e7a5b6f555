"""Where the image of the suite begins: all cases of a guest, one line each on the console.

case NAME: what was seen
conformance done COUNT
"""

import gc

import hw
from xenpv import abi
from xenpv.evtchn import EventChannels
from xenpv.hypercall import Hypercalls
from xenpv.schedpoll import PollLoop
from xenpv.xenstore import Xenstore
from xenpv.xs_ring import RingTransport

from .all import GUEST, run

FLUSH_MS = 2000
TOP = "data/conf"
told = []


def main():
    xen = Hypercalls()
    loop = PollLoop(xen, EventChannels(xen))
    loop.run(work(xen, loop))
    hw.console_flush(FLUSH_MS)
    xen.shutdown(abi.SHUTDOWN_poweroff)


async def work(xen, loop):
    store = Xenstore(loop, RingTransport(xen, loop))
    await store.connect()
    domid = await store.read_int("domid")
    await store.mkdir(TOP)
    await run(store, GUEST, TOP, domid, tell)
    await store.close()
    print("conformance done %d" % len(told))


def tell(name, seen):
    told.append(name)
    print("case %s: %s" % (name, seen))
    gc.collect()
    hw.console_flush(FLUSH_MS)
