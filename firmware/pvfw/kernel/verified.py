"""A kernel and its initrds, read into memory and checked there: what is entered is what was signed.

Used by the boot mode where the toolstack names keys. Rules: each file is read once and whole; its
hash is taken of the memory that it is in, when no backend has access to memory of this guest but
for its rings and buffers; from then on only this memory is looked at, the kernel's header
and the sections of a unified image with it, and a kernel is moved to its place from there.
Units: bytes; addresses are physical.
"""

import hw
from pvfw.boot import bzimage, uki
from pvfw.boot.entries import Place, line
from pvfw.boot.errors import NotSigned
from pvfw.boot.load import load
from pvfw.boot.minisign import Digest
from xenpv import abi
from xenpv.errors import XenError

from .room import END, Room
from .start import Plan, with_console

PAGE_SIZE = abi.PAGE_SIZE
# Bytes that are hashed between two turns of the loop, so that the watchdog does not bite.
PIECE = 4 << 20


class Held:
    """A file whose content is in memory and is what was signed.

    Attributes: address; size; ns, what the check took. It has File's read().
    """

    def __init__(self, address, size):
        self.address = address
        self.size = size
        self.ns = 0

    async def read(self, offset, size):
        """Return up to `size` bytes, fewer at the end."""
        size = min(size, self.size - offset)
        return bytes(hw.mem(self.address + offset, size)) if size > 0 else b""


async def read(entry, guest, trust):
    """Read an entry's kernel and initrds, and check them.

    Args:
        entry: boot.entries.Entry.
        guest: shell.guest.ShellGuest.
        trust: boot.trust.Trust.

    Returns: (Plan, bytes of the kernel, bytes of the initrds, ns that the checks took).
    Raises: NotSigned, BootError, XenError.
    """
    boot = hw.boot()
    whole = Place(entry.kernel.volume, entry.kernel.path)
    file, _, size = await whole.open()
    # Behind it there is a page that reading may use.
    room = (size // PAGE_SIZE + 2) * PAGE_SIZE
    address = Room(boot[3], [boot[4]]).high(room, END)
    if address is None:
        raise XenError("no memory to check a file of %d KiB" % (size >> 10))
    held = await _checked(whole, file, address, guest, trust)
    options = entry.options
    if entry.is_unified:
        _, part, initrds, said = await uki.parts(held)
        if not entry.is_edited:
            options = line(said)
    else:
        part, initrds = (0, size), []
        for place in entry.initrds:
            initrds.append(await place.open())
    sizes = [each[-1] for each in initrds]
    base, size = address + part[0], part[1]
    kernel = bzimage.parse(bytes(hw.mem(base, min(bzimage.HEAD_SIZE, size))), size)
    plan = Plan(kernel, sizes, with_console(options), [(address, address + room)])
    ns = held.ns
    for i, to in enumerate(plan.initrds):
        if entry.is_unified:
            hw.copy(to, address + initrds[i][0], sizes[i])
        else:
            ns += (await _checked(entry.initrds[i], initrds[i][0], to, guest, trust)).ns
    hw.copy(plan.address, base + kernel.offset, kernel.size)
    return plan, kernel.size, sum(sizes), ns


async def _checked(place, file, address, guest, trust):
    """Read a whole file to an address and check it there. Returns Held. Raises: NotSigned."""
    signature = await trust.signature(place.volume, place.path)
    await load(file, address)
    if guest.grants.set_aside:
        raise NotSigned("%s: a backend still has access to memory of this guest" % place)
    held, digest = Held(address, file.size), Digest()
    for at in range(0, file.size, PIECE):
        began = hw.now()
        digest.add(hw.mem(address + at, min(PIECE, file.size - at)))
        held.ns += hw.now() - began
        await guest.loop.sleep(0)
    trust.check(signature, place.volume, place.path, digest.value())
    return held
