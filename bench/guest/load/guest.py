"""Where the benchmark's image begins: one round, a line for each load, then it powers off.

With "heap" as its command line it tells what memory is in use instead.

bench NAME|WORKERS|COUNT|NS|SENT|UPDATES    see loads.measure
heap OPERATIONS|BYTES                       memory in use after so many operations
bench done
"""

import gc

import hw
from xenpv import abi
from xenpv.evtchn import EventChannels
from xenpv.hypercall import Hypercalls
from xenpv.schedpoll import PollLoop
from xenpv.xenstore import Xenstore
from xenpv.xs_ring import RingTransport

from . import loads

FLUSH_MS = 2000
SETTLED = 1000
MORE = 10000


def main():
    xen = Hypercalls()
    loop = PollLoop(xen, EventChannels(xen))
    loop.run(work(xen, loop))
    hw.console_flush(FLUSH_MS)
    xen.shutdown(abi.SHUTDOWN_poweroff)


def say(line):
    print(line)
    hw.console_flush(FLUSH_MS)


def tell(*fields):
    say("bench " + "|".join([str(field) for field in fields]))


async def work(xen, loop):
    store = Xenstore(loop, RingTransport(xen, loop))
    await store.connect()
    await loads.prepare(store)
    if hw.boot()[1].strip() == b"heap":
        await heap(loop, store)
    else:
        await loads.measure(loop, store, hw.now, tell)
    await store.close()
    say("bench done")


async def heap(loop, store):
    """Tell how much memory is in use, once the client has settled and many operations later."""
    done = 0
    for more in (SETTLED, MORE):
        await loads.run(loop, store, loads.read, more, loads.WORKERS)
        done += more
        gc.collect()
        say("heap %d|%d" % (done, gc.mem_alloc()))
