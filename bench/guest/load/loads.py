"""Four loads on xenstore: small reads, small writes, 3 KiB writes, directory listings.

Run by load.guest in an image and by bench.xenstore on the embedded Xen. The rule: one at a time and
many in flight are the same operations on the same nodes by the same client; as many are in flight
as there are workers, each of which does one after the other.
"""

import gc

TOP = "data/bench"
SMALL = "0123456789"
LARGE = b"x" * 3072
CHILDREN = 20
WORKERS = 16
COUNT = 320


async def prepare(store):
    """Make the nodes that the loads use."""
    await store.write(TOP + "/small", SMALL)
    for i in range(CHILDREN):
        await store.write("%s/list/child-%d" % (TOP, i), "")
    for i in range(WORKERS):
        await store.write("%s/w%d" % (TOP, i), "")


async def read(store, worker):
    """Read a small node."""
    await store.read(TOP + "/small")


async def write(store, worker):
    """Write a small value to the worker's own node."""
    await store.write("%s/w%d" % (TOP, worker), SMALL)


async def write_large(store, worker):
    """Write 3 KiB to the worker's own node."""
    await store.write("%s/w%d" % (TOP, worker), LARGE)


async def directory(store, worker):
    """List CHILDREN children."""
    await store.directory(TOP + "/list")


# Name and operation.
LOADS = (
    ("small reads", read),
    ("small writes", write),
    ("3 KiB writes", write_large),
    ("directory listings", directory),
)


async def run(loop, store, load, count, workers):
    """Do an operation `count` times, by so many workers at once."""

    async def work(worker):
        for _ in range(count // workers):
            await load(store, worker)

    if workers == 1:
        await work(0)
    else:
        await loop.gather([work(worker) for worker in range(workers)])


async def measure(loop, store, now, tell):
    """Do one round of all loads, one at a time and many in flight.

    now: the clock, in ns; tell(name, workers, count, took, sent, updates) gets each result: ns, how
    often the server was notified, how often an index of the ring was moved.
    """
    transport = store.transport
    for name, load in LOADS:
        for workers in (1, WORKERS):
            gc.collect()
            sent, updates = transport.sent, transport.updates
            begin = now()
            await run(loop, store, load, COUNT, workers)
            took = now() - begin
            sent, updates = transport.sent - sent, transport.updates - updates
            tell(name, workers, COUNT, took, sent, updates)
