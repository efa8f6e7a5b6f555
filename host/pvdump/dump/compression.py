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
from typing import Any

from pvfw.errors import DumpError

from .disk import PAGE

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


def find(name: str, is_packed: bool = False) -> Compression:
    """Return a way to compress.

    Args:
        name: of NAMES; "" for zstd where this Python has it, else zlib.
        is_packed: whether the pages are compressed by zstd already, so that zstd needs nothing.

    Raises:
        DumpError: this Python does not have it.
    """
    if name == "none":
        return Compression(name, 0, bytes)
    if name != "zlib":
        pack = _zstd() or (bytes if is_packed else None)
        if pack is not None:
            return Compression("zstd", ZSTD, pack)
        if name:
            raise DumpError(
                "zstd needs the Python module zstandard: install the package python3-zstandard, "
                "or use --compress zlib"
            )
    return Compression("zlib", ZLIB, lambda page: zlib.compress(page, LEVEL))


def unpacker() -> Callable[[bytes], bytes]:
    """Return a function that decompresses a page of zstd; it raises ValueError where it is none.

    Raises:
        DumpError: this Python has no zstd.
    """
    try:
        zstd = importlib.import_module("compression.zstd")
        kind = zstd.ZstdError

        def unpack(data: bytes) -> Any:
            # A frame may unpack to 100 MiB and more.
            return zstd.ZstdDecompressor().decompress(data, max_length=PAGE + 1)

    except ImportError:
        try:
            zstandard = importlib.import_module("zstandard")
        except ImportError:
            raise DumpError(
                "the dump's pages are compressed by zstd, which needs the Python module zstandard: "
                "install the package python3-zstandard, or use --format kdump --compress zstd"
            ) from None
        kind = zstandard.ZstdError
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 20)

        def unpack(data: bytes) -> Any:
            # What a frame says of its content's size is what it would be given, up to 2^63 bytes.
            if zstandard.frame_content_size(data) > PAGE:
                raise ValueError(f"more than {PAGE} bytes")
            return decompressor.decompress(data, max_output_size=PAGE)

    def page(data: bytes) -> bytes:
        try:
            found: bytes = unpack(data)
        except kind as error:
            raise ValueError(f"zstd: {error}") from error
        if len(found) != PAGE:
            raise ValueError(f"{len(found)} bytes instead of {PAGE}")
        return found

    return page


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
