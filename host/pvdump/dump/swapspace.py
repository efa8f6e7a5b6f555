"""The first page of swap space that is a target as well.

Used by prepare.py, by place and by arm. The first 1024 bytes of swap belong to nobody; there the
superblock stands. The rule: what stands from there to the end of the page, mkswap's, stays.
Source: Linux include/linux/swap.h (union swap_header).
"""

from __future__ import annotations

from pvfw.superblock import Superblock

from .disk import PAGE, TargetDisk

SIGNATURE = b"SWAPSPACE2"


def is_swap(page: bytes) -> bool:
    """Tell whether the first page of a disk or file is that of swap."""
    return page[PAGE - len(SIGNATURE) : PAGE] == SIGNATURE


def sign(disk: TargetDisk, block: Superblock) -> None:
    """Write a superblock to swap, whose header is in the same page and stays as it is.

    Swap has no copy of the superblock before there is a dump: its last page is a page like others.
    """
    page = bytearray(disk.read(0, PAGE))
    raw = block.encode()
    page[: len(raw)] = raw
    disk.write(0, bytes(page))
