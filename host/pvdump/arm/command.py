"""`pvdump arm`: load the crash kernel for the kernel that runs now, or make what loads it.

Called by the command line, in the guest. The rules: a target that would be refused when the kernel
has crashed is refused now; with --print nothing of the system is changed, but one new file is made,
and targets in files, partitions and swap get a nonce.
"""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pvfw.errors import DumpError

from ..arguments import file_name
from ..dump import newfile
from ..guest import record
from ..streams import complain, tell
from . import arming, blob, configuration, kexec, settings, targets
from . import image as images
from .arming import ArmError

NEW = ".pvdump-new"  # ends the name of what is to take another file's place

DESCRIPTION = """\
Make the configuration of the crash kernel for the kernel that runs now, and load both. As root."""
EPILOG = f"""\
The configuration holds a secret (a nonce): it has mode 0600, and belongs to this boot of this
kernel. Arming anew is always possible; a target in a file, partition or swap belongs to the newest
configuration alone.

--print loads nothing: it prints the command that does. That has the disks on the command line, too,
for the case that the configuration is damaged when the kernel crashes; not so where a target is a
file:, which only the configuration can describe. Load such a configuration at once.

exit codes: 0 armed; 1 refused, with the reason in one line, or with --check also where the room of
the targets is too small. The record of what is armed is /{arming.ARMED}."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--check",
        action="store_true",
        help="arm only if what is armed does not hold any more: the target was moved, memory or "
        "CPUs were added, the image was unloaded, the settings were changed",
    )
    way.add_argument("--print", action="store_true", help="print the command, load nothing")
    parser.add_argument(
        "--out", type=file_name, metavar="FILE", help="with --print: the configuration to make"
    )
    parser.add_argument("--force", action="store_true", help="with --print: replace FILE")
    parser.add_argument(
        "--image",
        type=file_name,
        metavar="FILE",
        help="the image (default: the installed one)",
    )
    settings.add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    if not options.print and (options.out is not None or options.force):
        complain("arm", "--out and --force go with --print; see pvdump arm --help")
        return 2
    if options.print and options.out is None:
        complain("arm", "--print needs --out FILE; see pvdump arm --help")
        return 2
    wanted = settings.settled(options)
    image = options.image or images.find()
    if options.print:
        config = options.config or settings.SYSTEM
        newfile.refuse_input(options.out, [config, image, *map(targets.where, wanted["targets"])])
        return _print(wanted, image, options.out, options.force)
    root = record.ROOT
    with arming.locked(root):
        return _check(wanted, image, root) if options.check else _arm(wanted, image, root)


def _arm(wanted: dict[str, Any], image: Path, root: Path) -> int:
    """Arm, and say what was armed."""
    armed = arming.arm(wanted, image, root)
    names = ", ".join(each["name"] for each in armed["targets"])
    tell("arm", f"armed, {names or 'without a target: the log goes to console and xenstore'}")
    if problem := arming.room_problem(armed):
        complain("arm", problem)
    return 0


def _check(wanted: dict[str, Any], image: Path, root: Path) -> int:
    """Arm anew where what is armed does not hold any more."""
    armed, rooms, why, moved = {}, [], "", ""
    try:
        armed = arming.load_record(root)
    except DumpError as error:
        why = str(error)
    else:
        if not armed:
            raise ArmError("not armed: `pvdump arm`")
        moved = armed.get("refused", "")
        try:
            rooms = arming.verify(armed, root)
            why = moved or arming.outdated(armed, wanted, image)
        except ArmError as error:
            why = str(error)
        except DumpError as error:  # of a target
            why = moved = str(error)
    if why:
        tell("arm", f"arming anew: {why}")
        armed = arming.arm_safely(wanted, image, root) if moved else arming.arm(wanted, image, root)
    else:
        for each, room in zip(armed["targets"], rooms):
            each["room"] = room
        armed["estimate"] = arming.estimated(armed, root)
        arming.save_record(armed, root)
    if problem := arming.room_problem(armed):
        raise ArmError(problem)
    return 0


def _print(wanted: dict[str, Any], image: Path, out: Path, force: bool) -> int:
    """Make a configuration and print the command that loads it."""
    found = [targets.find(each, wanted["level"]) for each in wanted["targets"]]
    made = configuration.make(wanted, found)
    save(out, blob.encode(made), force)
    # Last, since what was armed before is void from here on.
    targets.stamp(found)
    # Absolute, but with the links that the person named.
    image, out = (Path(os.path.abspath(path)) for path in (image, out))  # noqa: PTH100
    tell("arm", kexec.shown(image, out, configuration.cmdline(made)))
    return 0


def save(path: Path, content: bytes, force: bool) -> None:
    """Write the configuration to a file of its own, readable by its owner alone.

    Args:
        path: must not exist.
        force: whether it may, and is replaced in one step.

    Raises:
        ArmError: it exists, or cannot be written.
    """
    newfile.refuse_dev(path)
    if force:
        newfile.refuse_special(path)
    made = path.with_name(path.name + NEW) if force else path
    try:
        fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        what = "is left of a run that was killed: remove it" if force else "exists; see --force"
        raise ArmError(f"{made} {what}") from None
    except OSError as error:
        raise ArmError(f"{made}: {error.strerror}") from error
    try:
        with open(fd, "wb") as stream:  # noqa: PTH123 - a descriptor
            stream.write(content)
            stream.flush()
            os.fsync(fd)
        if force:
            made.replace(path)
    except BaseException as error:
        with suppress(OSError):
            made.unlink()
        if isinstance(error, OSError):
            raise ArmError(f"{path}: {error.strerror}") from error
        raise
