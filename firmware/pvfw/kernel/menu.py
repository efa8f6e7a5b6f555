"""The menu: which entry is booted.

Used by the mode `boot`. It is silent when nobody looks: without a time-out and without a key typed,
the default entry is booted at once. Rule: what a disk says of time-outs counts only where somebody
has typed.
"""

import terminal

from pvfw.report import say
from xenpv.loop import SECOND

SHOWN = (
    "Type a number to boot it, e and a number to edit its command line before, s for a shell;"
    " then return."
)


async def choose(guest, menu, settings):
    """Return the entry to boot, None for the shell.

    Args:
        guest: shell.guest.ShellGuest.
        menu: boot.entries.Menu.
        settings: bootmain.Settings: entry, an id or a number; timeout, seconds.
    """
    if not menu.entries:
        return None
    chosen = named(menu, settings.entry)
    if chosen is None and settings.entry is not None:
        say("there is no entry %s" % settings.entry)
    loop = guest.loop
    until = loop.now() + (settings.timeout or 0) * SECOND
    if settings.timeout:
        await guest.listen()
        name = _default(menu, chosen).name
        say("%s boots in %d s; a key shows the menu" % (name, settings.timeout))
    while terminal.key() < 0:
        if loop.now() >= until:
            return _default(menu, chosen)
        await loop.sleep(min(until - loop.now(), SECOND // 10))
    return await ask(guest, menu)


async def ask(guest, menu):
    """Show the menu and ask. Returns an entry, None for the shell."""
    await guest.listen()
    terminal.on_idle(guest.loop.turn)
    for i, entry in enumerate(menu.entries):
        print("%s %2d  %s" % ("*" if i == menu.default else " ", i + 1, entry.name))
    print(SHOWN)
    while True:
        ended, line = terminal.line("", "boot: ")
        if ended:
            print()
            continue
        word = line.strip()
        if word == "s":
            return None
        edits = word[:1] == "e"
        entry = named(menu, word[1:].strip() if edits else word) or (
            None if word.strip("e ") else menu.entries[menu.default]
        )
        if entry is None:
            print("there is no entry %s" % word[:40])
            continue
        if not edits or _edit(entry):
            return entry


def _edit(entry):
    """Have its command line edited. Returns whether it was: Ctrl-C gives it up."""
    if any(not 32 <= c < 127 for c in entry.options):
        print("its command line has characters that nobody can type")
        return False
    terminal.type(entry.options)
    ended, text = terminal.line("", "options: ")
    if ended:
        print()
        return False
    entry.options = text.encode()
    return True


def _default(menu, chosen):
    return menu.entries[menu.default] if chosen is None else chosen


def named(menu, name):
    """Return the entry with this id or number (str), None without one."""
    for i, entry in enumerate(menu.entries):
        if name in (entry.id, str(i + 1)):
            return entry
    return None
