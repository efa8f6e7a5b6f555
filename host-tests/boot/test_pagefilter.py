"""The page filter under the image's Python and C gives what it gives under CPython."""

from __future__ import annotations

import pytest
from fixtures import filtercases

import hw

pytestmark = pytest.mark.qemu


class Machine:
    """RAM of 40 MiB."""

    def __init__(self) -> None:
        self.ram = bytearray(40 << 20)

    def alloc_pages(self, n: int) -> int:
        self.ram[4096 : 4096 * (n + 1)] = bytes(4096 * n)
        return 4096

    def free_pages(self, addr: int, n: int) -> None:
        pass


def test_each_case_gives_the_same_line_as_under_cpython(answers) -> None:
    with hw.attached(Machine()):
        expected = dict(filtercases.lines())
    assert answers("pagefilter") == {**expected, "end": "0"}


def test_the_cases_show_every_class_and_a_failure() -> None:
    with hw.attached(Machine()):
        lines = dict(filtercases.lines())
    units = 32768 // 16
    assert lines["level31"].startswith(
        str([2 * (units - 32), units - 32, units - 32 + 512, 8 * (units - 32), 0, 0, 0])
    )
    assert "section 0 is not online: 0x0" in lines["damaged"]
    assert "NUMBER(PG_slab) cannot be 77" in lines["damaged"]
