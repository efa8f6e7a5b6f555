"""`pvdump booted`: tells pvboot that this boot has come to its end, so that it is not counted.

Called by the command line and by pvdump-booted.service, as root, once boot-complete.target is
reached. The rule: the counter that pvboot writes is made here, so that nothing is counted in a
guest that would not take it back.
"""

from __future__ import annotations

import argparse

from pvfw.tries import Tries

from ..place import boots
from ..streams import tell

DESCRIPTION = """\
Tell pvboot that this boot has come to its end. pvboot counts each boot on the guest's dump target,
and passes over an entry of its menu of which some boots did not end. The unit pvdump-booted.service
runs this; the first time it makes the counter. As root."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--all", action="store_true", help="forget what was counted of other entries")
    how.add_argument("--off", action="store_true", help="take the counter away: count no more")


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    if options.off:
        for path in end():
            tell("booted", f"{path}: boots are not counted any more")
        return 0
    found = boots.look()
    counters = [counter for counter in found if counter.tries is not None]
    for counter in counters:
        _take_back(counter, options.all)
    if not counters:
        _begin(found)
    return 0


def begin() -> None:
    """Make the counter where there is none. Raises: DumpError."""
    found = boots.look()
    if not any(counter.tries for counter in found):
        _begin(found)


def end() -> list[str]:
    """Take all counters away. Returns their targets. Raises: DumpError."""
    counters = [counter for counter in boots.look() if counter.tries is not None]
    for counter in counters:
        boots.write(counter, None)
    return [str(counter.path) for counter in counters]


def _begin(found: list[boots.Counter]) -> None:
    if not found:
        tell(
            "booted",
            "no dump target that pvboot finds (a PV disk, a partition, or /var/crash/pvdump.img on "
            "ext4): boots are not counted",
        )
        return
    boots.write(found[0], Tries())
    tell("booted", f"from the next one on, pvboot counts boots on {found[0].path}")


def _take_back(counter: boots.Counter, is_all: bool) -> None:
    found = counter.tries
    assert found is not None
    if found.problem:
        tell("booted", f"{counter.path}: the counter of boots was {found.problem}; it begins anew")
    changes = found.is_open or found.problem or (is_all and found.records)
    found.end()
    if is_all:
        found.records = []
    if changes:
        boots.write(counter, found)
    if found.records:
        most = max(count for _, count in found.records)
        tell(
            "booted",
            f"{counter.path}: {len(found.records)} other entries have up to {most} boots that did "
            "not end; `pvdump booted --all` has pvboot try them again",
        )
