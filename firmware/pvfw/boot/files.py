"""Files and folders by their paths, on any file system, and which file system an area has.

Used by all that looks for a boot loader's files. A file system (fat.py, ext.py) is an object with

    kind, uuid         "vfat" or "ext4"; the identifier as blkid and GRUB print it
    notes              what a reader should know of it, a line each
    root()             the node of its top folder
    child(node, name)  the node of that name in a folder, or None
    names(node)        the names in a folder
    target(node)       where a link points to
    file(node, name)   the File of a node
    label()            its label

all but root() async. A node has `kind`, one of FOLDER, FILE, LINK, OTHER. Names and paths are
bytes, as the disk has them. Rules: a path has a bounded length, and a bounded number of links is
followed; a link stays in its file system.
"""

from . import ext, fat
from .errors import Damaged, NotThere, Unsupported
from .nodes import FILE, FOLDER, LINK, shown

LINKS_MAX = 8
PATH_MAX = 4096
PARTS_MAX = 64

# What is recognised, and not read: (offset, magic, name).
OTHERS = (
    (0, b"XFSB", "XFS"),
    (65600, b"_BHRfS_M", "btrfs"),
    (1024, b"\x10\x20\xf5\xf2", "F2FS"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (536, b"LVM2 001", "an LVM volume"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (0, b"hsqs", "squashfs"),
    (4086, b"SWAPSPACE2", "swap"),
    (32769, b"CD001", "ISO 9660"),
)


async def mount(area):
    """Return the file system in an area, or None if nothing known is there.

    Raises: Unsupported names what is known and not read; Damaged, Exhausted, XenError.
    """
    for kind in (ext, fat):
        found = await kind.mount(area)
        if found is not None:
            return found
    for offset, magic, name in OTHERS:
        if offset + len(magic) <= area.size and await area.read(offset, len(magic)) == magic:
            raise Unsupported("%s: %s is not read here" % (area.name, name))
    return None


async def find(fs, path):
    """Return the node at a path, its links followed, or None.

    Args:
        fs: a file system.
        path: bytes; it is taken from the top folder on.

    Raises: Damaged, Unsupported, Exhausted, XenError.
    """
    if len(path) > PATH_MAX or path.find(b"\0") >= 0:
        raise Damaged("a path of %d bytes, or with a NUL: %s" % (len(path), shown(path[:40])))
    todo = _parts(path)
    folders = [fs.root()]
    links = 0
    while todo:
        if len(todo) > PARTS_MAX or len(folders) > PARTS_MAX:
            raise Damaged("%s: more than %d folders" % (shown(path), PARTS_MAX))
        name = todo.pop(0)
        if name == b"..":
            if len(folders) > 1:
                folders.pop()
            continue
        node = await fs.child(folders[-1], name)
        if node is None:
            return None
        if node.kind == LINK:
            links += 1
            if links > LINKS_MAX:
                raise Damaged("%s: more than %d links" % (shown(path), LINKS_MAX))
            target = await fs.target(node)
            if target[:1] == b"/":
                folders = folders[:1]
            todo = _parts(target) + todo
        elif node.kind == FOLDER:
            folders.append(node)
        elif todo:
            return None
        else:
            return node
    return folders[-1]


def _parts(path):
    return [part for part in path.split(b"/") if part not in (b"", b".")]


async def open_file(fs, path):
    """Return the File at a path. Raises: NotThere; as find()."""
    node = await find(fs, path)
    if node is None:
        raise NotThere("%s: no file %s" % (fs.area.name, shown(path)))
    if node.kind != FILE:
        raise NotThere("%s: %s is no file" % (fs.area.name, shown(path)))
    return await fs.file(node, "%s:%s" % (fs.area.name, shown(path)))


async def exists(fs, path):
    """Tell whether there is a file at a path. Raises: as find()."""
    node = await find(fs, path)
    return node is not None and node.kind == FILE


async def names(fs, path):
    """Return the names in a folder, in the order of their bytes; none where there is no folder.

    Raises: as find(); Damaged where there are too many.
    """
    node = await find(fs, path)
    if node is None or node.kind != FOLDER:
        return []
    return sorted(await fs.names(node))
