"""The counter of boots on a guest's targets: as `pvdump booted` finds, makes and writes it."""

import os
import struct
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from fixtures import testkernel
from fixtures.guestdisks import MIB, SECTOR, START, Disk
from fixtures.placed import refused
from fixtures.triestargets import counter, target
from fixtures.typist import Typist, image_of

from pvdump import cli
from pvdump.guest import booted
from pvdump.place import boots, device, filesystem
from pvfw import tries
from pvfw.tries import Tries
from pvxen.sink import Memory
from tools.image import build
from tools.imageconfig import ROOT

KEY = b"k" * tries.KEY_SIZE
OTHER = b"o" * tries.KEY_SIZE


def entered(*keys: bytes) -> bytes:
    made = Tries()
    for key in keys:
        made.enter(key)
    return bytes(made.encode())


def on_disk(disk: Disk, at: int = START) -> Tries:
    """The counter on the PV disk itself, past the caches."""
    subprocess.run(["blockdev", "--flushbufs", str(disk.part)], check=True)
    raw = disk.image.read_bytes()
    return counter(raw, at)


@pytest.fixture(autouse=True)
def node(disk: Disk) -> None:
    """The partition's node in /dev."""
    (device.DEVICES / "xvdb1").symlink_to(disk.part)


@pytest.fixture
def partition(disk: Disk) -> Disk:
    """A partition that is a target with a counter; what nobody owns is not zero."""
    disk.part.write_bytes(target(entered(OTHER, KEY), filled=0xA5))
    os.sync()
    return disk


@pytest.fixture
def file(
    made: Callable[..., Path], disk: Disk, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A target that is a file where pvboot looks for one."""
    folder = made("ext4") / "var/crash"
    folder.mkdir(parents=True)
    assert cli.main(["prepare", "--file", str(folder / "pvdump.img"), "--size=8M"]) == 0
    number = disk.part.stat().st_rdev
    lines = filesystem.MOUNTS.read_text()
    assert f" {os.major(number)}:{os.minor(number)} / " in lines
    return folder / "pvdump.img"


def test_a_boot_that_ended_is_taken_back(
    partition: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    before = partition.image.read_bytes()
    assert cli.main(["booted"]) == 0
    found = on_disk(partition)
    assert (found.records, found.is_open, found.generation) == ([(OTHER, 1)], False, 2)
    assert "1 other entries have up to 1 boots that did not end" in capsys.readouterr().out
    after = partition.image.read_bytes()
    at = START + tries.AT
    assert before[:at] == after[:at]
    assert before[at + tries.PAGE :] == after[at + tries.PAGE :]


def test_a_second_time_writes_nothing(partition: Disk) -> None:
    assert cli.main(["booted"]) == 0
    assert cli.main(["booted"]) == 0
    assert on_disk(partition).generation == 2


def test_all_entries_can_be_tried_again(partition: Disk) -> None:
    assert cli.main(["booted", "--all"]) == 0
    assert on_disk(partition).records == []


def test_a_damaged_counter_begins_anew(partition: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    partition.part.write_bytes(target(tries.MAGIC + b"\xff" * 504))
    assert cli.main(["booted"]) == 0
    assert "the counter of boots was damaged (CRC); it begins anew" in capsys.readouterr().out
    assert (on_disk(partition).problem, on_disk(partition).records) == ("", [])


def test_without_a_counter_one_is_made(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    disk.part.write_bytes(target())
    assert cli.main(["booted"]) == 0
    assert "from the next one on, pvboot counts boots on" in capsys.readouterr().out
    assert on_disk(disk).records == []
    booted.begin()
    assert on_disk(disk).generation == 1


def test_off_takes_the_counter_away(partition: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["booted", "--off"]) == 0
    assert "boots are not counted any more" in capsys.readouterr().out
    assert on_disk(partition) is None
    assert cli.main(["booted", "--off"]) == 0
    assert capsys.readouterr().out == ""


def test_a_file_has_a_counter_on_its_disk_and_stays_immutable(file: Path, disk: Disk) -> None:
    assert cli.main(["booted"]) == 0
    raw = disk.image.read_bytes()
    at = raw.index(tries.MAGIC)
    assert counter(file.read_bytes()).generation == 1
    assert raw[at : at + 512] == file.read_bytes()[tries.AT : tries.AT + 512]
    with pytest.raises(PermissionError):
        file.open("r+b")


def test_a_file_of_another_name_is_not_found(file: Path) -> None:
    subprocess.run(["chattr", "-i", str(file)], check=True)
    file.rename(file.with_name("other.img"))
    assert boots.look() == []


NO_TARGETS = {
    "nothing": bytes(2 * MIB),
    "no copy": target(entered(KEY))[: 2 * MIB - 4096] + bytes(4096),
    "larger": target(entered(KEY), size=200 * MIB)[: 2 * MIB],
    "damaged": b"PVDUMP\r\n" + bytes(2 * MIB),
}


@pytest.mark.parametrize("name", NO_TARGETS)
def test_what_is_no_target_is_not_written(
    disk: Disk, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.part.write_bytes(NO_TARGETS[name])
    os.sync()
    before = disk.image.read_bytes()
    for words in (["booted"], ["booted", "--all"], ["booted", "--off"]):
        assert cli.main(words) == 0
    assert disk.image.read_bytes() == before
    assert "no dump target that pvboot finds" in capsys.readouterr().out


def test_swap_has_no_counter(disk: Disk) -> None:
    raw = target(entered(KEY))
    raw[4086:4096] = b"SWAPSPACE2"
    disk.part.write_bytes(raw)
    assert boots.look() == []


def test_a_disk_that_refuses_is_one_line(
    partition: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = boots.look()
    partition.part.write_bytes(target(entered(OTHER)))
    place = found.place._replace(extents=[(0, 4096)])
    monkeypatch.setattr(boots, "look", lambda: [found._replace(place=place)])
    assert cli.main(["booted"]) == 1
    refused(capsys, "is not at sector 8 of xvdb, where it was looked for; nothing was written")


ENTRY = """\
title System {0}
version {0}
linux /boot/vmlinuz-{0}
options root=/dev/xvdb1 number={0}
"""


def test_pvboot_counts_where_the_guest_made_the_counter_and_the_guest_takes_it_back(
    file: Path, disk: Disk, tmp_path: Path
) -> None:
    root = file.parents[2]
    entries = root / "boot/loader/entries"
    entries.mkdir(parents=True)
    for name in ("1", "2"):
        (root / f"boot/vmlinuz-{name}").write_bytes(testkernel.bzimage(tmp_path))
        (entries / f"{name}.conf").write_text(ENTRY.format(name))
    assert cli.main(["booted"]) == 0
    os.sync()
    image = image_of(build(tmp_path / "image", config=ROOT / "pvboot.yaml"))

    def boot() -> str:
        """Boot from the disk as it is, its file system mounted. Returns what was said."""
        raw = bytearray(disk.image.read_bytes())
        first, sectors = START // SECTOR, (len(raw) - START) // SECTOR
        raw[446:462] = struct.pack("<BBBBBBBBII", 0, 0, 0, 0, 0x83, 0, 0, 0, first, sectors)
        raw[510:512] = b"\x55\xaa"
        typist = Typist(image, [], cmdline=b"")
        sink = Memory(raw)
        typist.guest.disk("xvdb", sink)
        image.run(typist.guest)
        at = raw.index(tries.MAGIC)
        with disk.image.open("r+b") as stream:
            stream.seek(at)
            stream.write(sink.data[at : at + tries.SIZE])
        return str(image.text)

    for _ in range(3):
        assert "number=2 " in boot()
    (found,) = boots.look()
    assert found.tries is not None
    assert [count for _, count in found.tries.records] == [3]
    assert "System 2 is passed over: 3 boots of it did not end; next is System 1\n" in boot()
    assert cli.main(["booted"]) == 0
    (found,) = boots.look()
    assert found.tries is not None
    assert ([count for _, count in found.tries.records], found.tries.is_open) == ([3], False)
    assert cli.main(["booted", "--all"]) == 0
    assert "number=2 " in boot()
