"""Chromium without a window, run from the unpacked package: it renders a page for a test.

The rule: it runs on any host, with the linker and libraries it was built for. It looks for its
files beside the running program, which is the linker; so a copy of that stands among links to them.
Its other processes are started by a script that does the same.
Source: Chromium content/public/common/content_switches.cc, headless/app/.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from lab import WAIT_SECONDS, LabError, LabTimeout, packages
from lab.root import LINKER, Root
from tools.progress import NULL, Display

PROGRAM = "/usr/lib/chromium/chromium-headless-shell"
OPTIONS = (
    *("--no-zygote", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-crash-reporter", "--disable-background-networking", "--hide-scrollbars"),
    "--allow-file-access-from-files",  # a page beside another one may look into it
)
FONTS = """\
<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir>
<alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
<alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
</fontconfig>
"""


def dom(page: Path, progress: Display = NULL) -> str:
    """Return the HTML of a page as it is once its scripts have run.

    Raises:
        LabError, LabTimeout: Chromium fails, or does not end.
    """
    return _run(progress, page, "--dump-dom", "--virtual-time-budget=10000")


def screenshot(page: Path, out: Path, width: int, height: int, progress: Display = NULL) -> None:
    """Write what a window of so many pixels shows, as PNG. Raises: as dom()."""
    _run(progress, page, f"--screenshot={out}", f"--window-size={width},{height}")


def requests(page: Path, progress: Display = NULL) -> list[str]:
    """Return the addresses that a page has Chromium ask the network for. Raises: as dom()."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "net.json")
        _run(progress, page, "--dump-dom", f"--log-net-log={log}")
        told: dict[str, Any] = json.loads(log.read_text(encoding="utf-8"))
    named = (each.get("params", {}).get("url") for each in told["events"])
    return sorted({url for url in named if url})


def _run(progress: Display, page: Path, *options: str) -> str:
    root = packages.browser(progress)
    program = root.find(PROGRAM)
    folders = dict.fromkeys(str(path.parent) for path in root.libraries([PROGRAM]).values())
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        start = [str(_place(root, home / "program")), "--library-path", ":".join(folders)]
        start.append(str(program))
        other = home / "other"
        other.write_text(f'#!/bin/sh\nexec {shlex.join(start)} "$@"\n')
        other.chmod(0o755)
        fonts = home / "fonts.conf"
        fonts.write_text(FONTS.format(fonts=root.find("/usr/share/fonts"), cache=home / "fonts"))
        words = [*start, *OPTIONS, f"--browser-subprocess-path={other}"]
        words += [f"--user-data-dir={home}/data", *options, page.absolute().as_uri()]
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=WAIT_SECONDS,
                env={
                    "PATH": os.environ.get("PATH", ""),
                    "HOME": name,
                    "FONTCONFIG_FILE": str(fonts),
                },
            )
        except subprocess.TimeoutExpired:
            raise LabTimeout(f"{PROGRAM}: no end after {WAIT_SECONDS:g} s") from None
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise LabError(f"{PROGRAM}: exit {done.returncode}\n{tail}")
    return done.stdout


def _place(root: Root, folder: Path) -> Path:
    """Fill a folder that the program takes for its own. Returns the linker there."""
    folder.mkdir()
    for path in root.find(PROGRAM).parent.iterdir():
        (folder / path.name).symlink_to(path)
    linker = folder / Path(LINKER).name
    shutil.copy(root.find(LINKER), linker)
    return linker
