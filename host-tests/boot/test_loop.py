"""The loop's cases under the image's Python: cancellation and errors of tasks are as in CPython."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.loopcases import CASES

from tools.image import build

pytestmark = pytest.mark.qemu

HERE = Path(__file__).resolve().parent


def test_each_case_leaves_the_same_log_as_under_cpython(boot, tmp_path) -> None:
    image = build(tmp_path, config=HERE / "loop/image.yaml")
    said = boot(image.elf, "-m", "128M", until="end")
    found = dict(line.split(" ", 1) for line in said.splitlines())
    expected = {one.name: one.expected for one in CASES}
    assert {name: found.get(name) for name in expected} == expected
