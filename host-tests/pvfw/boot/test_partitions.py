"""Partition tables as sfdisk and sgdisk make them; and those that lie."""

import random
import struct
import zlib

import pytest
from fixtures.bootdisks import MIB, area, gpt, mbr, program, run, volumes

from pvfw.boot import partitions
from pvfw.boot.errors import Damaged
from pvfw.boot.volumes import ESP, XBOOTLDR

LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"


def table(data, sector_size=512):
    return run(partitions.read(area(data, sector_size)))


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("sector_size", [512, 4096])
def test_a_gpt_of_sfdisk_is_read(sector_size, tmp_path):
    parts = [(ESP[0], bytes(MIB)), (XBOOTLDR[0], bytes(2 * MIB)), (LINUX, bytes(3 * MIB))]
    found = table(gpt(tmp_path, parts, sector_size=sector_size), sector_size)
    assert found.scheme == "gpt"
    assert [(p.number, p.kind) for p in found.partitions] == [
        *((1, ESP[0]), (2, XBOOTLDR[0]), (3, LINUX))
    ]
    assert [(p.first, p.size) for p in found.partitions] == [
        *((MIB, MIB), (2 * MIB, 2 * MIB), (4 * MIB, 3 * MIB))
    ]
    words = ("--sector-size", sector_size, "--part-uuid", tmp_path / "disk", "2")
    assert found.partitions[1].uuid == program("/sbin/sfdisk", *words).strip().lower()
    assert found.notes == []


@pytest.mark.usefixtures("machine")
def test_a_gpt_of_sgdisk_with_many_entries_is_read(tmp_path):
    image = tmp_path / "disk"
    image.write_bytes(bytes(64 * MIB))
    words = [f"--new={n}:{n}M:+512K" for n in (1, 14, 15, 16)]
    program("/sbin/sgdisk", "--resize-table=1024", *words, "--typecode=15:ef00", image)
    found = table(image.read_bytes())
    assert [p.number for p in found.partitions] == [1, 14, 15, 16]
    assert [p.kind in ESP for p in found.partitions] == [False, False, True, False]


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("sector_size", [512, 4096])
def test_an_mbr_with_logical_partitions_is_read(sector_size, tmp_path):
    parts = [(kind, bytes(MIB)) for kind in ("c", "83", "ef", "83", "82", "83")]
    found = table(mbr(tmp_path, parts, sector_size=sector_size), sector_size)
    assert found.scheme == "msdos"
    assert [(p.number, p.kind) for p in found.partitions] == [
        *((1, "0x0c"), (2, "0x83"), (3, "0xef"), (5, "0x83"), (6, "0x82"), (7, "0x83"))
    ]
    assert [(p.first // MIB, p.size) for p in found.partitions] == [
        *((1, MIB), (2, MIB), (3, MIB), (5, MIB), (7, MIB), (9, MIB))
    ]
    assert found.partitions[4].uuid[8:] == "-06"


def sealed(data, at, head=None, entries=None):
    """Change a GPT header and make its CRCs right. head: {offset: (form, value)}; entries: as it."""
    data = bytearray(data)
    for offset, (form, value) in (head or {}).items():
        struct.pack_into(form, data, at + offset, value)
    begin, number, size = struct.unpack_from("<QII", data, at + 72)
    for offset, (form, value) in (entries or {}).items():
        struct.pack_into(form, data, begin * 512 + offset, value)
    if number * size < 1 << 20:
        crc = zlib.crc32(data[begin * 512 : begin * 512 + number * size])
        struct.pack_into("<I", data, at + 88, crc)
    struct.pack_into("<I", data, at + 16, 0)
    (length,) = struct.unpack_from("<I", data, at + 12)
    struct.pack_into("<I", data, at + 16, zlib.crc32(data[at : at + length]))
    return bytes(data)


@pytest.mark.usefixtures("machine")
def test_the_copy_counts_where_the_first_header_does_not(tmp_path):
    data = bytearray(gpt(tmp_path, [(LINUX, bytes(MIB))]))
    data[512 + 30] ^= 1
    found = table(bytes(data))
    assert [p.number for p in found.partitions] == [1]
    assert found.notes == ["xvda: GPT header in block 1: wrong CRC; its copy is used"]
    data[-512 + 30] ^= 1
    with pytest.raises(Damaged, match=r"block 1: wrong CRC; and of the copy: .* wrong CRC$"):
        table(bytes(data))


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("head", "why"),
    [
        ({12: ("<I", 91)}, "91 bytes, 92 to 512 expected"),
        ({24: ("<Q", 9)}, "says that it is in block 9"),
        ({84: ("<I", 64)}, "entries of 64 bytes"),
        ({84: ("<I", 1 << 30)}, "entries of 1073741824 bytes"),
        ({80: ("<I", 0xFFFFFFFF)}, "4294967295 entries of 128 bytes"),
        ({72: ("<Q", 1 << 60)}, "bytes at 590295810358705651712, but it has"),
    ],
)
def test_a_header_that_lies_is_refused(head, why, tmp_path):
    data = bytearray(gpt(tmp_path, [(LINUX, bytes(MIB))]))
    data[-512:] = bytes(512)
    if 72 in head or 12 in head:
        # Its CRC covers what is not there.
        struct.pack_into(head[72][0] if 72 in head else "<I", data, 0, 0)
        data = _lying(data, head)
    else:
        data = sealed(data, 512, head)
    with pytest.raises(Damaged, match=why):
        table(bytes(data))


def _lying(data, head):
    data = bytearray(data)
    for offset, (form, value) in head.items():
        struct.pack_into(form, data, 512 + offset, value)
    struct.pack_into("<I", data, 512 + 16, 0)
    (length,) = struct.unpack_from("<I", data, 512 + 12)
    struct.pack_into("<I", data, 512 + 16, zlib.crc32(data[512 : 512 + length]))
    return data


@pytest.mark.usefixtures("machine")
def test_partitions_that_are_not_on_the_disk_are_passed_over(tmp_path):
    data = gpt(tmp_path, [(LINUX, bytes(MIB)), (LINUX, bytes(MIB)), (LINUX, bytes(MIB))])
    lies = {40: ("<Q", 1 << 40), 128 + 32: ("<Q", 9000)}
    found = table(sealed(data, 512, entries=lies))
    assert [p.number for p in found.partitions] == [3]
    assert len(found.notes) == 2
    assert "partition 1 passed over: blocks 2048 to 1099511627776" in found.notes[0]


@pytest.mark.usefixtures("machine")
def test_a_ring_of_logical_partitions_ends(tmp_path):
    parts = [(kind, bytes(MIB)) for kind in ("83", "83", "83", "83", "83", "83")]
    data = bytearray(mbr(tmp_path, parts))
    # The second of the chain goes back to the first.
    second = 6 * MIB
    assert data[second + 510 : second + 512] == b"\x55\xaa"
    struct.pack_into("<II", data, second + 446 + 16 + 8, 0, 2048)
    with pytest.raises(Damaged, match="logical partitions: a loop"):
        table(bytes(data))
    struct.pack_into("<II", data, second + 446 + 16 + 8, 1 << 31, 2048)
    with pytest.raises(Damaged, match="outside the extended one"):
        table(bytes(data))


@pytest.mark.usefixtures("machine")
def test_a_chain_of_logical_partitions_has_a_bound():
    data = bytearray(16 * MIB)
    struct.pack_into("<BxxxBxxxII", data, 446, 0, 5, 100, 30000)
    data[510:512] = b"\x55\xaa"
    for i in range(100):
        at = (100 + 4 * i) * 512
        struct.pack_into("<BxxxBxxxII", data, at + 446, 0, 0x83, 1, 1)
        struct.pack_into("<BxxxBxxxII", data, at + 462, 0, 5, 4 * (i + 1), 4)
        data[at + 510 : at + 512] = b"\x55\xaa"
    with pytest.raises(Damaged, match="more than 64"):
        table(bytes(data))


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("data", [bytes(MIB), bytes(512), bytes(1024), b"\xff" * MIB])
def test_a_disk_without_a_table_has_no_partitions(data):
    found = table(data)
    assert (found.scheme, found.partitions) == (None, [])


@pytest.mark.usefixtures("machine")
def test_whatever_is_wrong_with_one_disk_the_others_are_read(tmp_path):
    from fixtures.bootdisks import ext

    good = ext(tmp_path, {"file": b"x"}, "-t", "ext4", size=8 * MIB)
    bad = bytearray(gpt(tmp_path, [(LINUX, bytes(MIB))]))
    bad[512:1024] = bad[-512:] = bytes(512)
    xfs = bytearray(MIB)
    xfs[:4] = b"XFSB"
    noise = random.Random(1).randbytes(MIB)
    found, notes = volumes(bytes(bad), bytes(xfs), noise, good)
    assert [(v.name, v.grub) for v in found.all] == [("xvdd", "hd3")]
    assert notes.lines[0].startswith("xvda: GPT header in block 1: no signature; and of the copy")
    assert notes.lines[1] == "xvdb: XFS is not read here"
