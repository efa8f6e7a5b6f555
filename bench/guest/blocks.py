"""Frozen into an image: streams to and from its one disk.

The command line says what to use at most: ring pages, requests in flight, segments of a request,
requests' worth of buffers of our own, and 1 for a long stream. On the console:

bench OP|MIB|NS|BUSY    time of a stream, and of it what was not spent waiting in Xen (ns)
persistent 0|1          whether the backend keeps the buffers mapped
heap MIB|BYTES          memory in use after so many MiB more
bench done
"""

import gc

import hw
from xenpv import abi
from xenpv.blkfront import BlkFront
from xenpv.blkif import PAGE_SECTORS
from xenpv.blkneg import Limits
from xenpv.evtchn import EventChannels
from xenpv.gnttab import GrantTable
from xenpv.hypercall import Hypercalls
from xenpv.schedpoll import PollLoop
from xenpv.xenbus import Device
from xenpv.xenstore import Xenstore
from xenpv.xs_ring import RingTransport

FLUSH_MS = 2000
MIB = 1 << 20
STREAM = 192 * MIB
MEMORY = 32 * MIB
PIECE = 4 * MIB
LONG = 10240


class TimedLoop(PollLoop):
    """Knows how long it was in Xen."""

    waited = 0

    def _poll(self, ports, until):
        began = hw.now()
        PollLoop._poll(self, ports, until)
        self.waited += hw.now() - began


def memory():
    """The first frame of MEMORY bytes of RAM in which the image is not."""
    _, _, _, memmap, region = hw.boot()
    for start, size, kind in memmap:
        first = max(start, region[1] + MIB if region[0] < start + size else start)
        first = (first + abi.PAGE_SIZE - 1) & ~(abi.PAGE_SIZE - 1)
        if kind == 1 and first + MEMORY <= start + size:
            return first // abi.PAGE_SIZE
    raise MemoryError(f"no room for {MEMORY // MIB} MiB")


def main():
    xen = Hypercalls()
    loop = TimedLoop(xen, EventChannels(xen))
    loop.run(work(xen, loop))
    hw.console_flush(FLUSH_MS)
    xen.shutdown(abi.SHUTDOWN_poweroff)


def say(line):
    print(line)
    hw.console_flush(FLUSH_MS)


async def work(xen, loop):
    pages, requests, segments, buffers, long = [int(word) for word in hw.boot()[1].split()]
    store = Xenstore(loop, RingTransport(xen, loop))
    await store.connect()
    (number,) = await store.directory("device/vbd")
    device = Device(store, loop, "device/vbd/" + number)
    await device.find()
    limits = Limits(pages, requests, segments)
    disk = BlkFront(loop, GrantTable(xen), device, None, buffers, None, limits)
    await disk.connect()
    for op in ("write", "read"):
        gc.collect()
        began, waited = hw.now(), loop.waited
        await stream(disk, op, STREAM)
        took, waited = hw.now() - began, loop.waited - waited
        say(f"bench {op}|{STREAM // MIB}|{took}|{took - waited}")
    say(f"persistent {int(disk.persistent)}")
    for mib in (STREAM // MIB, LONG) if long else ():
        for _ in range(mib * MIB // STREAM):
            await stream(disk, "write", STREAM)
        gc.collect()
        say(f"heap {mib}|{gc.mem_alloc()}")
    await disk.close()
    await store.close()
    say("bench done")


async def stream(disk, op, size):
    gfn = memory()
    move = disk.write if op == "write" else disk.read
    for at in range(0, size, PIECE):
        frame = gfn + at % MEMORY // abi.PAGE_SIZE
        sector = at // abi.PAGE_SIZE * PAGE_SECTORS
        await move(sector, frame, PIECE // abi.PAGE_SIZE * PAGE_SECTORS)
    await disk.flush()
