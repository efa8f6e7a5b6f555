"""The entry point of the benchmark's image: it runs each load once, a line each, and powers off.

With "heap" as its command line it tells what memory is in use instead.

bench NAME|WORKERS|COUNT|NS|SENT|UPDATES    see loads.measure
heap OPERATIONS|BYTES                       memory in use after so many operations
bench done
"""

import gc

import oneshot
from oneshot import say

import hw

from . import loads

SETTLED = 1000
MORE = 10000


def main():
    """Run the loads, or measure the memory in use."""
    oneshot.run(work)


def tell(*fields):
    """Print one result."""
    say("bench " + "|".join([str(field) for field in fields]))


async def work(xen, loop, store):
    """Run what the command line asks for. Returns the last line to print."""
    await loads.prepare(store)
    if hw.boot()[1].strip() == b"heap":
        await heap(loop, store)
    else:
        await loads.measure(loop, store, hw.now, tell)
    return "bench done"


async def heap(loop, store):
    """Tell how much memory is in use, once the client has settled and many operations later."""
    done = 0
    for more in (SETTLED, MORE):
        await loads.run(loop, store, loads.read, more, loads.WORKERS)
        done += more
        gc.collect()
        say("heap %d|%d" % (done, gc.mem_alloc()))
