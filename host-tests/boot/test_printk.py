"""The crashed kernel's log under the image's Python is the one that CPython gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.logcases import CASES

from tools.image import build

pytestmark = pytest.mark.qemu

HERE = Path(__file__).resolve().parent


def test_each_case_gives_the_same_lines_as_under_cpython(boot, tmp_path) -> None:
    image = build(tmp_path, config=HERE / "printk/image.yaml")
    said = boot(image.elf, "-m", "128M", until="end")
    found = dict(line.split(" ", 1) for line in said.splitlines())
    expected = {case.__name__: case() for case in CASES}
    assert {name: found.get(name) for name in expected} == {
        name: f"{lost} {lines!r}" for name, (_, lines, lost) in expected.items()
    }
