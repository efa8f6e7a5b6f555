"""What a guest's disks say is to be booted: the sources, asked one after the other.

Called by the boot mode once the volumes are known. Rules: the first source that has an entry
counts; one that cannot be read, or has nothing, is a note and the next one is asked. All that is
read is bounded: Exhausted ends the search with what was found.
"""

from . import bls, extlinux, grub, uki
from .entries import Menu
from .errors import BootError


async def look(volumes, notes):
    """Find the entries.

    Args:
        volumes: Volumes.
        notes: volumes.Notes, which has the reasons where something was passed over.

    Returns: entries.Menu; without entries where nothing can be booted. Raises: XenError.
    """

    async def variables():
        if not known:
            known.append(await grub.variables(volumes, notes))
        return known[0]

    known = []
    asked = (
        lambda: bls.look(volumes, notes, variables),
        lambda: uki.look(volumes, notes),
        lambda: grub.look(volumes, notes),
        lambda: extlinux.look(volumes, notes),
    )
    for ask in asked:
        try:
            menu = await ask()
        except BootError as e:
            notes.add(str(e))
            continue
        except MemoryError:
            notes.add("out of memory; what was read is passed over")
            continue
        if menu.entries:
            return menu
    return Menu()
