"""A dump to extents of a disk: it is whole, nothing else is written, other targets are refused."""

import pytest
from fixtures import streamreader
from fixtures.placedcrash import DISK, LINE, MIB, PAGE, PIECES, UUID, Place, PlacedCrash, extents

from pvfw import superblock
from pvfw.target import Target
from pvxen.crashedkernel import CrashedKernel
from xenpv import abi
from xenpv.loop import SECOND

OTHER = bytes(range(1, 17))
# The same MiB on the disk in pieces of 4 KiB to 32 KiB, every other one from the disk's end.
SMALL = [(at, 8 if at < 1024 else 24) for at in range(512, 12288, 32)]
SMALL = [SMALL[i // 2] if i % 2 else SMALL[-1 - i // 2] for i in range(len(SMALL))]


def whole(crash):
    """What a reader finds of the dump, which is complete."""
    assert crash.superblock().state == superblock.COMPLETE
    found = streamreader.read(crash.place.content())
    assert found.whole
    return found


@pytest.mark.parametrize("compress", ["zstd", "none"])
@pytest.mark.parametrize("pieces", [PIECES, SMALL], ids=["large", "small"])
def test_the_dump_in_extents_is_whole_and_nothing_outside_them_is_written(pieces, compress):
    place = extents(pieces, MIB if pieces is PIECES else PAGE)
    crash = PlacedCrash(
        place, line=f"{LINE} pvdump.compress={compress}", reorder=True, latency=1000
    )
    outside = crash.place.outside()
    assert crash.run() == abi.SHUTDOWN_poweroff
    found = whole(crash)
    assert len(found.pages) > 20 * MIB // PAGE
    at = 0x400000 // PAGE
    assert found.pages[at] == crash.memory[at * PAGE : (at + 1) * PAGE]
    assert crash.place.outside() == outside


def test_the_copy_at_the_target_s_end_says_the_same():
    crash = PlacedCrash()
    crash.run()
    content = crash.place.content()
    assert content[-PAGE:][:512] == content[:512]


def test_a_disk_that_the_crashed_kernel_has_mounted_is_taken_over():
    crash = PlacedCrash()
    CrashedKernel(crash.guest).connect(crash.back)
    crash.run()
    whole(crash)


def test_a_backend_that_comes_back_half_way_gets_the_whole_dump():
    crash = PlacedCrash(dies=10)
    outside = crash.place.outside()
    crash.run()
    whole(crash)
    assert crash.place.outside() == outside


def test_a_disk_with_large_sectors_takes_a_dump_in_extents():
    crash = PlacedCrash(sector_size=4096)
    outside = crash.place.outside()
    crash.run()
    whole(crash)
    assert crash.place.outside() == outside


def test_frames_that_cannot_be_lent_are_left_out_as_on_a_whole_disk():
    crash = PlacedCrash(line=f"{LINE} pvdump.compress=none")
    crash.guest.machine.foreign.update(range(0x500, 0x600))
    outside = crash.place.outside()
    crash.run()
    assert whole(crash).unreadable == set(range(0x500, 0x600))
    assert crash.place.outside() == outside


@pytest.mark.parametrize("seed", range(5))
def test_on_the_way_the_superblock_says_no_more_than_what_is_on_the_disk(seed, monkeypatch):
    seen = []
    crash = PlacedCrash(reorder=True, latency=SECOND // 20, guest={"seed": seed})

    async def note(self):
        await original(self)
        seen.append(self.block.written)
        raw = crash.place.content()
        found = streamreader.read(raw[: self.block.data_offset + self.block.written])
        assert self.block.written - found.size < 256 * PAGE
        for pfn in (0x400, 0x4FF):
            if pfn in found.pages:
                assert found.pages[pfn] == crash.memory[pfn * PAGE : (pfn + 1) * PAGE]

    original = Target.note
    monkeypatch.setattr(Target, "note", note)
    crash.run()
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] > MIB
    whole(crash)


def test_the_self_check_looks_at_the_target_and_changes_nothing(capsys):
    crash = PlacedCrash(line=f"{LINE} pvdump.run=check")
    crash.run()
    said = capsys.readouterr().out
    assert "disk xvdb at sector 61440: 30 MiB, writable" in said
    assert "check passed" in said
    assert bytes(crash.disk.data) == crash.before


# The swap header.


@pytest.mark.parametrize("physical", [512, 4096])
def test_a_dump_to_swap_leaves_its_header_as_it_was(physical):
    crash = PlacedCrash(swap=True)
    crash.guest.settle()
    crash.back._disk.sink.physical = physical
    header = crash.place.content()[512:PAGE]
    crash.run()
    whole(crash)
    assert crash.place.content()[512:PAGE] == header


@pytest.mark.parametrize("physical", [512, 4096])
def test_wherever_the_power_is_cut_swap_has_its_header(physical):
    crash = PlacedCrash(swap=True)
    crash.guest.settle()
    crash.back._disk.sink.physical = physical
    begin = crash.place.wanted.extents.first() * 512
    header = bytes(crash.disk.data[begin + 512 : begin + PAGE])
    seen = []

    def write(offset, buffers):
        original(offset, buffers)
        if begin <= offset < begin + PAGE:
            seen.append(sum(map(len, buffers)))
            assert crash.disk.data[begin + 512 : begin + PAGE] == header

    original, crash.disk.write = crash.disk.write, write
    crash.run()
    whole(crash)
    assert set(seen) == {physical}
    assert len(seen) > 1


@pytest.mark.parametrize(("level", "is_refused"), [(8, False), (31, False), (23, True), (0, True)])
def test_swap_takes_no_dump_that_keeps_user_pages(level, is_refused, capsys):
    crash = PlacedCrash(swap=True, line=f"{LINE} pvdump.level={level}")
    crash.run()
    if is_refused:
        assert bytes(crash.disk.data) == crash.before
        assert f"level {level} keeps user pages" in crash.reported("reason")
    else:
        whole(crash)


# Wrong targets.


def other_uuid(crash):
    crash.place.block.uuid = OTHER
    crash.place.sign()


def other_nonce(crash):
    crash.place.block.nonce = bytes(32)
    crash.place.sign()


def other_size(crash):
    crash.place.block.size -= PAGE
    crash.place.sign()


def other_end(crash):
    crash.place.write(crash.place.block.size - PAGE, bytes(PAGE))


def other_copy(crash):
    crash.place.block.nonce = bytes(32)
    crash.place.sign()
    crash.place.block.nonce = crash.place.wanted.nonce
    crash.place.sign(copy=False)


def rewritten(crash):
    crash.place.write(0, b"\1" * PAGE)


def damaged(crash):
    crash.place.write(100, b"?")


def moved(crash):
    crash.place.wanted.extents = extents([(2, 8), *PIECES[3:5]])
    crash.configure([crash.place.wanted])


def holds_a_dump(crash):
    crash.place.block.state = superblock.COMPLETE
    crash.place.sign()


def shrunk(crash):
    """The disk ends in the middle of the extents."""
    crash.back._disk.sink.size = 41 * MIB


WRONG = [
    (other_uuid, "another target is there, by its UUID"),
    (other_nonce, "armed anew since, by its nonce"),
    (other_size, "its superblock is of another size"),
    (other_end, "no pvdump superblock"),
    (other_copy, "armed anew since, by its nonce"),
    (rewritten, "no pvdump superblock"),
    (damaged, "the superblock is damaged"),
    (moved, "no pvdump superblock"),
    (holds_a_dump, "it holds a dump (complete)"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[w[0].__name__ for w in WRONG])
@pytest.mark.parametrize("several", [False, True])
def test_a_target_that_is_not_the_one_that_was_armed_is_refused_and_not_changed(
    change, message, several, capsys
):
    more = missing if several else None
    crash = PlacedCrash(more=more)
    change(crash)
    if several and change is moved:
        crash.configure([crash.place.wanted, *missing(crash.guest)])
    before = bytes(crash.disk.data)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert bytes(crash.disk.data) == before
    assert message in capsys.readouterr().out
    assert "nothing on" in crash.reported("reason")


def missing(guest):
    """A target on a disk that the guest has not."""
    return [Place(type("", (), {"data": bytearray(DISK)}), extents(), "xvdd", OTHER).wanted]


def test_a_disk_that_became_smaller_than_the_extents_is_refused(capsys):
    place = extents([*PIECES, (DISK // MIB, 1)])
    crash = PlacedCrash(place)
    assert len(crash.disk.data) > DISK
    del crash.disk.data[DISK:]
    before = bytes(crash.disk.data)
    crash.run()
    assert bytes(crash.disk.data) == before
    assert "its extents go up to sector 100352, but the disk has 98304" in crash.reported("reason")


def test_a_read_only_disk_is_refused():
    crash = PlacedCrash(read_only=True)
    crash.run()
    assert bytes(crash.disk.data) == crash.before
    assert "the disk is read-only" in crash.reported("reason")


def test_a_disk_that_is_missing_is_named():
    crash = PlacedCrash()
    crash.place.wanted.name = "xvdd"
    crash.configure([crash.place.wanted])
    crash.run()
    assert bytes(crash.disk.data) == crash.before
    assert "no disk xvdd" in crash.reported("reason")


def test_a_whole_disk_with_another_uuid_than_the_configuration_s_is_refused():
    crash = PlacedCrash(line=f"{LINE} pvdump.disk=xvdb")
    block = superblock.Superblock(OTHER, DISK)
    crash.disk.data[:512] = block.encode()
    crash.place.wanted.extents = crash.place.wanted.nonce = None
    crash.configure([crash.place.wanted])
    before = bytes(crash.disk.data)
    crash.run()
    assert bytes(crash.disk.data) == before
    assert "another target is there, by its UUID" in crash.reported("reason")
    assert UUID != OTHER
