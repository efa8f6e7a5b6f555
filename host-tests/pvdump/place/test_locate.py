"""The place of a target on its PV disk, where extents and volumes are made up."""

import os
from pathlib import Path

import pytest
from fixtures.guestdisks import MIB, SECTOR, Sys

from pvdump.dump.disk import DiskError
from pvdump.place import device, locate
from pvfw.extents import Extents

PAGE = 4096
DISK, ODD, VOLUME = os.makedev(202, 0), os.makedev(202, 1), os.makedev(254, 0)
NAME = Path("/a/file")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sys:
    """A guest with a disk of 5 TiB, a partition of it at an odd sector, and a volume over two."""
    made = Sys(tmp_path)
    disk = made.disk("xvda", "202:0", 5 << 31, 51712)
    made.partition(disk, "xvda1", "202:1", 63, 1 << 20)
    made.disk("xvdb", "202:16", 1 << 20, 51728)
    made.mapped("dm-0", "254:0", 1 << 20, "LVM-abcdef")
    program = tmp_path / "dmsetup"
    program.write_text(
        "#!/bin/sh\necho '0 524288 linear 202:0 2048\n524288 524288 linear 202:16 0'\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(device, "SYS_DEV_BLOCK", made.block)
    monkeypatch.setattr(device, "DEVICES", made.dev)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return made


def found(number: int, *parts: tuple[int, int]) -> locate.Place:
    return locate._place(NAME, number, list(parts), False, True)


def test_extents_that_follow_each_other_on_the_disk_become_one(system: Sys) -> None:
    place = found(DISK, (80 * PAGE, PAGE), (81 * PAGE, 2 * PAGE), (40 * PAGE, PAGE))
    assert place.extents == [(640, 24), (320, 8)]
    assert (place.disk.name, place.size) == ("xvda", 4 * PAGE)
    assert list(Extents(place.raw())) == place.extents


def test_a_part_of_more_sectors_than_an_extent_has_is_several(system: Sys) -> None:
    size = 5 << 40
    place = found(DISK, (0, size))
    made = Extents(place.raw())
    assert [sectors for _, sectors in made][:2] == [(1 << 32) - 8] * 2
    assert made.sectors * SECTOR == size == place.size


def test_a_file_on_several_pv_disks_is_refused(system: Sys) -> None:
    half = 524288 * SECTOR
    assert found(VOLUME, (half - MIB, MIB)).disk.name == "xvda"
    assert found(VOLUME, (half, MIB)).disk.name == "xvdb"
    with pytest.raises(DiskError, match=r"on several PV disks \(xvda, xvdb\)"):
        found(VOLUME, (half - MIB, 2 * MIB))


def test_a_partition_at_an_odd_sector_is_refused(system: Sys) -> None:
    with pytest.raises(DiskError, match="no whole pages of 4096 bytes: its partition begins at an"):
        found(ODD, (0, MIB))


def test_more_extents_than_the_image_takes_are_refused(system: Sys) -> None:
    parts = [(2 * PAGE * i, PAGE) for i in range(1025)]
    assert len(found(DISK, *parts[:1024]).extents) == 1024
    with pytest.raises(DiskError, match="is in 1025 extents, 1024 at most are possible: remove it"):
        found(DISK, *parts)
