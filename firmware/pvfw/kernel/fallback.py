"""The entry that is booted in place of one that did not come up, by the counter of boots.

Used by the mode `boot`. Rules: an entry is known by what is booted - kernel, initrds, their sizes,
command line - and not by its name, so that a kernel that was replaced is a new one; of those that
follow in the menu one with another kernel is preferred, since a recovery entry has the kernel that
did not come up; where no entry is left, the menu's own default is booted all the same.
"""

import hashlib

from pvfw import tries
from pvfw.boot.errors import BootError
from pvfw.report import say
from xenpv.errors import XenError


async def key(entry):
    """Return the key of an entry, bytes, for tries.Tries."""
    parts = []
    for place in [entry.kernel] + entry.initrds:
        try:
            _, _, size = await place.open()
        except (BootError, XenError):
            # It is told when it is to be booted.
            size = 0
        parts.append("%s %d" % (place, size))
    text = "\n".join(parts).encode() + b"\n" + entry.options
    return hashlib.sha256(text).digest()[: tries.KEY_SIZE]


async def default(menu, found, most):
    """Return the index of the entry to boot unasked; a line says where it is not the menu's own.

    Args:
        menu: boot.entries.Menu, with entries.
        found: tries.Tries.
        most: how many boots of an entry that do not end are enough.
    """
    first, number = menu.default, len(menu.entries)
    if not [count for _, count in found.records if count >= most]:
        return first
    kernels = []
    left = []
    for i in range(number):
        index = (first + i) % number
        entry = menu.entries[index]
        if found.count(await key(entry)) < most:
            left.append(index)
        else:
            kernels.append(str(entry.kernel))
        if index == first and left:
            return first
    name = menu.entries[first].name
    if not left:
        say("%d boots of each entry did not end: %s is tried again" % (most, name))
        return first
    others = [i for i in left if str(menu.entries[i].kernel) not in kernels]
    chosen = (others or left)[0]
    say(
        "%s is passed over: %d boots of it did not end; next is %s"
        % (name, found.count(await key(menu.entries[first])), menu.entries[chosen].name)
    )
    return chosen
