"""Names of virtual disks and the numbers that xenstore knows them by.

Used wherever a disk is named on the command line or on the console.
Source: Xen docs/man/xen-vbd-interface.7.
"""

from ..errors import BadDiskName
from ..text import decimal

XVD = 202
SD = 8
HD = (3, 22)
EXTENDED = 1 << 28
# A toolstack keeps them in an int.
NUMBER_MAX = (1 << 31) - 1


def number(name):
    """The virtual device number of a disk's name: xvdb, xvdb1, hda, sda or the number itself.

    Raises BadDiskName.
    """
    letters = name.rstrip("0123456789")
    part = name[len(letters) :]
    if not letters:
        found = decimal(part, 0, NUMBER_MAX)
        if found is None:
            raise _unusable(name)
        return found
    if len(letters) < 3 or len(letters) > 5:
        raise _unusable(name)
    index = 0
    for c in letters[3 if letters[:3] == "xvd" else 2 :]:
        if not "a" <= c <= "z":
            raise _unusable(name)
        index = index * 26 + ord(c) - ord("a") + 1
    index -= 1
    partition = decimal(part or "0", 0, 255)
    if partition is None:
        raise _unusable(name)
    if letters[:3] == "xvd" and index >= 0:
        if index < 16 and partition < 16:
            return XVD << 8 | index << 4 | partition
        if partition < 256:
            return EXTENDED | index << 8 | partition
    elif letters[:2] == "sd" and index < 16 and partition < 16:
        return SD << 8 | index << 4 | partition
    elif letters[:2] == "hd" and index < 4 and partition < 64:
        return HD[index // 2] << 8 | (index & 1) << 6 | partition
    raise _unusable(name)


def _unusable(name):
    return BadDiskName("%s: a name like xvdb expected" % name[:40])


def name(number):
    """The name of a virtual device number; the number itself where it has none."""
    major, minor = number >> 8, number & 0xFF
    if number >= EXTENDED:
        index, partition = number - EXTENDED >> 8, minor
        found = "xvd" + (chr(ord("a") + index // 26 - 1) if index >= 26 else "")
        found += chr(ord("a") + index % 26)
        return _with(found, partition) if index < 26 * 27 else str(number)
    if major in (XVD, SD):
        prefix = "xvd" if major == XVD else "sd"
        return _with(prefix + chr(ord("a") + (minor >> 4)), minor & 15)
    if major in HD:
        return _with("hd" + chr(ord("a") + 2 * HD.index(major) + (minor >> 6)), minor & 63)
    return str(number)


def _with(name, partition):
    return name + str(partition) if partition else name
