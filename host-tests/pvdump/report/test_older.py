"""A report of Linux 5.10: what its types and counters have otherwise than newer kernels.

The kernel is Debian's, as its package has it; a test writes the variables that it would have
written while it ran.
"""

from pathlib import Path

import drgn
import pytest
from drgn.helpers.linux.percpu import per_cpu
from fixtures.stillkernel import PAGE, StillKernel

from lab.kernel import Kernel
from pvdump.report.facts import Report
from pvdump.report.gather import gather
from pvdump.report.program import Core

TOTAL, FREE, PROGRAMS, PAGE_TABLES, STACKS_KIB = 1000, 300, 50, 7, 64
POINTER, LONG, INT = 8, 8, 4


def running(kernel: StillKernel, path: Path) -> None:
    """Have a vmcore be of a kernel that runs its first task."""
    program = Core(path).program
    raw = bytearray(path.read_bytes())

    def put(variable: drgn.Object | int, value: int, size: int) -> None:
        address = variable if isinstance(variable, int) else variable.address_
        at = address - kernel.text + 2 * PAGE
        raw[at : at + size] = value.to_bytes(size, "little")

    task = program["init_task"].address_
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
def made(debian: Kernel, still: StillKernel, tmp_path_factory: pytest.TempPathFactory) -> Report:
    path = tmp_path_factory.mktemp("older") / "vmcore"
    path.write_bytes(still.vmcore(debian.release))
    running(still, path)
    return gather(path, [])


def test_it_has_tasks_though_its_types_name_no_per_cpu_variable(made: Report) -> None:
    assert made.source == "the dump itself"
    assert made.kernel.cpus == 1
    assert [(task.pid, task.comm, task.state) for task in made.tasks] == [(0, "swapper", "R")]
    assert made.crash.thread is not None
    assert made.crash.thread.task == made.tasks[0]


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
