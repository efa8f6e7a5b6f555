"""Gets the dumps off a guest's own targets into its folder of dumps: `pvdump collect` alone.

Called by collect.py. The rules: a dump's folder appears whole and in one step; only then its target
is noted as collected and made ready again. So a run that is killed, or cut by the power, loses
nothing at any moment, and the next one goes on: it knows by a dump's id whether it has its folder.
Reports and hooks that fail cost only themselves.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from pvfw import superblock
from pvfw.errors import DumpError
from pvfw.superblock import MIB, Superblock

from ..dump import disk as disks
from ..dump import source
from ..dump.collect import Collected, collect, collect_log, note
from ..dump.disk import DiskError
from ..dump.immutable import IMMUTABLE, attributes, set_immutable
from ..dump.meter import Meter
from ..dump.prepare import prepare_again
from ..place.locate import locate
from ..streams import complain, pasted, tell
from . import crashtest, dumps, hooks, motd, record, reports, retention, telling
from .dumps import Dump, Facts

FAILED, INCOMPLETE = 1, 3  # exit codes
VMCORE = "vmcore"
COLLECTED = "collected.json"
# Bytes beside those of the dump: log, report, and a reader's tables.
BESIDE = 16 * MIB
# Why the dump of a guest that runs again was never ended.
CUT = "the guest was reset, or lost its power, while the dump was written"
TIME_MAX = 1 << 33  # s; a superblock that says more is wrong


@dataclass(frozen=True)
class Guest:
    """Where a guest has what is read and written here.

    Attributes:
        directory: of dumps.
        keep: dumps that are kept.
        keep_free: bytes that stay free in the directory; None: what is usual.
        hooks: folder with the folders of hooks.
        root: of devices and records.
    """

    directory: Path
    keep: int
    keep_free: Optional[int]
    hooks: Path
    root: Path = Path("/")

    @classmethod
    def of(cls, settings: dict[str, Any], root: Path = Path("/")) -> Guest:
        """Take what it needs of the settings."""
        names = ("directory", "keep", "keep_free", "hooks")
        return cls(**{name: settings[name] for name in names}, root=root)


def targets(settings: dict[str, Any], root: Path = Path("/")) -> list[Path]:
    """Return the names of the targets that the settings have."""
    return [each.place or root / "dev" / each.name for each in settings["targets"]]


def gather(guest: Guest, paths: list[Path], defer_hooks: bool, own: bool = True) -> int:
    """Get the dump off each target, and make the target ready again.

    Args:
        guest: where to.
        paths: of the targets.
        defer_hooks: leave the hooks that come after a dump to the next run.
        own: whether the targets are this guest's own, so that nobody writes to them now, and this
            guest is told of its dumps.

    Returns:
        the exit code.

    Raises:
        DumpError: the folder of dumps cannot be used.
    """
    codes = {0}
    with dumps.locked(guest.directory):
        for path in paths:
            try:
                codes.add(_one(guest, path, own))
                _fix(path)
            except DumpError as error:
                complain("collect", str(error))
                codes.add(FAILED)
            except OSError as error:
                complain("collect", f"{error.filename or path}: {error.strerror}")
                codes.add(FAILED)
        if not defer_hooks:
            codes.add(_after(guest))
        for dump in retention.keep(guest.directory, guest.keep):
            telling.removed(dump, f"keep: {guest.keep} in the settings keeps no more dumps")
    return FAILED if FAILED in codes else max(codes)


def _one(guest: Guest, path: Path, own: bool) -> int:
    """Get the dump off a target. Returns the exit code."""
    with disks.reading(path) as disk:
        block = disk.superblock()
        most = max(disk.size - block.data_offset, 0)
    if block.state == superblock.READY:
        tell("collect", f"{path} holds no dump: it is ready for one")
        return 0
    if block.state == superblock.WRITING and not own:
        raise DiskError(
            f"{path}: the guest is still writing, or was ended while it wrote; "
            f"`pvdump collect {pasted(path)} OUT` copies what there is"
        )
    dump = _published(guest.directory, block)
    if dump is None and block.collected:
        tell("collect", f"the dump on {path} was collected before, to another place")
    else:
        if dump is not None:
            tell("collect", f"{dump.path} has the dump of {path} already")
        else:
            dump = _publish(guest, path, block, min(block.dump_size or block.written, most), own)
        if own:
            _record_all(guest, dump)
        if dump.facts.lost:
            raise DiskError(telling.kept(dump, path))
        note(path, block)
    ready = prepare_again(path)
    telling.ready(path, ready.room, own)
    return 0 if dump is None or dump.facts.complete else INCOMPLETE


def _fix(path: Path) -> None:
    """Have a target in a file system immutable again, where a run was cut that had it otherwise."""
    try:
        place = locate(path)
    except DumpError:  # no place of this guest
        return
    if not place.file or place.swap:
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not attributes(fd) & IMMUTABLE:
            set_immutable(fd, path, True)
            tell("collect", f"{path} is immutable again")
    finally:
        os.close(fd)


def _published(directory: Path, block: Superblock) -> Optional[Dump]:
    """Return the dump that was made of what a superblock tells of."""
    number = block.uuid.hex(), block.dump, block.started
    for dump in dumps.found(directory):
        if (dump.facts.uuid, dump.facts.dump, dump.facts.started) == number:
            return dump
    return None


def _publish(guest: Guest, path: Path, block: Superblock, size: int, own: bool) -> Dump:
    """Make the folder of a dump of `size` bytes. Raises DumpError, and leaves nothing then."""
    for gone in retention.make_room(guest.directory, size + BESIDE, guest.keep_free):
        telling.removed(gone, "a new dump needs its room (keep_free: in the settings)")
    facts = _facts(path, block)
    place = dumps.free_name(guest.directory, facts)
    failed = hooks.run(guest.hooks / hooks.BEFORE, place, facts.complete)
    for line in failed:
        complain("collect", line)
    part = dumps.begin(guest.directory, facts.uuid)
    try:
        with Meter() as meter:
            done = collect(path, part / VMCORE, meter, form="", noted=False)
        if own and block.state == superblock.WRITING:
            done = replace(done, reason=done.reason.replace(source.UNENDED, CUT))
        facts = _with(facts, done, failed)
        lacks = []
        if not facts.encrypted:
            lacks = [*_log(path, part), *reports.write(part, facts.vmcore)]
        dump = dumps.publish(part, place, facts)
    except BaseException:
        dumps.discard(part)
        raise
    telling.published(dump, path, meter, lacks)
    return dump


def _facts(path: Path, block: Superblock) -> Facts:
    """Return what a superblock tells of its dump."""
    known = 0 < block.started < TIME_MAX
    return Facts(
        format=dumps.FORMAT,
        target=str(path),
        uuid=block.uuid.hex(),
        dump=block.dump,
        started=block.started,
        time=block.started if known else int(time.time()),
        release=block.release,
        vmcore=VMCORE,
        complete=block.state == superblock.COMPLETE,
    )


def _with(facts: Facts, done: Collected, failed: list[str]) -> Facts:
    """Add what was found when the dump was collected."""
    return replace(
        facts,
        vmcore=done.out.name if done.out else VMCORE,
        complete=not done.reason,
        missing=[line for line in [done.reason, *done.detail] if line],
        encrypted=done.encrypted,
        reason=done.cause,
        lost=done.lost,
        alone=done.alone,
        hooks=failed,
    )


def _log(path: Path, part: Path) -> list[str]:
    """Write the kernel's log into a dump's folder. Returns lines on what it lacks."""
    try:
        return [f"{dumps.LOG}: {line}" for line in collect_log(path, part / dumps.LOG, False)]
    except DumpError as error:
        return [f"no {dumps.LOG}: {error}"]


def _record_all(guest: Guest, dump: Dump) -> None:
    """Tell of a dump at each login, in `pvdump status`, and to a test that made the panic."""
    complete = dump.facts.complete
    line = f"{'' if complete else 'part of '}the dump is in {dump.path}"
    try:
        motd.write(guest.root, dump)
        _record(guest, dump)
        crashtest.settle(guest.root, complete, line)
    except DumpError as error:
        complain("collect", str(error))


def _record(guest: Guest, dump: Dump) -> None:
    facts = dump.facts
    record.save(
        guest.root / record.STATE / COLLECTED,
        {
            "folder": str(dump.path),
            "time": facts.when().isoformat(),
            "release": facts.release,
            "reason": facts.reason,
            "complete": facts.complete,
            "missing": facts.missing,
            "encrypted": facts.encrypted,
            "hooks": facts.hooks,
        },
    )


def _recorded(guest: Guest) -> Any:
    """Return the folder that the record names."""
    try:
        return record.load(guest.root / record.STATE / COLLECTED).get("folder")
    except record.RecordError:
        return None


def _after(guest: Guest) -> int:
    """Run the hooks of all dumps whose hooks did not run. Returns the exit code."""
    code = 0
    for dump in dumps.found(guest.directory):
        if not dump.facts.pending:
            continue
        failed = hooks.run(guest.hooks / hooks.AFTER, dump.path, dump.facts.complete)
        for line in failed:
            complain("collect", line)
        changed = dump.change(hooks=dump.facts.hooks + failed, pending=False)
        if changed.facts.hooks:
            code = FAILED
        if _recorded(guest) == str(changed.path):
            _record(guest, changed)
    return code
