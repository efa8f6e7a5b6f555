"""The choice of the targets that a dump may go to, where the command line does not name just one.

Used by the dump agent and the self-check. All disks in question are connected beside each other and
the superblocks read; nothing is written, and each is closed again. Rules: those that are a target,
ready, writable and large enough are tried, in the order asked for or else of their numbers; a line
on the console says of each what it is; all memory is given back.
"""

import hw
from xenpv.block import disks, vdev
from xenpv.block.blkif import SECTOR
from xenpv.block.negotiate import Limits

from . import superblock
from .config import Target
from .errors import NoSuperblock, NoTarget, TargetRefused
from .target import MIB, part, read_superblock

# A ring of one page, one request of one page: little memory for each disk.
LIGHT = (1, 1, 1)


async def look(store, grants, asked, size, say):
    """Look at targets, with a line for each.

    Args:
        store: Xenstore.
        grants: GrantTable.
        asked: list of (number of the disk, config.Target).
        size: bytes of the dump.
        say: a function that is given the lines.

    Returns: list of the config.Target of those that take the dump. Raises XenError.
    """
    pages = []
    ready = []
    numbers = []
    for number, _ in asked:
        if number not in numbers:
            numbers.append(number)

    async def work(number, disk):
        page = pages.pop() if pages else hw.alloc_pages(1)
        aside = grants.set_aside
        will_do = False
        for of, target in asked:
            if of == number:
                problem = await _problem(disk, page, target, size)
                sectors = part(disk, target.extents).sectors
                what = problem or "a dump target, ready"
                name = _name(number, target)
                say("disk %s, %d MiB: %s" % (name, sectors * SECTOR // MIB, what))
                if problem is None:
                    will_do = True
                    ready.append(target)
        await disk.close()
        if grants.set_aside == aside:
            # No backend has it mapped any more.
            pages.append(page)
        return will_do

    found = await disks.each(store, grants, numbers, work, say, Limits(*LIGHT))
    for page in pages:
        hw.free_pages(page, 1)
    for number, result in zip(numbers, found):
        if result is not True and result is not False:
            say("disk %s: %s" % (vdev.name(number), result))
    return [target for _, target in asked if target in ready]


def _name(number, target):
    return vdev.name(number) if target.extents is None else str(target)


async def _problem(disk, page, target, size):
    """Tell why a target does not take a dump; None if it does."""
    try:
        block = await read_superblock(part(disk, target.extents), page, target)
    except NoSuperblock as e:
        return "no dump target" if target.extents is None else str(e)
    except TargetRefused as e:
        return str(e)
    return superblock.refusal(block, disk.sectors * SECTOR, disk.read_only, size)


async def choose(store, grants, targets, size, say):
    """Choose the targets to dump to.

    Args:
        targets: of config.Target, in order of preference; none: all disks that there are.
        store, grants, size, say: as for look().

    Returns: list of config.Target, at least one, in order.

    Raises TargetRefused, which is a NoTarget where no disk is named; XenError.
    """
    there = await disks.numbers(store)
    asked = [] if targets else [(number, Target(vdev.name(number))) for number in there]
    for target in targets:
        number = vdev.find(target.name, there)
        if number is None:
            number = vdev.number(target.name)
            say("disk %s: this guest has none (device/vbd/%d)" % (target, number))
        elif target.extents is not None or number not in [n for n, t in asked if t.extents is None]:
            asked.append((number, target))
    ready = await look(store, grants, asked, size, say)
    names = [str(target) for target in targets] or [vdev.name(number) for number in there]
    kind = TargetRefused if targets else NoTarget
    if not names:
        raise kind("this guest has no disk to dump to")
    if not ready:
        raise kind(
            "none of %s takes the dump, nothing on them was changed: `pvdump prepare` a disk"
            % ", ".join(names)
        )
    return ready
