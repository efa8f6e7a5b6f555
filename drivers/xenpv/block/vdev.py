"""Names of virtual disks and the numbers that xenstore knows them by.

Used wherever a disk is named on the command line or on the console. name() and number() are each
other's inverse; find() also takes the name that Linux gives a disk, which for disks of other majors
than xvd is not xl's: it calls xl's hdb and sdb xvdb.
Source: Xen docs/man/xen-vbd-interface.7; Linux drivers/block/xen-blkfront.c (xen_translate_vdev,
xlvbd_alloc_gendisk).
"""

from ..errors import BadDiskName
from ..text import DECIMAL, decimal

XVD = 202
HD = (3, 22)
# Majors of SCSI disks, in the order of their disks; xl uses the first alone.
SD = (8, 65, 66, 67, 68, 69, 70, 71, 128, 129, 130, 131, 132, 133, 134, 135)
EXTENDED = 1 << 28
NUMBER_MAX = 0xFFFFFFFF
# Disks beyond have no name: two letters are the most. Linux has minors of 20 bits.
NAMED = 26 * 27


def number(name):
    """Give the virtual device number of a disk's name.

    Args:
        name: such as xvdb, xvdb1, hda, sda, or the number itself.

    Raises: BadDiskName.
    """
    whole = decimal(name, 0, NUMBER_MAX)
    if whole is not None:
        return whole
    letters = name.rstrip(DECIMAL)
    partition = decimal(name[len(letters) :], 1, 255) if len(letters) < len(name) else 0
    kind = "xvd" if letters[:3] == "xvd" else letters[:2]
    disk = _index(letters[len(kind) :])
    if partition is not None and disk is not None:
        if kind == "xvd" and disk < 16 and partition < 16:
            return XVD << 8 | disk << 4 | partition
        if kind == "xvd":
            return EXTENDED | disk << 8 | partition
        if kind == "sd" and disk < 16 and partition < 16:
            return SD[0] << 8 | disk << 4 | partition
        if kind == "hd" and disk < 4 and partition < 64:
            return HD[disk // 2] << 8 | disk % 2 << 6 | partition
    raise BadDiskName("%s: a name like xvdb expected" % name[:40])


def name(number):
    """Give the name of a virtual device number; the number itself where it has none."""
    major, minor = number >> 8, number & 0xFF
    if number >= EXTENDED:
        disk = number - EXTENDED >> 8
        # The disks of the lower numbers have the other names.
        if disk < NAMED and (disk >= 16 or minor >= 16):
            return "xvd" + _named(disk, minor)
    elif major == XVD:
        return "xvd" + _named(minor >> 4, minor & 15)
    elif major == SD[0]:
        return "sd" + _named(minor >> 4, minor & 15)
    elif major in HD and minor < 128:
        return "hd" + _named(2 * HD.index(major) + (minor >> 6), minor & 63)
    return str(number)


def find(name, numbers):
    """Find a disk by its name: xl's, or else the one that Linux gives it.

    Args:
        name: as for number().
        numbers: the virtual device numbers of the disks that are there.

    Returns: one of the numbers, or None.

    Raises: BadDiskName.
    """
    wanted = number(name)
    if wanted in numbers:
        return wanted
    if name[:3] == "xvd":
        for candidate in sorted(numbers):
            if _linux(candidate) == _linux(wanted):
                return candidate
    return None


def _linux(number):
    """Give (disk, partition) of the xvd name that Linux gives a number, or None for none."""
    major, minor = number >> 8, number & 0xFF
    if number >= EXTENDED:
        disk = number - EXTENDED >> 8
        return (disk, minor) if disk < 1 << 12 else None
    if major in HD:
        # Linux knows no partitions here.
        return 2 * HD.index(major) + (minor >> 6), 0
    if major in SD:
        return 16 * SD.index(major) + (minor >> 4), minor & 15
    return (minor >> 4, minor & 15) if major == XVD else None


def _index(letters):
    """Give the number of a disk from its letters: a is 0, z 25, aa 26; None for no such letters."""
    if not 0 < len(letters) <= 2 or not all("a" <= c <= "z" for c in letters):
        return None
    index = 0
    for c in letters:
        index = index * 26 + ord(c) - ord("a") + 1
    return index - 1


def _named(disk, partition):
    """Give the letters of a disk, and the partition's number if it has one."""
    first = chr(ord("a") + disk // 26 - 1) if disk >= 26 else ""
    last = chr(ord("a") + disk % 26)
    return first + last + (str(partition) if partition else "")
