"""`./build.py run`: an image in an embedded domain, its console on the terminal.

Called by build.py. A crash kernel is started with the memory of a crashed Linux and a prepared
disk, a firmware (--check, --shell or a script) with the disk alone; two scripts run in two
domains (partners.py). The rule: nothing of the host is used but the files named and, at a prompt,
the terminal; without a prompt a seed repeats a run.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvdump.script import text
from pvdump.script.text import ScriptError
from tools import Trouble, hwlib, partners, progress, terminal

if TYPE_CHECKING:
    from pvdump.blkback.sink import Sink
    from pvxen.scenario import Scenario

MIB = 1 << 20
RAM = 64  # MiB
DISK = 128 * MIB  # without a file
DUMP, CHECK = "pvdump.disk=xvdb pvdump.then=poweroff", "pvdump.run=check"
SHELL, SCRIPT = "pvdump.run=shell", "pvdump.run=script"
SCRIPT_AT = 16 * MIB
DISKS = "bcdefghijklmnop"  # xvdb, xvdc ...
# SHUTDOWN_* of xen/include/public/sched.h.
REASONS = ("powered off", "reboot", "suspend", "crash", "watchdog", "soft reset")
BY_ITSELF = ("powered off", "reboot")
DESCRIPTION = "Run the image in an embedded domain, with its console on this terminal."


def main(arguments: list[str]) -> int:
    """Build the image and run it in an embedded domain. Returns the exit code."""
    chosen = options(arguments)

    from tools.image import build
    from tools.imageconfig import ROOT

    config = "pvboot.yaml" if chosen.shell or chosen.scripts else "image.yaml"
    with progress.display(sys.stderr) as display:
        built = build(ROOT / "out", progress=display, config=ROOT / config)
    hwlib.install()
    # Emulated code does not come back to Python for a signal. Where nobody reads the console any
    # more, as behind `| head`, the run ends, too.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    elf, flat = built.elf.read_bytes(), built.bin.read_bytes()
    if len(chosen.scripts) > 1:
        return partners.play(chosen, elf, flat)
    return play(chosen, elf, flat)


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ends the program where it is wrong."""
    parser = argparse.ArgumentParser(prog="build.py run", description=DESCRIPTION)
    parser.add_argument(
        "scripts",
        type=Path,
        nargs="*",
        metavar="SCRIPT",
        help="run this Python script by pvboot.elf, then end; two run in two domains, and the node "
        "data/partner of each has the other's number",
    )
    parser.add_argument(
        "--with",
        dest="modules",
        type=Path,
        action="append",
        default=[],
        metavar="FILE|FOLDER",
        help="a module or package that the script imports",
    )
    parser.add_argument(
        "--shell", action="store_true", help="start pvboot.elf with a Python prompt (^] ends)"
    )
    parser.add_argument(
        "--cmdline",
        help=f"command line (default: {DUMP!r}; with --check: {CHECK!r}; with --shell: "
        f"{SHELL!r}; with a script: {SCRIPT!r})",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="start pvdump.elf as a PVH guest's kernel, which tries xenstore and the disks",
    )
    parser.add_argument(
        "--disk",
        type=Path,
        action="append",
        default=[],
        help="file to attach, as xvdb, xvdc ... (default: a prepared disk in memory); a dump is "
        "written to it",
    )
    parser.add_argument("--scenario", type=Path, help="faults: a file of host-tests/scenarios")
    parser.add_argument("--seed", type=int, default=0, help="of what is random (default: 0)")
    chosen = parser.parse_args(arguments)
    if len(chosen.scripts) > 2:
        parser.error(f"{len(chosen.scripts)} scripts; two at most")
    if len(chosen.scripts) > 1 and (chosen.shell or chosen.scenario):
        parser.error("--shell and --scenario are for one domain")
    if chosen.check and (chosen.shell or chosen.scripts):
        parser.error("--check is for pvdump.elf; a prompt and scripts need pvboot.elf")
    if chosen.modules and not chosen.scripts:
        parser.error("--with is for a script")
    return chosen


def play(chosen: argparse.Namespace, elf: bytes, flat: bytes) -> int:
    """Run one image in one domain.

    Returns: the exit status, 0 where the image ended the domain by itself.
    Raises: Trouble for a disk or a scenario that cannot be used.
    """
    from pvxen import crashedmemory
    from pvxen.cpu import CpuError
    from pvxen.guest import EmbeddedGuest
    from pvxen.image import EmbeddedImage
    from pvxen.loader import NotAnImage
    from pvxen.machine import Deadlock

    scenario = load_scenario(chosen.scenario)
    layout = crashedmemory.layout(RAM * MIB)
    is_firmware = chosen.check or chosen.shell or chosen.scripts
    line = chosen.cmdline or default_line(chosen)
    script = load_script(chosen.scripts[0], chosen.modules) if chosen.scripts else b""
    guest_options = firmware_options(line, script)
    if not is_firmware:
        guest_options = layout.options(line)
    guest = EmbeddedGuest(seed=chosen.seed, scenario=scenario, **guest_options)
    guest.machine.ram[SCRIPT_AT : SCRIPT_AT + len(script)] = script
    if not is_firmware:
        crashedmemory.leave(guest.machine, layout)
    for letter, sink in zip(DISKS, sinks(chosen.disk), strict=False):
        guest.disk(f"xvd{letter}", sink)
    image = EmbeddedImage(elf, flat, show)
    try:
        with (
            terminal.keys(guest.machine, lambda keys: image.type(keys))
            if chosen.shell
            else nullcontext()
        ):
            reason = REASONS[image.run(guest, scenario.recovery() if scenario else None)]
    except terminal.Left:
        print("\nthe domain was left", file=sys.stderr)
        return 0
    except (CpuError, Deadlock, NotAnImage) as error:
        raise Trouble(str(error)) from None
    print(f"the domain has ended: {reason}", file=sys.stderr)
    return 0 if reason in BY_ITSELF else 1


def firmware_options(line: str, script: bytes) -> dict[str, Any]:
    """Return the options of an EmbeddedDomain that starts firmware, with a script at SCRIPT_AT."""
    found: dict[str, Any] = {"size": RAM * MIB, "door": "pvh", "cmdline": line.encode()}
    if script:
        found["modules"] = ((SCRIPT_AT, len(script)),)
    return found


def default_line(chosen: argparse.Namespace) -> str:
    """Return the command line where none is given."""
    if chosen.shell or chosen.scripts:
        return SHELL if chosen.shell else SCRIPT
    return CHECK if chosen.check else DUMP


def load_script(path: Path, modules: Sequence[Path]) -> bytes:
    """Return a script with its modules as the image takes it. Raises Trouble."""
    try:
        return text.compose(text.read(path), text.modules(modules), str(path))
    except (OSError, ScriptError) as error:
        raise Trouble(str(error)) from None


def show(part: bytes) -> None:
    """Put a part of the console on the terminal."""
    sys.stdout.write(part.decode("ascii", "replace"))
    sys.stdout.flush()


def load_scenario(path: Path | None) -> Scenario | None:
    """Load the scenario in a file. Raises Trouble."""
    from pvxen.scenario import Scenario, ScenarioError

    if path is None:
        return None
    try:
        return Scenario.load(path)
    except (OSError, ScenarioError) as error:
        raise Trouble(" ".join(str(error).split())) from None


def sinks(paths: list[Path]) -> list[Sink]:
    """Return the disks' data: the files, or one prepared disk in memory. Raises Trouble."""
    from pvdump.blkback.ports import Stalled
    from pvdump.blkback.sink import open_sink
    from pvfw.superblock import Superblock
    from pvxen.sink import Memory

    if len(paths) > len(DISKS):
        raise Trouble(f"--disk: {len(DISKS)} disks at most, {len(paths)} given")
    if not paths:
        disk = Memory(DISK)
        disk.data[:512] = Superblock(bytes(16), DISK).encode()
        return [disk]
    try:
        return [open_sink(str(path.absolute()), False, False) for path in paths]
    except (OSError, Stalled) as error:
        raise Trouble(f"--disk: {error}") from None
