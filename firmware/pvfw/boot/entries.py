"""What can be booted: the entries of a menu, whatever source they are from.

Made by the sources (bls.py, uki.py, grub.py, extlinux.py), returned by sources.py. Rule: what a
disk says stays bytes where it goes on to a kernel or a path, and is printable where it is shown.
"""

from xenpv.text import printable

from .errors import Damaged, NotThere
from .nodes import shown

ENTRIES_MAX = 64
INITRDS_MAX = 16
# The longest command line that Linux takes on x86 is 2047 bytes.
OPTIONS_MAX = 4096
TITLE_MAX = 120
ID_MAX = 256
# Of a text file. A grub.cfg with 30 kernels has 70 KiB.
TEXT_MAX = 128 << 10


class Place:
    """Where a kernel or an initrd is.

    Args:
        volume: Volume.
        path: bytes.
        offset, size: of the part of the file that it is; size None: up to the end.
    """

    def __init__(self, volume, path, offset=0, size=None):
        self.volume = volume
        self.path = path
        self.offset = offset
        self.size = size

    def __str__(self):
        part = "" if self.size is None else " (%d bytes at %d)" % (self.size, self.offset)
        return "%s:%s%s" % (self.volume.name, shown(self.path), part)

    async def open(self):
        """Return (File, offset, size) of what is to be loaded. Raises: as Volume.open()."""
        file = await self.volume.open(self.path)
        size = file.size - self.offset if self.size is None else self.size
        if size <= 0 or self.offset + size > file.size:
            raise Damaged("%s has no such part: the file has %d bytes" % (self, file.size))
        return file, self.offset, size


class Entry:
    """An entry of the menu.

    Args:
        source: what it was read from, such as "BLS xvda1:/loader/entries/a.conf".
        title: bytes, for people.
        id: bytes, which a setting or another source may name it by.
        kernel: Place.
        initrds: list of Place, in their order in memory.
        options: bytes, the kernel's command line.

    Attributes: source, kernel, initrds, options; name (the title) and id, printable str;
    is_unified, whether all of it is one file, which uki.py reads; is_edited, whether a person has
    changed the options.

    Raises Damaged where they are too many or too long.
    """

    def __init__(self, source, title, id, kernel, initrds, options):
        self.source = source
        self.name = printable(title[:TITLE_MAX])
        self.id = printable(id[:ID_MAX])
        self.kernel = kernel
        self.initrds = initrds
        self.options = line(options)
        self.is_unified = self.is_edited = False
        if len(initrds) > INITRDS_MAX:
            raise Damaged("%s: %d initrds, at most %d" % (source, len(initrds), INITRDS_MAX))
        if len(self.options) > OPTIONS_MAX:
            raise Damaged(
                "%s: a command line of %d bytes, at most %d"
                % (source, len(self.options), OPTIONS_MAX)
            )


class Menu:
    """The entries of one source.

    Attributes: entries, list of Entry, at most ENTRIES_MAX; default, index of the one to boot;
    timeout, seconds that a menu is to be shown before, or None where the source does not say.
    """

    def __init__(self):
        self.entries = []
        self.default = 0
        self.timeout = None

    def add(self, entry):
        """Add an entry. Raises Damaged: too many."""
        if len(self.entries) == ENTRIES_MAX:
            raise Damaged("%s: more than %d entries" % (entry.source, ENTRIES_MAX))
        self.entries.append(entry)


def line(options):
    """Return a command line without what a kernel would not take: control characters are spaces."""
    if not [c for c in options if c < 32 or c == 127]:
        return options.strip()
    return bytes([32 if c < 32 or c == 127 else c for c in options]).strip()


async def text(volume, path):
    """Return the content of a text file.

    Raises: as Volume.open(); Damaged if it is too large; NotSigned where signatures count.
    """
    raw = await choice(volume, path)
    if volume.trust is not None:
        await volume.trust.check_text(volume, path, raw)
    return raw


async def text_or_none(volume, path):
    """Return the content of a text file, None where there is no such file. Raises: as text()."""
    try:
        return await text(volume, path)
    except NotThere:
        return None


async def choice(volume, path):
    """Return the content of a text file that needs no signature: it may choose an entry, no more.

    Raises: as Volume.open(); Damaged if it is too large.
    """
    return await (await volume.open(path)).text(TEXT_MAX)


async def choice_or_none(volume, path):
    """Return what choice() does, None where there is no such file. Raises: as choice()."""
    try:
        return await choice(volume, path)
    except NotThere:
        return None


def lines(raw):
    """Return the lines of a text without surrounding white space, comments and empty lines."""
    found = [each.strip() for each in raw.split(b"\n")]
    return [each for each in found if each and each[:1] != b"#"]


def pair(raw):
    """Split a line into its first word and the rest."""
    words = raw.split(None, 1)
    return words[0], words[1].strip() if len(words) > 1 else b""
