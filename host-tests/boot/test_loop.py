"""The loop's cases under the image's Python: cancellation and errors of tasks are as in CPython."""

from __future__ import annotations

import pytest
from fixtures.loopcases import CASES

pytestmark = pytest.mark.qemu


def test_each_case_leaves_the_same_log_as_under_cpython(answers) -> None:
    found = answers("loop")
    expected = {one.name: one.expected for one in CASES}
    assert {name: found.get(name) for name in expected} == expected
