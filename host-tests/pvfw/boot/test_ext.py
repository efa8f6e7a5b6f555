"""ext2, ext3 and ext4 as mke2fs makes them: every file is read as it went in."""

import random
import struct

import pytest
from fixtures.bootdisks import (
    DEBIAN_12,
    DEBIAN_13,
    MIB,
    area,
    debugfs,
    ext,
    links,
    program,
    run,
    sample,
)

import hw
from lab import packages, root
from pvfw.boot import files
from pvfw.boot.errors import Damaged, NotThere, Unsupported
from pvfw.boot.load import load, pages
from pvfw.boot.nodes import FOLDER

SETS = {
    "ext2, 1 KiB": ("-t", "ext2", "-b", "1024"),
    "ext2, 2 KiB": ("-t", "ext2", "-b", "2048"),
    "ext2, 4 KiB": ("-t", "ext2", "-b", "4096"),
    "ext2, no features": ("-t", "ext2", "-b", "1024", "-I", "128", "-O", "none"),
    "ext3": ("-t", "ext3", "-b", "4096", "-O", "dir_index"),
    "Debian 12": ("-b", "4096", "-O", DEBIAN_12),
    "Debian 12, small": ("-b", "1024", "-O", DEBIAN_12),
    "Debian 13, Ubuntu, Fedora": ("-b", "4096", "-O", DEBIAN_13),
    "inline_data": ("-b", "4096", "-O", DEBIAN_13 + ",inline_data"),
    "inline_data, large inodes": ("-b", "4096", "-I", "1024", "-O", DEBIAN_13 + ",inline_data"),
    "meta_bg": ("-b", "1024", "-O", DEBIAN_12.replace("resize_inode", "meta_bg")),
    "64 KiB": ("-b", "65536", "-O", DEBIAN_12),
    "bigalloc": ("-b", "4096", "-C", "65536", "-O", DEBIAN_12 + ",bigalloc"),
    "sparse_super2": ("-b", "4096", "-O", DEBIAN_12 + ",sparse_super2"),
    "32 bits": ("-b", "4096", "-O", DEBIAN_12.replace("64bit,", "")),
    "all others": (
        *("-b", "4096", "-O"),
        DEBIAN_13 + ",ea_inode,encrypt,casefold,large_dir,mmp,verity,quota,project,stable_inodes",
    ),
}


def content(fs, path):
    return run(run(files.open_file(fs, path.encode())).text(1 << 30))


def same(fs, wanted):
    """Every file of sample() is there, by read() and by load()."""
    for name, expected in wanted.items():
        if isinstance(expected, bytes):
            assert content(fs, name) == expected, name
            assert loaded(fs, name) == expected, name
    names = {name.split("/")[1] for name in wanted if name.startswith("many/")}
    assert {each.decode() for each in run(files.names(fs, b"/many"))} == names


def loaded(fs, name):
    file = run(files.open_file(fs, name.encode()))
    at = 0x400000
    hw.mem(at, pages(0, file.size) * 4096)[:] = b"\xa5" * (pages(0, file.size) * 4096)
    assert run(load(file, at)) == file.size
    return bytes(hw.mem(at, file.size))


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("name", SETS)
def test_every_file_and_link_is_read_as_it_went_in(name, tmp_path):
    wanted = sample()
    data = ext(tmp_path, {**wanted, **links()}, *SETS[name], size=96 * MIB)
    fs = run(files.mount(area(data)))
    same(fs, wanted)
    assert content(fs, "vmlinuz") == wanted["boot/vmlinuz-6.1.0-56-cloud-amd64"]
    assert content(fs, "boot/absolute") == content(fs, "boot/relative") == b"deep"
    assert content(fs, "boot/folder/c/d/e/deep") == b"deep"
    assert content(fs, "boot/long") == content(fs, "boot/outside") == wanted["boot/file-100"]
    assert run(files.find(fs, b"/boot/folder")).kind == FOLDER
    assert run(files.find(fs, b"/boot/file-100/x")) is None
    assert run(files.names(fs, b"/no/such")) == []
    with pytest.raises(NotThere, match="xvda: no file /boot/none"):
        content(fs, "/boot/none")
    with pytest.raises(NotThere, match="/boot is no file"):
        content(fs, "/boot")


@pytest.mark.usefixtures("machine")
def test_the_oldest_revision_has_inodes_of_128_bytes(tmp_path):
    data = bytearray(ext(tmp_path, {"file": b"x"}, *SETS["ext2, no features"], size=8 * MIB))
    # Revision, and the fields that came with 1.
    data[1024 + 76 : 1024 + 80] = bytes(4)
    data[1024 + 88 : 1024 + 90] = b"\xff\xff"
    assert content(run(files.mount(area(data))), "file") == b"x"


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("name", ["ext2, 4 KiB", "Debian 13, Ubuntu, Fedora", "64 KiB"])
def test_disks_with_large_sectors_are_read(name, tmp_path):
    wanted = sample()
    fs = run(files.mount(area(ext(tmp_path, wanted, *SETS[name]), 4096)))
    same(fs, wanted)


@pytest.mark.usefixtures("machine")
def test_identifiers_are_those_that_mke2fs_was_given(tmp_path):
    uuid = "0f5a3bd8-8b3a-4b3c-9c11-1234567890ab"
    fs = run(files.mount(area(ext(tmp_path, {}, "-U", uuid, "-L", "a label", "-t", "ext4"))))
    assert (fs.uuid, run(fs.label()), fs.kind) == (uuid, "a label", "ext4")
    kinds = [run(files.mount(area(image))).kind for image in _plain(tmp_path)]
    assert kinds == ["ext2", "ext3"]


def _plain(tmp_path):
    for kind in ("ext2", "ext3"):
        folder = tmp_path / kind
        folder.mkdir()
        yield ext(folder, {}, "-t", kind, size=16 * MIB)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("kind", ["ext2", "ext4"])
def test_a_file_of_many_extents_is_read(kind, tmp_path):
    small = {f"f/{i:04}": b"x" * 1024 for i in range(2400)}
    ext(tmp_path, small, "-t", kind, "-b", "1024", "-N", "4096", size=16 * MIB)
    large = random.Random(2).randbytes(3 * MIB // 2 + 5)
    # Nothing but the holes that these leave has room for it.
    (tmp_path / "large").write_bytes(large)
    filler = random.Random(3).randbytes(9 * MIB)
    (tmp_path / "filler").write_bytes(filler)
    data = debugfs(
        tmp_path,
        f"write {tmp_path / 'filler'} filler",
        *(f"rm f/{i:04}" for i in range(0, 2400, 2)),
        f"write {tmp_path / 'large'} large",
    )
    fs = run(files.mount(area(data)))
    file = run(files.open_file(fs, b"/large"))
    assert len(file.runs) > 900
    assert content(fs, "large") == large == loaded(fs, "large")
    assert content(fs, "filler") == filler


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("kind", ["ext2", "ext4"])
def test_holes_are_zeros(kind, tmp_path):
    (tmp_path / "tree").mkdir()
    wanted = bytearray(20 * MIB)
    with (tmp_path / "tree/sparse").open("wb") as stream:
        for at in (0, 70000, 5 * MIB, 12 * MIB + 3, 20 * MIB - 7):
            stream.seek(at)
            stream.write(b"content")
            wanted[at : at + 7] = b"content"
    data = ext(tmp_path, {}, "-t", kind, "-b", "1024", size=32 * MIB)
    fs = run(files.mount(area(data)))
    file = run(files.open_file(fs, b"/sparse"))
    assert len(file.runs) < 20
    for at in (0, 69990, 5 * MIB - 100, 12 * MIB, 20 * MIB - 50):
        assert run(file.read(at, 9000)) == bytes(wanted[at : at + 9000])
    assert run(load(file, 0x400000, 11 * MIB, 2 * MIB)) == 2 * MIB
    assert bytes(hw.mem(0x400000, 2 * MIB)) == wanted[11 * MIB : 13 * MIB]


@pytest.mark.usefixtures("machine")
def test_a_folder_with_an_index_is_read_from_end_to_end(tmp_path):
    names = {f"big/{i:05}-{'x' * 100}": b"%d" % i for i in range(1500)}
    ext(tmp_path, names, "-b", "1024", "-N", "8192", "-O", DEBIAN_12, size=64 * MIB)
    done = root.run(packages.disks(), "/sbin/e2fsck", "-fyD", str(tmp_path / "image"))
    assert done.returncode in (0, 1), done.stdout
    assert "Root node dump" in debugfs_output(tmp_path, "htree /big")
    fs = run(files.mount(area((tmp_path / "image").read_bytes())))
    for i in (0, 1, 999, 1499):
        assert content(fs, f"big/{i:05}-{'x' * 100}") == b"%d" % i
    with pytest.raises(Damaged, match="more than 512 names"):
        run(files.names(fs, b"/big"))


def debugfs_output(folder, command):
    return program("/sbin/debugfs", "-R", command, folder / "image")


@pytest.mark.usefixtures("machine")
def test_a_journal_that_was_not_replayed_is_told(tmp_path):
    data = bytearray(ext(tmp_path, {"file": b"x"}, "-t", "ext4"))
    assert run(files.mount(area(data))).notes == []
    data[1024 + 96] |= 4
    fs = run(files.mount(area(data)))
    assert fs.notes == [
        "xvda: ext4 was not unmounted; its journal is not replayed, what is on the disk is read"
    ]
    assert content(fs, "file") == b"x"


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0x1, "compression"),
        (0x8, "journal_dev"),
        (0x1000, "dirdata"),
        (0x80000, "FEATURE_I19"),
        (0x80001000, "dirdata, FEATURE_I31"),
    ],
)
def test_what_is_not_known_is_refused_by_its_name(bits, names, tmp_path):
    data = bytearray(ext(tmp_path, {}, "-t", "ext4", size=8 * MIB))
    (found,) = struct.unpack_from("<I", data, 1024 + 96)
    struct.pack_into("<I", data, 1024 + 96, found | bits)
    with pytest.raises(Unsupported, match=f"^xvda: ext4 with {names} is not read here$"):
        run(files.mount(area(data)))


@pytest.mark.usefixtures("machine")
def test_a_ring_of_links_ends(tmp_path):
    ring = {"a": "b", "b": "a", "up": "up/up", "s": "."}
    ring.update({f"n{i}": f"n{i + 1}" for i in range(10)})
    fs = run(files.mount(area(ext(tmp_path, {**ring, "n10": b"end"}, "-t", "ext4"))))
    for name in ("a", "b", "up", "n0", "n1"):
        with pytest.raises(Damaged, match="more than 8 links"):
            content(fs, name)
    assert content(fs, "n3") == b"end"
    assert content(fs, "s/s/n5") == b"end"
    with pytest.raises(Damaged, match="a path of 9000 bytes"):
        content(fs, "s/" * 4500)
    with pytest.raises(Damaged, match="more than 64 folders"):
        content(fs, "a/" * 70)


@pytest.mark.usefixtures("machine")
def test_what_an_encrypted_folder_has_is_refused(tmp_path):
    words = ("-b", "4096", "-O", DEBIAN_13 + ",encrypt")
    ext(tmp_path, {"secret/file": b"x", "open/file": b"x"}, *words)
    data = debugfs(
        tmp_path, "set_inode_field secret flags 0x80800", "set_inode_field open/file flags 0x80800"
    )
    fs = run(files.mount(area(data)))
    with pytest.raises(Unsupported, match=r"folder [0-9]+ is encrypted"):
        content(fs, "secret/file")
    with pytest.raises(Unsupported, match="open/file is encrypted"):
        content(fs, "open/file")
