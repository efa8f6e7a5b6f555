"""The whole agent on the embedded machine: main() from command line to a complete dump.

What is checked is what counts: the bytes on the disk, the console, xenstore, the end of the domain.
"""

import bisect
import io
import random
import re

import pytest
from elftools.elf.elffile import ELFFile
from fixtures.crashedguest import GOOD, LOADS, NOTES, REGION, SIZE, Crash

from pvfw import superblock, tries
from pvfw.report import NODE
from pvfw.stream import Stream
from pvfw.target import Target
from pvxen import elfcorehdr
from pvxen.crashedkernel import CrashedKernel
from pvxen.sink import Memory
from xenpv import abi
from xenpv.block.front import BlkFront
from xenpv.loop import SECOND
from xenpv.xenstore.client import Xenstore

VARIANTS = [
    {},
    {"server_features": 1},
    {"events": "dead"},
    {"start": (0x3B5, 0x349)},
    *[{"seed": s, "piecemeal": True} for s in range(1, 5)],
]
POOL = (REGION[0], REGION[0] + 128 * 4096)  # as many pages as image.yaml gives the image


@pytest.mark.parametrize("guest", VARIANTS, ids=str)
def test_the_vmcore_holds_the_memory_of_the_crashed_kernel(guest, capsys):
    crash = Crash(guest=guest, reorder=True, latency=1000)
    assert crash.run() == abi.SHUTDOWN_poweroff
    elf = ELFFile(io.BytesIO(crash.vmcore()))
    assert next(elf.iter_segments("PT_NOTE")).data() == crash.notes
    loads = list(elf.iter_segments("PT_LOAD"))
    found = {}
    for segment in loads:
        vaddr, paddr, source, _ = next(
            load for load in LOADS if load[0] <= segment["p_vaddr"] < load[0] + load[3]
        )
        skip = segment["p_vaddr"] - vaddr
        assert segment["p_paddr"] == paddr + skip
        source += skip
        assert segment.data() == crash.memory[source : source + segment["p_filesz"]]
        found[vaddr] = found.get(vaddr, 0) + segment["p_filesz"]
    assert found == {load[0]: load[3] for load in LOADS}


def test_the_superblock_and_xenstore_tell_how_it_went(capsys):
    crash = Crash()
    crash.run()
    block = crash.superblock()
    assert (block.state, block.crash_vcpu, block.release) == (superblock.COMPLETE, 1, "6.1.0-test")
    assert block.written == block.dump_size > 0x1700000
    assert crash.disk.flushes >= 2
    assert (crash.reported("state"), crash.reported("reason")) == ("complete", "")
    said = capsys.readouterr().out
    assert "kernel 6.1.0-test" in said
    assert "crash on vCPU 1" in said
    assert "dump complete: 24 MiB" in said
    assert "powering off" in said


def test_the_disk_and_the_ring_are_left_in_order(capsys):
    crash = Crash(guest={"server_features": 1})
    crash.run()
    assert abi.XenbusStateClosed in crash.back.states
    assert int(crash.guest.store.read(crash.back.front + "/state")) == abi.XenbusStateInitialising
    assert crash.guest.ring.indexes() == (0, 0, 0, 0)


def test_a_disk_that_the_crashed_kernel_used_is_taken_over(capsys):
    crash = Crash()
    CrashedKernel(crash.guest).connect(crash.back)
    crash.run()
    assert crash.superblock().state == superblock.COMPLETE


def test_the_counter_of_boots_stays_as_it_is(capsys):
    crash = Crash()
    counted = tries.Tries()
    counted.enter(b"k" * tries.KEY_SIZE)
    page = counted.encode().ljust(tries.PAGE, b"\xa5")
    crash.disk.data[tries.AT : tries.AT + tries.PAGE] = page
    crash.run()
    assert crash.superblock().state == superblock.COMPLETE
    assert crash.disk.data[tries.AT : tries.AT + tries.PAGE] == page


@pytest.mark.parametrize("names", ["", "pvdump.disk=xvdc,xvdb"])
def test_without_one_disk_named_the_dump_goes_to_the_one_that_is_a_target(names, capsys):
    crash = Crash(GOOD.replace("pvdump.disk=xvdb", names))
    others = [Memory(random.Random(3).randbytes(SIZE)) for _ in range(2)]
    crash.guest.disk("xvda", others[0])
    CrashedKernel(crash.guest).connect(crash.guest.disk("xvdc", others[1]))
    before = [bytes(other.data) for other in others]
    crash.run()
    assert crash.superblock().state == superblock.COMPLETE
    assert [bytes(other.data) for other in others] == before
    said = capsys.readouterr().out
    assert "disk xvdc, 32 MiB: no dump target" in said
    assert "dumping to xvdb" in said


def test_a_backend_that_comes_back_half_way_gets_the_whole_dump(capsys):
    crash = Crash(dies=10)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.COMPLETE
    assert crash.vmcore().find(crash.notes) > 0
    assert "requests are done again" in capsys.readouterr().out


def test_a_disk_with_large_sectors_takes_a_dump():
    crash = Crash(sector_size=4096)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.COMPLETE


def test_progress_is_on_the_console_and_in_xenstore(capsys):
    crash = Crash(latency=SECOND)
    crash.run()
    steps = re.findall(r"pvdump: (\d+ of 24 MiB), \d+ MiB/s", capsys.readouterr().out)
    assert len(steps) > 1
    assert crash.reported("progress") == steps[-1]


@pytest.mark.parametrize("fails", ["silent", "forbidden"])
def test_a_dump_goes_on_when_xenstore_fails_on_the_way(fails, capsys):
    crash = Crash(latency=SECOND // 2)

    def fail():
        if fails == "silent":
            crash.guest.ring.deaf = True
        else:
            crash.guest.store.write(crash.guest.home + "/data/pvdump", "", "n0")

    crash.guest.machine.clock.after(SECOND // 2, fail)
    crash.run()
    assert crash.superblock().state == superblock.COMPLETE
    said = capsys.readouterr().out
    assert said.count("the dump goes on") == 1
    assert "dump complete" in said


def no_memory(*_):
    raise MemoryError("memory allocation failed, allocating 99 bytes")


def no_memory_for_reports(monkeypatch):
    """Have each node of a report fail for want of memory."""
    write = Xenstore.write

    async def fail(store, path, value):
        if path.startswith(NODE):
            no_memory()
        await write(store, path, value)

    monkeypatch.setattr(Xenstore, "write", fail)


@pytest.mark.parametrize(
    ("place", "method", "line"),
    [
        (Xenstore, "close", "leaving xenstore"),
        (BlkFront, "close", "leaving the disk"),
    ],
)
def test_a_complete_dump_stays_complete_where_memory_runs_out_in_closing(
    place, method, line, capsys, monkeypatch
):
    monkeypatch.setattr(place, method, no_memory)
    crash = Crash()
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.COMPLETE
    said = capsys.readouterr().out
    assert "failed:" not in said
    assert line + ": out of memory" in said


def test_reports_for_which_there_is_no_memory_cost_neither_dump_nor_ring(capsys, monkeypatch):
    no_memory_for_reports(monkeypatch)
    closed = []
    close = Xenstore.close
    monkeypatch.setattr(Xenstore, "close", lambda store: closed.append(store) or close(store))
    crash = Crash(latency=SECOND)
    crash.run()
    assert crash.superblock().state == superblock.COMPLETE
    assert len(closed) == 1
    said = capsys.readouterr().out
    assert said.count("the dump goes on") == 1
    assert "telling xenstore: out of memory" in said
    assert "failed:" not in said


def test_memory_that_runs_out_in_closing_the_disk_hides_no_earlier_error(capsys, monkeypatch):
    monkeypatch.setattr(BlkFront, "close", no_memory)
    crash = Crash(error_after=1 << 20)
    crash.run()
    assert "write of sector" in crash.reported("reason")
    assert "write of sector" in crash.superblock().reason


@pytest.mark.parametrize("notes", [(b"\x5a" * 512,), ()], ids=["overwritten", "missing"])
def test_without_vmcoreinfo_the_dump_is_made_and_it_is_said(notes, capsys):
    crash = Crash(notes=notes)
    crash.run()
    block = crash.superblock()
    assert (block.state, block.release) == (superblock.COMPLETE, "")
    assert block.written == block.dump_size > 0x1700000
    assert "VMCOREINFO is missing or overwritten" in capsys.readouterr().out


@pytest.mark.parametrize("names", ["", "pvdump.disk=xvdb"])
def test_eight_disks_and_64_cpus_leave_memory_enough_for_the_dump(names, capsys):
    notes = [*elfcorehdr.cpu_notes(64), *NOTES]
    line = GOOD.replace("pvdump.disk=xvdb", names)
    crash = Crash(line, notes=notes, guest={"region": POOL})
    for letter in "acdefgh":
        crash.guest.disk(f"xvd{letter}", Memory(8 << 20))
    crash.run()
    assert crash.superblock().state == superblock.COMPLETE
    assert next(ELFFile(io.BytesIO(crash.vmcore())).iter_segments("PT_NOTE")).data() == crash.notes


@pytest.mark.parametrize("withheld", [(), ("feature-flush-cache",)], ids=["flush", "barrier"])
def test_a_disk_is_changed_only_where_memory_suffices_for_the_whole_dump(withheld, capsys):
    def is_changed(pages):
        crash = Crash(guest={"region": (REGION[0], REGION[0] + pages * 4096)}, loads=LOADS[:2])
        crash.back._withheld.update(withheld)
        assert crash.run() == abi.SHUTDOWN_poweroff
        if bytes(crash.disk.data) == crash.before:
            return False
        assert crash.superblock().state == superblock.COMPLETE
        return True

    # The least number of pages with which a disk is changed.
    assert 4 < bisect.bisect_left(range(128), True, lo=4, key=is_changed) < 128


def test_a_dump_is_complete_where_memory_runs_out_in_telling_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(Target, "note", no_memory)
    crash = Crash(latency=SECOND // 2)
    crash.run()
    assert crash.superblock().state == superblock.COMPLETE
    assert crash.reported("state") == "complete"
    assert "dump complete" in capsys.readouterr().out


def test_a_dump_is_complete_where_memory_runs_out_in_telling_that_it_is(capsys, monkeypatch):
    monkeypatch.setattr(Stream, "left_out", no_memory)
    crash = Crash()
    crash.run()
    assert crash.superblock().state == superblock.COMPLETE
    assert crash.reported("state") == "complete"
    assert "pvdump: dump complete\n" in capsys.readouterr().out
