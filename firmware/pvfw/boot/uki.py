"""Unified kernel images: one EFI program that has kernel, initrd and command line as sections.

One of the sources: the files *.efi in /EFI/Linux of any volume. Rules: the sections are used in
place, the program itself is not run; with several profiles the first one counts; signatures for
Secure Boot are not looked at. Where minisign's count, what is said here of a program is said anew
once its content was checked.
Source: UAPI Group, Unified Kernel Image (UAPI.5); Microsoft, PE Format.
"""

import struct

from . import files
from .bls import Item, fill
from .entries import OPTIONS_MAX, Entry, Menu, Place, lines
from .errors import BootError, Damaged, Exhausted, Unsupported
from .nodes import shown

FOLDER = b"/EFI/Linux"
END = b".efi"
HEAD_MAX = 1 << 20
MACHINE = 0x8664
SECTION = "<8sIIII"
SECTION_SIZE = 40
SECTIONS_MAX = 96
OSREL_MAX = 16384


async def look(volumes, notes):
    """Find the entries. Returns: Menu. Raises: Exhausted, XenError."""
    menu = Menu()
    items = []
    for volume in volumes.ordered():
        try:
            names = await files.names(volume.fs, FOLDER)
        except Exhausted:
            raise
        except BootError as e:
            notes.add(str(e))
            continue
        for name in names:
            if not name.lower().endswith(END):
                continue
            path = FOLDER + b"/" + name
            try:
                items.append(await _item(volume, path, name[: -len(END)]))
            except Exhausted:
                raise
            except BootError as e:
                notes.add("UKI %s:%s passed over: %s" % (volume.name, shown(path), e))
    fill(menu, items)
    return menu


async def _item(volume, path, name):
    if volume.trust is not None:
        await volume.trust.signature(volume, path)
    file = await volume.open(path)
    found, kernel, initrds, options = await parts(file)
    release = {}
    if b".osrel" in found:
        release = _release(await _content(file, found[b".osrel"], OSREL_MAX))
    version = release.get(b"IMAGE_VERSION") or release.get(b"VERSION_ID")
    version = version or release.get(b"BUILD_ID", b"")
    if b".uname" in found:
        version = (await _content(file, found[b".uname"], OSREL_MAX)).rstrip(b"\0\n")
    key = release.get(b"IMAGE_ID") or release.get(b"ID", b"")
    item = Item(name, {b"sort-key": key, b"version": version})
    item.entry = Entry(
        "UKI %s:%s" % (volume.name, shown(path)),
        release.get(b"PRETTY_NAME", item.id),
        item.id,
        Place(volume, path, *kernel),
        [Place(volume, path, *each) for each in initrds],
        options,
    )
    item.entry.is_unified = True
    return item


async def parts(file):
    """Return what is booted of a PE program.

    Args:
        file: File, or what has its read() and size.

    Returns: (sections, kernel, initrds, options): sections as sections() has them, of which the
    kernel is one and the initrds are a list; options, bytes. Raises: as sections().
    """
    found = await sections(file)
    if b".linux" not in found:
        raise Unsupported("it has no section .linux")
    options = b""
    if b".cmdline" in found:
        options = (await _content(file, found[b".cmdline"], OPTIONS_MAX)).split(b"\0")[0]
    initrds = [found[each] for each in (b".ucode", b".initrd") if each in found]
    return found, found[b".linux"], initrds, options


async def sections(file):
    """Return the sections of a PE program.

    Args:
        file: File.

    Returns: dict of (offset in the file, bytes) by name, without those that are empty; the first of
    a name counts. Raises: Damaged, Unsupported; as File.read().
    """
    raw = await file.read(0, 64)
    if len(raw) < 64 or raw[:2] != b"MZ":
        raise Unsupported("it is no PE program")
    at = struct.unpack_from("<I", raw, 60)[0]
    if at > HEAD_MAX:
        raise Damaged("its PE header is at %d" % at)
    raw = await file.read(at, 24)
    if len(raw) < 24 or raw[:4] != b"PE\0\0":
        raise Unsupported("it is no PE program")
    machine, count, optional = struct.unpack_from("<HH12xH", raw, 4)
    if machine != MACHINE:
        raise Unsupported("it is for machine 0x%x, not x86-64" % machine)
    if not 0 < count <= SECTIONS_MAX:
        raise Damaged("%d sections, at most %d" % (count, SECTIONS_MAX))
    raw = await file.read(at + 24 + optional, count * SECTION_SIZE)
    if len(raw) < count * SECTION_SIZE:
        raise Damaged("its sections are behind its end")
    found = {}
    here = []
    profiles = 0
    for i in range(count):
        name, size, _, raw_size, offset = struct.unpack_from(SECTION, raw, i * SECTION_SIZE)
        name = name.rstrip(b"\0")
        if name == b".profile":
            profiles += 1
            here = []
        if profiles > 1:
            break
        size = min(size, raw_size) if size else raw_size
        if offset + size > file.size:
            raise Damaged("section %s is behind its end" % shown(name))
        if size and name not in here:
            here.append(name)
            found[name] = (offset, size)
    return found


async def _content(file, section, most):
    offset, size = section
    if size > most:
        raise Damaged("a section of %d bytes, at most %d" % (size, most))
    return await file.read(offset, size)


def _release(raw):
    """Return the fields of an os-release file, a dict of bytes. Source: os-release(5)."""
    found = {}
    for each in lines(raw.rstrip(b"\0")):
        name, _, value = each.partition(b"=")
        if value[:1] in (b'"', b"'") and value[-1:] == value[:1]:
            value = value[1:-1]
        found[name] = value
    return found
