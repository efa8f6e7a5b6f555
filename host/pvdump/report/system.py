"""The kernel of a dump and its modules, by drgn.

Used by gather.py. Source: drgn/helpers/linux/panic.py, module.py, sched.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from drgn import FaultError, Object, Program
from drgn.helpers.linux.module import module_address_regions, module_taints
from drgn.helpers.linux.panic import tainted
from drgn.helpers.linux.sched import loadavg

from pvfw.errors import CoreError

from .facts import Kernel, Module
from .program import modules as loaded


class Physical:
    """The physical memory of a dump."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def read(self, paddr: int, size: int) -> bytes:
        """Read memory at a physical address.

        Raises:
            CoreError: the dump does not have it.
        """
        try:
            return self._program.read(paddr, size, physical=True)
        except (FaultError, OverflowError) as error:
            raise CoreError(f"the memory at {paddr:#x} is not in the dump") from error


def name_kernel(kernel: Kernel, program: Program) -> None:
    """Add what the kernel says of itself.

    Raises:
        LookupError, FaultError: the dump lacks it.
    """
    name = program["init_uts_ns"].name
    kernel.version = _text(name.version)
    kernel.hostname = _text(name.nodename)
    kernel.command_line = _text(program["saved_command_line"])
    kernel.load = list(loadavg(program))
    # G and blanks stand for what does not taint it; a zero is behind the last flag that it has.
    kernel.taints = "".join(each for each in tainted(program) if each not in "G \0")


def modules(program: Program) -> Iterator[Module]:
    """Yield the modules.

    Raises: as name_kernel().
    """
    for module in loaded(program):
        size = sum(size for _, size in module_address_regions(module))
        yield Module(_text(module.name), size, module_taints(module))


def _text(value: Object) -> str:
    return value.string_().decode(errors="backslashreplace")
