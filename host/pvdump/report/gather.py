"""All that a report tells of a dump, gathered.

Called by command.py. The rules: without drgn, or where drgn finds neither symbols nor types, there
are still the kernel's log, its registers and VMCOREINFO; each part that cannot be had costs only
itself, and is told.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pvfw.cause import Cause
from pvfw.errors import CoreError, DumpError
from pvfw.printk import Log
from pvfw.vmcoreinfo import Vmcoreinfo
from xenpv.text import decimal, printable

from .corefile import CoreFile
from .facts import Crash, Kernel, Module, Report

LOG_LINES = 200
CPU = re.compile(r"CPU: ([0-9]{1,5}) PID: ")  # in the log of an oops or panic
TIME_MAX = 1 << 40  # seconds since 1970
WITHOUT = "tasks, stacks and memory need drgn: `pip install drgn`, with the Python that runs pvdump"


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
        report = Report(
            str(path), path.stat().st_size, file.incomplete, "no drgn", kernel, Crash(cpu=file.cpu)
        )
        core = _core(report, symbols)
        with _part(report, "the kernel's log"):
            _log(report, file if core is None else Physical(core.program), info)
        if core is not None:
            _tell(report, core, file)
        _registers(report, file)
    return report


class Physical:
    """The physical memory of a dump, by drgn."""

    def __init__(self, program: Any) -> None:
        self._program = program

    def read(self, paddr: int, size: int) -> bytes:
        """Read memory at a physical address.

        Raises:
            CoreError: the dump does not have it.
        """
        import drgn

        try:
            data: bytes = self._program.read(paddr, size, physical=True)
        except (drgn.FaultError, OverflowError) as error:
            raise CoreError(f"the memory at {paddr:#x} is not in the dump") from error
        return data


def _core(report: Report, symbols: Sequence[Path]) -> Any:
    """Open the dump in drgn, None where that cannot be."""
    if importlib.util.find_spec("drgn") is None:
        if symbols:
            raise DumpError(f"--symbols needs drgn: {WITHOUT}")
        report.missing.append(WITHOUT)
        return None
    from .program import Core

    try:
        core = Core(Path(report.vmcore), symbols)
    except CoreError as error:
        report.missing.append(f"no tasks, stacks and memory: {error}")
        return None
    report.source = "debug symbols" if core.has_debug_info else "the dump itself"
    report.missing += core.lacks
    return core


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


def _tell(report: Report, core: Any, file: CoreFile) -> None:
    """Add what drgn reads."""
    from .memory import memory
    from .stacks import Stacks
    from .tasks import BLOCKED, BLOCKED_MAX, Tasks

    with _part(report, "the kernel's name and command line"):
        _kernel(report.kernel, core)
    with _part(report, "modules"):
        report.modules = list(_modules(core))
    with _part(report, "memory"):
        report.memory = memory(core.program)
    with _part(report, "tasks"):
        tasks = Tasks(core, Stacks(core, file.registers()))
        report.kernel.cpus = len(tasks.cpus)
        _running(report, tasks)
        for task, raw in tasks.all():
            report.tasks.append(task)
            if task.state == BLOCKED and len(report.blocked) < BLOCKED_MAX:
                report.blocked.append(tasks.thread(task, raw))


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


def _kernel(kernel: Kernel, core: Any) -> None:
    from drgn.helpers.linux.panic import tainted
    from drgn.helpers.linux.sched import loadavg

    program = core.program
    name = program["init_uts_ns"].name
    kernel.version = _text(name.version)
    kernel.hostname = _text(name.nodename)
    kernel.command_line = _text(program["saved_command_line"])
    kernel.load = list(loadavg(program))
    # G and blanks stand for what does not taint it.
    kernel.taints = tainted(program).replace(" ", "").replace("G", "")


def _modules(core: Any) -> Iterator[Module]:
    from drgn.helpers.linux.module import for_each_module, module_address_regions, module_taints

    for module in for_each_module(core.program):
        size = sum(size for _, size in module_address_regions(module))
        yield Module(_text(module.name), size, module_taints(module))


def _text(value: Any) -> str:
    text: str = value.string_().decode(errors="backslashreplace")
    return text


@contextmanager
def _part(report: Report, what: str) -> Iterator[None]:
    """Make a part of the report; where the dump lacks it, say so."""
    try:
        yield
    except (DumpError, LookupError, AttributeError, ValueError, OverflowError) as error:
        report.missing.append(f"{what}: {error}")
    except Exception as error:
        # drgn, which need not be there, has a class of its own for memory that the dump lacks.
        if type(error).__name__ != "FaultError":
            raise
        report.missing.append(f"{what}: {error}")
