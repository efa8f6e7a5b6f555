"""FAT12, FAT16 and FAT32 as mkfs.vfat and mtools make them: every file is read as it went in."""

import random
import struct

import pytest
from fixtures.bootdisks import MIB, area, fat, run

import hw
from pvfw.boot import files
from pvfw.boot.errors import Damaged, Unsupported
from pvfw.boot.load import load

SETS = {
    "FAT12": (("-F", "12"), 4 * MIB),
    "FAT12, 4 KiB": (("-F", "12", "-s", "8"), 8 * MIB),
    "FAT16": (("-F", "16"), 32 * MIB),
    "FAT16, 64 KiB": (("-F", "16", "-s", "128"), 384 * MIB),
    "FAT32, 512 bytes": (("-F", "32", "-s", "1"), 40 * MIB),
    "FAT32, 4 KiB": (("-F", "32", "-s", "8"), 300 * MIB),
    "FAT32, sectors of 4096 bytes": (("-F", "32", "-S", "4096", "-s", "1"), 300 * MIB),
    "FAT32, one FAT": (("-F", "32", "-s", "1", "-f", "1"), 40 * MIB),
    "FAT32 of few clusters": (("-F", "32", "-s", "8"), 20 * MIB),
}


def sample(seed=1):
    choice = random.Random(seed)
    found = {
        f"SIZE{i}.BIN": choice.randbytes(i) for i in (0, 1, 511, 512, 513, 4096, 66000, 700000)
    }
    found["EFI/Linux/a long name with a version 6.1.0-56.efi"] = choice.randbytes(50000)
    found["EFI/BOOT/BOOTX64.EFI"] = choice.randbytes(3000)
    found["loader/entries/" + "n" * 200 + ".conf"] = b"long"
    found.update({f"many/entry-{i:03}.conf": b"%d" % i for i in range(150)})
    return found


def content(fs, path):
    return run(run(files.open_file(fs, path.encode())).text(1 << 30))


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("name", SETS)
def test_every_file_is_read_as_it_went_in(name, tmp_path):
    words, size = SETS[name]
    wanted = sample()
    sector_size = 4096 if "4096" in words else 512
    fs = run(files.mount(area(fat(tmp_path, wanted, *words, size=size), sector_size)))
    for path, expected in wanted.items():
        assert content(fs, path) == expected, path
        file = run(files.open_file(fs, path.encode()))
        assert run(load(file, 0x400000)) == len(expected)
        assert bytes(hw.mem(0x400000, len(expected))) == expected, path
    assert content(fs, "/efi/LINUX/A Long Name With a version 6.1.0-56.EFI")
    listed = run(files.names(fs, b"/many"))
    assert listed == [b"entry-%03d.conf" % i for i in range(150)]
    assert run(files.find(fs, b"/many/none")) is None


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("bits", ["12", "16", "32"])
def test_identifier_and_label_are_those_that_mkfs_was_given(bits, tmp_path):
    fs = run(files.mount(area(fat(tmp_path, {}, "-F", bits, "-i", "1234ABCD", "-n", "MY ESP"))))
    assert (fs.uuid, run(fs.label())) == ("1234-ABCD", "MY ESP")


def table(data):
    """Where the first FAT of a FAT32 begins."""
    sector, _, reserved = struct.unpack_from("<HBH", data, 11)
    return reserved * sector


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("loop", None),
        (0, "cluster 0 of 2 to"),
        (1, "cluster 1 of 2 to"),
        (0x0FFFFFF7, "cluster 268435447 of 2 to"),
        (0x00FFFFFF, "cluster 16777215 of 2 to"),
        (0x0FFFFFFF, "the chain ends after 512 bytes"),
    ],
)
def test_a_chain_that_lies_ends(value, why, tmp_path):
    words = ("-F", "32", "-s", "1")
    data = bytearray(fat(tmp_path, {"FILE": b"x" * 5000, "DIR/FILE": b"x"}, *words, size=40 * MIB))
    fs = run(files.mount(area(bytes(data))))
    for name, cluster in _clusters(fs).items():
        spoiled = bytearray(data)
        at = table(data) + 4 * cluster
        struct.pack_into("<I", spoiled, at, cluster if value == "loop" else value)
        fs = run(files.mount(area(bytes(spoiled))))
        if name == "FILE" and value == "loop":
            # As long as its size says, and no longer.
            assert content(fs, "FILE") == b"x" * 5000
            continue
        if name == "DIR":
            why_here = "a loop" if value == "loop" else why
            if value == 0x0FFFFFFF:
                continue
            with pytest.raises(Damaged, match=why_here):
                content(fs, "DIR/NONE")
        else:
            with pytest.raises(Damaged, match=why):
                content(fs, "FILE")


def _clusters(fs):
    return {name: run(files.find(fs, name.encode())).cluster for name in ("FILE", "DIR")}


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("offset", "form", "value", "why"),
    [
        (32, "<I", 1 << 30, "1073741824 sectors of 512 bytes, in an area of"),
        (36, "<I", 1, "a table of 1 sectors for"),
        (36, "<I", 1 << 29, "no room for files"),
        (40, "<H", 0x8F, "no room for files"),
        (44, "<I", 0x0FFFFFF0, "cluster 268435440 of 2 to"),
    ],
)
def test_a_boot_sector_that_lies_is_refused(offset, form, value, why, tmp_path):
    data = bytearray(fat(tmp_path, {}, "-F", "32", "-s", "1", size=40 * MIB))
    struct.pack_into(form, data, offset, value)
    with pytest.raises(Damaged, match=why):
        run(files.names(run(files.mount(area(bytes(data)))), b"/"))


@pytest.mark.usefixtures("machine")
def test_a_long_name_without_its_short_one_is_the_short_one(tmp_path):
    data = bytearray(fat(tmp_path, {"a long name of a file": b"x"}, "-F", "16", size=32 * MIB))
    at = data.index(b"ALONGN~1")
    assert run(files.names(run(files.mount(area(bytes(data)))), b"/")) == [b"a long name of a file"]
    # Another one's checksum.
    data[at + 7 : at + 8] = b"2"
    assert run(files.names(run(files.mount(area(bytes(data)))), b"/")) == [b"ALONGN~2"]


@pytest.mark.usefixtures("machine")
def test_long_names_beyond_ascii_are_read(tmp_path):
    data = fat(tmp_path, {"abcdefghij.conf": b"x"}, "-F", "16", size=32 * MIB)
    for other in ("\u00e4\u00f6\u00fc\u20ac\U0001f600", "\u4f60\u597d\u4e16\u754c\U00010000"):
        # The first part of the name has 5 characters, then 6 and 2; the short one stays.
        changed = other.encode("utf-16-le")
        at = data.index("abcde".encode("utf-16-le"))
        spoiled = bytearray(data)
        spoiled[at : at + 10] = changed[:10]
        spoiled[at + 13 : at + 15] = changed[10:]
        fs = run(files.mount(area(bytes(spoiled))))
        assert run(files.names(fs, b"/")) == [f"{other}ghij.conf".encode()]
        assert content(fs, f"{other}GHIJ.conf") == b"x"
    spoiled = bytearray(data)
    # Half a pair, and nothing that goes with it.
    spoiled[at : at + 4] = b"\x00\xdca\x00"
    assert run(files.names(run(files.mount(area(bytes(spoiled)))), b"/")) == [b"?acdefghij.conf"]


@pytest.mark.usefixtures("machine")
def test_what_is_known_and_not_read_is_named(tmp_path):
    for offset, magic, name in files.OTHERS:
        data = bytearray(MIB)
        data[offset : offset + len(magic)] = magic
        with pytest.raises(Unsupported, match=f"^xvda: {name} is not read here$"):
            run(files.mount(area(bytes(data))))
    assert run(files.mount(area(bytes(MIB)))) is None
    assert run(files.mount(area(bytes(512)))) is None
