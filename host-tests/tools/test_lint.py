"""Steps of ./build.py lint: each sees the mistake that it is there for."""

from pathlib import Path

import pytest

from tools import lint


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small tree of its own with the project's settings."""
    for name in ("pyproject.toml", ".clang-format"):
        (tmp_path / name).write_bytes((lint.ROOT / name).read_bytes())
    monkeypatch.setattr(lint, "ROOT", tmp_path)

    def files(*patterns: str) -> list[Path]:
        found = {path for pattern in patterns or ("*",) for path in tmp_path.rglob(pattern)}
        return sorted(path.relative_to(tmp_path) for path in found if path.is_file())

    monkeypatch.setattr(lint, "files", files)
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_ruff_sees_an_unused_import(tree: Path) -> None:
    put(tree / "host/a.py", "import os\n")
    assert "F401" in lint.ruff()


def test_ruff_format_sees_a_crooked_line(tree: Path) -> None:
    put(tree / "host/a.py", "a = [ 1,2 ]\n")
    assert "a.py" in lint.ruff_format()


def test_mypy_sees_a_wrong_type(tree: Path) -> None:
    put(tree / "host/a.py", 'def f(a: int) -> str:\n    return a + 1\n\n\nf("b")\n')
    assert "incompatible type" in lint.mypy()


def test_clang_format_sees_a_brace_in_the_wrong_place(tree: Path) -> None:
    put(tree / "boot/a.c", "int f(void) {\n    return 1;\n}\n")
    assert "a.c:1:" in lint.clang_format()


def test_clang_format_accepts_the_house_manner(tree: Path) -> None:
    put(
        tree / "boot/a.c",
        "int f(int a)\n{\n    if (a) {\n        return 1;\n    }\n    return 0;\n}\n",
    )
    assert lint.clang_format() == ""


@pytest.mark.parametrize(("statements", "complaint"), [(57, False), (58, True)])
def test_function_of_more_than_60_lines_is_refused(
    tree: Path, statements: int, complaint: bool
) -> None:
    put(tree / "a.c", "void f(void)\n{\n" + "    g();\n" * (statements + 1) + "}\n")
    assert bool(lint.c_functions()) is complaint


def test_mpy_cross_sees_a_syntax_it_lacks(tree: Path) -> None:
    put(tree / "drivers/xenpv/a.py", "def f(a, /):\n    pass\n")
    assert "SyntaxError" in lint.mpy_cross()


def test_common_subset_covers_drivers_and_firmware_only(tree: Path) -> None:
    for folder in ("drivers/xenpv", "firmware/pvfw", "host/pvdump"):
        put(tree / folder / "a.py", "a = 1.5\n")
    found = lint.common_subset()
    assert found.count("no floats") == 2
    assert "host" not in found


def test_address_of_a_mirror_is_refused(tree: Path) -> None:
    put(tree / "docs/a.md", "get it from https://example.org/" + "debian/pool\n")
    assert lint.addresses().startswith("docs/a.md:1:")
