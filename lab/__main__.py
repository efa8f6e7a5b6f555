"""`./build.py lab GUEST.yaml... SCRIPT.py...`: start guests on a real Xen and show their consoles.

The rule: every line begins with its source ("xen", "dom0", a guest's name). The command ends when
the last guest has ended, or with Ctrl-C. Lines typed in are run in dom0 as shell commands,
"xl list" for example.
"""

from __future__ import annotations

import argparse
import queue
import sys
import threading
from pathlib import Path

from lab import LabError, linux, packages, scripts
from lab.domain import Domain
from lab.guest import ROOT, Guest
from lab.xen import XENSTOREDS, Xen
from tools import Trouble, image
from tools.progress import display

LOOK_EVERY = 0.2  # s
WIDTH = 18


class Follower:
    """A follower prints the new lines of a file, each after a label."""

    def __init__(self, label: str, path: Path) -> None:
        self.label, self.path = label, path
        self.place = 0
        self.rest = ""

    def show(self, last: bool = False) -> None:
        """Print the lines that are complete; if `last`, also one that has no end yet."""
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            stream.seek(self.place)
            data = stream.read()
        self.place += len(data)
        *lines, self.rest = (self.rest + data.decode(errors="replace")).split("\n")
        if last and self.rest:
            lines, self.rest = [*lines, self.rest], ""
        for line in lines:
            say(self.label, line.rstrip("\r"))


def say(label: str, text: str) -> None:
    """Print a line after a label."""
    print(f"{label:<{WIDTH}} | {text}", flush=True)


def main() -> int:
    """Run the command; returns its exit code. Raises LabError."""
    parser = argparse.ArgumentParser(prog="build.py lab", description=__doc__.split("\n")[0])
    parser.add_argument(
        "guests",
        type=Path,
        nargs="+",
        metavar="GUEST.yaml|SCRIPT.py",
        help="a guest, or a Python script that pvboot runs as a guest",
    )
    parser.add_argument(
        "--firmware", action="store_true", help="scripts: in hvmloader's place (default: PVH)"
    )
    parser.add_argument(
        "--with",
        dest="imports",
        type=Path,
        action="append",
        default=[],
        metavar="FILE|FOLDER",
        help="scripts: a module or package that they import",
    )
    parser.add_argument(
        "--disk",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="scripts: a disk of the first one, as xvdb, xvdc ... (default: an empty one)",
    )
    parser.add_argument("--suite", default="bookworm", choices=packages.SUITES)
    parser.add_argument("--xenstored", default="oxenstored", choices=XENSTOREDS)
    parser.add_argument("--keep", action="store_true", help="go on when the last guest has ended")
    parser.add_argument(
        "--workdir", type=Path, help="folder for logs and disks (default: none kept)"
    )
    options = parser.parse_args()
    paths = [path for path in options.guests if path.suffix == ".py"]
    if not paths and (options.firmware or options.imports or options.disk):
        parser.error("--firmware, --with and --disk are for scripts")
    made = scripts.guests(paths, options.firmware, options.imports, options.disk)
    guests = made + [Guest.load(path) for path in options.guests if path not in paths]
    if len({guest.name for guest in guests}) != len(guests):
        raise LabError("two of the guests have the same name; a field `name` tells them apart")
    with display() as progress:
        if made:
            image.build(ROOT / "out", progress, config=ROOT / "pvboot.yaml")
        for guest in guests:
            guest.check()
            if guest.linux:  # a program or module that does not exist is found here
                linux.described(options.suite, guest, progress)
        xen = Xen(options.suite, options.xenstored, workdir=options.workdir, progress=progress)
        xen.__enter__()
    try:
        domains = follow(xen, guests, len(made), options.keep)
        ends = [domain.reasons()[-1] for domain in domains[: len(made)]]
    except KeyboardInterrupt:
        say("lab", "interrupted")
        return 0
    finally:
        xen.close()
    return 0 if set(ends) <= {"poweroff", "reboot"} else 1


def follow(xen: Xen, guests: list[Guest], count: int, keep: bool) -> list[Domain]:
    """Start the guests and show all consoles until the guests have ended, or for ever if `keep`.

    Args:
        xen: The Xen.
        guests: The guests.
        count: How many of them, the first ones, are scripts.
        keep: Do not end.

    Returns:
        The guests' domains.
    """
    typed: queue.Queue[str] = queue.Queue()
    if sys.stdin.isatty():
        threading.Thread(target=read_lines, args=(typed,), daemon=True).start()
    logs = xen.job / "log/xen"
    followers = [Follower("xen", xen.workdir / "xen.log")]
    for guest in guests:
        followers.append(Follower(guest.name, logs / f"console/guest-{guest.name}.log"))
        followers.append(Follower(f"{guest.name}/serial", logs / f"serial-{guest.name}.log"))
        followers.append(Follower(f"{guest.name}/xl", logs / f"xl-{guest.name}.log"))
    domains: list[Domain] = []
    for guest in guests:
        domains.append(xen.create(guest))
        say("lab", f"guest {guest.name} is domain {domains[-1].domid}")
    scripts.introduce(domains[:count])
    while keep or not all(domain.ended() for domain in domains):
        for follower in followers:
            follower.show()
        try:
            command = typed.get(timeout=LOOK_EVERY)
        except queue.Empty:
            continue
        for line in xen.sh(command, check=False).splitlines():
            say("dom0", line)
    for follower in followers:
        follower.show(last=True)
    return domains


def read_lines(typed: queue.Queue[str]) -> None:
    """Put each line of the standard input into a queue."""
    for line in sys.stdin:
        if line.strip():
            typed.put(line)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Trouble as trouble:
        sys.exit(f"lab: {trouble}")
