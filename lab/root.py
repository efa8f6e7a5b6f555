"""A folder of unpacked Debian packages, seen as the root of a system.

Used to pick the few files an initramfs needs. The rule: an absolute link inside the folder points
into the folder, never at the host's files; a program comes with the libraries it names, which are
looked for where the dynamic linker of an installed Debian looks. Source: ld.so(8).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from lab import WAIT_SECONDS, LabError, LabTimeout
from lab.cpio import Cpio

LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib")
LINKER = "/lib64/ld-linux-x86-64.so.2"
LINKS = 16  # deepest chain of links that is followed


class Root:
    """The unpacked packages are the files below the folder `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, name: str) -> Path:
        """Return the host's path of a file or folder of this root.

        Args:
            name: Absolute path in the root; links in it are followed inside the root.

        Raises:
            LabError: There is none.
        """
        path = self._resolve(name)
        if path is None:
            raise LabError(f"{name} is not in the unpacked packages ({self.path})")
        return path

    def glob(self, pattern: str) -> Path:
        """Return the one file that matches `pattern`, which is relative to the root.

        Raises:
            LabError: No file or several files match.
        """
        found = sorted(self.path.glob(pattern))
        if len(found) != 1:
            names = ", ".join(str(path) for path in found) or "nothing"
            raise LabError(f"{pattern} in {self.path}: expected one file, found {names}")
        return found[0]

    def libraries(self, names: Iterable[str]) -> dict[str, Path]:
        """Find the libraries and the dynamic linker that programs need.

        Args:
            names: Absolute paths of programs in the root; other files need no libraries.

        Returns:
            A dict from each library's name in the root to its path on the host.

        Raises:
            LabError: A program or library is not in the root.
        """
        found: dict[str, Path] = {}
        todo = [self.find(name) for name in names]
        while todo:
            needed, folders = _needed(todo.pop())
            if needed:
                found.setdefault(LINKER, self.find(LINKER))
            for soname in needed:
                paths = [f"{folder}/{soname}" for folder in (*folders, *LIBRARIES)]
                name = next((p for p in paths if self._resolve(p)), None)
                if name is None:
                    raise LabError(f"library {soname} is not in the unpacked packages")
                if name not in found:
                    found[name] = self.find(name)
                    todo.append(found[name])
        return found

    def put(self, archive: Cpio, names: Iterable[str]) -> None:
        """Put programs (with their libraries) and other files into an archive.

        Raises:
            LabError: A name is no file of the root, or a library is missing.
        """
        names = list(names)
        for name in names:
            path = self.find(name)
            if not path.is_file():
                raise LabError(f"{name} is no file of the unpacked packages ({self.path})")
            archive.file(name, path.read_bytes(), 0o755 if os.access(path, os.X_OK) else 0o644)
        for name, path in self.libraries(names).items():
            archive.file(name, path.read_bytes(), 0o755)

    def _resolve(self, name: str) -> Path | None:
        done = self.path
        parts = list(PurePosixPath("/", name).parts[1:])
        links = 0
        while parts:
            step = done / parts.pop(0)
            if step.is_symlink():
                links += 1
                target = step.readlink()
                if links > LINKS:
                    return None
                if target.is_absolute():
                    done = self.path
                parts = [p for p in target.parts if p != "/"] + parts
            elif step.name == "..":
                done = done.parent if done != self.path else done
            else:
                done = step
        return done if done.exists() else None


def run(
    root: Root, program: str, *arguments: str, given: str = "", timeout: float = WAIT_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run a program of the unpacked packages on the host, with its own linker and libraries.

    Args:
        root: The unpacked packages.
        program: Absolute path of the program in the root.
        arguments: Its arguments.
        given: Its standard input.
        timeout: Seconds.

    Returns:
        The exit code, and the program's standard output and error together as `stdout`.

    Raises:
        LabError: The program or a library of it is not in the root.
        LabTimeout: The program has not ended in time.
    """
    folders = dict.fromkeys(str(path.parent) for path in root.libraries([program]).values())
    linker = [str(root.find(LINKER)), "--library-path", ":".join(folders)]
    try:
        return subprocess.run(
            [*linker, str(root.find(program)), *arguments],
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            env={
                "PATH": os.environ.get("PATH", ""),
                "HOME": "/nonexistent",
                "TERM": "dumb",
                "TZ": "UTC",
            },
        )
    except subprocess.TimeoutExpired:
        raise LabTimeout(f"{program}: no end after {timeout:g} s") from None


def _needed(path: Path) -> tuple[list[str], list[str]]:
    """Return the libraries that an ELF file names and the folders it adds to the search."""
    with path.open("rb") as stream:
        if stream.read(4) != b"\x7fELF":
            return [], []
        dynamic = ELFFile(stream).get_section_by_name(".dynamic")
        if not isinstance(dynamic, DynamicSection):
            return [], []
        # pyelftools gives a tag the attribute that its type calls for.
        needed = [getattr(tag, "needed") for tag in dynamic.iter_tags("DT_NEEDED")]  # noqa: B009
        paths = [getattr(tag, "runpath") for tag in dynamic.iter_tags("DT_RUNPATH")]  # noqa: B009
        folders = [folder for path in paths for folder in path.split(":") if folder[:1] == "/"]
        return needed, folders
