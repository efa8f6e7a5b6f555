"""Where a kernel before 6.0 has its symbols: its VMCOREINFO does not say it.

Used by program.py, which has drgn read them there. No symbols name the tables either, so nothing
else tells where they are; but they follow each other in the kernel's constants, in this order:

    offsets       i32 of each symbol
    relative_base u64: what they count from
    num_syms      u32
    names         of each symbol: bytes of its name, then as many tokens
    markers       u32: where in the names every 256th symbol begins
    token_table   256 texts, each with a zero at its end; digits and letters stand for themselves
    token_index   u16: where in the table each text begins

Each begins at a multiple of 8. The rule: where they lie is found from the digits' tokens on, and
counts only if each table ends where the next one begins and all say the same.
Source: Linux 5.10 scripts/kallsyms.c, write_src(); kernel/kallsyms.c.
"""

from __future__ import annotations

import re
import struct
from typing import Callable, Optional

from pvfw.errors import CoreError
from pvfw.vmcoreinfo import Vmcoreinfo

PAGE = 4096
PIECE = 1 << 20  # bytes that are read at once
# What VMCOREINFO has on both sides of the constants: the kernel's first function, a variable.
CODE, DATA = "_stext", "init_uts_ns"
SEARCH_MAX = 256 << 20  # bytes between them; Debian's kernels have 25 MiB
ALIGNED = 8
TOKENS = 256
DIGITS = re.compile(b"".join(rb"%d\x00" % digit for digit in range(10)))
INDEX = struct.Struct(f"<{TOKENS}H")
U32 = struct.Struct("<I")
STEP = 256  # symbols from one marker to the next
NAME_MAX = 256  # bytes of a name in tokens, with that of its length


def find(read: Callable[[int, int], bytes], info: Vmcoreinfo) -> dict[str, int]:
    """Return the addresses of the tables, by the names that VMCOREINFO has for them since 6.0.

    Args:
        read: reads bytes at a virtual address, or raises CoreError: (address, size).
        info: the kernel's.

    Raises:
        CoreError: they cannot be found.
    """
    first, last = info.symbol(CODE), info.symbol(DATA)
    if first is None or last is None or not 0 < last - first <= SEARCH_MAX:
        raise CoreError("VMCOREINFO does not say where the kernel's constants are")
    begin = first // PAGE * PAGE
    image = _image(read, begin, last)
    for digits in DIGITS.finditer(image):
        tables = _tables(image, digits.start())
        if tables is not None:
            return {f"kallsyms_{name}": begin + at for name, at in tables.items()}
    raise CoreError("the kernel's symbols are not found in the dump")


def _image(read: Callable[[int, int], bytes], begin: int, end: int) -> bytes:
    """Read the kernel's code and constants, with zeros in place of pages that are missing."""
    image = bytearray()
    for at in range(begin, end, PIECE):
        size = min(PIECE, end - at)
        try:
            image += read(at, size)
        except CoreError:
            for page in range(at, at + size, PAGE):
                length = min(PAGE, at + size - page)
                try:
                    image += read(page, length)
                except CoreError:
                    image += bytes(length)
    return bytes(image)


def _tables(image: bytes, digits: int) -> Optional[dict[str, int]]:
    """Return where the tables are, None where these are not the digits' tokens."""
    tokens = _tokens(image, digits)
    markers = None if tokens is None else _markers(image, tokens[0])
    found = None if markers is None else _names(image, *markers)
    if tokens is None or found is None:
        return None
    names, count = found
    base = names - 2 * ALIGNED
    offsets = base - _aligned(U32.size * count)
    return {
        "offsets": offsets,
        "relative_base": base,
        "num_syms": names - ALIGNED,
        "names": names,
        "token_table": tokens[0],
        "token_index": tokens[1],
    }


def _tokens(image: bytes, digits: int) -> Optional[tuple[int, int]]:
    """Return where token_table and token_index are; the one must be what the other says."""
    at = digits
    for _ in range(ord("0"), TOKENS):
        at = image.find(b"\0", at) + 1
        if not at:
            return None
    place = _aligned(at)
    if place + INDEX.size > len(image):
        return None
    index = INDEX.unpack_from(image, place)
    table = digits - index[ord("0")]
    if table % ALIGNED or table < 0 or index[0]:
        return None
    ends = [image.find(b"\0", table + begin) + 1 - table for begin in index]
    return (table, place) if ends == [*index[1:], at - table] else None


def _markers(image: bytes, end: int) -> Optional[tuple[int, list[int]]]:
    """Return where the markers begin, and them; they end at `end` and grow from 0 on."""
    at = end - U32.size
    if U32.unpack_from(image, at)[0] == 0:
        at -= U32.size  # what fills up to the next table
    found = [U32.unpack_from(image, at)[0]]
    while found[-1] and at >= U32.size:
        at -= U32.size
        value = U32.unpack_from(image, at)[0]
        if not 0 < found[-1] - value <= STEP * NAME_MAX:
            return None
        found.append(value)
    return None if found[-1] else (at, found[::-1])


def _names(image: bytes, end: int, markers: list[int]) -> Optional[tuple[int, int]]:
    """Return where the names begin and their number; they end at `end` and are as marked."""
    highest = (end - markers[-1]) // ALIGNED * ALIGNED
    lowest = max(highest - STEP * NAME_MAX, 2 * ALIGNED)
    for names in range(highest, lowest, -ALIGNED):
        count = U32.unpack_from(image, names - ALIGNED)[0]
        if (count + STEP - 1) // STEP != len(markers):
            continue
        if names < 2 * ALIGNED + _aligned(U32.size * count):
            continue
        at = names
        for number in range(count):
            if at >= end or (number % STEP == 0 and at - names != markers[number // STEP]):
                break
            at += 1 + image[at]
        else:
            if _aligned(at) == end:
                return names, count
    return None


def _aligned(at: int) -> int:
    return (at + ALIGNED - 1) // ALIGNED * ALIGNED
