"""Runs tools.sh, a script of xenstore-utils' commands, against our server on this host."""

import subprocess
from pathlib import Path

from lab import packages
from lab.root import LINKER, Root
from pvdump.xenstored.server import Xenstored

SCRIPT = Path(__file__).with_name("tools.sh")
EXPECTED = Path(__file__).with_name("tools.out")
TOOLS = ("chmod", "exists", "list", "ls", "read", "rm", "watch", "write")


def server():
    """With what a toolstack has made for domain 0."""
    server = Xenstored()
    server.write("/local/domain/0", "")
    return server


def run(socket, folder, suite="bookworm"):
    """What the script writes with the tools of a Debian release on the server at `socket`."""
    root = Root(packages.suite(suite).unpack(("xenstore-utils", "busybox-static")))
    bin = folder / "bin"
    bin.mkdir()
    for name in TOOLS:
        program = f"/usr/bin/xenstore-{name}"
        folders = {str(path.parent) for path in root.libraries([program]).values()}
        linker = f"{root.find(LINKER)} --library-path {':'.join(sorted(folders))}"
        wrapper = bin / f"xenstore-{name}"
        wrapper.write_text(f'#!/bin/sh\nexec {linker} {root.path}{program} "$@"\n')
        wrapper.chmod(0o755)
    done = subprocess.run(
        [str(root.find("/bin/busybox")), "sh", str(SCRIPT)],
        env={"PATH": f"{bin}:/usr/bin:/bin", "XENSTORED_PATH": str(socket)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=300,
    )
    return done.stdout
