"""The image in a region of 4 MiB, on real Linux: it reaches all RAM, wherever that is.

The memory of the virtual machine is files, with which what the image reads is compared.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fixtures.panickinglinux import initramfs

from lab import packages
from lab.kernel import Kernel
from pvdump.arm.blob import encode
from pvfw.config import Config
from tools.image import build

pytestmark = pytest.mark.qemu
HERE = Path(__file__).resolve().parent
PAGE, GIB = 4096, 1 << 30
LOW = 3 * GIB  # what QEMU's machine has below the hole for devices, where it has more than that
RAM = 6 * GIB
FAR, FAR_SIZE = 960 * GIB, GIB // 4  # QEMU's CPUs have addresses up to 1 TiB
# With the largest pages that each has for Linux' identity map.
CPUS = {"2 MiB": "Nehalem", "1 GiB": "Nehalem,+pdpe1gb"}
APPEND = "quiet crashkernel=4M panic=-1 memhp_default_state=online"


@dataclass(frozen=True)
class Files:
    """The memory of a virtual machine. ram, far: of the first 6 GiB, and of what is far up."""

    ram: Path
    far: Path

    def options(self) -> list[str]:
        """Return QEMU's options."""
        backends = [
            f"memory-backend-file,id={path.stem},size={size},mem-path={path},share=on"
            for path, size in ((self.ram, RAM), (self.far, FAR_SIZE))
        ]
        return [
            *("-M", f"pc,memory-backend={self.ram.stem}"),
            *("-m", f"{RAM >> 20}M,slots=1,maxmem=1000G"),
            *("-object", backends[0], "-object", backends[1]),
            *("-device", f"pc-dimm,memdev={self.far.stem},addr={FAR:#x}"),
        ]

    def page(self, address: int) -> bytes:
        """Return a page by its physical address."""
        path, at = self.ram, address
        if address >= FAR:
            path, at = self.far, address - FAR
        elif address >= 4 * GIB:
            at = address - 4 * GIB + LOW
        with path.open("rb") as stream:
            stream.seek(at)
            return stream.read(PAGE)


@pytest.fixture(scope="module")
def memory_image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("memory")
    return build(folder, config=HERE / "oldmemory/image.yaml").bin.read_bytes()


@pytest.mark.matrix(suite=["bookworm", "trixie"], call=["-s", "-c"], leaf=list(CPUS))
def test_all_memory_is_read_in_4_mib(
    suite: str,
    call: str,
    leaf: str,
    memory_image: bytes,
    boot: Callable[..., str],
    tmp_path: Path,
) -> None:
    root = packages.guest(suite)
    initramfs(root, tmp_path / "initramfs", memory_image, encode(Config()), call)
    files = Files(tmp_path / "ram", tmp_path / "far")
    text = boot(
        Kernel(root).image,
        *("-cpu", CPUS[leaf], *files.options()),
        *("-initrd", str(tmp_path / "initramfs"), "-append", APPEND),
        until="end",
    )
    lines = [line.split() for line in text.splitlines()]
    assert "problems []" in text
    ranges = [(int(line[1], 16), int(line[2], 16)) for line in lines if line[0] == "range"]
    ends = [address + size for address, size in ranges]
    assert max(end for end in ends if end <= LOW) > LOW - GIB // 8
    assert RAM + GIB in ends
    assert FAR + FAR_SIZE in ends
    pages = {int(line[1], 16): int(line[2], 16) for line in lines if line[0] == "page"}
    assert len(pages) > 200
    wrong = [hex(at) for at, crc in pages.items() if zlib.crc32(files.page(at)) != crc]
    assert wrong == []
