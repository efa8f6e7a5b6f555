"""A report of Linux 5.10: what its types and counters have otherwise than newer kernels.

The kernel is Debian's, as its package has it; a test writes the variables that it would have
written while it ran.
"""

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

import drgn
import pytest
from drgn.helpers.linux.percpu import per_cpu
from fixtures.stillkernel import PAGE, StillKernel

from lab.kernel import Kernel
from pvdump import cli
from pvdump.report.facts import Report
from pvdump.report.gather import gather
from pvdump.report.program import Core

TOTAL, FREE, PROGRAMS, PAGE_TABLES, STACKS_KIB = 1000, 300, 50, 7, 64
POINTER, LONG, INT = 8, 8, 4
BLOCKED = 2  # Source: Linux include/linux/sched.h, TASK_UNINTERRUPTIBLE.
STACK = ("kernel_init", "ret_from_fork")


def running(kernel: StillKernel, path: Path) -> None:
    """Have a vmcore be of a kernel that runs its first task."""
    program = Core(path).program
    raw = bytearray(path.read_bytes())

    def put(variable: drgn.Object | int, value: int, size: int) -> None:
        address = variable if isinstance(variable, int) else variable.address_
        at = address - kernel.text + 2 * PAGE
        raw[at : at + size] = value.to_bytes(size, "little")

    task = program["init_task"].address_
    # It waits for a disk, in the first function of a task, which the kernel's entry called.
    inner = program.symbol(STACK[0]).address + 1, program.symbol(STACK[1]).address + 1
    frame = program.type("struct inactive_task_frame")
    stack = program.symbol("init_stack").address + PAGE
    put(program["init_task"].state, BLOCKED, LONG)
    put(program["init_task"].thread.sp, stack, POINTER)
    put(stack + frame.member("ret_addr").offset, inner[0], POINTER)
    put(stack + frame.size, inner[1], POINTER)
    queue = per_cpu(program["runqueues"], 0)
    put(queue.idle, task, POINTER)
    put(queue.curr, task, POINTER)
    put(program["__cpu_online_mask"], 1, LONG)
    put(program["crashing_cpu"], 0, INT)
    put(program["saved_command_line"], program["linux_banner"].address_, POINTER)
    put(program["tainted_mask"], 1 << 12, LONG)
    # A super block without inodes, where nothing else is.
    block = program["node_data"].address_
    inodes = block + program.type("struct super_block").member("s_inodes").offset
    put(program["blockdev_superblock"], block, POINTER)
    put(inodes, inodes, POINTER)
    put(inodes + POINTER, inodes, POINTER)
    put(program["_totalram_pages"], TOTAL, LONG)
    zones, nodes = program["vm_zone_stat"], program["vm_node_stat"]
    for counters, name, value in (
        (zones, "NR_FREE_PAGES", FREE),
        (zones, "NR_PAGETABLE", PAGE_TABLES),
        (nodes, "NR_ANON_MAPPED", PROGRAMS),
        (nodes, "NR_KERNEL_STACK_KB", STACKS_KIB),
    ):
        put(counters[program[name].value_()], value, LONG)
    path.write_bytes(raw)


@pytest.fixture(scope="module")
def vmcore(debian: Kernel, still: StillKernel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("older") / "vmcore"
    path.write_bytes(still.vmcore(debian.release))
    running(still, path)
    return path


@pytest.fixture(scope="module")
def made(vmcore: Path) -> Report:
    return gather(vmcore, [])


def test_it_has_tasks_though_its_types_name_no_per_cpu_variable(made: Report) -> None:
    assert made.source == "the dump itself"
    assert made.kernel.cpus == 1
    assert [(task.pid, task.comm, task.state) for task in made.tasks] == [(0, "swapper", "D")]
    assert made.crash.thread is not None
    assert made.crash.thread.task == made.tasks[0]


def test_a_blocked_task_is_shown_with_its_stack(
    made: Report, vmcore: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (thread,) = made.blocked
    assert thread.task == made.tasks[0]
    assert [frame.name for frame in thread.stack.frames] == list(STACK)
    assert thread.stack.ends == ""
    lines = [
        f"#{number}  {frame.name}+0x1/{frame.size:#x}"
        for number, frame in enumerate(thread.stack.frames)
    ]
    for words in ([], ["--html", "-"]):
        capfd.readouterr()
        assert cli.main(["report", *words, str(vmcore)]) == 0
        shown = capfd.readouterr().out.partition("blocked: [swapper], PID 0")[2]
        assert re.findall(r"#\d +[^\s<]+", shown) == lines
    capfd.readouterr()
    assert cli.main(["report", "--json", str(vmcore)]) == 0
    assert json.loads(capfd.readouterr().out)["blocked"] == [asdict(thread)]


def test_blocked_tasks_that_are_too_many_to_be_shown_are_counted(
    vmcore: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[gather.__module__], "BLOCKED_MAX", 0)
    made = gather(vmcore, [])
    assert made.blocked == []
    assert "1 more blocked tasks, whose stacks are not shown" in made.missing


def test_page_tables_are_counted_where_its_zones_count_them(made: Report) -> None:
    assert made.memory is not None
    pages = {name: size // PAGE for name, size in made.memory.classes.items()}
    assert {name: count for name, count in pages.items() if count} == {
        "free": FREE,
        "programs": PROGRAMS,
        "page tables": PAGE_TABLES,
        "kernel stacks": STACKS_KIB * 1024 // PAGE,
        "other kernel": TOTAL - FREE - PROGRAMS - PAGE_TABLES - STACKS_KIB * 1024 // PAGE,
    }


def test_it_names_the_kernel_and_what_taints_it(made: Report, debian: Kernel) -> None:
    assert made.kernel.release == debian.release
    assert made.kernel.version.startswith("#1 SMP Debian 5.10.")
    assert made.kernel.taints == "O"


def test_what_it_lacks_are_the_types_of_modules_and_a_log(made: Report) -> None:
    first, second = made.missing
    assert first.startswith("no types of the modules' own, which Linux 5.11 and newer have")
    # The vmcore's VMCOREINFO does not tell of one.
    assert second.startswith("the kernel's log: ")
