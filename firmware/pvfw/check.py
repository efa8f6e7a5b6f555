"""The self-check: does this guest's xenstore work, is its ring handed over well, does the disk do?

Run by `pvdump.run=check`. The store is used twice through two clients, one after the other, so the
second proves that the first left the ring usable.
"""

from xenpv import abi
from xenpv.blkfront import SECTOR, BlkFront
from xenpv.errors import XenError
from xenpv.xenstore import Xenstore

from .dump import MIB, NODE, Target, find_disk


async def run(xen, loop, store, grants, disk_name, say):
    """store: connected; disk_name: or None. Returns a client that is connected. Raises XenError."""
    await _round_trip(store, "first", say)
    if disk_name is not None:
        await _disk(loop, store, grants, disk_name, say)
    await store.close()
    again = Xenstore(xen, loop)
    await again.connect()
    await _round_trip(again, "second", say)
    return again


async def _round_trip(store, which, say):
    node = NODE + "check"
    value = ("%s client " % which).encode() + bytes(range(256)) * 7
    await store.write(node, value)
    found = await store.read(node)
    if found != value:
        raise XenError("xenstore: %d bytes written, %d other bytes read" % (len(value), len(found)))
    names = await store.directory(NODE[:-1])
    if "check" not in names:
        raise XenError("xenstore: %s is not listed among %s" % (node, names))
    await store.rm(node)
    way = "connection made anew" if store.reconnects else "indexes taken as found"
    say("xenstore: %s client, %d bytes round trip, %s" % (which, len(value), way))


async def _disk(loop, store, grants, name, say):
    disk = BlkFront(loop, grants, await find_disk(store, loop, name))
    await disk.connect()
    try:
        goal = Target(disk)
        await goal.read_superblock()
        size = disk.sectors * SECTOR // MIB
        say("disk %s: %d MiB, %s" % (name, size, "read-only" if disk.read_only else "writable"))
        goal.check(abi.PAGE_SIZE)
    finally:
        await disk.close()
