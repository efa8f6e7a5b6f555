"""The target as a sink: zeros for frames that cannot be lent, and whole blocks of the disk."""

import io
import random

import pytest
from elftools.elf.elffile import ELFFile
from fixtures.crashedguest import Crash

from pvfw import superblock
from xenpv import abi

HOLES = {0x300, 0x301, 0x4FF, *range(0x1000, 0x1200), 0x17FF}


def assert_zeros(crash, frames):
    """The vmcore has zeros in place of these frames, and all else as it was."""
    assert crash.superblock().state == superblock.COMPLETE
    elf = ELFFile(io.BytesIO(crash.vmcore()))
    for segment in elf.iter_segments("PT_LOAD"):
        # But for the low memory, which is read elsewhere.
        if segment["p_paddr"] == 0x1000:
            continue
        start, size = segment["p_paddr"], segment["p_filesz"]
        expected = bytearray(crash.memory[start : start + size])
        for frame in frames:
            if start <= frame * 4096 < start + size:
                at = frame * 4096 - start
                expected[at : at + 4096] = bytes(4096)
        assert segment.data() == expected


@pytest.mark.parametrize("kind", ["holes", "foreign"])
def test_pages_that_cannot_be_lent_are_zeros_and_are_counted(kind, capsys):
    crash = Crash(reorder=True, latency=1000)
    getattr(crash.guest.machine, kind).update(HOLES)
    crash.run()
    assert_zeros(crash, HOLES)
    said = capsys.readouterr().out
    assert f"{len(HOLES)} pages had no memory behind them" in said
    assert said.count("cannot be lent to the backend") == 1


def test_holes_of_every_shape_are_zeros(capsys):
    choice = random.Random(5)
    holes = {gfn for gfn in range(0x500, 0x900) if choice.random() < 0.3}
    holes |= {gfn for gfn in range(0x900, 0x1800) if gfn // 100 % 3 == 0}
    crash = Crash()
    crash.guest.machine.holes |= holes
    crash.run()
    assert_zeros(crash, holes)
    assert f"{len(holes)} pages had no memory behind them" in capsys.readouterr().out


def cost(holes):
    """(requests of the backend, hypercalls) of a dump with such holes."""
    crash = Crash()
    crash.guest.machine.holes |= holes
    before = crash.guest.machine.hypercalls
    crash.run()
    assert_zeros(crash, holes)
    return len(crash.back.seen), crash.guest.machine.hypercalls - before


def test_8_mib_of_holes_cost_few_requests_and_hypercalls_more(capsys):
    requests, hypercalls = cost(set())
    with_holes = cost(set(range(0xC00, 0x1400)))
    # Those of a MiB that were under way when the first one failed, each mended with two others.
    assert with_holes[0] <= requests + 8
    # Four for each MiB of holes, one for each other.
    assert with_holes[1] <= hypercalls + 8 * 4 + 16 + 8


@pytest.mark.parametrize(("physical", "sectors"), [(512, 1), (4096, 8)])
def test_the_superblock_is_written_as_a_whole_physical_block(physical, sectors):
    crash = Crash()
    crash.guest.settle()
    crash.back._disk.sink.physical = physical
    crash.run()
    writes = [request.segments for request in crash.back.seen if request.op == abi.BLKIF_OP_WRITE]
    assert {last + 1 for _, first, last in writes[0] if first == 0} == {sectors}
    assert crash.superblock().state == superblock.COMPLETE
