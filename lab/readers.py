"""Programs that read vmcores: makedumpfile, crash and pykdumpfile of trixie, unpacked packages.

Used by the tests and the demo. The rule: they run on any host, with the linker and libraries they
were built for (ld-linux --library-path). Those of bookworm misread recent kernels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from lab import LabError, packages
from lab.root import Root, run
from tools.progress import NULL, Display

# Arguments: the vmcore; frames stand on standard input, as JSON. Prints a list, as JSON.
PAGES = """\
import hashlib, json, sys
from kdumpfile import KDUMP_MACHPHYSADDR, kdumpfile
from kdumpfile.exceptions import NoDataException

def digest(frame):
    try:
        page = core.read(KDUMP_MACHPHYSADDR, frame * 4096, 4096)
    except NoDataException:
        return None
    return hashlib.sha256(page).hexdigest()

core = kdumpfile(file=sys.argv[1])
print(json.dumps([core.attr["file.format"], *map(digest, json.load(sys.stdin))]))
"""


def makedumpfile(*arguments: str | Path, progress: Display = NULL) -> str:
    """Run makedumpfile and return its output. Raises LabError when it fails."""
    return _run(packages.readers(progress), "/usr/bin/makedumpfile", arguments, "")


def dmesg(vmcore: Path, out: Path, progress: Display = NULL) -> str:
    """Return the kernel log in a vmcore, as makedumpfile --dump-dmesg extracts it.

    Args:
        vmcore: The dump.
        out: File that makedumpfile writes; an older one is replaced.
        progress: Shows the download, if there is one.

    Raises:
        LabError: makedumpfile fails.
    """
    out.unlink(missing_ok=True)
    makedumpfile("--dump-dmesg", vmcore, out, progress=progress)
    return out.read_text(errors="replace")


def crash(vmlinux: Path, vmcore: Path, *commands: str, progress: Display = NULL) -> str:
    """Run commands (such as "bt", "ps") in crash and return its output.

    Raises:
        LabError: crash fails.
    """
    script = "".join(f"{command}\n" for command in (*commands, "quit"))
    return _run(packages.readers(progress), "/usr/bin/crash", ("-s", vmlinux, vmcore), script)


def kdumpfile(
    vmcore: Path, frames: Iterable[int], progress: Display = NULL
) -> tuple[str, list[str | None]]:
    """Read pages by their physical addresses, as pykdumpfile does.

    Args:
        vmcore: The dump.
        frames: Numbers of the pages.
        progress: Shows the download, if there is one.

    Returns:
        What it takes the dump for (elf, diskdump); the SHA-256 of each page, hexadecimal, None of
        one that the dump does not have.

    Raises:
        LabError: it fails.
    """
    arguments = ("-c", PAGES, vmcore)
    root = packages.kdumpfile(progress)
    kind, *pages = json.loads(_run(root, "/usr/bin/python3", arguments, json.dumps([*frames])))
    return kind, pages


def _run(root: Root, program: str, arguments: tuple[str | Path, ...], given: str) -> str:
    done = run(root, program, *map(str, arguments), given=given)
    if done.returncode:
        words = " ".join(str(word) for word in arguments)
        tail = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise LabError(f"{Path(program).name} {words}: exit {done.returncode}\n{tail}")
    return done.stdout
