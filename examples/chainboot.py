# Boots a kernel of the first file system that has one, in place of this script.
#
# The disk's own menu is not asked (that is `pvdump.run=boot`): a kernel and an initrd with these
# names are taken, and the command line is made here.

from pvfw.boot import bzimage
from pvfw.boot.area import Cache
from pvfw.boot.entries import Place
from pvfw.boot.load import load
from pvfw.boot.volumes import Notes, Volumes
from pvfw.kernel import start
from xenpv.block import disks, vdev

KERNELS = (b"/boot/vmlinuz", b"/vmlinuz")
INITRDS = (b"/boot/initrd.img", b"/initrd.img", b"/boot/initrd")
OPTIONS = "root=/dev/%s ro booted.by=script"


async def first(volume, paths):
    """Return the Place of the first of some files that is there, or None."""
    for path in paths:
        if await volume.exists(path):
            return Place(volume, path)
    return None


async def find(volumes):
    for volume in volumes.all:
        kernel = await first(volume, KERNELS)
        if kernel is not None:
            return volume, kernel, await first(volume, INITRDS)
    raise OSError("no disk has a kernel at %s" % b" or ".join(KERNELS).decode())


# Each disk is looked at for file systems, all through one small cache.
notes, cache = Notes(), Cache()
volumes = Volumes(notes)
fronts = []
for number in await disks.numbers(store):
    one = Disk(vdev.name(number))
    fronts.append(one)
    await volumes.add(cache, vdev.name(number), await one.connect())
for line in notes.lines:
    print(line)
volume, place, initrd = await find(volumes)

# The header says what the kernel wants; Plan finds room for everything, before a byte is read.
kernel = await bzimage.read(place)
parts = [await initrd.open()] if initrd else []
options = start.with_console((OPTIONS % volume.name).encode())
plan = start.Plan(kernel, [size for _, _, size in parts], options)
file, offset, _ = await place.open()
await load(file, plan.address, offset + kernel.offset, kernel.size)
for address, (file, offset, size) in zip(plan.initrds, parts):
    await load(file, address, offset, size)
print("%s: %d KiB at 0x%x, %s" % (place, kernel.size >> 10, plan.address, options.decode()))

# Disks are closed first; go() hands everything else back, and does not return.
for one in fronts:
    await one.close()
await plan.go(guest)
