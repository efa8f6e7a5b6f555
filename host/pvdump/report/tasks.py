"""The tasks of a dump, by drgn.

Used by gather.py. Source: drgn/helpers/linux/sched.py, pid.py, mm.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Optional

import drgn
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.mm import task_rss, task_vsize
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import cpu_curr, idle_task, task_cpu, task_state_to_char

from .facts import Task, Thread
from .program import Core
from .stacks import Stacks

PF_KTHREAD = 0x00200000
TASKS_MAX = 1 << 22  # the kernel's own bound, PID_MAX_LIMIT


class Tasks:
    """The tasks of a dump.

    Args:
        core: the dump.
        stacks: finds their stacks.
    """

    def __init__(self, core: Core, stacks: Stacks) -> None:
        self._program = core.program
        self._stacks = stacks
        self._page = core.program["PAGE_SIZE"].value_()
        self.cpus = list(for_each_online_cpu(core.program))

    def all(self) -> Iterator[tuple[Task, drgn.Object]]:
        """Yield each task with its task_struct, those of idle CPUs first."""
        for cpu in self.cpus:
            task = idle_task(self._program, cpu)
            yield self._task(task), task
        for task in islice(for_each_task(self._program), TASKS_MAX):
            yield self._task(task), task

    def running(self, cpu: int) -> Thread:
        """Return the task that ran on a CPU at the crash."""
        task = cpu_curr(self._program, cpu)
        return Thread(self._task(task), self._stacks.running(task, cpu))

    def thread(self, task: Task, raw: drgn.Object) -> Thread:
        """Return a task that did not run at the crash, with its stack."""
        return Thread(task, self._stacks.sleeping(raw))

    def crashed_cpu(self) -> Optional[int]:
        """Return the number of the CPU that crashed, None where the kernel does not say it."""
        try:
            cpu: int = self._program["crashing_cpu"].value_()
        except LookupError:
            return None
        return cpu if cpu in self.cpus else None

    def _task(self, task: drgn.Object) -> Task:
        is_kernel = bool(task.flags.value_() & PF_KTHREAD)
        return Task(
            task.pid.value_(),
            task.tgid.value_(),
            # An idle task has the task that started its CPU for a parent.
            task.real_parent.tgid.value_() if task.pid else 0,
            task_cpu(task),
            task_state_to_char(task),
            task.comm.string_().decode(errors="backslashreplace"),
            hex(task.value_()),
            is_kernel,
            0 if is_kernel else task_vsize(task),
            0 if is_kernel else task_rss(self._program, task).total * self._page,
        )
