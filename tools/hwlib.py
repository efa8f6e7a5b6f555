"""The C of boot/hw that both worlds have, with zstd and Monocypher, for CPython: _pvdump_hw.

Called by build.py and the tests, which put the folder on sys.path; host/hw.py imports the module
and knows nothing of how it was built. It is split so because host/ can be installed without tools/,
with the module beside it; the compiler, the cache and the path to boot/ belong to the tree alone.
The declarations come out of boot/hw/hw.h itself: nothing is said twice.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tools import cmodule, monocypher, zstd

NAME = "_pvdump_hw"
PARTS = ("hw.c", "classify.c", "crc32.c", "pack.c", "zstd.c", "seal.c", "verify.c")
SOURCE = Path(__file__).resolve().parent.parent / "boot" / "hw"


def build() -> Path:
    """Compile _pvdump_hw unless the cache has it. Returns the folder to put on sys.path."""
    header = (SOURCE / "hw.h").read_text(encoding="utf-8")
    plain = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    functions = re.findall(r"^\w+ hw_\w+\([^;]*\);", plain, re.MULTILINE)
    return cmodule.build(
        NAME,
        "\n".join(["extern uint64_t hw_base;", *functions]),
        "#define HW_HOST\n" + "".join(f'#include "{name}"\n' for name in PARTS),
        include=[SOURCE, zstd.source() / "lib", monocypher.source()],
        inputs=[SOURCE / name for name in ("hw.h", "classify.h", *PARTS)],
        objects=[*zstd.compile_host(), *monocypher.compile_host()],
    )


def install() -> None:
    """Make _pvdump_hw importable in this process."""
    folder = str(build())
    if folder not in sys.path:
        sys.path.append(folder)
