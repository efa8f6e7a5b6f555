"""The test that panics the guest: begun by `pvdump test --crash`, settled after the reboot.

Used by test, collect and status. It is a part of the record of the last test, TESTED:

    {"time": s, "ok": bool, "checks": [...],
     "crash": {"time": s, "boot": id of the boot that panicked, "pending": bool,
               "ok": bool, "line": what came of it}}

The rule: a test is pending from before the panic until somebody who looks after the reboot says
what came of it; a dump that collect has published since settles it well.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from . import record

TESTED = record.STATE / "tested.json"
BOOT_ID = Path("proc/sys/kernel/random/boot_id")


def save(root: Path, ok: bool, checks: list[dict[str, Any]]) -> None:
    """Write what came of the checks; what is said of a panic stays. Raises RecordError."""
    tested = record.load(root / TESTED)
    tested.update(time=int(time.time()), ok=ok, checks=checks)
    record.save(root / TESTED, tested)


def begin(root: Path) -> None:
    """Note that the kernel is about to panic, by a test. Raises RecordError."""
    crash = {"time": int(time.time()), "boot": _boot(root), "pending": True}
    record.save(root / TESTED, {**record.load(root / TESTED), "crash": crash})


def is_pending(root: Path) -> bool:
    """Tell whether a test panicked the guest before this boot and is not settled. Raises
    RecordError."""
    crash = record.load(root / TESTED).get("crash") or {}
    return bool(crash.get("pending")) and crash.get("boot") != _boot(root)


def settle(root: Path, ok: bool, line: str) -> None:
    """Say what came of the test that is pending, if one is.

    Args:
        root: of the system.
        ok: whether a whole dump came of it.
        line: says where the dump is, or what is missing.

    Raises:
        RecordError: the record cannot be read or written.
    """
    if is_pending(root):
        tested = record.load(root / TESTED)
        tested["crash"].update(pending=False, ok=ok, line=line)
        record.save(root / TESTED, tested)


def result(root: Path) -> tuple[bool, str]:
    """Return whether the last test that panicked made a dump, and a line that says so.

    Raises:
        RecordError: the record cannot be read.
    """
    crash: dict[str, Any] = record.load(root / TESTED).get("crash") or {}
    if not crash:
        return False, "no test has panicked this guest: `pvdump test --crash`"
    if not crash.get("pending"):
        return bool(crash.get("ok")), str(crash.get("line"))
    if crash.get("boot") == _boot(root):
        return False, "a test is pending, but this guest has not panicked since"
    return False, "the guest restarted without a dump that was collected: `pvdump collect`"


def _boot(root: Path) -> str:
    """Return the id of this boot."""
    try:
        return (root / BOOT_ID).read_text().strip()
    except OSError:
        return ""
