"""The kinds of nodes of a file system, names for messages, and the bounds of folders."""

from xenpv.text import printable

from .errors import Damaged

FOLDER = 1
FILE = 2
LINK = 3
OTHER = 4

# Bytes of a folder that are looked through, and names that are given.
FOLDER_MAX = 4 << 20
NAMES_MAX = 512
SHOWN_MAX = 80


def shown(raw):
    """Return bytes that a disk has as a short text that can be printed."""
    return printable(raw[:SHOWN_MAX]) + ("..." if len(raw) > SHOWN_MAX else "")


class Names:
    """The names of a folder, up to a bound."""

    def __init__(self, where):
        self._where = where
        self.found = []

    def add(self, name):
        """Add a name (bytes). Raises Damaged: too many."""
        if len(self.found) == NAMES_MAX:
            raise Damaged("%s: a folder of more than %d names" % (self._where, NAMES_MAX))
        self.found.append(name)
