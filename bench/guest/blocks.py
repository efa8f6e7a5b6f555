"""Frozen into an image: streams to and from its one disk.

The command line: how long a stream is (ms), how much more is written after all to see what the
heap gains (MiB), and for each round PAGES,REQUESTS,SEGMENTS,BUFFERS: what to use at most of ring
pages, requests in flight, segments of a request, and requests' worth of buffers of our own. On the
console:

bench ROUND|OP|KEPT|BYTES|NS|RAN   a stream: its time up to the end of its flush, and how long this
                                   guest's vCPU ran; KEPT: 1 when the backend keeps buffers mapped
heap MIB|BYTES                     memory in use after so many MiB
bench done
"""

import gc
import struct

import oneshot
from oneshot import say

import hw
from xenpv import abi
from xenpv.block.blkif import PAGE_SECTORS
from xenpv.block.front import BlkFront
from xenpv.block.negotiate import Limits
from xenpv.errors import XenError
from xenpv.gnttab import GrantTable
from xenpv.xenbus import Device

MIB = 1 << 20
# Of the disk, and of memory, that a stream goes over again and again.
STREAM = 192 * MIB
MEMORY = 32 * MIB
PIECE = 4 * MIB
# Until the heap is as it will be.
SETTLING = 192
# Source: xen/include/public/{xen,vcpu}.h (struct vcpu_runstate_info).
HYPERVISOR_vcpu_op = 24
VCPUOP_get_runstate_info = 4
RUNSTATE_INFO_TIME_RUNNING = 16


def memory():
    """Return the first frame of MEMORY bytes of RAM outside the image."""
    _, _, _, memmap, region = hw.boot()
    for start, size, kind in memmap:
        first = max(start, region[1] + MIB if region[0] < start + size else start)
        first = (first + abi.PAGE_SIZE - 1) & ~(abi.PAGE_SIZE - 1)
        if kind == 1 and first + MEMORY <= start + size:
            return first // abi.PAGE_SIZE
    raise MemoryError("no room for %d MiB" % (MEMORY // MIB))


def main():
    """Run the streams."""
    oneshot.run(work)


def ran(xen):
    """Return how long this guest's vCPU has run, ns."""
    rc = hw.hypercall(HYPERVISOR_vcpu_op, VCPUOP_get_runstate_info, 0, xen.page)
    if rc < 0:
        raise XenError("VCPUOP_get_runstate_info: errno %d" % -rc)
    return struct.unpack_from("<Q", hw.mem(xen.page, abi.PAGE_SIZE), RUNSTATE_INFO_TIME_RUNNING)[0]


async def work(xen, loop, store):
    """Connect the disk once a round and stream to and from it."""
    words = hw.boot()[1].decode().split()
    length, more = int(words[0]) * 1000000, int(words[1])
    (number,) = await store.directory("device/vbd")
    device = Device(store, loop, "device/vbd/" + number)
    await device.find()
    grants = GrantTable(xen)
    for i, word in enumerate(words[2:]):
        pages, requests, segments, buffers = [int(limit) for limit in word.split(",")]
        limits = Limits(pages, requests, segments)
        disk = BlkFront(loop, grants, device, None, buffers, None, limits)
        await disk.connect()
        for op in ("write", "read"):
            gc.collect()
            began, before = hw.now(), ran(xen)
            done = await stream(disk, op, began + length)
            took, busy = hw.now() - began, ran(xen) - before
            say("bench %d|%s|%d|%d|%d|%d" % (i, op, disk.persistent, done, took, busy))
        if more and i == 0:
            await heap(disk, more)
        await disk.close()
    return "bench done"


async def heap(disk, more):
    """Print the memory in use after SETTLING MiB and after `more` MiB more."""
    for mib in (SETTLING, more):
        for _ in range(0, mib * MIB, STREAM):
            await stream(disk, "write", 0, STREAM)
        gc.collect()
        say("heap %d|%d" % (mib, gc.mem_alloc()))


async def stream(disk, op, until, least=PIECE):
    """Move pieces until a time and at least so many bytes, and flush. Returns how many bytes."""
    gfn = memory()
    move = disk.write if op == "write" else disk.read
    done = 0
    while done < least or hw.now() < until:
        frame = gfn + done % MEMORY // abi.PAGE_SIZE
        sector = done % STREAM // abi.PAGE_SIZE * PAGE_SECTORS
        await move(sector, frame, PIECE // abi.PAGE_SIZE * PAGE_SECTORS)
        done += PIECE
    await disk.flush()
    return done
