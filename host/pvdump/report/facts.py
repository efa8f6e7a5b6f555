"""What a report tells of a dump. `pvdump report --json` prints it with these names.

Made by gather.py, shown by text.py and page.py. The rule: what could not be had is None or empty,
and `missing` has a line on why. Memory is in bytes, times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

LEAST = "log and registers"  # what a report is made of where neither drgn nor symbols are


@dataclass
class Function:
    """A frame of a stack.

    Attributes:
        name: of the function; "" where no symbol is known.
        address: of the next instruction, in hexadecimal.
        offset: of it in the function, bytes.
        size: of the function, bytes.
        module: that it is in, "" for the kernel's own.
        source: FILE:LINE, the innermost inlined function first; [] without debug symbols.
    """

    name: str
    address: str
    offset: int
    size: int
    module: str
    source: list[str]


@dataclass
class Stack:
    """A stack.

    Attributes:
        frames: the innermost first.
        ends: why it could not be followed further, "" if it was followed to its end.
    """

    frames: list[Function] = field(default_factory=list)
    ends: str = ""


@dataclass
class Task:
    """A task: a process's thread, or one of the kernel's.

    Attributes:
        pid: of the task.
        tgid: of its process.
        ppid: of its parent process.
        cpu: that it ran on last.
        state: a letter as ps has it: R, S, D, T, t, X, Z, P, I.
        comm: its name.
        address: of its struct task_struct, in hexadecimal.
        is_kernel: whether it is the kernel's own.
        virtual: bytes of its address space.
        resident: bytes of it in memory.
    """

    pid: int
    tgid: int
    ppid: int
    cpu: int
    state: str
    comm: str
    address: str
    is_kernel: bool
    virtual: int
    resident: int


@dataclass
class Thread:
    """A task with its stack."""

    task: Task
    stack: Stack


@dataclass
class Module:
    """A kernel module; taints: letters, "" if it taints nothing."""

    name: str
    size: int
    taints: str


@dataclass
class Kernel:
    """The kernel and its machine.

    Attributes:
        release, version, hostname: as uname says; version and hostname "" without drgn.
        command_line: "" without drgn.
        taints: letters, "" if nothing taints it.
        cpus: that were online, 0 where that is not known.
        load: averages over 1, 5 and 15 minutes, [] without drgn.
        crashed_at: seconds since 1970, 0 where that is not known.
        uptime: seconds up to the last line of the log, None where there is no log.
    """

    release: str
    version: str = ""
    hostname: str = ""
    command_line: str = ""
    taints: str = ""
    cpus: int = 0
    load: list[float] = field(default_factory=list)
    crashed_at: int = 0
    uptime: Optional[float] = None


@dataclass
class Crash:
    """Why and where it crashed.

    Attributes:
        reason: one line of the log's, "" where it says none.
        lines: the lines of the log that say it.
        cpu: number of the CPU, None where that is not known.
        registers: of that CPU by their names, in hexadecimal, {} where the dump does not have them.
        thread: the task that ran there, None without drgn.
        others: the tasks that ran on the other CPUs.
    """

    reason: str = ""
    lines: list[str] = field(default_factory=list)
    cpu: Optional[int] = None
    registers: dict[str, str] = field(default_factory=dict)
    thread: Optional[Thread] = None
    others: list[Thread] = field(default_factory=list)


@dataclass
class Memory:
    """The guest's memory.

    Attributes:
        total: that the kernel manages.
        classes: bytes by what they are used for; their sum is the total.
        free, buffers, cached, slab, swap_total, swap_used, commit_limit, committed: as
            /proc/meminfo has them.
    """

    total: int
    classes: dict[str, int]
    free: int
    buffers: int
    cached: int
    slab: int
    swap_total: int
    swap_used: int
    commit_limit: int
    committed: int


@dataclass
class Report:
    """All that is told of a dump.

    Attributes:
        vmcore: the file's name.
        size: its bytes.
        incomplete: whether the file says that something is missing.
        source: "debug symbols", "the dump itself", or LEAST.
        tasks: all; [] without drgn.
        blocked: those in state D.
        log: the last lines of the kernel's log.
        missing: what could not be had, and why.
    """

    vmcore: str
    size: int
    incomplete: bool
    source: str
    kernel: Kernel
    crash: Crash
    modules: list[Module] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    blocked: list[Thread] = field(default_factory=list)
    memory: Optional[Memory] = None
    log: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def states(self) -> dict[str, int]:
        """Return the number of tasks by their state."""
        found: dict[str, int] = {}
        for task in self.tasks:
            found[task.state] = found.get(task.state, 0) + 1
        return dict(sorted(found.items()))

    def users(self, count: int) -> list[Task]:
        """Return the processes that have most memory, at most `count`."""
        processes = [task for task in self.tasks if task.pid == task.tgid and task.resident]
        return sorted(processes, key=lambda task: -task.resident)[:count]

    def tainting(self) -> list[Module]:
        """Return the modules that taint the kernel."""
        return [module for module in self.modules if module.taints]
