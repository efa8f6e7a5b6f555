"""The mode `boot`: the kernel that the guest's own disk says is read, and entered.

Called by bootmain, its xenstore connected. The disks are looked through in the order of their
numbers, and the first that has something to boot counts. Rules: a failure costs a line and the
menu, never a jump; a disk is closed before the jump, also where it failed.
"""

import hw
from pvfw.boot import bzimage, sources
from pvfw.boot.area import Cache
from pvfw.boot.errors import BootError
from pvfw.boot.load import load
from pvfw.boot.volumes import Notes, Volumes
from pvfw.errors import reason
from pvfw.report import say
from xenpv.block import disks, vdev
from xenpv.block.front import BlkFront
from xenpv.block.negotiate import Limits
from xenpv.errors import XenError
from xenpv.xenbus import Device

from . import menu as people
from .start import Plan, with_console

# Pages of the ring, requests in flight, frames of each.
LIMITS = (4, 64, 256)
DISKS_MAX = 16
MS = 1000000


async def run(guest, settings):
    """Boot. Returns only where nothing could be booted: then what was wrong has been said.

    Args:
        guest: shell.guest.ShellGuest.
        settings: bootmain.Settings.

    Raises: XenError where the domain has been handed back in part.
    """
    found = _Disks(guest)
    try:
        menu = await found.look()
        entry = await people.choose(guest, menu, settings)
        while entry is not None:
            try:
                plan = await _read(entry, found.cache)
                break
            except (BootError, XenError, MemoryError) as e:
                say("%s: %s" % (entry.name, reason(e) if not isinstance(e, BootError) else e))
            entry = await people.ask(guest, menu)
    finally:
        await found.close()
    if entry is not None:
        await plan.go(guest)


class _Disks:
    """The disks that are connected. cache: boot.area.Cache."""

    def __init__(self, guest):
        self._guest = guest
        self._fronts = []
        self.cache = Cache()

    async def look(self):
        """Find what is to be booted. Returns entries.Menu, perhaps without entries."""
        guest, notes = self._guest, Notes()
        volumes = Volumes(notes)
        there = (await disks.numbers(guest.store))[:DISKS_MAX]
        if not there:
            say("this guest has no disk")
        menu = await sources.look(volumes, notes)
        for number in there:
            name = vdev.name(number)
            try:
                device = Device(guest.store, guest.loop, "%s/%d" % (disks.HOME, number))
                await device.find()
                front = BlkFront(guest.loop, guest.grants, device, limits=Limits(*LIMITS))
                self._fronts.append(front)
                await front.connect()
                await volumes.add(self.cache, name, front)
                menu = await sources.look(volumes, notes)
            except (BootError, XenError, MemoryError) as e:
                notes.add("disk %s: %s" % (name, e))
            if menu.entries:
                break
        if not menu.entries:
            for line in notes.lines:
                say(line)
            say("no disk says what is to be booted")
        return menu

    async def close(self):
        """Close all of them. Raises: XenError, the first."""
        error = None
        for front in self._fronts:
            try:
                await front.close()
            except XenError as e:
                error = error or e
        self._fronts = []
        self.cache.close()
        if error is not None:
            raise error


async def _read(entry, cache):
    """Read a kernel and its initrds into place. Returns Plan. Raises: BootError, XenError."""
    began = hw.now()
    cache.renew()
    kernel = await bzimage.read(entry.kernel)
    parts = []
    for place in entry.initrds:
        parts.append(await place.open())
    options = with_console(entry.options)
    plan = Plan(kernel, [size for _, _, size in parts], options)
    file, offset, _ = await entry.kernel.open()
    await load(file, plan.address, offset + kernel.offset, kernel.size)
    for address, (file, offset, size) in zip(plan.initrds, parts):
        await load(file, address, offset, size)
    total = sum(size for _, _, size in parts)
    say(
        "%s: kernel %d KiB, initrd %d KiB, read in %d ms"
        % (entry.name, kernel.size >> 10, total >> 10, (hw.now() - began) // MS)
    )
    return plan
