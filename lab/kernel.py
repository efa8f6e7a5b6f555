"""A Debian kernel package: its bzImage, the vmlinux inside it, its modules in loading order.

Used for dom0's kernel (unpacked on the host, because unpacking under emulation is slow) and for the
guests' modules. Source: Linux Documentation/arch/x86/boot.rst (setup_sects, payload_offset).
"""

from __future__ import annotations

import gzip
import lzma
import re
import struct
from collections.abc import Iterable
from pathlib import Path

import zstandard

from lab import LabError, lz4
from lab.root import Root

SETUP_SECTS, PAYLOAD = 0x1F1, 0x248


class Kernel:
    """The one kernel that was unpacked into a root.

    Attributes:
        image: Its bzImage.
        release: Its release, as `uname -r` gives it.
        folder: Its modules.
    """

    def __init__(self, root: Root) -> None:
        self.folder = root.glob("lib/modules/*")
        self.release = self.folder.name
        beside = self.folder / "vmlinuz"  # packages of Linux 7 have it there
        self.image = beside if beside.exists() else root.find(f"/boot/vmlinuz-{self.release}")

    def modules(self, names: Iterable[str]) -> list[tuple[str, bytes]]:
        """Return modules and the modules they depend on, in the order in which they can be loaded.

        Args:
            names: Modules, as modprobe takes them; one that is built into the kernel is left out.

        Returns:
            (file name, content) of each.

        Raises:
            LabError: The kernel has no such module.
        """
        files = {_plain(p.name): p for p in self.folder.glob("kernel/**/*.ko*")}
        inside = (self.folder / "modules.builtin").read_text(encoding="utf-8")
        builtin = {_plain(Path(line).name) for line in inside.splitlines()}
        done: dict[str, bytes] = {}

        def add(name: str) -> None:
            name = _plain(name)
            if name in done or name in builtin:
                return
            if name not in files:
                raise LabError(f"kernel {self.release} has no module {name!r}")
            content = files[name].read_bytes()
            if files[name].suffix == ".xz":
                content = lzma.decompress(content)
            found = re.search(rb"\0depends=([^\0]*)\0", content)
            for other in found[1].decode().split(",") if found and found[1] else []:
                add(other)
            done[name] = content

        for name in names:
            add(name)
        return [(f"{name}.ko", content) for name, content in done.items()]


def unpack(image: bytes) -> bytes:
    """Return the ELF vmlinux inside a bzImage.

    Raises:
        LabError: `image` is no bzImage, or its payload has an unknown form.
    """
    if image[0x202:0x206] != b"HdrS":
        raise LabError("not a bzImage: no HdrS at 0x202")
    start = (image[SETUP_SECTS] + 1) * 512
    offset, length = struct.unpack_from("<II", image, PAYLOAD)
    payload = image[start + offset : start + offset + length]
    # The build appends the unpacked size; each decompressor stops at the end of its own stream.
    if payload[:6] == b"\xfd7zXZ\0":
        vmlinux = lzma.LZMADecompressor().decompress(payload)
    elif payload[:4] == b"\x28\xb5\x2f\xfd":
        vmlinux = zstandard.ZstdDecompressor().decompressobj().decompress(payload)
    elif payload[:2] == b"\x1f\x8b":
        vmlinux = gzip.decompress(payload[:-4])
    elif payload[:4] == lz4.MAGIC:
        vmlinux = lz4.decompress(payload)
    else:
        raise LabError(
            f"bzImage payload: expected xz, zstd, gzip or lz4, found {payload[:6].hex()}"
        )
    if vmlinux[:4] != b"\x7fELF":
        raise LabError(f"bzImage payload: expected an ELF file, found {vmlinux[:4].hex()}")
    return vmlinux


def _plain(name: str) -> str:
    return name.partition(".")[0].replace("-", "_")
