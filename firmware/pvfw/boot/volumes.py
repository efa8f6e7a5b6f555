"""The file systems on a guest's disks, in the order in which they are looked through.

Made once, before the sources (sources.py) are asked. Rules: a disk without partitions is one
volume; what cannot be read is a note and costs the others nothing; the number of volumes is
bounded. Names: xvda1 as Linux has it, and GRUB's, (hd0,gpt1) of the first disk.
"""

from xenpv.text import decimal

from . import files, partitions
from .area import Area
from .errors import BootError, Exhausted, NotThere
from .nodes import shown

VOLUMES_MAX = 64
NOTES_MAX = 32
# Types of partitions. Source: the Discoverable Partitions Specification, the Boot Loader
# Specification (UAPI.1).
ESP = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0xef")
XBOOTLDR = ("bc13c2ff-59e6-4262-a352-b275fd6f7172", "0xea")


class Notes:
    """Lines for whoever looks why something was not found, up to a bound."""

    def __init__(self):
        self.lines = []

    def add(self, line):
        """Add a line, once."""
        if len(self.lines) < NOTES_MAX and line not in self.lines:
            self.lines.append(line)


class Volume:
    """A file system.

    Attributes: name; grub, GRUB's name without brackets; fs, as files.py has it; partition, of
    partitions.Partition, or None for a whole disk; trust, as of Volumes.
    """

    def __init__(self, name, grub, fs, partition, trust=None):
        self.name = name
        self.grub = grub
        self.fs = fs
        self.partition = partition
        self.trust = trust

    def is_kind(self, kinds):
        """Tell whether its partition has one of these types."""
        return self.partition is not None and self.partition.kind in kinds

    async def open(self, path):
        """Return the File at a path (bytes). Raises: as files.open_file()."""
        return await files.open_file(self.fs, path)

    async def exists(self, path):
        """Tell whether there is a file at a path."""
        return await files.exists(self.fs, path)


class Volumes:
    """All volumes.

    Args:
        notes: Notes.
        trust: trust.Trust, where only signed files count; None elsewhere.

    Attributes: all, a list of Volume; trust.
    """

    def __init__(self, notes, trust=None):
        self.all = []
        self.trust = trust
        self._notes = notes
        self._disks = 0

    async def add(self, cache, name, disk):
        """Look at a disk.

        Args:
            cache: Cache.
            name: as Linux has it, such as "xvda".
            disk: as for Area.

        Raises: Exhausted, XenError; what is wrong with the disk's content is noted.
        """
        number = self._disks
        self._disks += 1
        whole = Area(cache, disk, name)
        try:
            table = await partitions.read(whole)
        except Exhausted:
            raise
        except BootError as e:
            self._notes.add(str(e))
            return
        for note in table.notes:
            self._notes.add(note)
        if not table.partitions:
            await self._mount(whole, "hd%d" % number, None)
        for each in table.partitions:
            # As Linux: sda1, but nvme0n1p1.
            between = "p" if name[-1:] in "0123456789" else ""
            area = Area(cache, disk, "%s%s%d" % (name, between, each.number), each.first, each.size)
            grub = "hd%d,%s%d" % (number, table.scheme, each.number)
            await self._mount(area, grub, each)

    async def _mount(self, area, grub, partition):
        try:
            fs = await files.mount(area)
        except Exhausted:
            raise
        except BootError as e:
            self._notes.add(str(e))
            return
        if fs is None:
            return
        if len(self.all) == VOLUMES_MAX:
            self._notes.add("%s and what follows is passed over: too many volumes" % area.name)
            return
        self.all.append(Volume(area.name, grub, fs, partition, self.trust))
        for note in fs.notes:
            self._notes.add(note)

    def ordered(self):
        """Return the volumes: those of the Boot Loader Specification first."""
        first = [each for each in self.all if each.is_kind(XBOOTLDR)]
        second = [each for each in self.all if each.is_kind(ESP)]
        return first + second + [e for e in self.all if e not in first and e not in second]

    def by_grub(self, name):
        """Return the volume that GRUB calls so (bytes, without brackets).

        It may leave out the scheme of partitions, or use Linux' name. Raises NotThere.
        """
        for each in self.all:
            disk, _, part = each.grub.partition(",")
            short = part[len(part.rstrip("0123456789")) :]
            known = (each.grub, each.name, "%s,%s" % (disk, short) if part else disk)
            if name in [text.encode() for text in known]:
                return each
        raise NotThere("no volume (%s)" % shown(name))

    async def search(self, kind, wanted):
        """Return the volume that a search of GRUB's finds, or None.

        Args:
            kind: "uuid", "label" or "file".
            wanted: bytes.

        Raises: Exhausted, XenError.
        """
        for each in self.all:
            try:
                if kind == "uuid":
                    is_it = each.fs.uuid.lower().encode() == wanted.lower()
                elif kind == "label":
                    is_it = (await each.fs.label()).encode() == wanted
                else:
                    is_it = await each.exists(wanted)
            except Exhausted:
                raise
            except BootError as e:
                self._notes.add(str(e))
                continue
            if is_it:
                return each
        return None


def number(raw, most):
    """Return bytes that a disk has as a number from 0 to `most`, or None."""
    return decimal(raw.lstrip(b"0") or raw[-1:], 0, most)
