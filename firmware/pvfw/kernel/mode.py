"""The mode `boot`: the kernel that the guest's own disk says is read, and entered.

Called by bootmain, its xenstore connected. Rules: a failure costs a line and the menu, never a
jump; a boot is counted, where the guest has a counter, before the disks are closed; a disk is
closed before the jump, also where it failed; where the toolstack names keys, nothing unsigned is
entered (verified.py).
"""

import hw
from pvfw.boot import bzimage
from pvfw.boot.errors import BootError
from pvfw.boot.load import load
from pvfw.errors import reason
from pvfw.report import say
from xenpv.errors import XenError

from . import fallback, verified
from . import menu as people
from .disks import Disks
from .start import Plan, with_console

MS = 1000000


async def run(guest, settings):
    """Boot. Returns only where nothing could be booted: then what was wrong has been said.

    Args:
        guest: shell.guest.ShellGuest.
        settings: bootmain.Settings.

    Raises: XenError where the domain has been handed back in part.
    """
    found = Disks(guest, settings.trust)
    try:
        menu = await found.look()
        count = await found.counter() if menu.entries and settings.tries else None
        if count is not None and people.named(menu, settings.entry) is None:
            found.cache.renew()
            try:
                menu.default = await fallback.default(menu, count.tries, settings.tries)
            except MemoryError as e:
                say("what was counted of boots is not looked at: %s" % reason(e))
        entry = await people.choose(guest, menu, settings)
        while entry is not None:
            try:
                found.cache.renew()
                plan = await _read(entry, guest, settings.trust)
                break
            except (BootError, XenError, MemoryError) as e:
                say("%s: %s" % (entry.name, reason(e) if not isinstance(e, BootError) else e))
            entry = await people.ask(guest, menu, settings)
        if entry is not None and count is not None:
            await _count(count, entry)
    finally:
        await found.close()
    if entry is not None:
        await plan.go(guest)


async def _count(count, entry):
    """Count the boot of an entry; one that cannot be counted is told, and made."""
    try:
        await count.enter(await fallback.key(entry))
    except (BootError, XenError, MemoryError) as e:
        say("the boot of %s is not counted: %s" % (entry.name, e))


async def _read(entry, guest, trust):
    """Read a kernel and its initrds into place. Returns Plan. Raises: BootError, XenError."""
    began = hw.now()
    if trust is None:
        plan, kernel, initrds = await _load(entry)
        checked = ""
    else:
        plan, kernel, initrds, ns = await verified.read(entry, guest, trust)
        checked = ", of which the check of what was signed %d ms" % (ns // MS)
    say(
        "%s: kernel %d KiB, initrd %d KiB, read in %d ms%s"
        % (entry.name, kernel >> 10, initrds >> 10, (hw.now() - began) // MS, checked)
    )
    return plan


async def _load(entry):
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
