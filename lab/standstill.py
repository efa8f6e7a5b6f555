"""Backends that stand still: a process in dom0 that is stopped, a disk that answers nothing.

Used by tests that need requests of a guest to be under way for as long as they like. The rule: a
stand-still is a `with` block, so that whatever happens in it the next guest finds all running.
blkback is a kernel thread, which nobody can stop, so what stands still is the disk below it.
Source: QEMU qapi/block.json (block_set_io_throttle).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lab import PATIENCE

if TYPE_CHECKING:
    from lab.xen import Xen

LIMITS = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")


@contextlib.contextmanager
def process(xen: Xen, pid: str) -> Iterator[None]:
    """A process in dom0 is stopped meanwhile. pid: a number, or a shell word that gives it."""
    pid = xen.sh(f"echo {pid}").strip()
    xen.sh(f"kill -STOP {pid}")
    try:
        yield
    finally:
        xen.sh(f"kill -CONT {pid}")


@contextlib.contextmanager
def disk(xen: Xen, path: Path) -> Iterator[None]:
    """An attached disk answers nothing meanwhile.

    A byte a second is the least that QEMU can be told, and one request passes before that is felt.
    dom0 makes one of its own: it passes, or stands still since another has passed.
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


def _limit(xen: Xen, path: Path, rate: int) -> None:
    """Bytes per second, 0 for no limit."""
    limits = dict.fromkeys(LIMITS, 0) | {"bps": rate}
    deadline = time.monotonic() + PATIENCE
    xen.qmp.ask("block_set_io_throttle", deadline, id=xen.qdev(path), **limits)
