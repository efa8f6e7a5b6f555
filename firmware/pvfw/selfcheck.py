"""The self-check: it tries xenstore, handing its ring over, and the disks a dump would go to.

The mode `check` of main. Two clients of xenstore are made, one after the other, so that the second
proves that the first left the ring usable. Rule: nothing is written to a disk.
"""

from xenpv import abi
from xenpv.block import disks, vdev
from xenpv.block.blkif import SECTOR
from xenpv.errors import XenError

from . import choose
from .config import Target as Wanted
from .report import NODE, say
from .target import MIB, Memory, Target, find


async def run(guest, options, region, report):
    """Check xenstore and the disks that a dump would go to.

    Args:
        guest: Guest, its xenstore connected; it has another client afterwards.
        options: options.Options.
        region, report: as for dump.run(), not used.

    Raises DumpError, XenError with what does not work.
    """
    await _round_trip(guest.store, "first")
    await _try_disks(guest, options.places())
    await guest.store.close()
    guest.new_store()
    await guest.store.connect()
    await _round_trip(guest.store, "second")
    say("check passed")


async def _round_trip(store, which):
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


async def _try_disks(guest, targets):
    """Connect what a dump would go to and read superblocks.

    targets: of config.Target, none: all disks. Raises DumpError, XenError when a dump would be
    refused, but not of disks that nobody named.
    """
    store, grants = guest.store, guest.grants
    if len(targets) == 1:
        await _try_disk(guest, targets[0])
    elif targets:
        await choose.choose(store, grants, targets, abi.PAGE_SIZE, say)
    else:
        there = [(number, Wanted(vdev.name(number))) for number in await disks.numbers(store)]
        await choose.look(store, grants, there, abi.PAGE_SIZE, say)


async def _try_disk(guest, wanted):
    device = await find(guest.store, guest.loop, wanted.name)
    memory = Memory(guest.grants)
    target = Target(guest.xen, guest.loop, guest.grants, device, wanted, memory, say)
    try:
        await target.open()
        disk = target.disk
        kind = "read-only" if disk.read_only else "writable"
        say("disk %s: %d MiB, %s" % (wanted, disk.sectors * SECTOR // MIB, kind))
        target.check(abi.PAGE_SIZE)
    finally:
        await target.close()
