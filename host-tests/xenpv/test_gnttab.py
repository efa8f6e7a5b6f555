"""The grant table, on what a crashed kernel left: its versions, growing, lending, taking back."""

import pytest

import hw
from pvxen.gnttab import ENTRIES
from pvxen.machine import DOM0, Machine
from xenpv import abi
from xenpv.errors import XenError
from xenpv.gnttab import GrantTable
from xenpv.hypercall import Hypercalls

REFS = 0x3000
GFN = 0x50
RESERVED = abi.GNTTAB_NR_RESERVED_ENTRIES
LENT = 20
PER_FRAME = {version: abi.PAGE_SIZE // entry.size for version, entry in ENTRIES.items()}


def table(**options):
    """A machine and the driver's table on it. options: of Machine."""
    machine = Machine(**options)
    hw.attach(machine)
    return machine, GrantTable(Hypercalls())


def lend_as_crashed(machine, ref=LENT):
    """Lend a frame as the crashed kernel, and let its backend keep it mapped."""
    machine.gnttab.set_entry(ref, abi.GTF_permit_access, DOM0, 0x30)
    return machine.gnttab.map(ref, DOM0, readonly=False)


def version_2(**options):
    """As table(), where version 2 cannot be left."""
    machine = Machine(gnttab_version=2, **options)
    hw.attach(machine)
    lend_as_crashed(machine)
    return machine, GrantTable(Hypercalls())


TABLES = pytest.mark.parametrize(("make", "version"), [(table, 1), (version_2, 2)])


def lend(grants, n, readonly=True):
    """Lend frames from GFN on. Returns what ends that, and the entries' numbers."""
    frames = grants.lend(REFS, n, DOM0, GFN, readonly)
    return frames, [hw.rd32(REFS + 4 * i) for i in range(n)]


def lend_all(grants, step=1):
    """The numbers of all entries there are, lent so many at a time."""
    found = []
    while grants.fits(step):
        found += lend(grants, step)[1]
    return found


class TestLending:
    @TABLES
    def test_a_frame_that_is_lent_can_be_mapped_and_only_as_it_was_lent(self, make, version):
        machine, grants = make()
        _, refs = lend(grants, 3)
        flags = abi.GTF_permit_access | abi.GTF_readonly
        entries = [machine.gnttab.entry(ref) for ref in refs]
        assert entries == [(flags, DOM0, GFN + i) for i in range(3)]
        assert grants.version == machine.gnttab.version == version

    @TABLES
    def test_what_a_peer_still_has_mapped_is_set_aside_and_never_lent_again(self, make, version):
        machine, grants = make(gnttab_max_frames=2)
        frames, refs = lend(grants, 3)
        machine.gnttab.map(refs[1], DOM0, readonly=True)
        assert frames.end(REFS, 3) == 1
        assert grants.set_aside == 1
        again = lend_all(grants)
        assert refs[1] not in again
        assert set(refs) - {refs[1]} <= set(again)

    @TABLES
    def test_what_was_taken_back_cannot_be_mapped(self, make, version):
        machine, grants = make()
        frames, refs = lend(grants, 2)
        assert frames.end(REFS, 2) == 0
        assert [machine.gnttab.entry(ref)[0] for ref in refs] == [0, 0]

    def test_version_2_is_left_when_nothing_is_mapped(self):
        machine = Machine(gnttab_version=2)
        hw.attach(machine)
        machine.gnttab.set_entry(LENT, abi.GTF_permit_access, DOM0, 0x30)
        assert GrantTable(Hypercalls()).version == machine.gnttab.version == 1

    def test_the_crashed_kernels_grants_are_as_they_were(self):
        machine, grants = version_2(gnttab_max_frames=1)
        lend_all(grants)
        assert machine.gnttab.entry(LENT) == (abi.GTF_permit_access, DOM0, 0x30)

    def test_an_entry_of_version_2_that_was_ended_while_mapped_is_not_free(self):
        machine = Machine(gnttab_version=2, gnttab_max_frames=1)
        hw.attach(machine)
        lend_as_crashed(machine)
        machine.gnttab.set_entry(LENT, 0, 0, 0)
        machine.gnttab.set_entry(LENT + 1, abi.GTF_permit_access, DOM0, 0x31)
        found = lend_all(GrantTable(Hypercalls()))
        assert sorted(found) == [*range(RESERVED, LENT), *range(LENT + 2, 256)]


class TestGrowing:
    @TABLES
    def test_nothing_is_mapped_before_it_is_wanted(self, make, version):
        machine, grants = make(gnttab_frames=1)
        assert len(machine.gnttab.frames) == 3
        lend(grants, PER_FRAME[version])
        assert len(machine.gnttab.frames) == 3

    @TABLES
    @pytest.mark.parametrize("frames", [1, 5, 7, 8, 62])
    def test_it_grows_to_xens_limit_and_then_uses_what_is_free_below(self, make, version, frames):
        machine, grants = make(gnttab_frames=frames, gnttab_max_frames=64)
        found = lend_all(grants, 4)
        assert len(machine.gnttab.frames) == 64
        assert len(set(found)) == len(found)
        assert min(found) >= RESERVED
        assert LENT not in found or version == 1
        # All but the reserved and the busy ones, and remainders of no use to who wants four.
        assert len(found) > 64 * PER_FRAME[version] - RESERVED - 4 * 64
        assert "all 64 frames that Xen allows are in use" in grants.full

    @TABLES
    def test_entries_in_all_its_frames_work(self, make, version):
        machine, grants = make(gnttab_max_frames=12)
        found = lend_all(grants, 4)
        for ref in (found[0], found[len(found) // 2], found[-1]):
            machine.gnttab.map(ref, DOM0, readonly=True).unmap()
            assert machine.gnttab.status(ref) == 0

    @TABLES
    def test_a_batch_larger_than_what_is_mapped_at_a_time_is_lent_in_one(self, make, version):
        _, grants = make()
        n = 2 * PER_FRAME[version] + 1
        frames, refs = lend(grants, n)
        assert len(set(refs)) == n
        assert frames.end(REFS, n) == 0

    @TABLES
    def test_the_most_that_is_there_at_once_is_told_before_it_is_lent(self, make, version):
        _, grants = make(gnttab_max_frames=1)
        most = grants.most(10000)
        assert 0 < most == grants.free() < PER_FRAME[version]
        assert grants.most(7) == 7
        lend(grants, most)
        assert grants.most(1) == 0

    def test_more_than_there_is_is_refused_with_why_it_does_not_grow(self):
        _, grants = table(gnttab_max_frames=2)
        lend_all(grants, 100)
        with pytest.raises(
            XenError, match="100 entries wanted at once; 16 are free, 0 still mapped"
        ):
            lend(grants, 100)
        with pytest.raises(XenError, match="all 2 frames that Xen allows are in use"):
            lend(grants, 100)

    @TABLES
    def test_xen_refusing_to_grow_leaves_what_there_is(self, make, version):
        machine, grants = make(gnttab_frames=1)
        machine.gnttab.max_frames = 4  # less than it said
        found = lend_all(grants)
        # Frames 1 to 3; Xen would not give the next one.
        assert len(found) == 3 * PER_FRAME[version]
        assert "XENMEM_add_to_physmap space 1 idx 4: Xen answered errno 22" in grants.full
        asked = machine.hypercalls
        assert not grants.fits(1)
        assert machine.hypercalls == asked

    @TABLES
    def test_without_memory_to_grow_it_stays_what_it_is(self, make, version):
        _, grants = make(region=(8 << 20, (8 << 20) + 6 * 4096))
        before = grants.free()
        assert len(lend_all(grants)) == before == 2 * PER_FRAME[version]
        assert "pages wanted, " in grants.full
        assert "2 frames of the table are mapped" in grants.full

    def test_a_table_without_a_free_entry_is_refused_at_once(self):
        machine = Machine(gnttab_max_frames=1)
        hw.attach(machine)
        for ref in range(RESERVED, 512):
            machine.gnttab.set_entry(ref, abi.GTF_permit_access, DOM0, 0x30)
        with pytest.raises(XenError, match="no entry can be used: all 1 frames"):
            GrantTable(Hypercalls())
