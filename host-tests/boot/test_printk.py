"""The crashed kernel's log under the image's Python is the one that CPython gives."""

from __future__ import annotations

import pytest
from fixtures.logcases import CASES

pytestmark = pytest.mark.qemu


def test_each_case_gives_the_same_lines_as_under_cpython(answers) -> None:
    found = answers("printk")
    expected = {case.__name__: case() for case in CASES}
    assert {name: found.get(name) for name in expected} == {
        name: f"{lost} {lines!r}" for name, (_, lines, lost) in expected.items()
    }
