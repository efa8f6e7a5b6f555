"""A report as text, for a terminal or a file.

Used by command.py. The rule: what the crashed guest wrote can be anything, so all of it passes
through one_line(): no control character reaches a terminal.
Source of the colours: ECMA-48, SGR.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone

from ..streams import one_line
from .facts import LEAST, Crash, Memory, Report, Stack, Task, Thread

LOG_LINES = 25
USERS = 10
BAR = 40  # characters
LABEL = 15  # characters of a line's name
BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"
# What a state's letter stands for.
STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "blocked",
    "T": "stopped",
    "t": "traced",
    "X": "dead",
    "Z": "zombie",
    "P": "parked",
    "I": "idle",
}
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Text:
    """Makes a report's text.

    Args:
        report: what it tells.
        coloured: whether a terminal shows it.
    """

    def __init__(self, report: Report, coloured: bool) -> None:
        self._report = report
        self._coloured = coloured

    def lines(self) -> Iterator[str]:
        """Yield the lines of the whole report."""
        report = self._report
        yield from self._head()
        yield from self._crash(report.crash)
        yield from self._tasks()
        if report.memory is not None:
            yield from self._memory(report.memory)
        tainting = [f"{module.name} ({module.taints})" for module in report.tainting()]
        if report.modules:
            yield from self._section("modules")
            yield self._fact("loaded", str(len(report.modules)))
            yield self._fact("tainting", ", ".join(tainting) or "none")
        if report.log:
            yield from self._section("the end of the log")
            for line in report.log[-LOG_LINES:]:
                yield self._paint(one_line(line), RED if "Kernel panic" in line else "")
        if report.missing:
            yield from self._section("not in this report")
            yield from (f"  {self._paint(one_line(line), YELLOW)}" for line in report.missing)

    def _head(self) -> Iterator[str]:
        report, kernel = self._report, self._report.kernel
        yield self._fact("dump", f"{report.vmcore}, {amount(report.size)}")
        if report.incomplete:
            yield self._fact("", "incomplete: part of the memory is missing", YELLOW)
        yield self._fact("read by", report.source)
        yield self._fact("kernel", " ".join(filter(None, (kernel.release, kernel.version))))
        if kernel.hostname:
            yield self._fact("host name", kernel.hostname)
        if kernel.crashed_at:
            yield self._fact("crashed at", moment(kernel.crashed_at))
        if kernel.uptime is not None:
            yield self._fact("uptime", duration(kernel.uptime))
        load = "".join(f" {each:.2f}" for each in kernel.load)
        yield self._fact("CPUs", f"{kernel.cpus}{', load' + load if load else ''}")
        if report.source != LEAST:
            yield self._fact("tainted", kernel.taints or "no")
        if kernel.command_line:
            yield self._fact("command line", kernel.command_line)

    def _crash(self, crash: Crash) -> Iterator[str]:
        yield from self._section("why")
        for line in crash.lines or ["the log does not say"]:
            yield f"  {self._paint(one_line(line), RED + ';' + BOLD)}"
        if crash.thread is not None:
            yield from self._thread(f"the task that crashed, on CPU {crash.cpu}", crash.thread)
        if crash.registers:
            yield from self._section(f"registers of CPU {crash.cpu}")
            pairs = [f"{name:>8} {value[2:]:>16}" for name, value in crash.registers.items()]
            yield from ("".join(pairs[at : at + 3]) for at in range(0, len(pairs), 3))
        for thread in crash.others:
            yield from self._thread(f"on CPU {thread.task.cpu}", thread)

    def _tasks(self) -> Iterator[str]:
        report = self._report
        if report.tasks:
            yield from self._section("tasks")
            counts = [f"{n} {STATES.get(state, state)}" for state, n in report.states().items()]
            yield f"  {len(report.tasks)}: {one_line(', '.join(counts))}"
        for thread in report.blocked:
            yield from self._thread("blocked", thread)
        users = report.users(USERS)
        if users:
            yield from self._section("processes with most memory")
            yield self._paint(f"  {'PID':>8} {'in memory':>12} {'virtual':>12}  name", DIM)
            yield from map(self._user, users)

    def _user(self, task: Task) -> str:
        resident, virtual = amount(task.resident), amount(task.virtual)
        return f"  {task.pid:>8} {resident:>12} {virtual:>12}  {one_line(task.comm)}"

    def _memory(self, memory: Memory) -> Iterator[str]:
        yield from self._section(f"memory, {amount(memory.total)}")
        for name, size in memory.classes.items():
            share = size / memory.total if memory.total else 0
            bar = "█" * round(share * BAR)
            colour = GREEN if name == "free" else CYAN
            yield f"  {name:<{LABEL}} {amount(size):>10} {share:>5.0%} {self._paint(bar, colour)}"
        if memory.swap_total:
            used = f"{amount(memory.swap_used)} of {amount(memory.swap_total)}"
            yield self._fact("swap used", used)
        promised = f"{amount(memory.committed)} of {amount(memory.commit_limit)}"
        yield self._fact("committed", promised)

    def _thread(self, what: str, thread: Thread) -> Iterator[str]:
        yield from self._section(f"{what}: {named(thread.task)}")
        yield from (f"  {line}" for line in stack_lines(thread.stack))

    def _section(self, title: str) -> Iterable[str]:
        return ("", self._paint(one_line(title), BOLD))

    def _fact(self, name: str, value: str, code: str = "") -> str:
        return f"{self._paint(f'{name:<{LABEL}}', DIM)} {self._paint(one_line(value), code)}"

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured and code and text else text


def stack_lines(stack: Stack) -> Iterator[str]:
    """Yield a line for each frame, as the kernel prints them, and one on where it ends early."""
    for number, frame in enumerate(stack.frames):
        place = f"{frame.name}+{frame.offset:#x}/{frame.size:#x}" if frame.name else frame.address
        module = f" [{frame.module}]" if frame.module else ""
        source = f"  {' < '.join(frame.source)}" if frame.source else ""
        yield one_line(f"#{number:<2} {place}{module}{source}")
    if stack.ends:
        yield one_line(f"... {stack.ends}")


def named(task: Task) -> str:
    """Return a task's name and number, for one line."""
    name = f"[{task.comm}]" if task.is_kernel else task.comm
    return one_line(f"{name}, PID {task.pid}")


def amount(size: float) -> str:
    """Write a number of bytes for a person."""
    unit = 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size /= 1024
        unit += 1
    return f"{size:.{1 if unit and size < 100 else 0}f} {UNITS[unit]}"


def moment(seconds: int) -> str:
    """Write a time since 1970, UTC."""
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (OSError, OverflowError, ValueError):
        return f"{seconds} s since 1970"


def duration(seconds: float) -> str:
    """Write how long something took."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    days, hours = divmod(hours, 24)
    if days or hours:
        return f"{days} d {hours} h {minutes} min" if days else f"{hours} h {minutes} min"
    return f"{minutes} min {rest:.1f} s" if minutes else f"{rest:.1f} s"
