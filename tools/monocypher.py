"""Monocypher, of which the images have X25519, ChaCha20-Poly1305, BLAKE2b and the curve of Ed25519:
its source, and its compiling.

Called by tools/image.py and tools/hwlib.py; boot/hw/seal.c and verify.c call the C. The rule:
its one file is compiled whole, and the linker leaves out what nothing calls.
Source: Monocypher is not in Debian; the source package of pymonocypher has its two files.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tools import Trouble, cache, process
from tools.micropython import compile_all, compile_once, compiler, object_of
from tools.progress import NULL, Display

PACKAGE, VERSION = "pymonocypher", "4.0.3.4"
SHA256 = "5e56e3d3eb770a53e0b9f6274146663c11a11f3d0de5cd48e3be0428d1b07a4a"
UNPACKED = ("monocypher.c", "monocypher.h", "LICENSE.txt")
PATH = "monocypher/monocypher.c"
HOST_FLAGS = ("-std=gnu11", "-mgeneral-regs-only", "-fPIC")


class FetchError(Trouble):
    """pip could not get the source package; the message has its last lines."""


def source() -> Path:
    """Return the folder with monocypher.c and its header."""

    def make(folder: Path) -> None:
        with (
            tempfile.TemporaryDirectory() as scratch,
            tarfile.open(_fetch(Path(scratch))) as packed,
        ):
            for member in packed:
                member.name = member.name.partition("/")[2]
                if member.name in UNPACKED:
                    packed.extract(member, folder)

    return cache.stamped(cache.folder("monocypher"), VERSION, cache.digest(SHA256, UNPACKED), make)


def _fetch(folder: Path) -> Path:
    """Have pip download the source package, whose hash it checks before it looks inside."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-input", "--require-hashes", "--no-deps", "--no-binary", PACKAGE]
    process.output([*command, "--dest", str(folder), "-r", str(wanted)], FetchError)
    return folder / f"{PACKAGE}-{VERSION}.tar.gz"


def command(flags: Iterable[str]) -> list[str]:
    """Return gcc's command, for a folder in which monocypher/ is source()."""
    return ["gcc", "-c", *flags, "-O2", "-o", object_of(PATH), PATH]


def compile_core(work: Path, flags: list[str], progress: Display = NULL) -> list[str]:
    """Compile it for the image, or take the object from the cache.

    Returns: the objects, as paths below the work folder.
    """
    chosen = [command(flags)]
    headers = sorted((work / "boot/port/include").glob("*.h"))
    key = cache.digest(SHA256, compiler(work), chosen, *map(cache.file_digest, headers))
    return compile_once(work, "monocypher", key, chosen, progress)


def compile_host() -> list[Path]:
    """Compile it for a module of CPython. Returns the objects."""
    chosen = command(HOST_FLAGS)

    def make(folder: Path) -> None:
        (folder / "monocypher").symlink_to(source())
        compile_all(folder, [chosen])

    key = cache.digest(SHA256, compiler(Path.cwd()), chosen)
    folder = cache.stamped(cache.folder("monocypher"), "host", key, make)
    return [folder / chosen[-2]]
