"""grub.cfg: the entries that GRUB's configuration would show.

One of the sources. The script is run, as far as it says what is booted; then each menu entry's, to
see which kernel it loads. Rules: nothing is written, no other program is run; commands that only
matter to GRUB's screen succeed and do nothing; an entry that loads no Linux is noted. The first
file of PATHS on any volume that gives an entry counts.
Source: GRUB manual; util/grub.d of GRUB and its patches in Debian, Ubuntu and Fedora.
"""

from . import grubmachine
from .entries import ENTRIES_MAX, Menu, text_or_none
from .errors import BootError, Damaged, Exhausted
from .grubscript import Block, Script
from .grubwords import Work
from .nodes import shown
from .volumes import number

FOLDERS = (b"/boot/grub", b"/grub", b"/boot/grub2", b"/grub2")
NAME = b"/grub.cfg"
SUBMENUS_MAX = 4
TIMEOUT_MAX = 3600


async def look(volumes, notes):
    """Find the entries. Returns: Menu. Raises: Exhausted, XenError."""
    for volume, folder, raw in await _found(volumes, notes):
        try:
            menu = await _Config(volumes, notes, volume, folder).menu(raw)
        except Exhausted:
            raise
        except BootError as e:
            notes.add("%s:%s passed over: %s" % (volume.name, shown(folder + NAME), e))
            continue
        if menu.entries:
            return menu
    return Menu()


async def variables(volumes, notes):
    """Return the variables that the first configuration sets, a dict of bytes.

    Raises: Exhausted, XenError.
    """
    for volume, folder, raw in await _found(volumes, notes):
        config = _Config(volumes, notes, volume, folder)
        try:
            await config.run(raw)
        except Exhausted:
            raise
        except BootError as e:
            notes.add("%s:%s: %s" % (volume.name, shown(folder + NAME), e))
        return config.machine.variables
    return {}


async def _found(volumes, notes):
    """Return (Volume, folder, content) of the configurations that there are, two at most."""
    found = []
    for volume in volumes.ordered():
        for folder in FOLDERS:
            try:
                raw = await text_or_none(volume, folder + NAME)
            except Exhausted:
                raise
            except BootError as e:
                notes.add(str(e))
                continue
            if raw is not None and len(found) < 2:
                found.append((volume, folder, raw))
    return found


class _Config:
    """One configuration. Attributes: machine, grubmachine.Machine."""

    def __init__(self, volumes, notes, volume, folder):
        self._notes = notes
        self._source = "grub.cfg %s:%s" % (volume.name, shown(folder + NAME))
        self.machine = grubmachine.Machine(volumes, notes, Work())
        self.machine.begin(volume, folder)
        self._menu = Menu()
        # (list of (index, id, title), index of the entry in the menu).
        self._chains = []

    async def run(self, raw):
        """Run the top of the configuration, and those that it gives way to."""
        self.machine.count(raw)
        await Script(self.machine, Block(raw, 0, len(raw))).run()
        while self.machine.following is not None:
            raw = self.machine.following
            self.machine.following = None
            self.machine.leaving = None
            self.machine.found = []
            self.machine.depth = 0
            await Script(self.machine, Block(raw, 0, len(raw))).run()

    async def menu(self, raw):
        """Return the Menu."""
        await self.run(raw)
        machine = self.machine
        await self._entries(machine, [])
        self._menu.timeout = number(machine.value(b"timeout"), TIMEOUT_MAX)
        wanted = machine.value(b"default") or machine.saved
        if wanted:
            self._choose(wanted)
        return self._menu

    async def _entries(self, machine, chain):
        """Add the entries that a machine has found."""
        if len(chain) > SUBMENUS_MAX:
            raise Damaged("submenus nest deeper than %d" % SUBMENUS_MAX)
        for i, item in enumerate(machine.found):
            here = chain + [(i, item.id, item.name)]
            inner = machine.inner(item)
            try:
                await Script(inner, item.block).run()
                if item.is_submenu:
                    await self._entries(inner, here)
                    continue
                entry = inner.entry(self._source, item, b">".join([each[1] for each in here]))
            except Exhausted:
                raise
            except BootError as e:
                self._notes.add("%s: %s passed over: %s" % (self._source, shown(item.name), e))
                continue
            if len(self._menu.entries) == ENTRIES_MAX:
                self._notes.add("%s: only %d entries are shown" % (self._source, ENTRIES_MAX))
                return
            self._chains.append(here)
            self._menu.add(entry)

    def _choose(self, wanted):
        """Find the default: indexes, identifiers or titles, those of submenus before a >."""
        parts = wanted.split(b">")
        for i, chain in enumerate(self._chains):
            if len(parts) <= len(chain) and all(
                part in (b"%d" % at, id, title) for part, (at, id, title) in zip(parts, chain)
            ):
                self._menu.default = i
                return
        # A saved identifier may be that of an entry in a submenu, without those above it.
        for i, chain in enumerate(self._chains):
            if wanted in chain[-1][1:]:
                self._menu.default = i
                return
        self._notes.add(
            "%s: the default %s is no entry that can be booted; the first one is"
            % (self._source, shown(wanted))
        )
