"""`pvdump info`: the superblock of a dump target, for a person or as JSON.

Called by the command line. The rule: only the superblock is read, the counter of boots, and the
first chunk of the dump behind it, which says why the kernel died; so it works beside a running
guest.
"""

from __future__ import annotations

import argparse
import json
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pvfw import chunks, superblock, tries

from ..arguments import file_name
from ..streams import one_line
from . import disk as disks
from .disk import MIB, PAGE, BadPlace, TargetDisk
from .stream import Stream, cause, facts
from .swapspace import is_swap

MEANING = {
    superblock.READY: "waiting for a crash",
    superblock.WRITING: "the guest is writing, or was ended while it wrote",
    superblock.COMPLETE: "the dump is whole",
    superblock.PARTIAL: "the dump ended early",
}
FORMATS = {
    superblock.FORMAT_ELF: "elf",
    superblock.FORMAT_STREAM: "stream",
    superblock.FORMAT_AGE: "age",
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
            "format": FORMATS[block.format],
            "room": block.room(),
            "dump_size": block.dump_size,
            "written": block.written,
            "release": block.release or None,
            "crash_vcpu": None if block.crash_vcpu == superblock.UNKNOWN_VCPU else block.crash_vcpu,
            "started": _when(block.started),
            "ended": _when(block.ended),
            "seconds": max(block.ended - block.started, 0),
            "reason": block.reason or None,
            "cause": _cause(disk, block) or None,
            "collected": _when(block.collected),
            "boots": _boots(disk, block),
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
            ("cause", facts["cause"] or "unknown"),
            ("written", _written(facts)),
            ("began", facts["started"] or "unknown"),
            ("ended", f"{facts['ended'] or 'unknown'} ({facts['seconds']} s)"),
            ("collected", facts["collected"] or "not yet"),
        ]
    if facts["format"] == "age":
        lines.append(("encrypted", "by age: `pvdump collect --identity FILE` opens it"))
    if facts["boots"] is not None:
        lines.append(("boots", _counted(facts["boots"])))
    if facts["reason"]:
        lines.append(("reason", facts["reason"]))
    return "\n".join(f"{name:<9} {value}" for name, value in lines)


def _cause(disk: TargetDisk, block: superblock.Superblock) -> str:
    """Return why the kernel died, as the first chunk of its dump says it; "" where it does not."""
    if block.version == superblock.VERSION_ELF or block.state == superblock.READY:
        return ""
    stream = Stream(disk, block)
    header, _ = stream.header(0)
    if header is None or header.kind != chunks.FACTS:
        return ""
    chunk = stream.chunk(header, 0)
    return "" if isinstance(chunk, str) else cause(facts(chunk.payload))


def _boots(disk: TargetDisk, block: superblock.Superblock) -> dict[str, Any] | None:
    """Return what pvboot's counter on a target says; None where there is none."""
    if block.version == superblock.VERSION_ELF:
        return None
    try:
        raw = disk.read(0, tries.AT + tries.SIZE)
    except BadPlace:
        return None
    found = tries.decode(raw[tries.AT :])
    if found is None or is_swap(raw[:PAGE]):
        return None
    return {
        "open": found.is_open,
        "generation": found.generation,
        "problem": found.problem or None,
        "entries": [{"key": key.hex(), "count": count} for key, count in found.records],
    }


def _counted(boots: dict[str, Any]) -> str:
    if boots["problem"]:
        return f"the counter is {boots['problem']}, and counts as none"
    counts = ", ".join(str(entry["count"]) for entry in boots["entries"])
    what = f"did not end, by entry: {counts}" if counts else "all ended"
    return f"counted by pvboot; {what}"


def _written(facts: dict[str, Any]) -> str:
    of = f" of {facts['dump_size'] / MIB:.1f}" if facts["dump_size"] else ""
    return f"{facts['written'] / MIB:.1f}{of} MiB"


def _when(seconds: int) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat() if seconds else None
    except (ValueError, OverflowError, OSError):
        return None
