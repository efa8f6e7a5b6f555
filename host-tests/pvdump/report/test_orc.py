"""ORC tables: entries of both layouts, found by an address of code."""

import struct
from types import SimpleNamespace

import pytest
from fixtures.btftypes import Types
from fixtures.orctables import NEW, NEWEST, OLD, entry, layout, table

from pvdump.arm.btf import Btf
from pvdump.report import orc
from pvdump.report.orc import Entry, Layout
from pvfw.errors import CoreError

BODY = Entry(orc.SP, 48, orc.PREV_SP, -16, orc.CALL)


@pytest.mark.parametrize("version", [OLD, NEW, NEWEST])
@pytest.mark.parametrize(
    "one",
    [
        BODY,
        Entry(orc.BP, 16, orc.UNDEFINED, 0, orc.CALL),
        Entry(orc.SP, 0, orc.BP, -32768, orc.REGS),
        Entry(orc.AX, 0, orc.UNDEFINED, 0, orc.CALL),
        Entry(orc.BP_INDIRECT, -40, orc.BP, 0, orc.CALL),
        Entry(orc.SP_INDIRECT, 32767, orc.UNDEFINED, 0, orc.REGS_PARTIAL),
    ],
)
def test_an_entry_is_read_as_its_kernel_has_it(version: SimpleNamespace, one: Entry) -> None:
    assert layout(version).decode(entry(version, one)) == one


@pytest.mark.parametrize("version", [OLD, NEW, NEWEST])
def test_the_end_of_a_stack_and_unknown_code_are_told_apart(
    version: SimpleNamespace,
) -> None:
    kinds = [
        layout(version).decode(entry(version, Entry(orc.UNDEFINED, 0, 0, 0, kind))).type
        for kind in (orc.NOTHING, orc.END)
    ]
    assert kinds == [orc.NOTHING, orc.END]


def test_a_number_that_is_no_register_s_is_told() -> None:
    raw = bytearray(entry(NEW, BODY))
    raw[4] |= 0xF
    assert layout(NEW).decode(bytes(raw)).sp_reg == orc.UNKNOWN


def test_a_kernel_without_the_structure_is_refused() -> None:
    types = Types()
    types.struct("orc_entry", 8, [("sp_offset", types.integer("s16", 2), 0)])
    with pytest.raises(CoreError, match="no struct orc_entry that is known"):
        Layout.of(Btf(types.encode()), b"")


def test_an_address_has_the_last_entry_that_begins_before_it() -> None:
    first, last = BODY, BODY._replace(sp_offset=8)
    found = table([(0x1000, first), (0x1010, last)], ranges=[(0x1000, 0x2000)])
    assert [found.find(ip) for ip in (0xFFF, 0x1000, 0x100F, 0x1010, 0x1FFF, 0x2000)] == [
        None,
        first,
        first,
        last,
        last,
        None,
    ]


def test_an_address_before_all_entries_has_none() -> None:
    assert table([(0x1010, BODY)], ranges=[(0x1000, 0x2000)]).find(0x1008) is None


def test_tables_of_different_lengths_are_refused() -> None:
    with pytest.raises(CoreError, match="2 addresses, 1 entries"):
        orc.Table(0, struct.pack("<ii", 0, 0), bytes(6), layout(NEW), [(0, 1)])
