"""The target as a sink: zeros for frames that cannot be lent, and whole blocks of the disk."""

import random

import pytest
from fixtures import streamreader
from fixtures.crashedguest import Crash

from pvfw import superblock
from xenpv import abi

HOLES = {0x300, 0x301, 0x4FF, *range(0x1000, 0x1200), 0x17FF}


def read(crash):
    """Make the dump. Returns what a reader finds of it, which is complete."""
    crash.run()
    assert crash.superblock().state == superblock.COMPLETE
    found = streamreader.read(bytes(crash.disk.data))
    assert found.whole
    return found


@pytest.mark.parametrize("kind", ["holes", "foreign"])
def test_pages_that_cannot_be_lent_are_left_out_and_told(kind, capsys):
    crash = Crash(reorder=True, latency=1000)
    getattr(crash.guest.machine, kind).update(HOLES)
    found = read(crash)
    assert found.unreadable == HOLES
    assert not HOLES & found.pages.keys()
    assert f"{len(HOLES)} pages could not be read" in capsys.readouterr().out


def test_holes_of_every_shape_are_left_out():
    choice = random.Random(5)
    holes = {gfn for gfn in range(0x500, 0x900) if choice.random() < 0.3}
    holes |= {gfn for gfn in range(0x900, 0x1800) if gfn // 100 % 3 == 0}
    crash = Crash()
    crash.guest.machine.holes |= holes
    assert read(crash).unreadable == holes


@pytest.mark.parametrize(("physical", "sectors"), [(512, 1), (4096, 8)])
def test_the_superblock_is_written_as_a_whole_physical_block(physical, sectors):
    crash = Crash()
    crash.guest.settle()
    crash.back._disk.sink.physical = physical
    crash.run()
    writes = [request.segments for request in crash.back.seen if request.op == abi.BLKIF_OP_WRITE]
    assert {last + 1 for _, first, last in writes[0] if first == 0} == {sectors}
    assert crash.superblock().state == superblock.COMPLETE
