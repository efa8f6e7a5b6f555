"""The counter of boots (tries.py), found on a dump target of this guest and written there.

Used by the mode `boot`. Targets that are looked at: a whole disk, a partition, and a file of one of
the names in tries.PATHS on ext4. Rules: nothing is written but the page of a counter that is there,
on a target whose superblock is right, so a target without one, swap, and anything else on a disk
stay as they are; what a disk says wrongly costs the counter, never the boot.
"""

import hw
from pvfw import superblock, tries
from pvfw.boot import partitions
from pvfw.boot.area import PAGE_SIZE, Area
from pvfw.boot.errors import BootError, NotThere
from pvfw.boot.runs import ZEROS
from pvfw.errors import TargetRefused
from xenpv.block.blkif import PAGE_SECTORS, SECTOR

SWAP_AT, SWAP = 4086, b"SWAPSPACE2"
EXT = "ext"


class Counter:
    """A counter.

    Args:
        name: of the target, for messages.
        disk: BlkFront, connected.
        sector: of the disk, where the counter's page begins.
        found: tries.Tries.

    Attributes: name, tries.
    """

    def __init__(self, name, disk, sector, found):
        self.name = name
        self.tries = found
        self._disk = disk
        self._sector = sector

    async def enter(self, key):
        """Count a boot of an entry; it is on stable storage then. Raises: XenError."""
        self.tries.enter(key)
        page = hw.alloc_pages(1)
        raw = self.tries.encode()
        hw.mem(page, PAGE_SIZE)[:] = raw + bytes(PAGE_SIZE - len(raw))
        await self._disk.write(self._sector, page // PAGE_SIZE, PAGE_SECTORS)
        await self._disk.flush()


async def find(cache, name, disk, volumes):
    """Find the counter on a disk.

    Args:
        cache: boot.area.Cache.
        name: of the disk.
        disk: BlkFront, connected.
        volumes: boot.volumes.Volumes, to which the disk was added.

    Returns: Counter, or None. Raises: XenError.
    """
    if disk.read_only:
        return None
    whole = Area(cache, disk, name)
    areas = [whole]
    try:
        for each in (await partitions.read(whole)).partitions:
            areas.append(Area(cache, disk, "%s%d" % (name, each.number), each.first, each.size))
    except BootError:
        # Told already, when the disk was added.
        pass
    for area in areas:
        found = await _found(area, area.first + tries.AT, disk)
        if found is not None:
            return found
    for volume in volumes.all:
        if volume.fs.area.disk is disk and volume.fs.kind[: len(EXT)] == EXT:
            found = await _in_files(volume, disk)
            if found is not None:
                return found
    return None


async def _in_files(volume, disk):
    for path in tries.PATHS:
        try:
            file = await volume.open(path.encode())
        except NotThere:
            continue
        except BootError:
            return None
        if file.runs is None or file.size < tries.AT + PAGE_SIZE:
            continue
        # A page that lies in one place, and that is no hole.
        runs = list(file.runs.pieces(tries.AT, PAGE_SIZE))
        if len(runs) == 1 and runs[0][0] != ZEROS:
            found = await _found(file, volume.fs.area.first + runs[0][0], disk)
            if found is not None:
                return found
    return None


async def _found(target, at, disk):
    """Return the Counter of what may be a target, or None.

    Args:
        target: Area or File.
        at: of the counter's page on the disk, bytes.
        disk: BlkFront.
    """
    try:
        if target.size < superblock.DATA_OFFSET or at % disk.sector_size:
            return None
        head = await target.read(0, PAGE_SIZE)
        if head[: len(superblock.MAGIC)] != superblock.MAGIC or head[SWAP_AT:] == SWAP:
            return None
        block = superblock.decode(head)
        copy = block.copy_at()
        if copy is None or block.data_offset < tries.AT + PAGE_SIZE or block.size > target.size:
            return None
        # A file whose blocks are another's meanwhile has no such end.
        last = superblock.decode(await target.read(copy, superblock.SUPERBLOCK_SIZE))
        if last.uuid != block.uuid:
            return None
        found = tries.decode(await target.read(tries.AT, tries.SIZE))
    except (BootError, TargetRefused):
        return None
    return None if found is None else Counter(target.name, disk, at // SECTOR, found)
