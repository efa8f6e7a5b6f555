"""`pvdump info`: the superblock of a dump target, for a person or as JSON.

Called by the command line. The rule: only the superblock is read, so that it works beside a running
guest.
"""

from __future__ import annotations

import argparse
import json
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pvfw import superblock

from ..arguments import file_name
from ..streams import one_line
from . import disk as disks
from .disk import MIB

MEANING = {
    superblock.READY: "waiting for a crash",
    superblock.WRITING: "the guest is writing, or was ended while it wrote",
    superblock.COMPLETE: "the dump is whole",
    superblock.PARTIAL: "the dump ended early",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Say what is on a target. Works beside a running guest."
    parser.add_argument("disk", type=file_name, metavar="DISK")
    parser.add_argument("--json", action="store_true", help="all fields, sizes in bytes")


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    facts = info(options.disk)
    print(json.dumps(facts, indent=2) if options.json else text(facts))
    return 0


def read_superblock(path: Path) -> superblock.Superblock:
    """Read the superblock of a target.

    Raises:
        DiskError: it cannot be read.
        TargetRefused: there is none.
    """
    with disks.reading(path) as disk:
        return disk.superblock()


def info(path: Path) -> dict[str, Any]:
    """Read the superblock's fields.

    Returns:
        sizes in bytes, times as ISO 8601 in UTC, None where something is not known.

    Raises:
        DiskError: it cannot be read.
        TargetRefused: there is none.
    """
    with disks.reading(path) as disk:
        block = disk.superblock()
        return {
            "path": str(path),
            "state": superblock.STATE_NAMES[block.state],
            "meaning": MEANING[block.state],
            "uuid": str(uuid.UUID(bytes=block.uuid)),
            "disk_size": disk.size,
            "size": block.size,
            "version": block.version,
            "room": block.room(),
            "dump_size": block.dump_size,
            "written": block.written,
            "release": block.release or None,
            "crash_vcpu": None if block.crash_vcpu == superblock.UNKNOWN_VCPU else block.crash_vcpu,
            "started": _when(block.started),
            "ended": _when(block.ended),
            "seconds": max(block.ended - block.started, 0),
            "reason": block.reason or None,
            "collected": _when(block.collected),
        }


def text(facts: dict[str, Any]) -> str:
    """Format info() for a person, a line a fact; what is not known is left out."""
    lines = [
        ("target", one_line(facts["path"])),
        ("state", f"{facts['state']}: {facts['meaning']}"),
        ("uuid", facts["uuid"]),
        ("room", f"{facts['room'] / MIB:.1f} MiB for a dump, of {facts['size'] / MIB:.1f} MiB"),
    ]
    if facts["disk_size"] < facts["size"]:
        lines.append(
            ("warning", f"the disk has become smaller: {facts['disk_size'] / MIB:.1f} MiB")
        )
    if facts["state"] != "ready":
        lines += [
            ("kernel", facts["release"] or "unknown"),
            ("crashed", "unknown" if (cpu := facts["crash_vcpu"]) is None else f"on vCPU {cpu}"),
            ("written", _written(facts)),
            ("began", facts["started"] or "unknown"),
            ("ended", f"{facts['ended'] or 'unknown'} ({facts['seconds']} s)"),
            ("collected", facts["collected"] or "not yet"),
        ]
    if facts["reason"]:
        lines.append(("reason", facts["reason"]))
    return "\n".join(f"{name:<9} {value}" for name, value in lines)


def _written(facts: dict[str, Any]) -> str:
    of = f" of {facts['dump_size'] / MIB:.1f}" if facts["dump_size"] else ""
    return f"{facts['written'] / MIB:.1f}{of} MiB"


def _when(seconds: int) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat() if seconds else None
    except (ValueError, OverflowError, OSError):
        return None
