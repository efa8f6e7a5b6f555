"""`pvdump test`: arm, and verify all of the way of a dump that can be verified without a panic.

Called by the command line. The rules: each check looks at the thing itself, not at what arm meant
to do; one that lockdown does not let happen is said to be skipped. With --crash the kernel panics,
after a question; whether a dump came of it is settled after the reboot, by collect or by --result.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pvfw.errors import DumpError
from pvfw.superblock import MIB

from ..arguments import file_name
from ..guest import crashtest, record
from ..streams import complain, tell
from . import arming, estimate, kexec, loaded, memory, settings, targets
from . import image as images
from .arming import ArmError

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
SYSRQ = Path("proc/sysrq-trigger")

DESCRIPTION = """\
Arm, then verify all that can be verified without a panic: a line for each check, with what to do
where it failed. As root."""
EPILOG = """\
--crash panics the guest, as a real crash does, after the same checks and a question. Programs are
not ended and files are not closed: what is not saved is lost. After the reboot the dump is
collected, and `pvdump test --result` says whether the whole way worked.

exit codes: 0 all checks are ok, or skipped with the reason; 1 one failed. --result: 0 the last test
made a dump; 1 it did not, or there was none."""


class Check(NamedTuple):
    """What came of one check.

    Attributes:
        name: of what was looked at.
        state: OK, FAILED or SKIPPED.
        line: what was seen.
        mend: what to do where it failed.
    """

    name: str
    state: str
    line: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.state:8}{self.name}: {self.line}{self.mend and '; '}{self.mend}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--crash", action="store_true", help="then panic the guest, after a question")
    way.add_argument("--result", action="store_true", help="tell what came of the last --crash")
    parser.add_argument("--yes", action="store_true", help="with --crash: do not ask")
    parser.add_argument(
        "--image", type=file_name, metavar="FILE", help="the image (default: the installed one)"
    )
    settings.add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    root = record.ROOT
    if options.yes and not options.crash:
        complain("test", "--yes goes with --crash; see pvdump test --help")
        return 2
    if options.result:
        ok, line = crashtest.result(root)
        tell("test", line)
        return 0 if ok else 1
    wanted = settings.settled(options)
    checks = []
    with arming.locked(root):
        for check in verified(wanted, options.image or images.find(), root):
            tell("test", str(check))
            checks.append(check)
        failed = any(check.state == FAILED for check in checks)
        crashtest.save(root, not failed, [check._asdict() for check in checks])
    if failed:
        return 1
    return _crash(root, options.yes) if options.crash else 0


def verified(wanted: dict[str, Any], image: Path, root: Path) -> Iterator[Check]:
    """Arm, and give what comes of each check, as soon as it is there."""
    try:
        armed = arming.arm(wanted, image, root)
    except DumpError as error:
        yield Check("armed", FAILED, str(error), "`pvdump doctor` says more")
        return
    yield Check("armed", OK, f"{armed['image']} is loaded, by {armed['call']}")
    yield _look("configuration", lambda: _configuration(armed, root), "`pvdump arm`")
    yield from _targets(armed, root)
    yield from _region(armed, root)
    yield _room(armed)


def _look(name: str, look: Callable[[], str], mend: str) -> Check:
    """Make a check of a function that returns what it saw, or raises DumpError."""
    try:
        return Check(name, OK, look())
    except loaded.NotThere as error:
        return Check(name, FAILED, str(error), mend)
    except memory.MemoryUnknown as error:
        return Check(name, SKIPPED, str(error))
    except DumpError as error:
        return Check(name, FAILED, str(error), mend)


def _configuration(armed: dict[str, Any], root: Path) -> str:
    """Read the configuration back, as the image will."""
    made = arming.loaded_configuration(armed, root)
    if made.release != os.uname().release:
        raise ArmError(f"it is for the kernel {made.release}")
    if not made.facts:
        return "read back, without facts: this kernel has no BTF, more pages are kept"
    return f"read back, with {len(made.facts)} facts of the kernel {made.release}"


def _targets(armed: dict[str, Any], root: Path) -> Iterator[Check]:
    """Read the superblock of each target, as the image will."""
    if not armed["targets"]:
        yield Check("target", OK, "none: the log goes to console and xenstore")
        return
    made = arming.loaded_configuration(armed, root)
    for each, target in zip(armed["targets"], made.targets):
        name = each["name"]

        def look(name: str = name, target: Any = target) -> str:
            room = targets.hold(settings.target(name), target)
            parts = "" if target.extents is None else f" through {len(target.extents)} extents"
            return f"ready, read from disk {target.name}{parts}; room {room / MIB:.0f} MiB"

        yield _look(f"target {name}", look, "`pvdump arm`, or prepare it anew")


def _region(armed: dict[str, Any], root: Path) -> Iterator[Check]:
    """Compare what stands in the memory of the crash kernel."""
    try:
        region = loaded.Region(root)
    except memory.MemoryUnknown as error:
        yield Check("memory of the crash kernel", SKIPPED, str(error))
        return

    def image() -> str:
        region.check_image(images.read(Path(armed["image"])))
        return "as in its file, byte for byte"

    def configuration() -> str:
        region.check_configuration((root / arming.CONFIGURATION).read_bytes())
        return "as in its file, byte for byte"

    def ranges() -> str:
        region.check_memory()
        size = sum(end - begin for begin, end in region.ranges.dumped())
        return f"all {size / MIB:.0f} MiB of the guest's memory are listed"

    mend = "something else loads crash kernels, such as kdump-tools: `pvdump doctor`"
    yield _look("image in memory", image, mend)
    yield _look("configuration in memory", configuration, mend)
    yield _look("list of memory", ranges, "`pvdump arm`")


def _room(armed: dict[str, Any]) -> Check:
    """Hold the estimate against the room of the targets."""
    expected = armed["estimate"]
    if expected is None:
        return Check("room", SKIPPED, "the kernel does not tell of its pages")
    if problem := arming.room_problem(armed):
        # setup leaves a target that there is as it is.
        mend = "a higher level, or a larger target: `pvdump remove && pvdump setup`"
        return Check("room", FAILED, problem, mend)
    level = estimate.level_name(armed["level"])
    return Check("room", OK, f"a dump of level {level} would take {expected / MIB:.1f} MiB now")


def _crash(root: Path, yes: bool) -> int:
    """Panic the kernel. Returns only if it was not to be, or does not panic."""
    if not yes and not _confirmed():
        complain("test", "nothing was done")
        return 1
    if not kexec.state(root).loaded:
        raise ArmError("the image was unloaded meanwhile: nothing was done")
    crashtest.begin(root)
    tell("test", "panicking now")
    os.sync()
    (root / SYSRQ).write_text("c")
    raise ArmError("the kernel did not panic")


def _confirmed() -> bool:
    """Ask on the terminal."""
    if not sys.stdin.isatty():
        raise ArmError("--crash asks on a terminal: say --yes where there is none")
    print("The kernel of this guest panics now: programs are not ended, what is not saved is lost.")
    print("It dumps, restarts, and the dump is collected; `pvdump test --result` tells then.")
    print("Panic now? Type yes: ", end="", flush=True)
    return sys.stdin.readline().strip() == "yes"
