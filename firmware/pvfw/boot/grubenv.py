"""GRUB's environment block: names and values that the system has saved for its boot loader.

Used by bls.py and grub.py. Rule: nothing is written, so what asks for one boot only (next_entry)
would ask for ever: it is passed over with a note. Nobody signs it, so where signatures count its
users take the name of an entry of it, and nothing else.
Source: GRUB grub-core/lib/envblk.c.
"""

from .entries import choice_or_none
from .errors import BootError, Exhausted
from .nodes import shown

HEAD = b"# GRUB Environment Block\n"
NAME = b"_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
NAMES_MAX = 64
VALUE_MAX = 4096
FOLDERS = (b"/grub2", b"/grub")
ONCE = (b"next_entry", b"prev_saved_entry", b"boot_once")


def parse(raw, notes):
    """Return the values by their names, a dict of bytes.

    Args:
        raw: the file's content.
        notes: Notes.
    """
    found = {}
    if raw[: len(HEAD)] != HEAD:
        notes.add("a GRUB environment block without its first line is passed over")
        return found
    for each in raw[len(HEAD) :].split(b"\n"):
        name, equals, value = each.partition(b"=")
        if not equals or name[:1] == b"#" or len(found) == NAMES_MAX or len(value) > VALUE_MAX:
            continue
        if name in ONCE:
            if value:
                notes.add(
                    "%s=%s in GRUB's environment block is passed over: it could not be cleared"
                    % (shown(name), shown(value))
                )
            continue
        found[name] = value.replace(b"\\\\", b"\\")
    return found


async def near(volume, home, notes):
    """Read the environment block of a volume. home: b"" or b"/boot". Returns: as parse().

    Raises: Exhausted, XenError.
    """
    for folder in FOLDERS:
        try:
            raw = await choice_or_none(volume, home + folder + b"/grubenv")
        except Exhausted:
            raise
        except BootError as e:
            notes.add(str(e))
            continue
        if raw is not None:
            return parse(raw, notes)
    return {}


def expand(raw, variables):
    """Replace $NAME and ${NAME} by their values; what is not set is nothing."""
    parts = raw.split(b"$")
    found = [parts[0]]
    for part in parts[1:]:
        if part[:1] == b"{":
            name, _, rest = part[1:].partition(b"}")
        else:
            end = 0
            while end < len(part) and part[end] in NAME:
                end += 1
            name, rest = part[:end], part[end:]
        found.append(variables.get(name, b"") + rest)
    return b"".join(found)
