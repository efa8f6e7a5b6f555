"""Grants on a real Xen: the table of version 2 that cannot be left, and the one that can."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.guest import Guest
from lab.xen import Xen
from tools.image import build

pytestmark = pytest.mark.xen

HERE = Path(__file__).resolve().parent
TABLE = [
    "copy 0",
    "copied b'across the table'",
    "map 0",
    "mapped b'held'",
    "busy 1",
    "held True",
    "refused -1",
    "unmap 0",
]


def test_grants_work_on_version_2_while_it_is_in_force_and_on_1_from_then_on(tmp_path) -> None:
    image = build(tmp_path, config=HERE / "grants/image.yaml")
    fields = {"name": "grants", "type": "pvh", "kernel": str(image.elf), "memory": 32}
    with Xen("bookworm", "xenstored", restored=True) as xen:
        domain = xen.create(Guest.parse(fields))
        assert domain.wait_end() == "poweroff"  # the one vCPU has halted
        lines = domain.console().splitlines()
    found = lines[lines.index("crashed 0") :]
    assert found[: found.index("end ") + 1] == [
        "crashed 0",
        "version 2",
        *TABLE,
        "unmap 0",
        "version 1",
        *TABLE,
        "end ",
    ]
