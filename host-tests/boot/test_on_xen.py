"""The same on a real Xen: what only Xen can give, and what it does when the image fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from lab.domain import Domain
from lab.guest import Guest
from lab.xen import Xen
from tools.image import Image

pytestmark = pytest.mark.xen


@pytest.fixture(scope="module")
def start(doors: Image) -> Iterator[Callable[..., Domain]]:
    """Starts guests of doors/doors.py on one Xen."""
    with Xen("bookworm", "xenstored", restored=True) as xen:

        def create(name: str, **fields: object) -> Domain:
            guest = Guest.parse({"name": name, "kernel": str(doors.elf), "memory": 32, **fields})
            return xen.create(guest)

        yield create


def test_a_hang_ends_in_the_watchdog(start) -> None:
    domain = start("hang", type="pvh", cmdline="fault=hang")
    assert domain.wait_end() == "watchdog"


def test_a_trap_is_on_both_consoles_and_crashes_the_domain(start) -> None:
    domain = start("trap", type="pvh", vcpus=2, cmdline="fault=page")
    assert domain.wait_end() == "crash"
    for text in (domain.console(), domain.debug()):
        assert "pvdump: trap: #PF at address 0x0" in text
        assert 'File "doors.py"' in text
        assert "Trap: #PF at address 0x0" in text


def test_a_second_trap_crashes_the_domain(start) -> None:
    domain = start("again", type="pvh", cmdline="fault=ud")
    assert domain.wait_end() == "crash"
    assert "pvdump: another trap: #PF" in domain.debug()


def test_a_ring_with_wrong_indexes_is_begun_anew(start) -> None:
    domain = start("ring", type="pvh", cmdline="fault=ring")
    assert domain.wait_end() == "poweroff"  # the one vCPU has halted
    assert re.findall(r"^after (\w+)", domain.console(), re.MULTILINE) == ["out_cons", "out_prod"]


def test_firmware_finds_its_module(start, doors: Image) -> None:
    domain = start("firmware", type="firmware", kernel=str(doors.fw), run="some text")
    assert domain.wait_end() == "poweroff"  # the one vCPU has halted
    assert "door pvh" in domain.console()
    assert "module b'text'" in domain.console()


def test_firmware_as_pvh_elf_boots_without_modules(start) -> None:
    domain = start("elf", type="firmware", run="some text")
    assert domain.wait_end() == "poweroff"
    assert "modules 0" in domain.console()
