"""drgn, which need not be installed: all that uses it is imported here, when it is asked for."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

from pvfw.errors import DumpError

from .. import pip


class NoDrgn(DumpError):
    """There is no drgn, or one that is too old."""


class Engine(NamedTuple):
    """The modules that use drgn."""

    program: ModuleType
    system: ModuleType
    stacks: ModuleType
    tasks: ModuleType
    memory: ModuleType


def engine() -> Engine:
    """Import what uses drgn.

    Raises:
        NoDrgn: it cannot be imported.
    """
    try:
        from . import memory, program, stacks, system, tasks
    except ImportError as error:
        raise NoDrgn(
            f"drgn 0.3.0 or newer is needed for tasks, stacks and memory: `{pip.install('drgn')}`"
        ) from error
    return Engine(program, system, stacks, tasks, memory)
