"""How the pages of a KDUMP file are compressed: one by one, by zstd, zlib or not at all.

Used by collect and kdump. zlib is in every Python. zstd is in the standard library of Python 3.14
and newer, and in the module zstandard; without either it is refused in one line.
Source of the flags: makedumpfile diskdump_mod.h.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from pvfw.errors import DumpError

ZLIB = 0x1
ZSTD = 0x20
LEVEL = 1  # of both: the fastest, as makedumpfile has it
NAMES = ("zstd", "zlib", "none")


@dataclass(frozen=True)
class Compression:
    """A way to compress.

    Attributes:
        name: of NAMES.
        flag: of a page that it compressed, and of a file of such pages.
        pack: compresses a page; what is not smaller than the page is not used.
    """

    name: str
    flag: int
    pack: Callable[[bytes], bytes]


def find(name: str) -> Compression:
    """Return a way to compress.

    Args:
        name: of NAMES; "" for zstd where this Python has it, else zlib.

    Raises:
        DumpError: this Python does not have it.
    """
    if name == "none":
        return Compression(name, 0, bytes)
    if name != "zlib":
        pack = _zstd()
        if pack is not None:
            return Compression("zstd", ZSTD, pack)
        if name:
            raise DumpError(
                "zstd needs the Python module zstandard: install the package python3-zstandard, "
                "or use --compress zlib"
            )
    return Compression("zlib", ZLIB, lambda page: zlib.compress(page, LEVEL))


def _zstd() -> Callable[[bytes], bytes] | None:
    try:
        zstd = importlib.import_module("compression.zstd")
    except ImportError:
        pass
    else:
        compressor = zstd.ZstdCompressor(level=LEVEL)
        whole = compressor.FLUSH_FRAME
        return lambda page: compressor.compress(page, whole)
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        return None
    pack: Callable[[bytes], bytes] = zstandard.ZstdCompressor(level=LEVEL).compress
    return pack
