"""Parts of making an installed disk that need no package and no machine."""

import hashlib
import itertools
import struct
import subprocess

import pytest

from lab import LabError, install


def test_an_unknown_layout_is_refused_before_anything_is_fetched():
    with pytest.raises(LabError, match="layout 'btrfs': expected ext4"):
        install.disk("bookworm", "btrfs")


@pytest.mark.parametrize("layout", install.LAYOUTS)
def test_the_partitions_lie_one_after_the_other_on_the_disk(tmp_path, layout):
    disk = tmp_path / "disk.img"
    install._write_table(disk, install.LAYOUTS[layout].partitions)
    with disk.open("rb") as stream:
        sector = stream.read(512)
    assert sector[510:] == b"\x55\xaa"
    rows = [struct.unpack_from("<4xB3xII", sector, 446 + 16 * number) for number in range(4)]
    used = [(begin, begin + length) for kind, begin, length in rows if kind]
    assert len(used) == len(install.LAYOUTS[layout].partitions)
    assert used[0][0] == 2048  # room for GRUB's core.img
    for (_, end), (begin, _) in itertools.pairwise(used):
        assert begin >= end
    assert used[-1][1] * 512 == disk.stat().st_size


def test_the_repository_describes_each_package(tmp_path):
    (tmp_path / "one/DEBIAN").mkdir(parents=True)
    fields = "Package: one\nVersion: 1\nArchitecture: all\nMaintainer: x <x@y>\nDescription: d\n"
    (tmp_path / "one/DEBIAN/control").write_text(fields)
    deb = tmp_path / "one_1_all.deb"
    command = ["dpkg-deb", "--root-owner-group", "--build", tmp_path / "one", deb]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    install._write_index(tmp_path / "repository", [deb])
    index = (tmp_path / "repository/Packages").read_text()
    assert index.startswith(fields)
    assert f"Size: {deb.stat().st_size}\n" in index
    assert f"SHA256: {hashlib.sha256(deb.read_bytes()).hexdigest()}\n" in index
    assert (tmp_path / "repository" / deb.name).read_bytes() == deb.read_bytes()
