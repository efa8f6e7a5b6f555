"""A script with all that its imports reach, and what would fail in any of it.

Used by `pvdump script`. The rule: a module that nothing imports does no harm, so it is not looked
at.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import check
from .check import Problem


def problems(name: str, script: bytes, modules: Mapping[str, bytes]) -> list[tuple[str, Problem]]:
    """Return what would fail.

    Args:
        name: the script's.
        script: its text.
        modules: as text.modules() returns them.

    Returns:
        the names of files, each with a problem; the script's come first.
    """
    seen = check.look(script, modules)
    found = [(name, each) for each in seen.problems]
    reached: set[str] = set()
    waiting = sorted(seen.imports)
    while waiting:
        path = waiting.pop(0)
        if path in reached:
            continue
        reached.add(path)
        package = path.rpartition("/")[0].replace("/", ".")
        seen = check.look(modules[path], modules, package)
        found += [(path, each) for each in seen.problems]
        waiting += sorted(seen.imports)
    return found
