"""The choice of the disk that a dump goes to, where the command line does not name just one.

Used by the dump agent and the self-check. All disks in question are connected beside each other and
their first sectors read; nothing is written, and each is closed again. Rules: the first one, in the
order asked for or else of their numbers, that is a target, ready, writable and large enough, is
taken; a line on the console says of each what it is; all memory is given back.
"""

import hw
from xenpv.block import disks, vdev
from xenpv.block.blkif import SECTOR
from xenpv.block.negotiate import Limits

from . import superblock
from .errors import NoTarget, TargetRefused
from .target import MIB, read_superblock

# A ring of one page, one request of one page: little memory for each disk.
LIGHT = (1, 1, 1)


async def look(store, grants, numbers, size, say):
    """Look at disks, with a line for each.

    Args:
        store: Xenstore.
        grants: GrantTable.
        numbers: of the disks.
        size: bytes of the dump.
        say: a function that is given the lines.

    Returns: list of the numbers of those that take the dump. Raises XenError.
    """
    pages = []

    async def work(number, disk):
        page = pages.pop() if pages else hw.alloc_pages(1)
        aside = grants.set_aside
        try:
            await read_superblock(disk, page)
            first = hw.mem(page, superblock.SUPERBLOCK_SIZE)
            if bytes(first[: len(superblock.MAGIC)]) != superblock.MAGIC:
                problem = "no dump target"
            else:
                block = superblock.decode(first)
                problem = superblock.refusal(block, disk.sectors * SECTOR, disk.read_only, size)
        except TargetRefused as e:
            problem = str(e)
        await disk.close()
        if grants.set_aside == aside:
            # No backend has it mapped any more.
            pages.append(page)
        what = problem or "a dump target, ready"
        say("disk %s, %d MiB: %s" % (vdev.name(number), disk.sectors * SECTOR // MIB, what))
        return problem is None

    found = await disks.each(store, grants, numbers, work, say, Limits(*LIGHT))
    for page in pages:
        hw.free_pages(page, 1)
    for number, result in zip(numbers, found):
        if result is not True and result is not False:
            say("disk %s: %s" % (vdev.name(number), result))
    return [number for number, result in zip(numbers, found) if result is True]


async def choose(store, grants, names, size, say):
    """Choose the disk to dump to.

    Args:
        names: in order of preference; none: all that there are.
        store, grants, size, say: as for look().

    Returns: its name. Raises TargetRefused, which is a NoTarget where no disk is named; XenError.
    """
    there = await disks.numbers(store)
    numbers = [] if names else there
    for name in names:
        number = vdev.find(name, there)
        if number is None:
            say("disk %s: this guest has none (device/vbd/%d)" % (name, vdev.number(name)))
        elif number not in numbers:
            numbers.append(number)
    ready = await look(store, grants, numbers, size, say)
    asked = names or [vdev.name(number) for number in there]
    kind = TargetRefused if names else NoTarget
    if not asked:
        raise kind("this guest has no disk to dump to")
    if not ready:
        raise kind(
            "none of %s takes the dump, nothing on them was changed: `pvdump prepare` a disk"
            % ", ".join(asked)
        )
    return vdev.name(ready[0])
