"""Backends that stand still or are slow: a process in dom0 that is stopped, a disk with a limit.

Used by tests that need a guest's requests to stay unanswered, or to take long. The rule: each is a
`with` block, which ends it however it is left. blkback is a kernel thread, which cannot be stopped,
so the disk below it stands still. Source: QEMU qapi/block.json (block_set_io_throttle).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lab import WAIT_SECONDS

if TYPE_CHECKING:
    from lab.xen import Xen

LIMITS = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")


@contextlib.contextmanager
def process(xen: Xen, pid: str) -> Iterator[None]:
    """Stop a process in dom0 until the block ends.

    Args:
        xen: The Xen.
        pid: The process's number, or a shell word that dom0's shell expands to it.
    """
    pid = xen.sh(f"echo {pid}").strip()
    xen.sh(f"kill -STOP {pid}")
    try:
        yield
    finally:
        xen.sh(f"kill -CONT {pid}")


@contextlib.contextmanager
def disk(xen: Xen, path: Path) -> Iterator[None]:
    """Let a disk that is attached to dom0 answer nothing until the block ends.

    QEMU's lowest limit is one byte a second, and the first request after it is set still passes. So
    dom0 makes a request, and the block begins when one has passed or dom0's is waiting.
    """
    device = xen.devices[path.absolute()]
    _limit(xen, path, 1)
    try:
        xen.sh(
            f"stat=/sys/class/block/{Path(device).name}/stat\n"
            "set -- $(cat $stat); ended=$1\n"
            f"dd if={device} of=/dev/null bs=4k count=1 iflag=direct &\n"
            "until set -- $(cat $stat); [ $(($1 - ended + $9)) -gt 0 ]; do usleep 10000; done"
        )
        yield
    finally:
        _limit(xen, path, 0)


@contextlib.contextmanager
def slow(xen: Xen, path: Path, rate: int) -> Iterator[None]:
    """Let a disk that is attached to dom0 take `rate` bytes per second until the block ends."""
    _limit(xen, path, rate)
    try:
        yield
    finally:
        _limit(xen, path, 0)


def _limit(xen: Xen, path: Path, rate: int) -> None:
    """Limit a disk to `rate` bytes per second; 0 removes the limit."""
    limits = dict.fromkeys(LIMITS, 0) | {"bps": rate}
    deadline = time.monotonic() + WAIT_SECONDS
    xen.qmp.ask("block_set_io_throttle", deadline, id=xen.qdev(path), **limits)
