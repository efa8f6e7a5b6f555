"""The whole agent on the embedded machine: main() from command line to vmcore, and every refusal.

What is checked is what counts: the bytes on the disk, the console, xenstore, the end of the domain.
"""

import bisect
import io
import random
import re

import pytest
from elftools.elf.elffile import ELFFile
from fixtures import elfcorehdr
from fixtures.crashedguest import AT, GOOD, LOADS, NOTES, REGION, SIZE, UUID, Crash

from pvfw import main, superblock
from pvfw.elf import PHNUM_MAX
from pvfw.target import Target
from pvxen.crashedkernel import CrashedKernel
from pvxen.sink import Memory
from xenpv import abi
from xenpv.block.front import BlkFront
from xenpv.block.queue import Queue
from xenpv.loop import SECOND

LARGE_AT = 0x1000000  # where an elfcorehdr of a MiB has room
VARIANTS = [
    {},
    {"server_features": 1},
    {"events": "dead"},
    {"start": (0x3B5, 0x349)},
    *[{"seed": s, "piecemeal": True} for s in range(1, 5)],
]


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


@pytest.mark.parametrize(
    ("word", "reason"),
    [("reboot", abi.SHUTDOWN_reboot), ("poweroff", abi.SHUTDOWN_poweroff)],
)
def test_the_end_action_is_the_one_asked_for(word, reason, capsys):
    crash = Crash(f"elfcorehdr=0x{AT:x} pvdump.disk=xvdb pvdump.then={word}")
    assert crash.run() == reason


# Refusals: one line says why, the end action happens, not a byte of the disk changes.


def test_a_failure_ends_in_the_end_action_too(capsys):
    assert Crash("pvdump.then=reboot").run() == abi.SHUTDOWN_reboot


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ({"cmdline": "pvdump.disk=xvdb pvdump.then=poweroff"}, "no usable elfcorehdr="),
        ({"cmdline": GOOD.replace(f"0x{AT:x}", "junk")}, "no usable elfcorehdr="),
        ({"cmdline": GOOD.replace(f"0x{AT:x}", "0x100000")}, "no ELF core header at elfcorehdr="),
        (
            {"cmdline": GOOD.replace("pvdump.disk=xvdb", ""), "superblock": bytes(512)},
            "none of xvdb takes the dump, nothing on them was changed",
        ),
        ({"cmdline": GOOD.replace("xvdb", "xvdc")}, "no disk xvdc .*this guest has 51728"),
        ({"superblock": bytes(512)}, "xvdb refused, nothing on it was changed: no pvdump super"),
        ({"superblock": b"\xff" * 512}, "xvdb refused, nothing on it was changed: no pvdump super"),
        ({"disk_size": 16 << 20}, "it is too small: the dump has 25 MiB, there is room for 15 MiB"),
        ({"read_only": True}, "the disk is read-only"),
        ({"stuck_closing": True}, "is Closing after 300 s"),
        ({"never_connects": True}, "connecting: .* is InitWait after 300 s"),
        ({"error_after": 0}, r"write of sector 0 failed: status -1 \(ERROR\)"),
        ({"sector_size": 8192}, "sector-size is '8192'"),
    ],
)
def test_what_cannot_be_dumped_is_refused_in_one_line(setup, message, capsys):
    crash = Crash(**setup)
    if "stuck_closing" in setup:
        CrashedKernel(crash.guest).connect(crash.back)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert bytes(crash.disk.data) == crash.before
    failed = [line for line in capsys.readouterr().out.splitlines() if "dump failed:" in line]
    assert len(failed) == 1
    assert re.search(message, failed[0])
    assert crash.reported("state") == "failed"
    assert crash.reported("reason")
    assert crash.reported("reason") in failed[0]


@pytest.mark.parametrize("state", [superblock.WRITING, superblock.COMPLETE, superblock.PARTIAL])
def test_a_dump_that_nobody_collected_is_not_overwritten(state, capsys):
    block = superblock.Superblock(UUID, SIZE)
    block.state = state
    crash = Crash(superblock=block.encode())
    crash.run()
    assert bytes(crash.disk.data) == crash.before
    assert f"it holds a dump ({superblock.STATE_NAMES[state]})" in capsys.readouterr().out


@pytest.mark.parametrize("store", ["absent", "late"])
def test_without_xenstore_the_reason_is_on_the_console_alone(store, capsys):
    crash = Crash(guest={"store": store})
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert "dump failed: no xenstore" in capsys.readouterr().out
    assert bytes(crash.disk.data) == crash.before


# Memory.

POOL = (REGION[0], REGION[0] + 64 * 4096)  # as many pages as image.yaml gives the image


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
    assert 4 < bisect.bisect_left(range(64), True, lo=4, key=is_changed) < 64


# Failures half way: the superblock says how far the dump got.


def whole():
    """The vmcore of a dump that nothing disturbs."""
    crash = Crash()
    crash.run()
    return crash.vmcore()


@pytest.mark.parametrize("limit", [1 << 20, 8 << 20, 20 << 20])
def test_a_disk_full_half_way_leaves_a_partial_dump_that_says_so(limit, capsys):
    crash = Crash(error_after=limit, reorder=True, latency=1000)
    assert crash.run() == abi.SHUTDOWN_poweroff
    block = crash.superblock()
    assert block.state == superblock.PARTIAL
    assert "failed: status -1 (ERROR)" in block.reason
    assert 0 < block.written <= limit
    assert limit - block.written < 2 << 20
    assert crash.vmcore()[: block.written] == whole()[: block.written]
    assert "dump partial: " in capsys.readouterr().out
    assert crash.reported("state") == "failed"


def test_a_backend_that_comes_back_half_way_gets_the_whole_dump(capsys):
    crash = Crash(dies=10)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.COMPLETE
    assert crash.vmcore().find(crash.notes) > 0
    assert "requests are done again" in capsys.readouterr().out


def fail_at_answer(monkeypatch, number, error):
    """Have the task that takes the backend's answers fail at one of them."""
    answers = iter(range(number, 0, -1))

    def judge(self, part, status):
        if next(answers, None) == 1:
            raise error
        original(self, part, status)

    original = Queue._judge
    monkeypatch.setattr(Queue, "_judge", judge)


def assert_partial(crash, reason):
    block = crash.superblock()
    assert block.state == superblock.PARTIAL
    assert reason in block.reason
    assert 0 < block.written < block.dump_size
    assert crash.reported("state") == "failed"
    assert crash.reported("reason") == block.reason
    return block.written


def test_a_task_without_memory_leaves_a_partial_dump_that_says_so(capsys, monkeypatch):
    reason = "memory allocation failed, allocating 1234 bytes"
    expected = whole()
    capsys.readouterr()
    fail_at_answer(monkeypatch, 8, MemoryError(reason))
    crash = Crash()
    assert crash.run() == abi.SHUTDOWN_poweroff
    written = assert_partial(crash, reason)
    assert crash.vmcore()[:written] == expected[:written]
    assert capsys.readouterr().out.count("dump failed:") == 1


def test_an_unforeseen_error_of_a_task_leaves_a_partial_dump_too(capsys, monkeypatch):
    fail_at_answer(monkeypatch, 8, OverflowError("a number too large"))
    crash = Crash()
    with pytest.raises(OverflowError, match="a number too large"):
        main.main()
    assert_partial(crash, "OverflowError: a number too large")


def test_without_memory_in_the_dump_itself_the_dump_is_partial_and_says_so(capsys, monkeypatch):
    async def frames(self, gfn, count):
        if gfn >= 0x500:
            raise MemoryError("memory allocation failed, allocating 1234 bytes")
        await original(self, gfn, count)

    original = Target.frames
    monkeypatch.setattr(Target, "frames", frames)
    crash = Crash()
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.PARTIAL
    reason = "out of memory: memory allocation failed, allocating 1234 bytes"
    assert crash.superblock().reason == crash.reported("reason") == reason
    assert f"dump failed: {reason}" in capsys.readouterr().out


def test_a_disk_with_large_sectors_takes_a_dump():
    crash = Crash(sector_size=4096)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.COMPLETE


@pytest.mark.parametrize(("physical", "sectors"), [(512, 1), (4096, 8)])
def test_the_superblock_is_written_as_a_whole_physical_block(physical, sectors):
    crash = Crash()
    crash.guest.settle()
    crash.back._disk.sink.physical = physical
    crash.run()
    writes = [request.segments for request in crash.back.seen if request.op == abi.BLKIF_OP_WRITE]
    assert {last + 1 for _, first, last in writes[0] if first == 0} == {sectors}
    assert crash.superblock().state == superblock.COMPLETE


def test_a_backend_that_dies_half_way_is_reported_where_it_still_works(capsys):
    crash = Crash(dies=10, no_init_wait=True)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.WRITING
    said = capsys.readouterr().out
    assert "the backend left Connected" in said
    assert "the superblock could not be set to partial" in said
    assert crash.reported("state") == "failed"
    assert "left Connected" in crash.reported("reason")


def test_a_backend_that_stops_answering_does_not_hang_the_guest(capsys):
    crash = Crash(never_answers=10)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert "no request completed for 30 s" in capsys.readouterr().out


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


# Frames that cannot be lent.

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


def test_an_error_that_nobody_foresaw_leaves_a_partial_dump(capsys, monkeypatch):
    crash = Crash()

    def broken(self, sector, gfn, count):
        raise OverflowError("a number too large")

    async def write(self, sector, gfn, count):
        return (
            broken(self, sector, gfn, count)
            if sector > 10000
            else await original(self, sector, gfn, count)
        )

    original = BlkFront.write
    monkeypatch.setattr(BlkFront, "write", write)
    with pytest.raises(OverflowError):
        main.main()
    block = crash.superblock()
    assert block.state == superblock.PARTIAL
    assert block.reason == crash.reported("reason") == "OverflowError: a number too large"
    assert 4 << 20 < block.written < 8 << 20


def test_a_store_port_that_is_closed_ends_in_a_line_and_the_end_action(capsys):
    crash = Crash()
    machine = crash.guest.machine
    machine.evtchn.close(machine.domid, machine.params[abi.HVM_PARAM_STORE_EVTCHN])
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert "dump failed: EVTCHNOP_send port" in capsys.readouterr().out
    assert bytes(crash.disk.data) == crash.before


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


# What the crashed kernel left of its notes.


@pytest.mark.parametrize("notes", [(b"\x5a" * 512,), ()], ids=["overwritten", "missing"])
def test_without_vmcoreinfo_the_dump_is_made_and_it_is_said(notes, capsys):
    crash = Crash(notes=notes)
    crash.run()
    block = crash.superblock()
    assert (block.state, block.release) == (superblock.COMPLETE, "")
    assert_zeros(crash, ())
    assert "VMCOREINFO is missing or overwritten" in capsys.readouterr().out


def test_more_pieces_of_memory_than_readers_take_are_refused_before_the_first_write(capsys):
    loads = [(0, 0x100000 + 0x2000 * i, 0x100000, 0x1000) for i in range(PHNUM_MAX)]
    crash = Crash(f"elfcorehdr=0x{LARGE_AT:x} pvdump.disk=xvdb pvdump.then=poweroff")
    elfcorehdr.build(crash.guest.machine.ram, LARGE_AT, loads, NOTES, 0x1800000)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert bytes(crash.disk.data) == crash.before
    assert "is in too many pieces: 16385 program headers" in crash.reported("reason")
