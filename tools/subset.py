"""The Python that MicroPython and CPython share: an ast check of the files that the image freezes.

Called by tools/lint.py, which also runs mpy-cross on these files: what that refuses is not checked
here. The rule: a name that MicroPython 1.25 lacks is reported before a build, and so is what both
accept but mean differently. Types are not known, so a method is banned by its name, on whatever
object. The tests, which run in both worlds, find what no ast shows: a plain dict does not keep its
order, struct.pack truncates, isinstance(True, int) is false.
Source: MicroPython's tests/cpydiff, py/objstr.c, py/objarray.c, py/modbuiltins.c.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

# The modules of MicroPython that boot/port/mpconfigport.h leaves in the image and CPython has too.
MODULES = {
    *("__main__", "array", "binascii", "builtins", "collections", "errno", "gc", "hashlib", "io"),
    *("struct", "sys"),
}
# terminal is in images with a shell alone, and what imports it does not run under CPython.
IMPORTS = {*MODULES, "hw", "xenpv", "pvfw", "oneshot", "terminal"}

# What these modules lack, by module.
MISSING = {
    "struct": {"error", "Struct", "iter_unpack"},
    "collections": {"ChainMap", "Counter", "UserDict", "UserList", "abc", "defaultdict"},
    "sys": {"exc_info", "getsizeof", "stderr", "stdin"},
}

NAMES = {
    **dict.fromkeys(("float", "complex", "round"), "is missing: no floats"),
    **dict.fromkeys(("ascii", "breakpoint", "format", "input", "open", "vars"), "is missing"),
    **dict.fromkeys(
        (
            *("BlockingIOError", "BrokenPipeError", "ConnectionError", "FileExistsError"),
            *("FileNotFoundError", "InterruptedError", "PermissionError", "ProcessLookupError"),
            *("ConnectionResetError", "TimeoutError"),
        ),
        "is missing; OSError, or an error of xenpv.errors",
    ),
    **dict.fromkeys(
        ("ExceptionGroup", "ModuleNotFoundError", "RecursionError", "UnicodeDecodeError"),
        "is missing",
    ),
}

ATTRIBUTES = dict.fromkeys(
    (
        *("bit_length", "bit_count", "cast", "tobytes", "nbytes", "toreadonly", "_replace"),
        *("_asdict", "zfill", "rjust", "ljust", "center", "removeprefix", "removesuffix"),
        *("casefold", "swapcase", "capitalize", "title", "expandtabs", "translate", "maketrans"),
        *("isalnum", "isascii", "isdecimal", "isidentifier", "isnumeric", "isprintable"),
        *("format_map", "with_traceback", "add_note", "strerror", "monotonic"),
        *("__annotations__", "__cause__", "__code__", "__context__", "__defaults__", "__doc__"),
        *("__module__", "__mro__", "__qualname__", "__subclasses__", "__traceback__"),
    ),
    "is missing",
)

METHODS = {
    "__class_getitem__": "is never called",
    "__del__": "is not called for Python objects",
    "__format__": "is never called",
    "__getattribute__": "is never called",
    "__index__": "is never called",
    "__init_subclass__": "is never called",
    "__set_name__": "is never called",
    "__setattr__": "is never called",
    "__delattr__": "is never called",
}

NATIVE = {"bytearray", "bytes", "int", "memoryview", "str"}

# Methods and functions of C that take their arguments by position only.
POSITIONAL = {
    *("from_bytes", "to_bytes", "split", "rsplit", "encode", "decode", "replace", "hex"),
    *("namedtuple", "deque", "zip", "int", "bytes"),
}


@dataclass(frozen=True, order=True)
class Finding:
    """One place that the two Pythons do not share."""

    path: Path
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.text}"


def check(source: str, path: Path) -> list[Finding]:
    """Return all findings in a file, in its order."""
    visitor = Subset(path)
    visitor.visit(ast.parse(source, filename=str(path)))
    return sorted(visitor.findings)


class Subset(ast.NodeVisitor):
    """Collects the findings of one file; each visit_X reports what X may not be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self.functions: set[str] = set()
        self.classes = 0
        self.coroutines = [False]

    def report(self, node: ast.AST, text: str) -> None:
        """Add a finding at a node."""
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1
        self.findings.append(Finding(self.path, line, column, text))

    # Imports

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.imported(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level:
            return
        self.imported(node, node.module or "")
        for alias in node.names:
            if alias.name in MISSING.get(node.module or "", ()):
                self.report(node, f"{node.module}.{alias.name} is missing")

    def imported(self, node: ast.AST, name: str) -> None:
        """Report a module that not both Pythons have."""
        if name.split(".")[0] not in IMPORTS:
            self.report(node, f"import {name}: not a module that both Pythons have here")

    # What both accept, and mean differently

    def visit_Slice(self, node: ast.Slice) -> None:
        if node.step is not None:
            self.report(node, "a slice with a step: only lists and tuples can")
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Slice):
                self.report(target, "del of a slice: a bytearray cannot; assign the rest instead")
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        for part in node.values:
            if isinstance(part, ast.Constant) and set("{}") & set(str(part.value)):
                self.report(node, "a literal brace in or beside an f-string is read as a field")
        self.generic_visit(node)

    # Numbers

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, float | complex):
            self.report(node, f"{node.value}: the image has no floats")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.Div):
            self.report(node, "/ gives a float: use //")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.op, ast.Div):
            self.report(node, "/= gives a float: use //=")
        self.generic_visit(node)

    # Functions and classes

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.function(node, coroutine=False)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.function(node, coroutine=True)

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, coroutine: bool) -> None:
        """Visit a function's defaults and body; its annotations are not evaluated."""
        if not self.classes:
            self.functions.add(node.name)
        self.coroutines.append(coroutine)
        # Annotations are not evaluated there: no visit.
        defaults = [*node.args.defaults, *node.args.kw_defaults]
        for child in (*node.decorator_list, *defaults, *node.body):
            if child is not None:
                self.visit(child)
        self.coroutines.pop()

    def visit_Yield(self, node: ast.Yield) -> None:
        if self.coroutines[-1]:
            self.report(node, "yield in async def: no asynchronous generators")
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        for child in (node.target, node.value):
            if child is not None:
                self.visit(child)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if node.keywords:
            self.report(node, "a class statement with keywords: ignored")
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in NATIVE:
                self.report(base, f"a subclass of {base.id}: methods and operators differ")
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name in METHODS:
                self.report(item, f"{item.name} {METHODS[item.name]}")
        self.classes += 1
        self.generic_visit(node)
        self.classes -= 1

    # Names

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id in NAMES:
            self.report(node, f"{node.id} {NAMES[node.id]}")
        if node.id == "__slots__":
            self.report(node, "__slots__ is not enforced")
        self.mangled(node, node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = node.value.id if isinstance(node.value, ast.Name) else ""
        if node.attr in MISSING.get(owner, ()):
            self.report(node, f"{owner}.{node.attr} is missing")
        elif node.attr in ATTRIBUTES:
            self.report(node, f".{node.attr} {ATTRIBUTES[node.attr]}")
        elif isinstance(node.ctx, ast.Store) and owner in self.functions:
            self.report(node, f"{owner}.{node.attr}: functions have no attributes")
        self.mangled(node, node.attr)
        self.generic_visit(node)

    def mangled(self, node: ast.AST, name: str) -> None:
        """Report a private name in a class."""
        if self.classes and name.startswith("__") and not name.endswith("__"):
            self.report(node, f"{name} in a class: CPython makes _Class{name} of it")

    # Calls

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func
        name = getattr(called, "attr", "") or getattr(called, "id", "")
        keywords = [keyword.arg for keyword in node.keywords]
        if name in POSITIONAL and keywords:
            self.report(node, f"{name}() takes no keyword arguments")
        if name == "print" and "flush" in keywords:
            self.report(node, "print(flush=) is not known")
        if name == "to_bytes" and len(node.args) != 2:
            self.report(node, "to_bytes() needs (length, byteorder)")
        if name == "from_bytes" and len(node.args) != 2:
            self.report(node, "from_bytes() needs (bytes, byteorder)")
        if name == "deque" and len(node.args) != 2:
            self.report(node, "deque() needs (iterable, maxlen)")
        if name in ("startswith", "endswith") and (
            len(node.args) != 1 or isinstance(node.args[0], ast.Tuple)
        ):
            self.report(node, f"{name}() takes one string and no position")
        if name in ("encode", "decode") and isinstance(called, ast.Attribute):
            self.coding(node, name)
        self.generic_visit(node)

    def coding(self, node: ast.Call, name: str) -> None:
        """Report a character coding that MicroPython does not have."""
        codes = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        if codes and codes != ["utf-8"]:
            self.report(node, f"{name}({', '.join(map(repr, codes))}): always strict utf-8 there")
