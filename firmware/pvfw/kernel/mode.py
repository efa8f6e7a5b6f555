"""The mode `boot`: the kernel that the guest's own disk says is read, and entered.

Called by bootmain, its xenstore connected. The disks are looked through in the order of their
numbers, and the first that has something to boot counts. Rules: a failure costs a line and the
menu, never a jump; a disk is closed before the jump, also where it failed; where the toolstack
names keys, nothing unsigned is entered (verified.py).
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
from . import verified
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
    found = _Disks(guest, settings.trust)
    try:
        menu = await found.look()
        entry = await people.choose(guest, menu, settings)
        while entry is not None:
            try:
                plan = await found.read(entry)
                break
            except (BootError, XenError, MemoryError) as e:
                say("%s: %s" % (entry.name, reason(e) if not isinstance(e, BootError) else e))
            entry = await people.ask(guest, menu, settings)
    finally:
        await found.close()
    if entry is not None:
        await plan.go(guest)


class _Disks:
    """The disks that are connected.

    Args:
        guest: shell.guest.ShellGuest.
        trust: boot.trust.Trust, None where nothing need be signed.
    """

    def __init__(self, guest, trust):
        self._guest = guest
        self._trust = trust
        self._fronts = []
        self._cache = Cache()

    async def look(self):
        """Find what is to be booted. Returns entries.Menu, perhaps without entries."""
        guest, notes = self._guest, Notes()
        volumes = Volumes(notes, self._trust)
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
                await volumes.add(self._cache, name, front)
                menu = await sources.look(volumes, notes)
            except (BootError, XenError, MemoryError) as e:
                notes.add("disk %s: %s" % (name, e))
            if menu.entries:
                break
        if not menu.entries or self._trust is not None:
            for line in notes.lines:
                say(line)
        if not menu.entries:
            say("no disk says what is to be booted")
        return menu

    async def read(self, entry):
        """Read a kernel and its initrds into place. Returns Plan. Raises: BootError, XenError."""
        began = hw.now()
        self._cache.renew()
        if self._trust is None:
            plan, kernel, initrds = await _read(entry)
            checked = ""
        else:
            plan, kernel, initrds, ns = await verified.read(entry, self._guest, self._trust)
            checked = ", of which the check of what was signed %d ms" % (ns // MS)
        say(
            "%s: kernel %d KiB, initrd %d KiB, read in %d ms%s"
            % (entry.name, kernel >> 10, initrds >> 10, (hw.now() - began) // MS, checked)
        )
        return plan

    async def close(self):
        """Close all of them. Raises: XenError, the first."""
        error = None
        for front in self._fronts:
            try:
                await front.close()
            except XenError as e:
                error = error or e
        self._fronts = []
        self._cache.close()
        if error is not None:
            raise error


async def _read(entry):
    """Return (Plan, bytes of the kernel, bytes of the initrds). Raises: BootError, XenError."""
    kernel = await bzimage.read(entry.kernel)
    parts = []
    for place in entry.initrds:
        parts.append(await place.open())
    options = with_console(entry.options)
    sizes = [size for _, _, size in parts]
    plan = Plan(kernel, sizes, options)
    file, offset, _ = await entry.kernel.open()
    await load(file, plan.address, offset + kernel.offset, kernel.size)
    for address, (file, offset, size) in zip(plan.initrds, parts):
        await load(file, address, offset, size)
    return plan, kernel.size, sum(sizes)
