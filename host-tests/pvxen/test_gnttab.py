"""The grant table of the embedded Xen: what a backend may map, and what the guest sees of it."""

import struct
from errno import EBUSY, EINVAL, ENOSYS, ERANGE

import pytest

import hw
from pvxen.gnttab import GrantRefused
from pvxen.machine import DOM0, Machine
from pvxen.public import (
    GNTCOPY_dest_gref,
    GNTCOPY_source_gref,
    GNTST_bad_copy_arg,
    GNTST_bad_domain,
    GNTST_bad_gntref,
    GNTST_general_error,
    GNTST_permission_denied,
    GNTTABOP_get_status_frames,
    GTF_sub_page,
)
from xenpv import abi

ARG = 0x1000
TABLE = 0x8000
REF = 20
STATUS = abi.XENMAPIDX_grant_table_status


def op(cmd, fmt, *fields):
    hw.mem(ARG, 40)[:] = bytes(40)
    hw.mem(ARG, struct.calcsize(fmt))[:] = struct.pack(fmt, *fields)
    return hw.hypercall(abi.HYPERVISOR_grant_table_op, cmd, ARG, 1)


@pytest.fixture
def table(machine):
    """The first frame of the table, mapped at TABLE."""
    machine.gnttab.frames[0].view[:8] = struct.pack("<HHI", 1, 0, 0x99)
    machine.place(machine.gnttab.frames[0], TABLE // 4096)
    return machine.gnttab


def grant(ref, flags, domid, gfn):
    hw.mem(TABLE + 8 * ref, 8)[:] = struct.pack("<HHI", flags, domid, gfn)


def flags(ref):
    return hw.rd16(TABLE + 8 * ref)


def test_entries_written_by_the_toolstack_stand_in_the_table_that_the_guest_maps(table):
    assert bytes(hw.mem(TABLE, 8)) == struct.pack("<HHI", 1, 0, 0x99)


def test_a_mapping_is_the_frame_and_its_entry_is_in_use_until_it_is_undone(table):
    grant(REF, abi.GTF_permit_access, DOM0, 0x30)
    mapping = table.map(REF, DOM0, readonly=False)
    mapping.view[:3] = b"abc"
    assert bytes(hw.mem(0x30000, 3)) == b"abc"
    assert flags(REF) == abi.GTF_permit_access | abi.GTF_reading | abi.GTF_writing
    mapping.unmap()
    assert flags(REF) == abi.GTF_permit_access


def test_a_read_only_mapping_cannot_be_written_through(table):
    grant(REF, abi.GTF_permit_access | abi.GTF_readonly, DOM0, 0x30)
    mapping = table.map(REF, DOM0, readonly=True)
    with pytest.raises(TypeError):
        mapping.view[0] = 1
    assert flags(REF) & (abi.GTF_reading | abi.GTF_writing) == abi.GTF_reading


def test_an_entry_is_in_use_while_any_mapping_is_left(table):
    grant(REF, abi.GTF_permit_access, DOM0, 0x30)
    writing, reading = table.map(REF, DOM0, False), table.map(REF, DOM0, True)
    writing.unmap()
    assert flags(REF) == abi.GTF_permit_access | abi.GTF_reading
    reading.unmap()
    assert flags(REF) == abi.GTF_permit_access


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ((0, DOM0, 0x30), "no GTF_permit_access"),
        ((2, DOM0, 0x30), "no GTF_permit_access"),
        ((1, 3, 0x30), "for domain 3"),
        ((1 | 4, DOM0, 0x30), "read-only"),
        ((1, DOM0, 0xFFFFFF), "no RAM"),
    ],
)
def test_what_was_not_granted_cannot_be_mapped(table, entry, says):
    grant(REF, *entry)
    with pytest.raises(GrantRefused, match=says):
        table.map(REF, DOM0, readonly=False)
    assert flags(REF) == entry[0]


@pytest.mark.parametrize("kind", ["holes", "foreign"])
def test_a_frame_without_memory_of_the_guest_s_cannot_be_mapped(kind, table):
    getattr(table.machine, kind).add(0x30)
    grant(REF, abi.GTF_permit_access, DOM0, 0x30)
    with pytest.raises(GrantRefused, match="no memory of this guest's"):
        table.map(REF, DOM0, readonly=True)
    assert flags(REF) == abi.GTF_permit_access


def test_a_reference_beyond_the_table_cannot_be_mapped(table):
    with pytest.raises(GrantRefused, match="the table has 512 entries"):
        table.map(512, DOM0, readonly=True)


def test_query_size_and_setup_table_tell_and_grow_the_table(table):
    assert op(abi.GNTTABOP_query_size, "<H", abi.DOMID_SELF) == 0
    assert struct.unpack("<IIh", hw.mem(ARG + 4, 10)) == (1, table.max_frames, 0)
    assert op(abi.GNTTABOP_setup_table, "<HHIhHIQ", abi.DOMID_SELF, 0, 3, 0, 0, 0, 0x6000) == 0
    assert hw.rd16(ARG + 8) == 0
    assert [hw.rd64(0x6000 + 8 * i) for i in range(3)] == [TABLE // 4096, 2**64 - 1, 2**64 - 1]
    op(abi.GNTTABOP_setup_table, "<HHIhHIQ", abi.DOMID_SELF, 0, 65, 0, 0, 0, 0x6000)
    assert hw.rd16(ARG + 8) == 0xFFFF


def get_version():
    assert op(abi.GNTTABOP_get_version, "<HHI", abi.DOMID_SELF, 0, 0) == 0
    return hw.rd32(ARG + 4)


def set_version(version):
    """Returns (the answer, the version that the guest is told)."""
    return op(abi.GNTTABOP_set_version, "<I", version), hw.rd32(ARG)


class TestVersion:
    def test_changing_it_wipes_all_entries_but_the_reserved_ones(self, machine):
        table = machine.gnttab
        table.set_entry(1, abi.GTF_permit_access, DOM0, 0x99)
        table.set_entry(REF, abi.GTF_permit_access, DOM0, 0x30)
        assert set_version(2) == (0, 2)
        assert get_version() == 2
        assert table.entry(1) == (abi.GTF_permit_access, DOM0, 0x99)
        assert table.entry(REF) == (0, 0, 0)
        assert set_version(1) == (0, 1)
        assert table.entry(1) == (abi.GTF_permit_access, DOM0, 0x99)

    def test_it_cannot_change_while_a_grant_is_mapped(self, machine):
        machine.gnttab.set_entry(REF, abi.GTF_permit_access, DOM0, 0x30)
        mapping = machine.gnttab.map(REF, DOM0, readonly=True)
        assert set_version(2) == (-EBUSY, 1)
        mapping.unmap()
        assert set_version(2) == (0, 2)

    def test_reserved_entries_may_be_in_use_and_stay_so(self, machine):
        machine.gnttab.set_entry(1, abi.GTF_permit_access, DOM0, 0x99)
        mapping = machine.gnttab.map(1, DOM0, readonly=False)
        assert set_version(2) == (0, 2)
        assert machine.gnttab.status(1) == abi.GTF_reading | abi.GTF_writing
        assert machine.gnttab.entry(1)[0] == abi.GTF_permit_access
        mapping.unmap()
        assert machine.gnttab.status(1) == 0

    def test_an_entry_that_version_1_cannot_have_is_in_the_way_of_it(self, machine):
        set_version(2)
        machine.gnttab.set_entry(1, abi.GTF_permit_access, DOM0, 1 << 32)
        assert set_version(1) == (-ERANGE, 2)

    def test_what_is_not_there_or_not_allowed_is_refused(self):
        hw.attach(Machine(gnttab_max_version=1))
        assert set_version(3) == (-EINVAL, 1)
        assert set_version(2) == (-ENOSYS, 1)

    def test_status_frames_leave_the_guest_with_version_2(self, machine):
        set_version(2)
        machine.place(machine.gnttab.frame(STATUS), TABLE // 4096)
        set_version(1)
        assert bytes(hw.mem(TABLE, 4)) == b"\xff" * 4
        assert machine.holes == {TABLE // 4096}


class TestVersion2:
    @pytest.fixture
    def table(self):
        """A table of version 2, its first frame at TABLE, its first status frame behind it."""
        machine = Machine(gnttab_version=2)
        hw.attach(machine)
        machine.place(machine.gnttab.frame(0), TABLE // 4096)
        machine.place(machine.gnttab.frame(STATUS), TABLE // 4096 + 1)
        return machine.gnttab

    def status(self, ref):
        return hw.rd16(TABLE + 4096 + 2 * ref)

    def grant(self, ref, flags, domid, frame, part=0):
        hw.mem(TABLE + 16 * ref, 16)[:] = struct.pack("<HHIQ", flags, domid, part, frame)

    def test_use_shows_in_the_status_frame_and_not_in_the_flags(self, table):
        self.grant(REF, abi.GTF_permit_access, DOM0, 0x30)
        mapping = table.map(REF, DOM0, readonly=True)
        assert self.status(REF) == abi.GTF_reading
        assert hw.rd16(TABLE + 16 * REF) == abi.GTF_permit_access
        mapping.unmap()
        assert self.status(REF) == 0

    def test_an_entry_ended_while_mapped_stays_in_use_until_unmapped(self, table):
        self.grant(REF, abi.GTF_permit_access, DOM0, 0x30)
        mapping = table.map(REF, DOM0, readonly=False)
        self.grant(REF, 0, 0, 0)
        mapping.view[:3] = b"abc"
        assert self.status(REF) == abi.GTF_reading | abi.GTF_writing
        mapping.unmap()
        assert bytes(hw.mem(0x30000, 3)) == b"abc"
        assert self.status(REF) == 0

    def test_a_part_of_a_page_cannot_be_mapped(self, table):
        self.grant(REF, abi.GTF_permit_access | GTF_sub_page, DOM0, 0x30, 64 << 16)
        with pytest.raises(GrantRefused, match="no GTF_permit_access"):
            table.map(REF, DOM0, readonly=True)

    def test_a_frame_has_half_as_many_entries(self, table):
        with pytest.raises(GrantRefused, match="the table has 256 entries"):
            table.map(256, DOM0, readonly=True)

    def test_growing_the_table_brings_the_status_frames_it_needs(self, table):
        table.grow(8)
        assert len(table.status_frames) == 1
        table.grow(9)
        assert len(table.status_frames) == 2

    def test_get_status_frames_tells_where_they_are(self, table):
        assert op(GNTTABOP_get_status_frames, "<IHhQ", 1, abi.DOMID_SELF, 0, 0x6000) == 0
        assert (hw.rd16(ARG + 6), hw.rd64(0x6000)) == (0, TABLE // 4096 + 1)
        op(GNTTABOP_get_status_frames, "<IHhQ", 2, abi.DOMID_SELF, 0, 0x6000)
        assert hw.rd16(ARG + 6) == 0xFFFF


class TestCopy:
    """GNTTABOP_copy by domain 1; domain 2 grants it REF."""

    @pytest.fixture(autouse=True)
    def domains(self):
        self.machine = Machine()
        self.other = Machine(hypervisor=self.machine.hypervisor, domid=2, gnttab_version=2)
        self.other.ram[0x40000:0x40005] = b"there"
        self.grant(abi.GTF_permit_access)
        hw.attach(self.machine)
        hw.mem(0x30000, 4)[:] = b"here"

    def grant(self, flags, domid=1, part=0):
        entry = struct.pack("<HHIQ", flags, domid, part, 0x40)
        self.other.gnttab.frames[0].view[16 * REF : 16 * REF + 16] = entry

    def copy(self, source, dest, length, flags):
        """source, dest: (reference or gfn, domain, offset). Returns the status."""
        fields = (*source, *dest, length, flags, 99)
        assert op(abi.GNTTABOP_copy, "<QHH4xQHH4xHHh", *fields) == 0
        return struct.unpack("<h", hw.mem(ARG + 36, 2))[0]

    def test_from_a_grant_into_a_frame_of_ones_own(self):
        here = (0x30, abi.DOMID_SELF, 100)
        assert self.copy((REF, 2, 1), here, 4, GNTCOPY_source_gref) == abi.GNTST_okay
        assert bytes(hw.mem(0x30000 + 100, 4)) == b"here"
        assert self.other.gnttab.active == {}

    def test_from_a_frame_of_ones_own_into_a_grant(self):
        here = (0x30, abi.DOMID_SELF, 0)
        assert self.copy(here, (REF, 2, 8), 4, GNTCOPY_dest_gref) == abi.GNTST_okay
        assert self.other.ram[0x40008:0x4000C] == b"here"

    def test_a_part_of_a_page_is_all_that_may_be_copied(self):
        self.grant(abi.GTF_permit_access | GTF_sub_page, part=1 | 4 << 16)
        here = (0x30, abi.DOMID_SELF, 0)
        assert self.copy((REF, 2, 1), here, 4, GNTCOPY_source_gref) == abi.GNTST_okay
        assert self.copy((REF, 2, 0), here, 4, GNTCOPY_source_gref) == GNTST_general_error
        assert self.copy((REF, 2, 2), here, 4, GNTCOPY_source_gref) == GNTST_general_error

    @pytest.mark.parametrize(
        ("source", "dest", "flags", "status"),
        [
            ((0x40, 2, 0), (0x30, 0x7FF0, 0), 0, GNTST_permission_denied),
            ((REF, 7, 0), (0x30, 0x7FF0, 0), GNTCOPY_source_gref, GNTST_bad_domain),
            ((5000, 2, 0), (0x30, 0x7FF0, 0), GNTCOPY_source_gref, GNTST_bad_gntref),
            ((REF, 2, 4093), (0x30, 0x7FF0, 0), GNTCOPY_source_gref, GNTST_bad_copy_arg),
            ((REF, 2, 0), (1 << 20, 0x7FF0, 0), GNTCOPY_source_gref, GNTST_general_error),
        ],
    )
    def test_what_is_refused_says_why_and_copies_nothing(self, source, dest, flags, status):
        before = bytes(self.machine.ram[0x30000:0x31000])
        assert self.copy(source, dest, 4, flags) == status
        assert self.machine.ram[0x30000:0x31000] == before
        assert self.other.gnttab.active == {}

    @pytest.mark.parametrize("kind", ["holes", "foreign"])
    def test_a_frame_without_memory_of_the_guest_s_is_no_source(self, kind):
        getattr(self.machine, kind).add(0x31)
        source, here = (0x31, abi.DOMID_SELF, 0), (0x30, abi.DOMID_SELF, 0)
        assert self.copy(source, here, 4, 0) == GNTST_general_error

    def test_a_read_only_grant_is_no_destination(self):
        self.grant(abi.GTF_permit_access | abi.GTF_readonly)
        here = (0x30, abi.DOMID_SELF, 0)
        assert self.copy(here, (REF, 2, 0), 4, GNTCOPY_dest_gref) == GNTST_general_error
        assert self.other.ram[0x40000:0x40005] == b"there"
