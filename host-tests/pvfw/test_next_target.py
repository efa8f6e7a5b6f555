"""A target that fails on the way keeps what fits, and the next one gets the dump, whole."""

import pytest
from fixtures import streamreader
from fixtures.crashedguest import Crash
from fixtures.placedcrash import LINE, MIB, NONCE, UUID, Place, PlacedCrash, disk, extents

import hw
from pvfw import superblock
from pvfw.packer import Packer
from pvfw.target import Target
from xenpv import abi
from xenpv.block.front import BlkFront

POOL = (0x1900000, 0x1900000 + 128 * 4096)  # as many pages as image.yaml gives the image
OTHER = bytes(range(1, 17))


def dumped(disk):
    """The superblock and the stream on a disk."""
    raw = bytes(disk.data)
    return superblock.decode(raw[:512]), streamreader.read(raw)


def complete(sink, like=None):
    """What is on the disk is a whole dump, with the same pages as another one."""
    block, found = dumped(sink)
    assert (block.state, block.reason) == (superblock.COMPLETE, "")
    assert found.whole
    assert block.dump_size == block.written == found.size
    if like:
        assert found.pages == like.pages
        assert found.manifest.items() >= {"pages": like.manifest["pages"]}.items()
    return block, found


@pytest.fixture(scope="module")
def undisturbed():
    """The dump that nothing disturbs."""
    crash = Crash()
    crash.run()
    return complete(crash.disk)[1]


class TwoDisks(Crash):
    """A crashed guest with a target xvdb, which has faults, and a target xvdc, which has none."""

    def __init__(self, guest=None, line="", **faults):
        names = f"{LINE} pvdump.disk=xvdb,xvdc {line}"
        super().__init__(names, guest=guest, **faults)
        self.second = disk(self.guest, "xvdc", uuid=OTHER)[1]


FAULTS = [
    {"error_after": 8 * MIB},
    {"error_after": 8 * MIB, "reorder": True, "latency": 1000},
    {"dies": 10, "no_init_wait": True},
    {"never_answers": 10},
    {"bad_id": 10},
    {"disk_size": 8 * MIB},
]


@pytest.mark.parametrize("compress", ["zstd", "none"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: next(iter(fault)))
def test_where_a_target_fails_the_next_one_gets_the_whole_dump(
    fault, compress, undisturbed, capsys
):
    crash = TwoDisks(line=f"pvdump.compress={compress}", **fault)
    assert crash.run() == abi.SHUTDOWN_poweroff
    _, found = complete(crash.second, undisturbed)
    assert compress == "none" or found.chunks == undisturbed.chunks
    assert crash.reported("state") == "complete"
    said = capsys.readouterr().out
    assert "dump to xvdb failed: " in said
    assert said.index("dumping to xvdb") < said.index("dumping to xvdc")
    assert "dump complete: 24 MiB" in said


@pytest.mark.parametrize(
    ("fault", "reason"),
    [({"error_after": 8 * MIB}, "write of sector"), ({"disk_size": 8 * MIB}, "the target is full")],
)
def test_the_target_that_failed_is_partial_says_why_and_keeps_what_fits(
    fault, reason, undisturbed, capsys
):
    crash = TwoDisks(**fault)
    crash.run()
    block, found = dumped(crash.disk)
    assert block.state == superblock.PARTIAL
    assert reason in block.reason
    assert 5 * MIB < block.written < 8 * MIB
    assert len(found.pages) > MIB // 4096
    assert found.pages.items() <= undisturbed.pages.items()


def test_the_whole_dump_counts_nothing_of_the_one_that_failed(capsys):
    crash = TwoDisks(error_after=8 * MIB)
    crash.guest.machine.foreign.update(range(0x200, 0x300))
    crash.run()
    _, found = complete(crash.second)
    assert found.unreadable == set(range(0x200, 0x300))
    assert found.manifest["unreadable"] == str(0x100)
    assert "256 pages could not be read" in capsys.readouterr().out


def test_two_dumps_of_one_crash_are_told_apart(capsys):
    crash = TwoDisks(error_after=8 * MIB)
    crash.run()
    assert dumped(crash.disk)[0].dump != dumped(crash.second)[0].dump


def test_where_the_last_target_fails_too_its_reason_is_told_and_each_keeps_its_own(capsys):
    crash = Crash(f"{LINE} pvdump.disk=xvdb,xvdc", error_after=8 * MIB)
    second = disk(crash.guest, "xvdc", 4 * MIB, uuid=OTHER)[1]
    crash.run()
    first, last = dumped(crash.disk)[0], dumped(second)[0]
    assert (first.state, last.state) == (superblock.PARTIAL, superblock.PARTIAL)
    assert "write of sector" in first.reason
    assert last.reason == crash.reported("reason") == "the target is full: it has room for 2 MiB"
    assert crash.reported("state") == "failed"


def test_memory_that_runs_out_on_the_way_fails_one_target_alone(capsys, monkeypatch, undisturbed):
    calls = []

    async def flush(self):
        calls.append(1)
        if len(calls) == 30:
            raise MemoryError("memory allocation failed, allocating 1234 bytes")
        await original(self)

    original = Packer.flush
    monkeypatch.setattr(Packer, "flush", flush)
    crash = TwoDisks()
    crash.run()
    block = dumped(crash.disk)[0]
    assert block.state == superblock.PARTIAL
    assert "out of memory" in block.reason
    complete(crash.second, undisturbed)


def test_a_target_that_was_left_in_order_leaves_its_memory_to_the_next(capsys, monkeypatch):
    taken = []
    alloc, begin = hw.alloc_pages, BlkFront.connect
    starts = []
    monkeypatch.setattr(hw, "alloc_pages", lambda n: taken.append(n) or alloc(n))

    async def connect(self, *rest):
        starts.append(len(taken))
        await begin(self, *rest)

    monkeypatch.setattr(BlkFront, "connect", connect)
    crash = TwoDisks({"region": POOL}, error_after=8 * MIB)
    crash.run()
    complete(crash.second)
    # Both are looked at, then each is dumped to. What the second takes is the memory of its rings,
    # which the first one gave back, and the filter's.
    first, second = sum(taken[starts[2] : starts[3]]), sum(taken[starts[3] :])
    assert second < first // 2


def test_a_superblock_is_not_read_to_where_a_dead_backend_may_still_write(capsys, monkeypatch):
    pages = []
    original = BlkFront.read

    async def read(self, sector, gfn, count):
        pages.append((self.device.path, gfn))
        await original(self, sector, gfn, count)

    async def close(self):
        await closed(self)
        # As if it had not let go of a page.
        self.disk.grants.set_aside += 1

    closed = Target.close
    monkeypatch.setattr(BlkFront, "read", read)
    monkeypatch.setattr(Target, "close", close)
    crash = TwoDisks(error_after=8 * MIB)
    crash.run()
    complete(crash.second)
    (first, used), (second, fresh) = pages[-2:]
    assert first != second
    assert used != fresh


def test_two_targets_on_one_disk_are_tried_one_after_the_other(undisturbed):
    small, large = extents([(30, 4)]), extents([(2, 20), (36, 12)])
    crash = PlacedCrash(small)
    place = Place(crash.disk, large, uuid=OTHER, nonce=NONCE)
    crash.configure([crash.place.wanted, place.wanted])
    crash.run()
    block = crash.superblock()
    assert (block.state, block.uuid) == (superblock.PARTIAL, UUID)
    assert block.reason.startswith("the target is full")
    found = streamreader.read(place.content())
    assert found.whole
    assert found.pages.keys() == undisturbed.pages.keys()


def test_a_file_that_fails_is_followed_by_a_disk(undisturbed):
    sinks = []

    def more(guest):
        wanted, sink = disk(guest, "xvdc", uuid=OTHER)
        sinks.append(sink)
        return [wanted]

    crash = PlacedCrash(extents([(30, 4)]), more=more)
    outside = crash.place.outside()
    crash.run()
    assert crash.superblock().state == superblock.PARTIAL
    assert crash.place.outside() == outside
    assert complete(sinks[0])[1].pages.keys() == undisturbed.pages.keys()
