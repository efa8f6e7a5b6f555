"""The names and the modules that a script uses, and which of them are not there.

Used by check.py. The rule: a name counts as there if anything in the file gives it a value,
wherever that is; so what is reported is in no scope.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from typing import Optional, Union

from . import inside


class Names(ast.NodeVisitor):
    """Visits the syntax tree of one file.

    Args:
        modules, package: as for check.look().

    Attributes:
        modules: as given.
        imports: paths of the files that its imports may read.
    """

    def __init__(self, modules: Iterable[str], package: Optional[str]) -> None:
        self.modules = frozenset(modules)
        self.imports: set[str] = set()
        self._package = package
        self._found: list[tuple[int, str]] = []
        self._bound: set[str] = set()
        self._has_stars = False
        self._used: dict[str, int] = {}

    def problems(self) -> Iterator[tuple[int, str]]:
        """Give (line, what is wrong there), once the whole file was visited."""
        yield from self._found
        if self._has_stars:
            return
        known = self._bound | inside.BUILTINS | inside.ALWAYS
        if self._package is None:
            known |= inside.NAMES
        for name, line in self._used.items():
            if name not in known:
                what = "MicroPython has no" if hasattr(builtins, name) else "nothing has the name"
                yield line, f"{what} {name}"
            elif name == "open" and name not in self._bound:
                yield line, "open(): there are no files"

    # Names.

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._used.setdefault(node.id, node.lineno)
        else:
            self._bound.add(node.id)

    def visit_Global(self, node: ast.Global) -> None:
        self._bound.update(node.names)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._bound.add(node.name)
        self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> None:
        self._bound.add(node.arg)  # its annotation is not evaluated

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def _function(self, node: Union[ast.FunctionDef, ast.AsyncFunctionDef]) -> None:
        self._bound.add(node.name)
        for child in ast.iter_child_nodes(node):
            if child is not node.returns:
                self.visit(child)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bound.add(node.name)
        self.generic_visit(node)

    # Imports.

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._bound.add(alias.asname or alias.name.split(".")[0])
            self._imported(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        path = self._absolute(node)
        if path is None:
            self._found.append((node.lineno, "an import with a dot, but no package around it"))
            path = ""
        elif not self._imported(node, path):
            path = ""
        for alias in node.names:
            self._has_stars |= alias.name == "*"
            self._bound.add(alias.asname or alias.name)
            if path:
                self.imports.update(_files(f"{path}.{alias.name}"))

    def _absolute(self, node: ast.ImportFrom) -> Optional[str]:
        """Return the path of the module that names are imported from; None: there is none."""
        module = node.module or ""
        if not node.level:
            return module
        words = self._package.split(".") if self._package else []
        if len(words) < node.level:
            return None
        words = words[: len(words) - node.level + 1]
        return ".".join([*words, module] if module else words)

    def _imported(self, node: Union[ast.Import, ast.ImportFrom], path: str) -> bool:
        """Note an import. Returns whether there is such a module."""
        files = _files(path)
        self.imports.update(files)
        own, folder = path.replace(".", "/") + ".py", path.replace(".", "/") + "/"
        is_ours = own in self.modules or any(each.startswith(folder) for each in self.modules)
        is_there = is_ours or inside.has_module(path)
        if not is_there:
            text = f"pvboot has no module {path}, and none comes with the script"
            self._found.append((node.lineno, text))
        return is_there


def _files(path: str) -> set[str]:
    """Return the paths of the files that an import of a module may read: of packages, too."""
    words = path.split(".")
    tops = ["/".join(words[:count]) for count in range(1, len(words) + 1)]
    return {*(f"{top}/__init__.py" for top in tops), f"{tops[-1]}.py"}
