"""What is said of pvboot's Python is what the image answers."""

import re

import pytest

from pvdump.script import inside

SCRIPT = b"""
import builtins
print("builtins:", " ".join(dir(builtins)))
print("names:", " ".join(dir(__import__("__main__"))))
print("modules:")
help("modules")
print("end")
"""
# Those of the prompt and of any module.
OURS = {"__repl_print__", "__class__", "__dict__", "__name__", "ViperTypeError"}


@pytest.fixture(scope="module")
def said(ask):
    return ask(SCRIPT)


def words(said, name):
    return set(re.search(rf"^{name}: (.*)$", said, re.MULTILINE)[1].split())


def test_builtins(said):
    assert words(said, "builtins") - OURS == inside.BUILTINS


def test_names(said):
    assert words(said, "names") - OURS - {"builtins"} == inside.NAMES


def test_modules(said):
    table = re.search(r"^modules:\n(.*)^Plus any", said, re.MULTILINE | re.DOTALL)[1]
    found = {word.removesuffix("/__init__").replace("/", ".") for word in table.split()}
    ours = {path for path in found if path.split(".")[0] in inside.OURS} - set(inside.OURS)
    assert len(ours) > 50
    assert [path for path in ours if not inside.has_module(path)] == []
    # A package that has modules is one, and not told of.
    assert (found | {"os"}) - ours == inside.MODULES


def test_a_package_is_a_module():
    assert inside.has_module("xenpv.block")
    assert inside.has_module("os")
    assert not inside.has_module("os.pat")
    assert not inside.has_module("xenpv.nothing")
    assert not inside.has_module("xenpv.block.front.BlkFront")
