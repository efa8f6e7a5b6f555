"""The first page of swap space that is a target as well.

Used by prepare.py, by place and by arm. The first 1024 bytes of swap belong to nobody; there the
superblock stands. The rules: what stands from there to the end of the page, mkswap's, stays; a
superblock that is to take a dump has a nonce, since a disk that is in use as swap as a whole cannot
be written to when the image is armed.
Source: Linux include/linux/swap.h (union swap_header).
"""

from __future__ import annotations

import os

from pvfw.superblock import Superblock

from .disk import PAGE, TargetDisk

SIGNATURE = b"SWAPSPACE2"


def is_swap(page: bytes) -> bool:
    """Tell whether the first page of a disk or file is that of swap."""
    return page[PAGE - len(SIGNATURE) : PAGE] == SIGNATURE


def sign(disk: TargetDisk, block: Superblock) -> None:
    """Write a superblock to swap, with a new nonce; swap's header in the same page stays as it is.

    Swap has no copy of the superblock before there is a dump: its last page is a page like others.
    """
    block.nonce = os.urandom(len(block.nonce))
    page = bytearray(disk.read(0, PAGE))
    raw = block.encode()
    page[: len(raw)] = raw
    disk.write(0, bytes(page))
