"""All disks of this domain, connected beside each other, each with its own failure.

Used by whoever does not know yet which disk it wants. The rule: a disk whose backend is dead, slow
or hostile costs its own time and nothing of the others', as long as fewer than AT_ONCE are so; what
becomes of one is told for that one.
"""

from ..errors import XenError
from ..text import decimal
from ..xenbus import Device
from .connection import Pool
from .front import BlkFront
from .vdev import NUMBER_MAX

HOME = "device/vbd"
# A disk takes two pages of memory at the least.
AT_ONCE = 8


async def numbers(store):
    """The virtual device numbers of this domain's disks, ascending, CD drives left out."""
    names = [decimal(name, 0, NUMBER_MAX) for name in await store.directory(HOME, [])]
    found = sorted(number for number in names if number is not None)
    kinds = await store.loop.gather(
        [store.read_text("%s/%d/device-type" % (HOME, number), "disk") for number in found]
    )
    return [number for number, kind in zip(found, kinds) if kind != "cdrom"]


async def each(store, grants, numbers, work, say=None, limits=None):
    """Connect disks and do work(number, disk) with each as soon as it is connected.

    store: Xenstore; numbers: of the disks, AT_ONCE of which are connected at a time; work: an async
    function, its second argument a BlkFront that it closes; say, limits: as for BlkFront. Returns a
    list of what work returned for each, or the XenError or MemoryError that it ended with; whose
    work has ended so is closed.
    """
    line = list(numbers)
    found = {}

    async def some():
        # Memory is given from each disk to the next.
        pool = Pool(0)
        while line:
            number = line.pop(0)
            try:
                device = Device(store, store.loop, "%s/%d" % (HOME, number))
                await device.find()
                disk = BlkFront(store.loop, grants, device, say=say, limits=limits, pool=pool)
                await disk.connect()
                found[number] = await _work(number, disk, work)
            except (XenError, MemoryError) as e:
                found[number] = e

    await store.loop.gather([some() for _ in range(min(AT_ONCE, len(line)))])
    return [found[number] for number in numbers]


async def _work(number, disk, work):
    try:
        return await work(number, disk)
    except (XenError, MemoryError) as e:
        try:
            await disk.close()
        except XenError:
            # What went wrong first is what the caller needs to know.
            pass
        raise e
