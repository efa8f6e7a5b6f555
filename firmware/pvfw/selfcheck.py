"""The self-check: does this guest's xenstore work, is its ring handed over well, does the disk do?

Run by `pvdump.run=check`. main makes two clients, one after the other, so that the second proves
that the first left the ring usable.
"""

from xenpv import abi
from xenpv.block import disks
from xenpv.block.blkif import SECTOR
from xenpv.errors import XenError

from . import choose
from .dump import NODE
from .target import MIB, Target, find


async def round_trip(store, which, say):
    """Write, read, list and remove a node. Raises XenError where something else comes back."""
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
    way = store.transport.found
    say("xenstore: %s client, %d bytes round trip, %s" % (which, len(value), way))


async def try_disks(guest, names, say):
    """Connect what a dump would go to and read superblocks; nothing is written.

    names: of disks, none: all. Raises DumpError, XenError when a dump would be refused, but not of
    disks that nobody named.
    """
    xen, store, grants = guest.xen, guest.store, guest.grants
    if len(names) == 1:
        await _try_disk(xen, store, grants, names[0], say)
    elif names:
        await choose.choose(store, grants, names, abi.PAGE_SIZE, say)
    else:
        await choose.look(store, grants, await disks.numbers(store), abi.PAGE_SIZE, say)


async def _try_disk(xen, store, grants, name, say):
    device = await find(store, store.loop, name)
    goal = Target(xen, store.loop, grants, device, name, say)
    try:
        await goal.open()
        disk = goal.disk
        kind = "read-only" if disk.read_only else "writable"
        say("disk %s: %d MiB, %s" % (name, disk.sectors * SECTOR // MIB, kind))
        goal.check(abi.PAGE_SIZE)
    finally:
        await goal.close(say)
