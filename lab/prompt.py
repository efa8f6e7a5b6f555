"""A Linux guest at its prompt: it runs the lines typed in, so that one boot serves many tests.

Used by lab.base, which saves a Xen with such a guest. The rule: type and memory of the guest belong
to the base; disks, files and commands belong to a test, and are added after the restore.
"""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lab import WAIT_SECONDS, LabError
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
    """Return a guest that waits at a prompt; `fields` are those of docs/lab.md. Raises LabError."""
    return Guest.parse({"name": "prompt", "kernel": "debian", "run": LOOP, **fields})


class Prompt(Domain):
    """A Prompt is a Linux guest that runs the lines typed at its console; see Domain."""

    @classmethod
    def boot(cls, xen: Xen, spec: Guest, lasting: bool = False) -> Prompt:
        """Boot such a guest and wait for its prompt.

        Args:
            xen: The Xen to boot it on.
            spec: A guest of guest().
            lasting: Keep none of its files in the job folder.
        """
        booted = xen.boot(spec, lasting=lasting)
        domain = cls(xen, booted.guest, booted.domid, {})
        domain.wait_prompt()
        return domain

    def attach(
        self,
        vdev: str,
        path: Path,
        backend: Backend = "blkback",
        readonly: bool = False,
        emulated: bool = True,
    ) -> None:
        """Attach a disk, which appears in the guest as /dev/`vdev`.

        Args:
            vdev: The disk's name in the guest.
            path: Raw file of the host.
            backend: The backend in dom0.
            readonly: The guest may not write to it.
            emulated: libxl may have QEMU emulate it as well (HVM). After a soft reset QEMU then
                reads it before the guest runs. libxl emulates no disk that has a script.
        """
        disk = Disk(vdev, file=path, backend=backend, readonly=readonly)
        device = self.xen.attach(path, readonly)
        self.files[vdev] = path
        spec = ("" if emulated else "script=block,") + xl_disk(disk, device)
        self.xen.sh(f"xl block-attach {self.domid} {shlex.quote(spec)}")

    def detach(self, vdev: str) -> None:
        """Detach a disk from the guest and from dom0."""
        self.xen.sh(f"xl block-detach {self.domid} {vdev}")
        self.xen.detach(self.files.pop(vdev))

    def bring(self, vdev: str, files: Mapping[str, str | Path]) -> None:
        """Copy files of the host into the guest, through the last blocks of one of its disks.

        The guest only reads the disk, and the blocks' content is restored afterwards.

        Args:
            vdev: The disk.
            files: A dict from each file's name in the guest to a file of the host or "image-bin".

        Raises:
            LabError: A file does not exist.
            LabTimeout: The guest has not unpacked them in time.
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
        """Run a script of sh in place of the prompt; then the guest powers off. Raises LabError."""
        code = base64.b64encode(script.encode()).decode()
        line = f"echo {code} | base64 -d >/lab/run; exec sh /lab/run"
        if len(line) > LONGEST:
            raise LabError(f"run: {len(script)} bytes are too many for a line; bring() a file")
        self.type(line)

    def wait_prompt(self, timeout: float = WAIT_SECONDS) -> None:
        """Wait until its prompt reads lines. Raises LabTimeout."""
        self.wait_console("^lab: prompt$", timeout)


def write(disk: BinaryIO, place: int, data: bytes) -> None:
    """Write data from the block `place` (of BLOCK bytes) on."""
    disk.seek(place * BLOCK)
    disk.write(data)
    disk.flush()
