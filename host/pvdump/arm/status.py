"""`pvdump status`: whether a panic now would be dumped; target, room, last dump, last test.

Called by the command line, by people and by monitoring. The rules: nothing is changed; "armed" is
what was looked at now, not what a record says; the exit code alone is enough for a check.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from pvfw.errors import DumpError
from pvfw.superblock import MIB

from ..guest import crashtest, record
from ..streams import as_root, tell
from . import arming, estimate, kexec
from .arming import ArmError

COLLECTED = record.STATE / "collected.json"
DESCRIPTION = """\
Tell whether a panic now would be dumped: what is loaded, the target and its room, the last dump and
the last test. As root."""
EPILOG = """\
exit codes: 0 armed, and the target is ready and has room; 1 not, the first line says why."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--json", action="store_true", help="print JSON: docs/status.md")


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    found = status(record.ROOT)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for line in _lines(found):
            tell("status", line)
    return 0 if found["ready"] else 1


def status(root: Path) -> dict[str, Any]:
    """Look at the state of the guest.

    Returns:
        as docs/status.md has it.
    """
    found: dict[str, Any] = {"ready": False, "why": "", "armed": {}, "dump": {}, "test": {}}
    try:
        armed = arming.load_record(root)
        found["armed"] = {key: armed[key] for key in SHOWN if key in armed}
        found["why"] = why_not(armed, root)
        found["ready"] = not found["why"]
        found["dump"] = record.load(root / COLLECTED)
        found["test"] = record.load(root / crashtest.TESTED)
    except DumpError as error:
        why = f"{error}{as_root('status', error)}"
        found["ready"], found["why"] = False, found["why"] or why
    return found


# Of the record of what is armed: no digests.
SHOWN = ("time", "release", "image", "call", "level", "compress", "targets", "estimate")


def why_not(armed: dict[str, Any], root: Path) -> str:
    """Tell why a panic now would not be dumped; "" if it would. Raises DumpError."""
    kernel = kexec.state(root)
    if not kernel.reserved:
        return "no memory is reserved for a crash kernel: `pvdump setup`, then reboot"
    if not armed and kernel.loaded:
        return "a crash kernel is loaded that `pvdump arm` did not load: `pvdump arm`"
    if not armed:
        return "not armed: `pvdump arm`"
    try:
        arming.verify(armed, root)
    except ArmError as error:
        return f"{error}: `pvdump arm`"
    except DumpError as error:
        return str(error)
    if armed.get("refused"):
        return f"{armed['refused']}; armed for the log alone: `pvdump arm`"
    return arming.room_problem(armed)


def _lines(found: dict[str, Any]) -> list[str]:
    armed, dump, test = found["armed"], found["dump"], found["test"]
    lines = ["armed" if found["ready"] else f"NOT READY: {found['why']}"]
    if armed:
        level = estimate.level_name(armed["level"])
        lines.append(f"loaded     {armed['image']}, {_when(armed['time'])}, level {level}")
        for each in armed["targets"]:
            room = "" if each["room"] is None else f", room {each['room'] / MIB:.0f} MiB"
            lines.append(f"target     {each['name']} on {each['disk']}{room}")
        if not armed["targets"]:
            lines.append("target     none: the log goes to console and xenstore")
        if armed["estimate"] is not None:
            size = armed["estimate"] / MIB
            lines.append(f"estimate   {size:.1f} MiB, when it was armed or checked last")
    lines.append(f"last dump  {_dump(dump)}")
    lines.append(f"last test  {_test(test)}")
    return lines


def _dump(dump: dict[str, Any]) -> str:
    if not dump:
        return "none"
    part = "" if dump.get("complete") else ", incomplete"
    return f"{dump.get('folder')}, {_when(dump.get('time'))}{part}: {dump.get('reason') or '?'}"


def _test(test: dict[str, Any]) -> str:
    if not test:
        return "none: `pvdump test`"
    crash = test.get("crash") or {}
    text = f"{'ok' if test.get('ok') else 'FAILED'}, {_when(test.get('time'))}"
    if crash:
        state = "pending" if crash.get("pending") else "ok" if crash.get("ok") else "FAILED"
        text += f"; with a panic: {state}, {_when(crash.get('time'))}"
    return text


def _when(seconds: Any) -> str:
    """Return a time as text, UTC; one that is a text as it is."""
    if not isinstance(seconds, int):
        return str(seconds)
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
