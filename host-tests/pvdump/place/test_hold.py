"""A file that was armed is looked at again: by its extents, on the disk, as the image will."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.guestdisks import MIB, Disk
from fixtures.placed import arm, target

from pvdump import cli
from pvdump.arm import targets
from pvdump.arm.settings import Wanted
from pvfw import superblock
from pvfw.errors import DumpError

SIZE = 24 * MIB
SECTOR = 512


@pytest.fixture
def file(made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that was armed, in an ext4."""
    monkeypatch.chdir(tmp_path)
    path = made("ext4") / "pvdump.img"
    assert cli.main(["prepare", "--file", str(path), "--size=24M"]) == 0
    assert arm(path) == 0
    return path


def hold(file: Path) -> int:
    return targets.hold(Wanted("", None, file), target())


def test_a_file_that_nobody_touched_holds(file: Path) -> None:
    assert hold(file) == SIZE - MIB - 4096


def test_a_file_that_was_armed_anew_does_not_hold_for_the_configuration_before(
    file: Path,
) -> None:
    before = Path("blob").read_bytes()
    assert arm(file) == 0
    Path("blob").write_bytes(before)
    with pytest.raises(DumpError, match="armed anew since, by its nonce"):
        hold(file)


def test_a_file_that_was_moved_does_not_hold(file: Path) -> None:
    subprocess.run(["chattr", "-i", str(file)], check=True)
    content = file.read_bytes()
    other = file.with_name("other")
    other.write_bytes(content)
    os.sync()
    other.replace(file)
    with pytest.raises(DumpError, match=r"pvdump\.img was moved since"):
        hold(file)


@pytest.mark.parametrize(
    ("at", "message"),
    [(0, "no pvdump superblock"), (SIZE - 4096, "no pvdump superblock")],
    ids=["superblock", "copy"],
)
def test_what_the_disk_has_counts_and_not_what_is_cached(
    file: Path, disk: Disk, at: int, message: str
) -> None:
    assert superblock.decode(file.read_bytes()).state == superblock.READY
    (sector, _), *_ = target().extents.runs(at // SECTOR, 8)
    with disk.image.open("r+b") as stream:
        stream.seek(sector * SECTOR)
        stream.write(bytes(4096))
        os.fsync(stream.fileno())
    with pytest.raises(DumpError, match=message):
        hold(file)
