"""All that a report tells of a dump, gathered.

Called by command.py. The rules: without drgn, or where drgn finds neither symbols nor types, there
are still the kernel's log, its registers and VMCOREINFO; each part that cannot be had costs only
itself, and is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pvfw.cause import Cause
from pvfw.errors import CoreError
from pvfw.printk import Log
from pvfw.vmcoreinfo import Vmcoreinfo
from xenpv.text import decimal, printable

from .corefile import CoreFile
from .engine import NoDrgn, engine
from .facts import LEAST, Crash, Kernel, Report

LOG_LINES = 200
# In the log of an oops or panic; UID since Linux 6.11.
CPU = re.compile(r"CPU: ([0-9]{1,5}) (?:UID: [0-9]+ )?PID: ")
TIME_MAX = 1 << 40  # seconds since 1970
BLOCKED = "D"
BLOCKED_MAX = 64  # stacks of blocked tasks that are shown; a hung disk can block thousands


def gather(path: Path, symbols: Sequence[Path]) -> Report:
    """Read a dump.

    Args:
        path: of the vmcore.
        symbols: files with debug symbols, beside those of the standard places.

    Raises:
        DumpError: it is no vmcore that can be read.
        OSError: the file cannot be read.
    """
    with CoreFile(path) as file:
        info = file.vmcoreinfo()
        kernel = Kernel(printable(file.notes.text("OSRELEASE")))
        kernel.crashed_at = decimal(printable(file.notes.text("CRASHTIME")), 0, TIME_MAX) or 0
        kernel.cpus = file.notes.cpus
        size, crash = path.stat().st_size, Crash(cpu=file.cpu)
        report = Report(str(path), size, file.incomplete, LEAST, kernel, crash)
        drgn, core = _core(report, symbols)
        with _part(report, "the kernel's log"):
            _log(report, drgn.system.Physical(core.program) if drgn else file, info)
        if drgn:
            _tell(report, drgn, core, file)
        _registers(report, file)
    return report


def _core(report: Report, symbols: Sequence[Path]) -> tuple[Any, Any]:
    """Open the dump in drgn. Returns the modules that use drgn and the dump, None without."""
    try:
        drgn = engine()
        core = drgn.program.Core(Path(report.vmcore), symbols)
    except NoDrgn as error:
        if symbols:
            raise
        report.missing.append(str(error))
        return None, None
    except CoreError as error:
        report.missing.append(f"no tasks, stacks and memory: {error}")
        return None, None
    report.source = "debug symbols" if core.has_debug_info else "the dump itself"
    report.missing += core.lacks
    return drgn, core


def _log(report: Report, memory: Any, info: Vmcoreinfo) -> None:
    log = Log(memory, info)
    cause = Cause(log)
    crash = report.crash
    crash.reason, crash.lines = cause.text, cause.lines
    found = CPU.search(" ".join(cause.lines))
    if crash.cpu is None and found:
        crash.cpu = int(found[1])
    for time, _, _ in log.records(1):
        report.kernel.uptime = time / 1e9
    report.log = list(log.lines(LOG_LINES))[-LOG_LINES:]
    if log.lost:
        report.missing.append(f"{log.lost} records of the kernel's log: {log.why}")


def _registers(report: Report, file: CoreFile) -> None:
    """Note the registers of the CPU that crashed."""
    crash = report.crash
    found = file.registers()
    pid = crash.thread.task.pid if crash.thread else None
    if crash.cpu is not None:
        here = found[crash.cpu : crash.cpu + 1]
        for each in here + found:
            if pid is None or each.pid == pid:
                crash.registers = {name: hex(value) for name, value in each.values.items()}
                return


def _tell(report: Report, drgn: Any, core: Any, file: CoreFile) -> None:
    """Add what drgn reads."""
    program = core.program
    with _part(report, "the kernel's name and command line"):
        drgn.system.name_kernel(report.kernel, program)
    with _part(report, "modules"):
        report.modules = list(drgn.system.modules(program))
    with _part(report, "memory"):
        report.memory = drgn.memory.memory(program)
    with _part(report, "tasks"):
        tasks = drgn.tasks.Tasks(core, drgn.stacks.Stacks(core, file.registers()))
        report.kernel.cpus = len(tasks.cpus)
        _running(report, tasks)
        for task, raw in tasks.all():
            report.tasks.append(task)
            if task.state == BLOCKED and len(report.blocked) < BLOCKED_MAX:
                report.blocked.append(tasks.thread(task, raw))
        more = report.states().get(BLOCKED, 0) - len(report.blocked)
        if more:
            report.missing.append(f"{more} more blocked tasks, whose stacks are not shown")


def _running(report: Report, tasks: Any) -> None:
    """Add the tasks that ran at the crash."""
    crash = report.crash
    crashed = tasks.crashed_cpu()
    crash.cpu = crash.cpu if crashed is None else crashed
    for cpu in tasks.cpus:
        with _part(report, f"the task on CPU {cpu}"):
            thread = tasks.running(cpu)
            if cpu == crash.cpu:
                crash.thread = thread
            else:
                crash.others.append(thread)


@contextmanager
def _part(report: Report, what: str) -> Iterator[None]:
    """Make a part of the report; where the dump lacks it, or has damage there, say so."""
    try:
        yield
    except Exception as error:  # damaged memory has drgn's helpers raise any
        report.missing.append(f"{what}: {error or type(error).__name__}")
