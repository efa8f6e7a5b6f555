# Prints the partition table of each disk, GPT or MBR, and what file systems are in there.
#
# The readers are those that boot a guest (docs/boot.md): whatever is on the disk, they end.

from pvfw.boot import files, partitions
from pvfw.boot.area import Area, Cache
from pvfw.boot.errors import BootError
from xenpv.block import disks, vdev


async def kind(area):
    """Tell which file system begins an area."""
    try:
        fs = await files.mount(area)
        return "unknown" if fs is None else "%s '%s'" % (fs.kind, await fs.label())
    except BootError as error:
        return str(error)


async def show(name, cache):
    one = Disk(name)
    whole = Area(cache, await one.connect(), name)
    table = await partitions.read(whole)
    print("%s: %d MiB, %s" % (name, whole.size >> 20, table.scheme or "no partition table"))
    for part in table.partitions:
        where = "%8d KiB at %8d KiB" % (part.size >> 10, part.first >> 10)
        area = Area(cache, one.front, name + str(part.number), part.first, part.size)
        print("%4d %s  %s" % (part.number, where, part.uuid))
        print("     type %s, %s" % (part.kind, await kind(area)))
    for note in table.notes:
        print("     %s" % note)
    await one.close()


for number in await disks.numbers(store):
    try:
        await show(vdev.name(number), Cache(2))
    except BootError as error:
        print(error)
