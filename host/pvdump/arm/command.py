"""`pvdump arm`: make the configuration of the dump image, and the command that loads both.

Called by the command line, in the guest. The rules: nothing of the system is changed, but one new
file is made, and targets in files, partitions and swap get a nonce; a target that would be refused
when the kernel has crashed is refused now.
"""

from __future__ import annotations

import argparse
import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from pvfw import config
from pvfw.errors import DumpError

from ..arguments import file_name
from ..dump import disk as disks
from ..streams import complain, tell
from . import blob, btf, layout, settings, targets

DEVICES = Path("/dev")
IMAGE = Path("/boot/pvdump.bin")
NEW = ".pvdump-new"  # ends the name of what is to take another file's place

DESCRIPTION = """\
Make the configuration of the crash kernel, for the kernel that runs now, and print the command that
loads both. Nothing is loaded."""
EPILOG = """\
The file holds a secret (a nonce): it is made with mode 0600, and belongs to this boot of this
kernel. The printed command has the disks on the command line, too, for the case that the
configuration is damaged when the kernel crashes; not so where a target is a file:, which only the
configuration can describe. Such a target belongs to the newest configuration: load it at once."""


class ArmError(DumpError):
    """The configuration cannot be made; the message says why."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "--print", action="store_true", required=True, help="print the command, load nothing"
    )
    parser.add_argument(
        "--out", type=file_name, required=True, metavar="FILE", help="the configuration to make"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE")
    parser.add_argument(
        "--image",
        type=file_name,
        default=IMAGE,
        metavar="FILE",
        help=f"the image (default: {IMAGE})",
    )
    settings.add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    wanted = settings.settled(options)
    made = configure(wanted)
    save(options.out, blob.encode(made), options.force)
    # Last, since what was armed before is void from here on.
    targets.stamp(wanted["targets"], made.targets)
    tell("arm", command(options.image, options.out, made))
    return 0


def configure(wanted: dict[str, Any]) -> config.Config:
    """Make the configuration for the kernel that runs.

    Args:
        wanted: the value of each of settings.SETTINGS.

    Raises:
        DumpError: a target would be refused, or what the kernel says of itself cannot be used.
    """
    made = config.Config()
    made.release = os.uname().release
    made.targets = [targets.made(each, wanted["level"], DEVICES) for each in wanted["targets"]]
    made.level = wanted["level"]
    made.algorithm, made.compression = wanted["compress"], wanted["compress_level"]
    made.then = wanted["then"]
    made.recipients = wanted["recipients"]
    made.log_clear = wanted["log"] is not None
    made.nonce = os.urandom(config.NONCE_SIZE)
    try:
        made.facts = layout.facts(btf.read(btf.SYSTEM, layout.NAMES))
    except FileNotFoundError:
        complain(
            "arm",
            f"this kernel has no {btf.SYSTEM}: only what VMCOREINFO is sufficient for is left out",
        )
    return made


def command(image: Path, out: Path, made: config.Config) -> str:
    """Return the command that loads the image with its configuration."""
    words = []
    # A command line cannot say extents, and what it says counts before the configuration.
    if made.targets and all(target.extents is None for target in made.targets):
        words.append("pvdump.disk=" + ",".join(target.name for target in made.targets))
    if made.recipients:
        words.append("pvdump.recipients=required")
    if made.then is not None:
        words.append(f"pvdump.then={made.then}")
    # Absolute, but with the links that the person named.
    image, out = (Path(os.path.abspath(path)) for path in (image, out))  # noqa: PTH100
    options = [f"--initrd={out}"]
    if words:
        options.append(f"--command-line={' '.join(words)}")
    return shlex.join(["kexec", "-p", "-s", str(image), *options])


def save(path: Path, content: bytes, force: bool) -> None:
    """Write the configuration to a file of its own, readable by its owner alone.

    Args:
        path: must not exist.
        force: whether it may, and is replaced in one step.

    Raises:
        ArmError: it exists, or cannot be written.
    """
    disks.refuse_dev(path)
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
