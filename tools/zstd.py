"""zstd's compressor, for the image and for CPython: its source, and the flags that make it small.

Called by tools/image.py and tools/hwlib.py; boot/hw/pack.c is the only caller of the C. The rule:
what is compiled is one strategy (ZSTD_fast) on a static workspace: no allocation, no other match
finder, no assembly, no SSE. boot/hw/zstd.c has that strategy's code and stands for what is left
out.
Source: zstd's lib/README.md, "Modular build" and "Static context".
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path

from tools import cache
from tools.apt import Suite
from tools.micropython import compile_all, compile_once, compiler, object_of
from tools.progress import NULL, Display

VERSION = "1.5.7"
TARBALL = "libzstd_1.5.7+dfsg.orig.tar.xz"
SHA256 = "0c092ef267edce57ba7f3f2645c861f72eaf5e76273c6c3632869423464b90a5"
UNPACKED = ("lib/common/", "lib/compress/", "lib/zstd.h", "lib/zstd_errors.h", "LICENSE")

# Below zstd/lib/. What takes the time is compiled for speed, the rest for size.
FAST = (
    "compress/fse_compress.c",
    "compress/hist.c",
    "compress/huf_compress.c",
    "compress/zstd_compress_sequences.c",
)
SMALL = (
    "common/error_private.c",
    "common/zstd_common.c",
    "compress/zstd_compress.c",
    "compress/zstd_compress_literals.c",
)
LEFT_OUT = ("DFAST", "GREEDY", "LAZY", "LAZY2", "BTLAZY2", "BTOPT", "BTULTRA")
DEFINES = (
    *("-DZSTD_NO_INTRINSICS", "-DZSTD_DISABLE_ASM=1", "-DDYNAMIC_BMI2=0", "-DZSTD_TRACE=0"),
    *("-DZSTD_STRIP_ERROR_STRINGS", "-DXXH_NO_STDLIB", "-DZSTD_DEPS_MALLOC"),
    *("-DZSTD_malloc(size)=NULL", "-DZSTD_calloc(n,size)=NULL", "-DZSTD_free(p)=((void)(p))"),
    *(f"-DZSTD_EXCLUDE_{name}_BLOCK_COMPRESSOR" for name in LEFT_OUT),
)
HOST_FLAGS = ("-std=gnu11", "-mgeneral-regs-only", "-fno-strict-aliasing", "-fPIC", "-DNDEBUG")


def source(progress: Display = NULL) -> Path:
    """Return the folder with zstd's lib/, from Debian's source package."""
    tarball = Suite("trixie", progress).source("libzstd", TARBALL, SHA256)

    def make(folder: Path) -> None:
        with tarfile.open(tarball) as archive:
            for member in archive:
                member.name = member.name.partition("/")[2]
                if member.name.startswith(UNPACKED):
                    archive.extract(member, folder)

    return cache.stamped(cache.folder("zstd"), VERSION, cache.digest(SHA256, UNPACKED), make)


def commands(flags: Iterable[str], optimise: str) -> list[list[str]]:
    """Return gcc's commands, for a folder in which zstd/ is source().

    optimise: the option for the files that are not always compiled for speed.
    """
    levels = {**dict.fromkeys(FAST, "-O2"), **dict.fromkeys(SMALL, optimise)}
    paths = [(f"zstd/lib/{name}", level) for name, level in levels.items()]
    return [
        ["gcc", "-c", *flags, *DEFINES, level, "-o", object_of(path), path] for path, level in paths
    ]


def compile_core(
    work: Path, flags: list[str], optimise: str, progress: Display = NULL
) -> list[str]:
    """Compile zstd for the image, or take the objects from the cache.

    Returns: the objects, as paths below the work folder.
    """
    chosen = commands(flags, optimise)
    headers = sorted((work / "boot/port/include").glob("*.h"))
    key = cache.digest(SHA256, compiler(work), chosen, *map(cache.file_digest, headers))
    return compile_once(work, "zstd", key, chosen, progress)


def compile_host() -> list[Path]:
    """Compile zstd as the image has it, for a module of CPython. Returns the objects."""
    chosen = commands(HOST_FLAGS, "-Os")

    def make(folder: Path) -> None:
        (folder / "zstd").symlink_to(source())
        compile_all(folder, chosen)

    key = cache.digest(SHA256, compiler(Path.cwd()), chosen)
    folder = cache.stamped(cache.folder("zstd"), "host", key, make)
    return [folder / command[-2] for command in chosen]
