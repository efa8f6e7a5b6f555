"""A script and its modules in one text: what is made of them, and that the image imports them."""

import pytest

from pvdump.script import text
from pvdump.script.text import ScriptError, compose, modules
from pvfw.shell.sections import MARK, STEP, split


def test_a_text_is_the_script_and_its_modules():
    whole = compose(b"x = 1", {"a/b.py": b"y = 2", "c.py": b""})
    assert whole == b"#!pvboot\nx = 1\n#!module a/b.py\ny = 2\n#!module c.py\n"
    assert split(whole) == (b"#!pvboot\nx = 1", {"a/b.py": b"y = 2", "c.py": b""})
    assert split(compose(b"x", {})) == (b"#!pvboot\nx\n", {})
    assert compose(b"#!pvboot 1\nx\n", {}) == b"#!pvboot 1\nx\n"


@pytest.mark.parametrize("size", range(STEP - 2 * len(MARK), STEP + 2))
def test_a_module_is_found_wherever_its_line_is(size):
    script = b"#!pvboot\n" + b"#" * size
    whole = compose(script, {"a.py": b"a = 1", "b.py": b"b = 2"})
    assert split(whole) == (script, {"a.py": b"a = 1", "b.py": b"b = 2\n"})
    assert split(memoryview(whole))[1]["a.py"] == b"a = 1"


def test_a_name_that_is_no_text_harms_nobody():
    whole = b"#!pvboot\n#!module \xff\xfe.py\n1\n#!module "
    assert split(whole) == (b"#!pvboot", {"??.py": b"1", "": b""})
    assert split(b"#!pvboot\n#!module " + b"a" * 5000)[1] == {"a" * 256: b"a" * 4743}


def test_a_line_that_would_be_a_module_s_is_refused():
    with pytest.raises(ScriptError, match="a line that begins with #!module"):
        compose(b"x\n#!module a.py\n", {})
    with pytest.raises(ScriptError, match="a line that begins with #!module"):
        compose(b"x", {"a.py": b"\n#!module b.py\n"})


def test_what_cannot_be_a_script_is_refused(monkeypatch):
    with pytest.raises(ScriptError, match="it is empty"):
        compose(b" \n", {}, "it")
    monkeypatch.setattr(text, "CONTENT_MAX", 100)
    with pytest.raises(ScriptError, match="more than"):
        compose(b"x" * 95, {})


def test_modules_have_the_names_of_their_folders(tmp_path, monkeypatch):
    package = tmp_path / "suite"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__.py", "case.py", "deep/er.py", "page.txt"):
        (package / name).write_text(name)
    (tmp_path / "one.py").write_text("one")
    found = modules([package, tmp_path / "one.py"])
    assert list(found) == ["suite/__init__.py", "suite/case.py", "suite/deep/er.py", "one.py"]
    assert found["suite/deep/er.py"] == b"deep/er.py"
    monkeypatch.chdir(package)
    assert list(modules([type(package)()])) == list(found)[:3]


def test_modules_that_cannot_be_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("a-b.py", "\u00e4.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "a.py").write_bytes(b"\xff")
    (tmp_path / "nul.py").write_bytes(b"a\0")
    (tmp_path / "good.py").write_text("")
    for place, part in (
        ("empty", "there is no module in"),
        ("a-b.py", "cannot be imported by its name"),
        ("\u00e4.py", "cannot be imported by its name"),
        ("a.txt", "a name that ends in .py expected"),
        ("a.py", "byte 0 is no UTF-8"),
        ("nul.py", "byte 1 is a NUL"),
    ):
        with pytest.raises(ScriptError, match=part):
            modules([tmp_path / place])
    with pytest.raises(ScriptError, match=r"two modules have the name good\.py"):
        modules([tmp_path / "good.py"] * 2)
    with pytest.raises(FileNotFoundError):
        modules([tmp_path / "none.py"])


SCRIPT = b"""
from suite import case
from suite.deep.er import y
import one
print(case.x, y, one.name, case.__name__)
for name in ("nothing", "suite.nothing", "suit"):
    try:
        __import__(name)
    except ImportError as error:
        print(error)
"""
MODULES = {
    "suite/__init__.py": b"",
    "suite/case.py": b"from .deep import er\nx = er.y + 1",
    "suite/deep/er.py": b"y = 7",
    "one.py": b"name = __name__",
}


def test_the_image_imports_them(ask):
    said = ask(SCRIPT, MODULES)
    assert "\n8 7 one suite.case\n" in said
    assert said.count("no module named") == 3


def test_a_fault_in_a_module_is_told_with_its_file_and_line(ask):
    assert 'File "suite/case.py", line 2' in ask(
        b"import suite.case", {"suite/case.py": b"\nnobody"}
    )
