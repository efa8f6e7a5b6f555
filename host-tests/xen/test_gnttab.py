"""The grant table of the embedded Xen: what a backend may map, and what the guest sees of it."""

import struct
from errno import EBUSY, EINVAL

import pytest

import hw
from pvdump.xen.gnttab import GrantRefused
from pvdump.xen.machine import DOM0, Machine
from xenpv import abi

ARG = 0x1000
TABLE = 0x8000
REF = 20


def op(cmd, fmt, *fields):
    hw.mem(ARG, 32)[:] = bytes(32)
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


def test_version_2_left_by_an_earlier_kernel_can_be_left_when_nothing_is_granted():
    machine = Machine(gnttab_version=2)
    hw.attach(machine)
    assert op(abi.GNTTABOP_get_version, "<HHI", abi.DOMID_SELF, 0, 0) == 0
    assert hw.rd32(ARG + 4) == 2
    machine.gnttab.set_entry(REF, 1, DOM0, 0x30)
    assert op(abi.GNTTABOP_set_version, "<I", 1) == -EBUSY
    assert hw.rd32(ARG) == 2
    machine.gnttab.set_entry(REF, 0, 0, 0)
    assert op(abi.GNTTABOP_set_version, "<I", 1) == 0
    assert machine.gnttab.version == 1


def test_version_2_cannot_be_had(machine):
    assert op(abi.GNTTABOP_set_version, "<I", 2) == -EINVAL
    assert hw.rd32(ARG) == 1
