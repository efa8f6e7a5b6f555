"""Writer of cpio archives in the "newc" form, which Linux unpacks as its first root file system.

Used for dom0's and the guests' initramfs. The rule: the bytes depend on nothing but the names,
modes and contents put in (times and owners are 0), so that archives can be cached and compared.
Several archives may follow each other in one file; Linux unpacks one after the other. Source: Linux
Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import BinaryIO

DIRECTORY, REGULAR, SYMLINK, CHARACTER = 0o040000, 0o100000, 0o120000, 0o020000


class Cpio:
    """A Cpio writes an archive into a stream, entry by entry. It adds missing parent folders."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.inode = 0
        self.names: set[str] = set()

    def file(self, name: str, content: bytes | str, mode: int = 0o644) -> None:
        """Put in a file; `name` is absolute or relative to the root. A second one is left out."""
        data = content.encode() if isinstance(content, str) else content
        self._entry(name, REGULAR | mode, data)

    def symlink(self, name: str, target: str) -> None:
        """Put in a symbolic link."""
        self._entry(name, SYMLINK | 0o777, target.encode())

    def folder(self, name: str) -> None:
        """Put in a folder and its parents."""
        self._entry(name, DIRECTORY | 0o755, b"")

    def device(self, name: str, major: int, minor: int) -> None:
        """Put in a character device."""
        self._entry(name, CHARACTER | 0o600, b"", (major, minor))

    def close(self) -> None:
        """Write the trailer, and zeros up to a whole block of 512 bytes."""
        self._write("TRAILER!!!", 0, b"", (0, 0))
        self.stream.write(b"\0" * (-self.stream.tell() % 512))

    def _entry(self, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        name = name.strip("/")
        if name in self.names:
            return
        self.names.add(name)
        parent = str(PurePosixPath(name).parent)
        if parent != ".":
            self.folder(parent)
        self._write(name, mode, data, device)

    def _write(self, name: str, mode: int, data: bytes, device: tuple[int, int]) -> None:
        self.inode += 1
        raw = name.encode() + b"\0"
        links = 2 if mode & DIRECTORY else 1
        # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        fields = (self.inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(raw), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        self.stream.write(header + raw + b"\0" * (-(len(header) + len(raw)) % 4))
        self.stream.write(data + b"\0" * (-len(data) % 4))
