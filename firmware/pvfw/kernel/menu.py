"""The menu: which entry is booted.

Used by the mode `boot`. It is silent when nobody looks: without a time-out and without a key typed,
the default entry is booted at once. Rules: what a disk says of time-outs counts only where somebody
has typed; what would get around signatures is done where the toolstack allows it (bootmain.py).
"""

import terminal

from pvfw.report import say
from xenpv.loop import SECOND

EDIT, SHELL = "e and a number to edit its command line before", "s for a shell"


async def choose(guest, menu, settings):
    """Return the entry to boot, None for the shell.

    Args:
        guest: shell.guest.ShellGuest.
        menu: boot.entries.Menu.
        settings: bootmain.Settings: entry, an id or a number; timeout, seconds; may().
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
    return await ask(guest, menu, settings)


async def ask(guest, menu, settings):
    """Show the menu and ask. Returns an entry, None for the shell."""
    await guest.listen()
    terminal.on_idle(guest.loop.turn)
    for i, entry in enumerate(menu.entries):
        print("%s %2d  %s" % ("*" if i == menu.default else " ", i + 1, entry.name))
    ways = ["a number to boot it"]
    ways += [EDIT] if settings.may("edit") else []
    ways += [SHELL] if settings.may("shell") else []
    print("Type %s; then return." % ", ".join(ways))
    while True:
        ended, line = terminal.line("", "boot: ")
        if ended:
            print()
            continue
        word = line.strip()
        edits = word[:1] == "e"
        wanted = "shell" if word == "s" else "edit" if edits else ""
        if wanted and not settings.may(wanted):
            print("the toolstack wants what is signed: it allows this by pvdump.allow=%s" % wanted)
            continue
        if word == "s":
            return None
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
    entry.is_edited = True
    return True


def _default(menu, chosen):
    return menu.entries[menu.default] if chosen is None else chosen


def named(menu, name):
    """Return the entry with this id or number (str), None without one."""
    for i, entry in enumerate(menu.entries):
        if name in (entry.id, str(i + 1)):
            return entry
    return None
