"""`pvdump enable FILE`: has the panic of a PVH guest end in a dump, by a line in its xl.cfg.

Called by the command line, as root in dom0. The rules: it says what it will change and asks; a copy
of the file as it was is kept beside it; it refuses while pvdumpd does not run, since a guest that
is preserved and not seen to would keep its memory for ever.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pvfw.errors import DumpError

from ..arguments import file_name
from ..guest import steps, textfile
from ..guest.doctor import require_root
from ..guest.setup import ask as ask_person
from ..streams import tell
from ..watches.server import StatusError, ask
from . import guestfiles, xlcfg
from .command import RUN, SOCKET, START
from .configuration import PRESERVE
from .status import Status

KEPT = ".before-pvdump"
SETTING = "on_soft_reset"
DESCRIPTION = """\
Have the panic of a PVH guest end in a dump: write on_soft_reset="preserve" into the file that it is
created from. Says what it will do and asks; a copy of the file is kept."""
EPILOG = """\
xl takes the line when the guest is created the next time. docs/dom0.md has what follows a panic."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("file", type=file_name, metavar="GUEST.cfg")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code. Raises DumpError, OSError."""
    require_root("enable")
    try:
        ask(RUN / "daemon" / SOCKET, Status)
    except StatusError as error:
        raise DumpError(f"pvdumpd does not answer ({error}): {START}") from None
    path = options.file.resolve()
    try:
        text = guestfiles.text(path)
        found = xlcfg.settings(text)
        after = xlcfg.changed(text, SETTING, PRESERVE)
    except xlcfg.BadFile as error:
        raise DumpError(f"{options.file}: {error}") from None
    check(options.file, found)
    if found.get(SETTING) and found[SETTING].value == PRESERVE:
        guestfiles.remember(found["name"].value, path)
        tell("enable", f"{options.file} has the line; nothing is changed")
        return 0
    for line in steps.File(path, after).describe().splitlines():
        tell("enable", f"    {line}")
    if not options.yes:
        ask_person("Do this?")
    keep(path, text)
    textfile.write(path, after)
    guestfiles.remember(found["name"].value, path)
    tell("enable", f"The guest's panics are dumped once it is created anew: xl create {path}")
    return 0


def check(path: Path, found: dict[str, xlcfg.Setting]) -> None:
    """Refuse a guest that the line does not help. Raises DumpError."""
    if "name" not in found:
        raise DumpError(f"{path} has no name: it is no configuration of a guest")
    kind = xlcfg.kind(found)
    if kind == "hvm":
        raise DumpError(f"{path}: an HVM guest needs no line: xl soft resets it by itself")
    if kind != "pvh":
        raise DumpError(f'{path}: a {kind.upper()} guest has no kexec; type = "pvh" is needed')


def keep(path: Path, text: str) -> None:
    """Keep the file as it was, unless an earlier copy is there. Raises StepError, DumpError."""
    copy = path.with_name(path.name + KEPT)
    if copy.exists():
        raise DumpError(f"{copy} is there already: move it away first")
    textfile.write(copy, text, like=path)
