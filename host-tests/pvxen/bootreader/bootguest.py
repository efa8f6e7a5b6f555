"""Runs in the image: finds what the disk xvda says is to be booted, and reads it into memory.

host-tests/pvxen/test_bootreader.py reads the lines.
"""

import gc

import hw
from pvfw.boot import bzimage, sources
from pvfw.boot.area import Cache
from pvfw.boot.errors import BootError
from pvfw.boot.load import load, pages
from pvfw.boot.volumes import Notes, Volumes
from xenpv import abi
from xenpv.block.front import BlkFront
from xenpv.guest import Guest
from xenpv.hypercall import Hypercalls
from xenpv.xenbus import Device


def main():
    xen = Hypercalls()
    guest = Guest(xen)
    try:
        guest.loop.run(work(guest))
    finally:
        hw.console_flush(1000)
        xen.shutdown(abi.SHUTDOWN_poweroff)


async def work(guest):
    await guest.store.connect()
    device = Device(guest.store, guest.loop, "device/vbd/51712")
    await device.find()
    disk = BlkFront(guest.loop, guest.grants, device)
    await disk.connect()
    notes = Notes()
    volumes = Volumes(notes)
    cache = Cache()
    before = heap()
    try:
        await volumes.add(cache, "xvda", disk)
        menu = await sources.look(volumes, notes)
    except (BootError, MemoryError) as e:
        print("error", e)
        return
    print("heap", heap() - before)
    for line in notes.lines:
        print("note", line)
    for i, entry in enumerate(menu.entries):
        default = "default" if i == menu.default else "other"
        print("entry", default, entry.name, "|", entry.id, "|", entry.options.decode())
        for place in [entry.kernel] + entry.initrds:
            await show(place)
    try:
        found = await bzimage.read(menu.entries[menu.default].kernel)
        print("kernel", hex(found.version), found.offset, found.size, hex(found.address))
    except (BootError, IndexError) as e:
        print("no kernel", e)
    print("reads", cache.reads)
    await disk.close()
    cache.close()
    print("end")


def heap():
    """Return the bytes of the heap in use, 0 under CPython."""
    gc.collect()
    return gc.mem_alloc() if hasattr(gc, "mem_alloc") else 0


async def show(place):
    """Load a place, and print a sum of its bytes."""
    try:
        file, offset, size = await place.open()
        # Behind the image, where the embedded machine has memory that nobody uses.
        at = 0x2000000
        await load(file, at, offset, size)
    except BootError as e:
        print("place", place, "error", e)
        return
    print("place", place, size, pages(offset, size), hw.crc32(hw.mem(at, size)))
