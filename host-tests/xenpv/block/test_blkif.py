"""Block requests of both layouts, byte by byte."""

import pytest

from xenpv import abi
from xenpv.block.blkif import X86_32, X86_64, segments

BOTH = pytest.mark.parametrize("layout", [X86_64, X86_32], ids=["x86_64", "x86_32"])
# Offsets: id, sector, segments, grefs of an indirect one, count of a discard; bytes of an entry.
PLACES = {X86_64: (8, 16, 24, 28, 24, 112), X86_32: (4, 12, 20, 24, 20, 108)}


def entry(layout, raw):
    return raw + bytes(layout.stride - len(raw))


@BOTH
def test_the_fields_lie_where_the_layout_has_them(layout):
    id_at, sector_at, segments_at, grefs_at, count_at, size = PLACES[layout]
    assert (layout.segments, layout.indirect_grefs, layout.stride) == (segments_at, grefs_at, size)
    raw = layout.request(abi.BLKIF_OP_WRITE, 3, 0x1122334455667788, 0x99AABBCCDDEEFF00)
    assert raw[:2] == b"\x01\x03"
    assert raw[id_at : id_at + 8] == bytes.fromhex("8877665544332211")
    assert raw[sector_at : sector_at + 8] == bytes.fromhex("00ffeeddccbbaa99")
    raw = layout.indirect(abi.BLKIF_OP_READ, 0x102, 7, 9)
    assert raw[:4] == b"\x06\x00\x02\x01"
    raw = layout.discard(7, 9, 0x1234)
    assert raw[:1] == b"\x05"
    assert raw[count_at : count_at + 8] == b"\x34\x12" + bytes(6)


@BOTH
def test_a_packed_request_is_parsed_again(layout):
    raw = layout.request(abi.BLKIF_OP_WRITE, 2, 5, 1 << 40)
    raw += bytes.fromhex("01000000 00 07 0000 ffffffff 03 04 0000")
    request = layout.parse(entry(layout, raw))
    assert (request.op, request.id, request.sector, request.count) == (1, 5, 1 << 40, 2)
    assert request.segments == [(1, 0, 7), (0xFFFFFFFF, 3, 4)]
    assert not request.is_indirect


@BOTH
@pytest.mark.parametrize(("count", "pages"), [(0, 0), (1, 1), (512, 1), (513, 2), (65535, 8)])
def test_an_indirect_request_names_the_pages_that_its_segments_fill(layout, count, pages):
    raw = layout.indirect(abi.BLKIF_OP_WRITE, count, 5, 8)
    raw += b"".join(bytes([i, 0, 0, 0]) for i in range(8))
    request = layout.parse(entry(layout, raw))
    assert request.is_indirect
    assert (request.op, request.count, request.grefs) == (1, count, list(range(pages)))


@BOTH
def test_a_discard_has_a_count_of_sectors(layout):
    request = layout.parse(entry(layout, layout.discard(5, 8, 1 << 33)))
    assert (request.op, request.id, request.sector, request.count) == (5, 5, 8, 1 << 33)


@BOTH
def test_no_more_segments_are_read_than_an_entry_holds(layout):
    raw = layout.request(abi.BLKIF_OP_READ, 255, 5, 8)
    request = layout.parse(entry(layout, raw))
    assert (request.count, len(request.segments)) == (255, 11)


@BOTH
@pytest.mark.parametrize("byte", [0x00, 0xFF, 0x06])
def test_any_bytes_are_parsed(layout, byte):
    layout.parse(bytes([byte]) * layout.stride)


def test_segments_are_read_from_an_offset_on():
    assert segments(bytes(4) + b"\x05\0\0\0\x01\x02\0\0", 4, 1) == [(5, 1, 2)]
