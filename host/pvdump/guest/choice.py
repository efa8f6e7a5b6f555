"""Chooses the target of a guest's dumps: what setup takes, and what else would do.

Used by plan.py. The order: a disk that is prepared already, a file in the folder for dumps, swap.
The rules: nothing is written here; what is chosen is refused now if it would be refused when it is
made; a file never grows, so it has room for one and a half times the estimate, and beside it there
is room for the dump that is collected.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from pvfw import superblock
from pvfw.errors import DumpError

from ..arm import targets
from ..arm.settings import Wanted
from ..dump import disk as disks
from ..dump import prepare, swapspace
from ..dump.disk import MIB, PAGE, DiskError
from ..dump.meter import Meter
from ..place import create, device, filesystem, swap
from ..place.locate import locate
from ..streams import pasted
from . import targetlook, unmake
from .changes import Step
from .steps import Action, folders
from .targetlook import Look

FILE = "pvdump.img"
SPARE = 3, 2  # a target has 3/2 of the estimate
USER_PAGES = 8  # of a level: they are left out


class Choice(NamedTuple):
    """A target.

    Attributes:
        name: as the settings have it.
        what: for a person.
        steps: that make it; none where it is one already.
        swap: whether it is swap.
    """

    name: str
    what: str
    steps: Sequence[Step]
    swap: bool = False


class Wish(NamedTuple):
    """What a target must do.

    Attributes:
        need: bytes that a dump takes, as estimated.
        level: of the dump.
        folder: for dumps.
    """

    need: int
    level: int
    folder: Path


def named(text: str, wish: Wish) -> Choice:
    """Return the target that a person names: file, swap, a device or a file's path.

    Raises:
        DumpError: it cannot be one.
    """
    if text == "file":
        return in_file(wish.folder / FILE, wish)
    if text == "swap":
        choice, reasons = in_swap(wish)
        if choice is None:
            raise DiskError("no swap can be the target: " + "; ".join(reasons or ["there is none"]))
        return choice
    path = Path(text)
    if path.is_block_device() or text.startswith("/dev/"):
        return on_device(path, wish)
    return in_file(path, wish)


def best(wish: Wish) -> tuple[Optional[Choice], list[str]]:
    """Return the best target that there is.

    Returns:
        None where none is possible; why the better ones are not.
    """
    if (choice := prepared()) is not None:
        return choice, []
    try:
        return in_file(wish.folder / FILE, wish), []
    except DumpError as error:
        reasons = [f"a file: {error}"]
    choice, more = in_swap(wish)
    return choice, reasons + [f"swap: {each}" for each in more or ["there is none"]]


def prepared() -> Optional[Choice]:
    """Return the first PV disk that is a target and waits for a dump."""
    for path in sorted(targets.DEVICES.glob("xvd*")):
        try:
            vbd = _whole_disk(path)
            with disks.reading(path) as disk:
                block = disk.superblock()
                is_swap = swapspace.is_swap(disk.read(0, PAGE))
        except (DumpError, OSError):
            continue
        if vbd is not None and not is_swap and block.state == superblock.READY:
            room = block.room() // MIB
            return Choice(vbd.name, f"the disk {vbd.name}, which is prepared: {room} MiB", [])
    return None


def in_file(path: Path, wish: Wish) -> Choice:
    """Return a target that is a file, new or one of ours.

    Raises:
        DumpError: its file system or disk is not of the kind, or has no room.
    """
    name = f"file:{path}"
    if disks.exists(path):
        look = targetlook.look(Wanted("", None, path), wish.level)
        if look.error:
            raise DiskError(look.error)
        return Choice(name, f"the file {path}, which is a target: {_mib(look)} MiB", [])
    there = next(each for each in path.absolute().parents if each.is_dir())
    create.check_folder(there)
    size = file_size(wish.need)
    status = os.statvfs(there)
    free = status.f_bavail * status.f_frsize
    if free < size + wish.need:
        raise DiskError(
            f"{there} has {free // MIB} MiB free; a target of {size // MIB} MiB and a collected "
            f"dump of {-(-wish.need // MIB)} MiB are to fit"
        )

    def make() -> None:
        with Meter() as meter:
            create.file(path, size, meter)

    what = f"the file {path}, {size // MIB} MiB"
    made = Action(f"make {what}", make, {"kind": "target-file", "key": str(path)})
    return Choice(name, what, [*folders(path, 0o700), made])


def file_size(need: int) -> int:
    """Return the bytes of a target for dumps of that size, whole MiB."""
    size = need * SPARE[0] // SPARE[1] + superblock.DATA_OFFSET + superblock.COPY_SIZE
    return max(2, -(-size // MIB)) * MIB


def in_swap(wish: Wish) -> tuple[Optional[Choice], list[str]]:
    """Return the first swap space that can be a target, else None and why each cannot."""
    reasons = []
    for path in _swaps():
        try:
            return on_swap(path, wish), []
        except DumpError as error:
            reasons.append(str(error))
    return None, reasons


def on_swap(path: Path, wish: Wish) -> Choice:
    """Return a target that is swap space.

    Raises:
        DumpError: it cannot be one.
    """
    if not wish.level & USER_PAGES:
        raise DiskError(f"{path} is swap, and level {wish.level} keeps user pages: a level with 8")
    place = locate(path)
    if not place.swap:
        raise DiskError(f"{path} is no swap space: mkswap {pasted(path)}")
    if place.size < wish.need + superblock.DATA_OFFSET:
        raise DiskError(
            f"{path} has {place.size // MIB} MiB; a dump takes about {-(-wish.need // MIB)} MiB"
        )
    look = targetlook.look(Wanted("", None, path), wish.level)
    what = f"the swap space {path}, {place.size // MIB} MiB; a dump destroys what is swapped out"
    if not look.error:
        return Choice(f"file:{path}", what, [], True)

    def take() -> None:
        with unmake.unused(path):
            create.take_swap(path, False)

    made = Action(f"take {what}", take, {"kind": "target-swap", "key": str(path)})
    return Choice(f"file:{path}", what, [made], True)


def on_device(path: Path, wish: Wish) -> Choice:
    """Return a target that is a disk, a partition or a volume.

    Raises:
        DumpError: it cannot be one.
    """
    with disks.reading(path) as disk:
        if swapspace.is_swap(disk.read(0, PAGE)):
            return on_swap(path, wish)
    whole = _whole_disk(path)
    wanted = Wanted(whole.name, None) if whole else Wanted("", None, path)
    name = whole.name if whole else f"file:{path}"
    look = targetlook.look(wanted, wish.level)
    if not look.error:
        return Choice(name, f"{path}, which is prepared: {_mib(look)} MiB", [])
    if look.dump:
        raise DiskError(look.error)
    size = _size(path)
    if size < wish.need + 2 * superblock.DATA_OFFSET:
        raise DiskError(
            f"{path} has {size // MIB} MiB; a dump takes about {-(-wish.need // MIB)} MiB"
        )

    def make() -> None:
        with Meter() as meter:
            prepare.prepare(path, progress=meter)

    what = f"{path}, {size // MIB} MiB, if it is empty"
    made = Action(f"prepare {what}", make, {"kind": "target-device", "key": str(path)})
    return Choice(name, what, [made])


def elsewhere(wish: Wish) -> list[Path]:
    """Return the files elsewhere that could be the target: on mounted ext4 or xfs with room."""
    found = []
    for folder in _mounts():
        try:
            in_file(folder / FILE, wish)
        except (DumpError, OSError):
            continue
        found.append(folder / FILE)
    return found


def _whole_disk(path: Path) -> Optional[device.Vbd]:
    """Return the PV disk that a device is the whole of, None where it is a part of one."""
    (span, *more) = device.spans(path.stat().st_rdev, 0, PAGE)
    if not more and span.disk.node == path.resolve() and span.offset == 0:
        return span.disk
    return None


def _mib(look: Look) -> int:
    return (look.room or 0) // MIB


def _size(path: Path) -> int:
    with disks.reading(path) as disk:
        return disk.size


def _swaps() -> Iterable[Path]:
    try:
        lines = swap.SWAPS.read_text(errors="replace").splitlines()[1:]
    except OSError:
        return []
    return [Path(filesystem.unescaped(line.split()[0])) for line in lines if line.split()]


def _mounts() -> Iterable[Path]:
    """Return the folders where ext4 or xfs is mounted to be written, each file system once."""
    found: dict[str, Path] = {}
    for line in filesystem.MOUNTS.read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        words, more = fields.split(), rest.split()
        if len(words) > 5 and more and more[0] in ("ext4", "xfs") and "rw" in words[5].split(","):
            found.setdefault(words[2], Path(filesystem.unescaped(words[4])))
    return found.values()
