"""`pvdump doctor` in dom0: whether a panic of its guests ends in a dump, as far as dom0 decides.

Called by guest/doctor.py. Nothing is changed. What a guest itself needs, it says in the guest.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..streams import pasted
from ..watches.server import StatusError, ask
from . import guestfiles, xlcfg
from .command import RUN, SOCKET, START
from .configuration import PRESERVE
from .enable import SETTING
from .status import Status

DEFAULT = "soft-reset"  # of on_soft_reset


class Seen(NamedTuple):
    """What was seen, and what mends it.

    Attributes:
        good: there is nothing to mend.
        what: what is seen.
        mend: the line that mends it, else "".
    """

    good: bool
    what: str
    mend: str = ""


def daemon(socket: Path = RUN / "daemon" / SOCKET) -> Seen:
    """Return whether pvdumpd answers."""
    try:
        count = len(ask(socket, Status).guests)
    except StatusError:
        return Seen(False, "pvdumpd does not answer", START)
    return Seen(True, f"pvdumpd runs, and sees {count} guests")


def guests(paths: list[Path]) -> Iterator[Seen]:
    """Give what is to be said of each guest's file."""
    for path in paths:
        found = xlcfg.settings(guestfiles.text(path))
        name, kind = found["name"].value, xlcfg.kind(found)
        value = found[SETTING].value if SETTING in found else DEFAULT
        shown = f"{name} ({kind.upper()}, {path})"
        if kind == "pvh" and value != PRESERVE:
            mend = f"pvdump enable {pasted(path)}"
            yield Seen(False, f'{shown}: {SETTING} is "{value}", so xl destroys it', mend)
        elif kind == "hvm" and value != DEFAULT:
            mend = f'{SETTING} = "{DEFAULT}"    # in that file'
            yield Seen(False, f'{shown}: {SETTING} is "{value}", so no crash kernel starts', mend)
        elif kind in ("pvh", "hvm"):
            yield Seen(True, f"{shown}: its crash kernel starts")
        else:
            yield Seen(True, f"{shown}: a guest of this type has no kexec, and is not dumped")


def report(found: list[Seen]) -> list[str]:
    """Return the lines for a person; what is to be mended comes last."""
    lines = []
    for seen in sorted(found, key=lambda seen: seen.good, reverse=True):
        lines.append(f"{'ok  ' if seen.good else 'NO  '}  {seen.what}")
        if seen.mend:
            lines.append(f"      mend: {seen.mend}")
    return lines


def examine() -> list[Seen]:
    """Return all that is to be said of this dom0."""
    paths = {*guestfiles.lying(), *(p for p in guestfiles.known().values() if p.is_file())}
    return [daemon(), *guests(sorted(paths))]
