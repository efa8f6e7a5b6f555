"""A Linux guest at its prompt: it does what is typed, so that one boot serves any number of tests.

Used by lab.base, which saves a Xen with such a guest. The rule: what a guest has when it boots (its
type, its memory) is the base's; disks, files and what it is to do are a test's own, and come after.
"""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lab import PATIENCE, LabError
from lab.cpio import Cpio
from lab.domain import Domain
from lab.guest import Backend, Disk, Guest, image, xl_disk
from lab.linux import wait_disk

if TYPE_CHECKING:
    from lab.xen import Xen

LOOP = """\
exec 3</dev/hvc0
stty -F /dev/hvc0 -echo
echo lab: prompt
while read -r line <&3; do eval "$line"; done
"""
LONGEST = 4000  # bytes of a line that a terminal takes
BLOCK = 65536  # bytes


def guest(**fields: object) -> Guest:
    """Describe a guest that comes to its prompt; `fields` are a guest's (see docs/lab.md)."""
    return Guest.parse({"name": "prompt", "kernel": "debian", "run": LOOP, **fields})


class Prompt(Domain):
    """A Linux guest that does what it is told; see Domain."""

    @classmethod
    def boot(cls, xen: Xen, spec: Guest, lasting: bool = False) -> Prompt:
        """Boot one and wait for its prompt. lasting: nothing of it stays in the job folder."""
        booted = xen.boot(spec, lasting=lasting)
        domain = cls(xen, booted.guest, booted.domid, {})
        domain.wait_prompt()
        return domain

    def attach(
        self, vdev: str, path: Path, backend: Backend = "blkback", readonly: bool = False
    ) -> None:
        """Give it a disk, a raw file of the host; in the end it has the device /dev/`vdev`."""
        disk = Disk(vdev, file=path, backend=backend, readonly=readonly)
        device = self.xen.attach(path, readonly)
        self.files[vdev] = path
        self.xen.sh(f"xl block-attach {self.domid} {shlex.quote(xl_disk(disk, device))}")

    def detach(self, vdev: str) -> None:
        """Take a disk away."""
        self.xen.sh(f"xl block-detach {self.domid} {vdev}")
        self.xen.detach(self.files.pop(vdev))

    def bring(self, vdev: str, files: Mapping[str, str | Path]) -> None:
        """Put files of the host (or `image-bin`) into it, through the end of a disk that it has.

        What is there is put back, and the disk has not been written to by the guest.
        vdev: the disk. files: name in the guest: file of the host.
        """
        archive = io.BytesIO()
        cpio = Cpio(archive)
        for name, path in files.items():
            cpio.file(name, image(str(path)).read_bytes())
        cpio.close()
        size = -(-archive.tell() // BLOCK)
        with self.files[vdev].open("r+b") as disk:
            place = disk.seek(0, io.SEEK_END) // BLOCK - size
            disk.seek(place * BLOCK)
            before = disk.read(size * BLOCK)
            try:
                write(disk, place, archive.getvalue())
                last = list(files)[-1]
                self.type(
                    f"{wait_disk(vdev)}; "
                    f"dd if=/dev/{vdev} bs={BLOCK} skip={place} count={size} iflag=direct "
                    f"2>/dev/null | (cd / && cpio -idu 2>/dev/null && [ -e {shlex.quote(last)} ])"
                    "; echo lab: files $?"
                )
                self.wait_console("^lab: files 0$")
            finally:
                write(disk, place, before)

    def run(self, script: str) -> None:
        """Have it run lines for sh in place of its prompt; then it powers off."""
        code = base64.b64encode(script.encode()).decode()
        line = f"echo {code} | base64 -d >/lab/run; exec sh /lab/run"
        if len(line) > LONGEST:
            raise LabError(f"run: {len(script)} bytes are too many for a line; bring() a file")
        self.type(line)

    def wait_prompt(self, timeout: float = PATIENCE) -> None:
        """Wait until it takes lines."""
        self.wait_console("^lab: prompt$", timeout)


def write(disk: BinaryIO, place: int, data: bytes) -> None:
    disk.seek(place * BLOCK)
    disk.write(data)
    disk.flush()
