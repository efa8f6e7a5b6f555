"""Boot Loader Specification, type 1: a file for each entry, in loader/entries.

One of the sources; Fedora's GRUB and systemd-boot use these files. Looked through are all volumes,
those with the specification's types first, and on each /loader/entries and /boot/loader/entries.
Rules: paths are relative to the volume's top folder, else to the folder that loader/ is in; a file
that makes no entry is noted; the order is the specification's.
Source: UAPI Group, Boot Loader Specification (UAPI.1); systemd src/boot/boot.c.
"""

from . import files, grubenv, versions
from .entries import Entry, Menu, Place, choice_or_none, lines, pair, text
from .errors import BootError, Exhausted, NotSigned, NotThere, Unsupported
from .nodes import shown
from .volumes import number

FOLDERS = ((b"", b"/loader/entries"), (b"/boot", b"/boot/loader/entries"))
END = b".conf"
ARCHITECTURES = (b"x64", b"x86-64", b"x86_64")
TIMEOUT_MAX = 3600
TRIES_MAX = 1000000


class Item:
    """What orders an entry beside others: the fields of the specification."""

    def __init__(self, name, fields):
        self.id, self.left, self.tried = counted(name)
        self.sort_key = fields.get(b"sort-key", b"")
        self.machine_id = fields.get(b"machine-id", b"")
        self.version = fields.get(b"version", b"")
        self.entry = None


def counted(name):
    """Split the counter off a name without its end: NAME+LEFT-TRIED.

    Returns: (name, tries left or None, tries done).
    """
    begin, plus, counter = name.rpartition(b"+")
    if plus:
        left, _, tried = counter.partition(b"-")
        left, tried = number(left, TRIES_MAX), number(tried or b"0", TRIES_MAX)
        if left is not None and tried is not None:
            return begin, left, tried
    return name, None, 0


def compare(a, b):
    """Return a number below 0 where Item a comes before b, above 0 where behind it."""
    found = (a.left == 0) - (b.left == 0) or (not a.sort_key) - (not b.sort_key)
    if not found and a.sort_key:
        found = (a.sort_key > b.sort_key) - (a.sort_key < b.sort_key)
        found = found or (a.machine_id > b.machine_id) - (a.machine_id < b.machine_id)
        found = found or -versions.compare(a.version, b.version)
    found = found or -versions.compare(a.id, b.id)
    return found or (b.left or 0) - (a.left or 0) or a.tried - b.tried


def ordered(items):
    """Return Items in the specification's order."""
    done = []
    for item in items:
        at = len(done)
        while at and compare(item, done[at - 1]) < 0:
            at -= 1
        done.insert(at, item)
    return done


async def look(volumes, notes, variables):
    """Find the entries.

    Args:
        volumes: Volumes.
        notes: Notes.
        variables: an async function without arguments that gives GRUB's variables, a dict of
            bytes; called where an entry uses some.

    Returns: Menu. Raises: Exhausted, XenError.
    """
    menu = Menu()
    items = []
    homes = []
    for volume in volumes.ordered():
        for home, folder in FOLDERS:
            try:
                names = await files.names(volume.fs, folder)
            except Exhausted:
                raise
            except BootError as e:
                notes.add(str(e))
                continue
            names = [each for each in names if each.lower().endswith(END)]
            if names:
                homes.append((volume, home))
            for name in names:
                await _item(items, volume, home, folder + b"/" + name, notes, variables)
    fill(menu, items)
    if items:
        await _settings(menu, volumes, homes, notes)
    return menu


def fill(menu, items):
    """Add the entries in their order, with the version behind titles that several have."""
    names = [item.entry.name for item in items]
    for item in ordered(items):
        if names.count(item.entry.name) > 1:
            item.entry.name += " (%s)" % shown(item.version or item.id)
        menu.add(item.entry)


async def _item(items, volume, home, path, notes, variables):
    """Add the entry that a file describes, or a note."""
    source = "BLS %s:%s" % (volume.name, shown(path))
    try:
        fields = _fields(await text(volume, path))
        name = path[path.rfind(b"/") + 1 : -len(END)]
        item = Item(name, fields)
        item.entry = await _entry(source, volume, home, item, fields, variables)
        items.append(item)
    except Exhausted:
        raise
    except BootError as e:
        notes.add("%s passed over: %s" % (source, e))


def _fields(raw):
    """Return the fields of a file: bytes by name; those that may come again are lists."""
    fields = {b"initrd": [], b"options": []}
    for each in lines(raw):
        key, value = pair(each)
        if key in (b"initrd", b"options"):
            fields[key].append(value)
        else:
            fields[key] = value
    return fields


async def _entry(source, volume, home, item, fields, variables):
    """Make an entry. Raises: NotThere, NotSigned, Unsupported; as Volume.exists()."""
    if fields.get(b"architecture", ARCHITECTURES[0]).lower() not in ARCHITECTURES:
        raise Unsupported("it is for %s" % shown(fields[b"architecture"]))
    if b"linux" not in fields:
        raise Unsupported("it has no line that begins with linux")
    options = b" ".join(fields[b"options"])
    initrds = b" ".join(fields[b"initrd"])
    if (options + initrds).find(b"$") >= 0:
        if volume.trust is not None:
            raise NotSigned("it uses variables, which are not signed")
        known = await variables()
        options, initrds = grubenv.expand(options, known), grubenv.expand(initrds, known)
    kernel = fields[b"linux"]
    prefix = await _prefix(volume, home, kernel)
    title = fields.get(b"title", item.id)
    places = [Place(volume, prefix(each)) for each in initrds.split()]
    return Entry(source, title, item.id, Place(volume, prefix(kernel)), places, options)


async def _prefix(volume, home, kernel):
    """Return a function that makes an entry's paths those of the volume. Raises NotThere."""
    if await volume.exists(kernel):
        return lambda path: path
    if home and await volume.exists(home + b"/" + kernel):
        return lambda path: home + b"/" + path.lstrip(b"/")
    if not home and kernel[:6] == b"/boot/" and await volume.exists(kernel[5:]):
        return lambda path: path[5:] if path[:6] == b"/boot/" else path
    raise NotThere("there is no kernel %s" % shown(kernel))


# Which entry is booted.


async def _settings(menu, volumes, homes, notes):
    """Read the default and the time-out, of loader.conf, else of GRUB's environment block."""
    for volume in volumes.ordered():
        try:
            raw = await choice_or_none(volume, b"/loader/loader.conf")
        except Exhausted:
            raise
        except BootError as e:
            notes.add(str(e))
            continue
        if raw is None:
            continue
        fields = _fields(raw)
        timeout = fields.get(b"timeout", b"")
        menu.timeout = 0 if timeout[:5] == b"menu-" else number(timeout, TIMEOUT_MAX)
        if b"default" in fields:
            _choose(menu, fields[b"default"], notes)
            return
    for volume, home in homes:
        saved = (await grubenv.near(volume, home, notes)).get(b"saved_entry")
        if saved is not None:
            _choose(menu, saved, notes)
            return


def _choose(menu, wanted, notes):
    """Make the first entry that a pattern matches, or whose number or title it is, the default."""
    name = wanted[:-5] if wanted.endswith(END) else wanted
    for i, entry in enumerate(menu.entries):
        if matches(name, entry.id.encode()) or entry.name.encode() == wanted:
            menu.default = i
            return
    at = number(wanted, len(menu.entries) - 1)
    if at is not None:
        menu.default = at
    else:
        notes.add("the default %s is no entry; the first one is booted" % shown(wanted))


def matches(pattern, name):
    """Tell whether a name matches a pattern with * and ?, both bytes."""
    i = j = 0
    star = None
    while j < len(name):
        if i < len(pattern) and pattern[i : i + 1] == b"*":
            star = (i, j)
            i += 1
        elif i < len(pattern) and pattern[i : i + 1] in (b"?", name[j : j + 1]):
            i, j = i + 1, j + 1
        elif star is not None:
            star = (star[0], star[1] + 1)
            i, j = star[0] + 1, star[1]
        else:
            return False
    return not pattern[i:].strip(b"*")
