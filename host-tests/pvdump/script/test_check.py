"""What a script may not have: each is reported, and fails in the image; what is not, runs there."""

import json
import re

import pytest

from pvdump.script import check, reach

WITH = "class C:\n def __enter__(s): return 1\n def __exit__(s, *a): pass\n"
# What is wrong, and a part of the complaint.
WRONG = [
    ("1.5", "1.5: there are no floats"),
    ("1e3", "no floats"),
    ("1j", "no floats"),
    ("a = 4 / 2", "use //"),
    ("a = 4\na /= 2", "use //"),
    ("open('a')", "there are no files"),
    ("float(1)", "MicroPython has no float"),
    ("vars()", "MicroPython has no vars"),
    ("nobody", "nothing has the name nobody"),
    ("import re", "no module re"),
    ("from __future__ import annotations", "no module __future__"),
    ("import os.nothing", "no module os.nothing"),
    ("from . import a", "no package around it"),
    ("x = 1\nmatch x:\n case 1: pass", "match"),
    ("try:\n pass\nexcept* ValueError:\n pass", "except*"),
    ("def f(a, /): pass", "a / among the arguments"),
    ("f = lambda a, /: a", "a / among the arguments"),
    ("[*range(3)]", "no * in a list"),
    ("{*range(3)}", "no * in a list"),
    ("def f(b): return 1, *b", "no * in a list"),
    ("{**{}}", "no ** in a dict"),
    ("async def f(y): return [x async for x in y]", "no async for in a comprehension"),
    (
        "async def f():\n yield 1\nasync def g():\n async for x in f(): pass\ng().send(None)",
        "no async generators",
    ),
    ("class A(object, metaclass=type): pass", "classes have no keywords"),
    ("d = [lambda f: f]\n@d[0]\ndef f(): pass", "a decorator is a name"),
    ("d = lambda a: lambda b: lambda f: f\n@d(1)(2)\ndef f(): pass", "a decorator is a name"),
    ("async with x: pass", "async with"),
    ("async for x in []: pass", "async for"),
    ("f'{1!a}'", "no !a"),
    ("f'{(lambda: 1)()}'", "no lambda in an f-string"),
    ("f'{(q := 5)}'", "no := in an f-string"),
    ("f'{f\"{1}\"}'", "no f-string in an f-string"),
    ("f'{\":\"}'", "no string with one of"),
    ("f'{\"{\"}'", "no string with one of"),
    ("w = 5\n'a{}' f'{w}'", "beside an f-string"),
    ("w = 5\nf'{w}' 'a{}'", "beside an f-string"),
    ("F'a'", "prefixes are"),
    ("R'a'", "prefixes are"),
    ("bR'a'", "prefixes are"),
    (r"'\N{BULLET}'", "no names of characters"),
    (WITH + "with (C() as a, C() as b): pass", "items stand in brackets"),
    (WITH + "with (C(), C()): pass", "items stand in brackets"),
    ("\fx = 1", "form feed"),
    ("x = (1", "was never closed"),
    ("return 1", "'return' outside function"),
    ("break", "outside loop"),
    ("def f(a, a): pass", "duplicate argument"),
    ("0777", "leading zeros"),
]
# What is right: no complaint, and it runs.
RIGHT = [
    "x = 1\nf'{x} {x!r} {x:>5}' f'{x!s}' 'a'",
    "x = 1\nf'{{}}{x}'",
    "d = {'a': 1}\nf'{d[\"a\"]}'",
    "w = 5\nf'{w:{w}}'",
    "rf'{1}\\d', rb'a', br'a', u'a'",
    "class A:\n def __truediv__(s, o): return 1\nA() / A()",
    "class A:\n def __matmul__(s, o): return 1\nA() @ A()",
    "a, *b = 1, 2, 3",
    "print(*[1], *[2], end='')",
    "dict(**{}, **{})",
    "if (y := 1): pass",
    "def f(a: nobody, *, b: 'x' = 1) -> nobody: pass",
    "x: nobody = 1",
    "def f():\n global g\n g = 1\nf()\ng",
    "for i in range(2): pass\nelse: pass\ni",
    "try:\n 1 // 0\nexcept ZeroDivisionError as e:\n e",
    "import xenpv.loop, os.path\nfrom sys import *\nimplementation",
    "from pvfw.boot import gpt\nfrom xenpv import abi as a\ngpt, a",
    WITH + "with (C()) as a: pass\nwith C() as a, C() as b: pass",
    "async def f(y): return [await x for x in y], {await x: 1 for x in y}",
    "async def f(y):\n async with y: pass\n async for x in y: pass",
    "1_000, 0o7, 0b1_0, 1 << 100",
    "class A: pass\nclass B(A):\n x = [y for y in range(3)]",
    "class X:\n def d(s, a): return lambda f: f\nx = X()\n@x.d(1)\ndef f(): pass",
    "__name__",
    "\N{LATIN SMALL LETTER A WITH DIAERESIS} = '\N{BULLET}'",
    "match = 1\nmatch",
]
SCRIPT = """
import json
names = {name: value for name, value in globals().items()}
for number, source in enumerate(json.loads(%s)):
    try:
        exec(source, dict(names))
        answer = "runs"
    except Exception as error:
        answer = type(error).__name__
    print("case %%d: %%s" %% (number, answer))
"""


@pytest.fixture(scope="module")
def answers(ask):
    """What became of each source in the image, by the source."""
    sources = [source for source, _ in WRONG] + RIGHT
    given = json.dumps(json.dumps(sources))
    said = ask((SCRIPT % given).encode())
    found = dict(re.findall(r"^(?:.*)case (\d+): (\w+)$", said, re.MULTILINE))
    return {source: found[str(number)] for number, source in enumerate(sources)}


def told(source, **options):
    return [each.text for each in check.look(source.encode(), **options).problems]


@pytest.mark.parametrize(("source", "part"), WRONG)
def test_what_fails_in_the_image_is_reported(answers, source, part):
    assert any(part in text for text in told(source)), told(source)
    assert answers[source] != "runs"


@pytest.mark.parametrize("source", RIGHT)
def test_what_runs_in_the_image_is_not_reported(answers, source):
    assert told(source) == []
    assert answers[source] == "runs"


def test_a_place_is_the_line():
    found = check.look(b"x = 1\n\ny = 1.5\nz = nobody\n").problems
    assert [each.line for each in found] == [3, 4]


def test_await_is_the_script_s_alone():
    assert told("await loop.sleep(1)") == []
    assert told("await loop.sleep(1)", package="")
    assert "nothing has the name store" in told("store", package="")
    assert told("x = 1\nstore") == []


def test_bytes_that_are_no_program_are_one_complaint():
    for source in ("x = \\", "(" * 1000, "\0"):
        assert len(told(source)) == 1, source


def test_imports_are_found_with_their_packages():
    modules = {"a/__init__.py", "a/b.py", "a/c/d.py", "e.py"}
    look = check.look(b"from a import b\nimport a.c.d, e", modules)
    assert look == ([], {"a/__init__.py", "a/b.py", "a/c/d.py", "e.py"})
    assert check.look(b"from .c import d\nfrom ..x import y", modules, "a").problems
    assert check.look(b"from .c import d\nfrom . import b", modules, "a").problems == []


def test_only_what_is_imported_is_looked_at():
    modules = {"a/__init__.py": b"", "a/b.py": b"from . import c", "a/c.py": b"1.5", "a/d.py": b"x"}
    assert [path for path, _ in reach.problems("s.py", b"from a import b", modules)] == ["a/c.py"]
    assert [path for path, _ in reach.problems("s.py", b"import a.d", modules)] == ["a/d.py"]
    assert reach.problems("s.py", b"import a", modules) == []
