"""The time of day, from what Xen shares of it."""

import struct

import pytest

import hw
from pvfw.clock import now_utc
from xenpv import abi
from xenpv.loop import SECOND

U32 = 0xFFFFFFFF
WAS = (1_700_000_000, 900_000_000)
IS = (1_700_000_001, 100_000_000)


@pytest.fixture
def page(machine):
    return hw.shared_info()


def write(page, seconds, ns, version):
    fields = (version, seconds & U32, ns)
    struct.pack_into("<III", hw.mem(page, 4096), abi.SHARED_INFO_WC_VERSION, *fields)
    hw.wr32(page + abi.SHARED_INFO_WC_SEC_HI, seconds >> 32)


def test_the_time_is_that_of_system_time_0_and_what_has_passed_since(machine, page):
    write(page, *WAS, 2)
    machine.clock.now = 5 * SECOND
    assert now_utc() == 1_700_000_005
    machine.clock.now = 5 * SECOND + 200_000_000
    assert now_utc() == 1_700_000_006


def test_the_time_after_2106_needs_the_upper_half(machine, page):
    write(page, 5 << 32, 0, 2)
    machine.clock.now = 0
    assert now_utc() == 5 << 32


@pytest.mark.parametrize("at", range(4))
def test_a_time_that_xen_changes_meanwhile_is_read_again(at, machine, page):
    """at: the read, of version, seconds, upper half and ns, before which Xen begins its change."""
    write(page, *WAS, 2)
    machine.clock.now = 0
    reads = []

    def reread(addr, value):
        reads.append(addr)
        if len(reads) == at + 1:
            write(page, IS[0], WAS[1], 3)
        if len(reads) == at + 3:
            write(page, *IS, 4)
        return struct.unpack_from("<I", machine.ram, addr)[0]

    machine.reread = reread
    hw.attach(machine)
    assert now_utc() == IS[0]
    assert len(reads) > 5


def test_a_time_that_never_settles_ends_the_wait(machine, page):
    write(page, *WAS, 3)
    machine.clock.now = 0
    assert now_utc() == WAS[0]
