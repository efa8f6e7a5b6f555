"""What a script has that pvboot's Python, MicroPython, does not: found before a guest is started.

Used by `pvdump script`. It knows syntax, names and modules; of methods, such as those of str, it
knows nothing, since types are not known. The rule: what is reported here would fail there, in the
same line; a script without a complaint may still fail. host-tests/pvdump/script/test_check.py asks
the image about each kind.
Source: MicroPython 1.25, tests/cpydiff, py/grammar.h, py/lexer.c.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional, Union

from . import marks, names

# What newer Pythons than 3.9 have as nodes.
NEWER = {
    "Match": "match",
    "TryStar": "except*",
    "TypeAlias": "type",
}
Function = Union[ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda]


class Problem(NamedTuple):
    """A place that would fail.

    Attributes:
        line: from 1 on.
        text: what is wrong there.
    """

    line: int
    text: str


class Seen(NamedTuple):
    """What was seen in a file.

    Attributes:
        problems: list of Problem, in the order of lines.
        imports: the paths of the modules that come with the script and are imported.
    """

    problems: list[Problem]
    imports: frozenset[str]


def look(source: bytes, modules: Iterable[str] = (), package: Optional[str] = None) -> Seen:
    """Look for what would fail in a script or a module.

    Args:
        source: its text, UTF-8.
        modules: paths of the modules that come with the script, as text.modules() names them.
        package: of a module: the package that it is in, "" for none; None: it is the script, which
            awaits at its top level and has pvboot's names.
    """
    text = source.decode()
    if text.startswith("\ufeff"):
        text = text[1:]
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if package is None else 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
            compile(text, "script", "exec", flags, dont_inherit=True)
    except SyntaxError as error:
        return Seen([Problem(error.lineno or 1, error.msg)], frozenset())
    except (ValueError, RecursionError) as error:
        return Seen([Problem(1, str(error))], frozenset())
    visitor = _Visitor()
    visitor.visit(tree)
    named = names.Names(modules, package)
    named.visit(tree)
    others = (Problem(*each) for each in (*named.problems(), *marks.problems(text)))
    found = sorted({*visitor.found, *visitor.of_division(), *others})
    return Seen(found, frozenset(named.imports & named.modules))


class _Visitor(ast.NodeVisitor):
    """Collects the problems of one file; each visit_X reports what X may not be."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self._functions = 0
        self._divides = False
        self._divisions: list[int] = []

    def report(self, node: ast.AST, text: str) -> None:
        """Add a problem at a node."""
        self.found.append(Problem(getattr(node, "lineno", 1), text))

    def of_division(self) -> Iterator[Problem]:
        """Give the divisions, unless a class of the file has one of its own."""
        if not self._divides:
            for line in self._divisions:
                yield Problem(line, "/ gives a float, and there are none: use //")

    def generic_visit(self, node: ast.AST) -> None:
        newer = NEWER.get(type(node).__name__)
        if newer:
            self.report(node, f"MicroPython has no {newer}")
        if getattr(node, "type_params", None):
            self.report(node, "MicroPython has no type parameters")
        super().generic_visit(node)

    # Numbers.

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, (float, complex)):
            self.report(node, f"{node.value}: there are no floats")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.Div):
            self._divisions.append(node.lineno)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.op, ast.Div):
            self._divisions.append(node.lineno)
        self.generic_visit(node)

    # Functions and classes. Annotations are not evaluated, so they may be anything.

    def visit_arg(self, node: ast.arg) -> None:
        pass

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._divides |= node.name in ("__truediv__", "__rtruediv__", "__itruediv__")
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        if any(_is_yield(each) for each in _own(node)):
            self.report(node, f"{node.name} awaits and yields: no async generators")
        self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node)

    def _function(self, node: Function) -> None:
        if node.args.posonlyargs:
            self.report(node, "a / among the arguments: MicroPython has none")
        if not isinstance(node, ast.Lambda):
            self._decorated(node)
        self._functions += 1
        for child in ast.iter_child_nodes(node):
            if isinstance(node, ast.Lambda) or child is not node.returns:
                self.visit(child)
        self._functions -= 1

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._decorated(node)
        if node.keywords:
            self.report(node, f"class {node.name}: classes have no keywords")
        self.generic_visit(node)

    def _decorated(self, node: Union[ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef]) -> None:
        for each in node.decorator_list:
            name: ast.AST = each.func if isinstance(each, ast.Call) else each
            while isinstance(name, ast.Attribute):
                name = name.value
            if not isinstance(name, ast.Name):
                self.report(each, "a decorator is a name, or a call of one")

    # Waiting.

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._inside_only(node, "async for")

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        self._inside_only(node, "async with")

    def _inside_only(self, node: ast.AST, what: str) -> None:
        if not self._functions:
            self.report(
                node, f"{what} is for async functions; outside of them there is await alone"
            )
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        if node.is_async:
            self.report(node.target, "no async for in a comprehension")
        self.generic_visit(node)

    # Expressions.

    def visit_Dict(self, node: ast.Dict) -> None:
        if None in node.keys:
            self.report(node, "no ** in a dict: use update()")
        self.generic_visit(node)

    def visit_List(self, node: ast.List) -> None:
        self._starred(node, node.elts)

    def visit_Tuple(self, node: ast.Tuple) -> None:
        self._starred(node, node.elts)

    def visit_Set(self, node: ast.Set) -> None:
        self._starred(node, node.elts)

    def _starred(self, node: ast.expr, parts: list[ast.expr]) -> None:
        loads = isinstance(getattr(node, "ctx", ast.Load()), ast.Load)
        if loads and any(isinstance(each, ast.Starred) for each in parts):
            self.report(node, "no * in a list, tuple or set; only in a call, and before an =")
        self.generic_visit(node)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        if node.conversion == ord("a"):
            self.report(node, "no !a in an f-string")
        for each in ast.walk(node.value):
            if isinstance(each, (ast.Lambda, ast.NamedExpr, ast.JoinedStr)):
                names = {ast.Lambda: "lambda", ast.NamedExpr: ":="}
                self.report(node, f"no {names.get(type(each), 'f-string')} in an f-string")
            is_text = isinstance(each, ast.Constant) and isinstance(each.value, str)
            if is_text and set("{}:!") & set(each.value):  # type: ignore[attr-defined]
                self.report(node, "no string with one of {}:! in an f-string's field")
        self.generic_visit(node)


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """Give what is in a function, and not in a function in it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _own(child)


def _is_yield(node: ast.AST) -> bool:
    return isinstance(node, (ast.Yield, ast.YieldFrom))
