"""The whole agent on the embedded machine: main() from command line to vmcore, and every refusal.

What is checked is what counts: the bytes on the disk, the console, xenstore, the end of the domain.
"""

import io
import random
import re

import pytest
from elftools.elf.elffile import ELFFile
from fixtures.crashedguest import AT, GOOD, LOADS, SIZE, UUID, Crash

from pvfw import main, superblock
from pvxen.crashedkernel import CrashedKernel
from pvxen.sink import Memory
from xenpv import abi
from xenpv.block.front import BlkFront
from xenpv.loop import SECOND

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


# Failures half way: the superblock says how far the dump got.


@pytest.mark.parametrize("limit", [1 << 20, 8 << 20, 20 << 20])
def test_a_disk_full_half_way_leaves_a_partial_dump_that_says_so(limit, capsys):
    crash = Crash(error_after=limit, reorder=True, latency=1000)
    assert crash.run() == abi.SHUTDOWN_poweroff
    block = crash.superblock()
    assert block.state == superblock.PARTIAL
    assert "failed: status -1 (ERROR)" in block.reason
    assert 0 < block.written <= limit
    assert limit - block.written < 2 << 20
    whole = Crash()
    whole.run()
    assert crash.vmcore()[: block.written] == whole.vmcore()[: block.written]
    assert "dump partial: " in capsys.readouterr().out
    assert crash.reported("state") == "failed"


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


def test_pages_without_memory_are_zeros_and_are_counted(capsys):
    holes = {0x300, 0x301, 0x4FF, *range(0x1000, 0x1200), 0x17FF}
    crash = Crash(reorder=True, latency=1000)
    crash.guest.machine.holes |= holes
    crash.run()
    assert crash.superblock().state == superblock.COMPLETE
    assert f"{len(holes)} pages had no memory behind them" in capsys.readouterr().out
    elf = ELFFile(io.BytesIO(crash.vmcore()))
    for segment in elf.iter_segments("PT_LOAD"):
        # But for the low memory, which is read elsewhere.
        if segment["p_paddr"] == 0x1000:
            continue
        start, size = segment["p_paddr"], segment["p_filesz"]
        expected = bytearray(crash.memory[start : start + size])
        for frame in holes:
            if start <= frame * 4096 < start + size:
                at = frame * 4096 - start
                expected[at : at + 4096] = bytes(4096)
        assert segment.data() == expected


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
    assert (block.state, block.reason) == (superblock.PARTIAL, "a number too large")
    assert 4 << 20 < block.written < 8 << 20


def test_a_store_port_that_is_closed_ends_in_a_line_and_the_end_action(capsys):
    crash = Crash()
    machine = crash.guest.machine
    machine.evtchn.close(machine.domid, machine.params[abi.HVM_PARAM_STORE_EVTCHN])
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert "dump failed: EVTCHNOP_send port" in capsys.readouterr().out
    assert bytes(crash.disk.data) == crash.before
