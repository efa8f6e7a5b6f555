"""The kernel's log in a stream, as text.

Used by collect. The rules: no more of the stream is read than what comes before its pages; whoever
wrote to the disk, the text cannot harm a terminal.
"""

from __future__ import annotations

import re
from pathlib import Path

from pvfw import chunks, superblock

from . import source
from .disk import TargetDisk
from .log import NoLog
from .output import OutputFile
from .prelude import KINDS, refuse
from .stream import Stream
from .streamdump import stdout

# The image writes no such bytes; another one that could write to the disk may have.
UNPRINTABLE = re.compile(rb"[^\t\n -~]")


def write_log(disk: TargetDisk, block: superblock.Superblock, out: Path | None) -> list[str]:
    """Write the kernel's log to a new file.

    Args:
        out: of the file; None for standard output.

    Returns:
        lines on what the log lacks; none if it is whole.

    Raises: as make_kdump().
    """
    reason = refuse(disk, block)
    stream = Stream(disk, block)
    found, began = False, False
    with stdout(True) if out is None else OutputFile(out, 0) as output:
        for chunk in stream.chunks():
            if chunk.header.kind == chunks.LOG:
                output.write(UNPRINTABLE.sub(_escaped, chunk.payload))
                found = True
            began = began or chunk.header.kind in KINDS
            if began:
                break
        if not found:
            raise NoLog(f"{disk.path}: the dump has no log as text")
        doubt = source.unchanged(disk, block)
        output.publish()
    missing = list(stream.damage.lines)
    if not began and reason:
        missing.append(reason)
    return missing + ([doubt] if doubt else [])


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"\\x%02x" % found[0][0]
