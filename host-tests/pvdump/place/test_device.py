"""A block device is followed down to the PV disk that it is on, or refused by its name."""

import os
from pathlib import Path

import pytest
from fixtures.guestdisks import MIB, SECTOR, Sys

from pvdump.dump.disk import DiskError
from pvdump.place import device

DISK, PART, VOLUME = os.makedev(202, 0), os.makedev(202, 2), os.makedev(254, 3)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sys:
    """A guest with the disks xvda (2 partitions) and xvdb, and without dmsetup."""
    made = Sys(tmp_path)
    disk = made.disk("xvda", "202:0", 1 << 20, 51712)
    made.partition(disk, "xvda1", "202:1", 2048, 100000)
    made.partition(disk, "xvda2", "202:2", 204800, 200000)
    made.disk("xvdb", "202:16", 1 << 20, 51728)
    monkeypatch.setattr(device, "SYS_DEV_BLOCK", made.block)
    monkeypatch.setattr(device, "DEVICES", made.dev)
    monkeypatch.setenv("PATH", str(tmp_path))
    return made


def table(tmp_path: Path, text: str, code: int = 0) -> None:
    """Have a dmsetup that prints these lines."""
    program = tmp_path / "dmsetup"
    program.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n")
    program.chmod(0o755)


def found(number: int, offset: int, length: int) -> list[tuple[str, int, int]]:
    return [(s.disk.name, s.offset, s.length) for s in device.spans(number, offset, length)]


def test_a_part_of_a_whole_disk_is_where_it_is(system: Sys) -> None:
    assert found(DISK, 3 * MIB, MIB) == [("xvda", 3 * MIB, MIB)]
    span = device.spans(DISK, 0, MIB)[0]
    assert (span.disk.node, span.disk.size) == (system.dev / "xvda", 512 * MIB)


def test_a_partition_begins_where_sysfs_says(system: Sys) -> None:
    assert found(PART, MIB, 2 * MIB) == [("xvda", 101 * MIB, 2 * MIB)]


def test_the_name_is_that_of_the_device_s_number_not_linux_s(system: Sys) -> None:
    system.disk("xvdq", "202:256", 1 << 20, 768)
    assert found(os.makedev(202, 256), 0, MIB) == [("hda", 0, MIB)]


def test_a_linear_volume_is_followed_over_its_segments(system: Sys, tmp_path: Path) -> None:
    system.mapped("dm-3", "254:3", 3000 * 8, "LVM-abcdef")
    table(tmp_path, "0 8000 linear 202:2 2048\n8000 16000 linear 202:16 384")
    assert found(VOLUME, 1000 * SECTOR, 9000 * SECTOR) == [
        ("xvda", (204800 + 2048 + 1000) * SECTOR, 7000 * SECTOR),
        ("xvdb", 384 * SECTOR, 2000 * SECTOR),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 24000 striped 2 128 202:2 0 202:16 0", "volume of kind striped: a linear one"),
        ("0 24000 snapshot-origin 202:2", "volume of kind snapshot-origin"),
        ("0 24000 crypt aes 0 0 202:2 0", "volume of kind crypt"),
        ("0 24000 linear /dev/xvda 0", "dmsetup table gives '/dev/xvda 0'"),
        ("0 24000 linear 202:2 -1", "dmsetup table gives '202:2 -1'"),
        ("0 23000 linear 202:2 0", "dmsetup does not tell all of it"),
        ("0 24000 linear 202:2 190000", "xvda2 ends before byte"),
        ("0 24000 linear 254:3 0", "more than 8 devices are below each other"),
        ("0 24000 linear 9:9 0", "device 9:9 is no disk"),
        ("zero 24000 linear 202:2 0", "dmsetup table gives"),
        ("0 24000", "dmsetup table gives"),
        ("", "dmsetup table: exit 0"),
    ],
)
def test_a_volume_that_is_anything_else_is_refused_by_its_kind(
    system: Sys, tmp_path: Path, line: str, message: str
) -> None:
    system.mapped("dm-3", "254:3", 24000, "LVM-abcdef")
    table(tmp_path, line)
    with pytest.raises(DiskError, match=message):
        device.spans(VOLUME, 0, 24000 * SECTOR)


@pytest.mark.parametrize(
    ("uuid", "message"),
    [
        ("CRYPT-LUKS2-abc", r"dm-3 \(vg-dm-3\) is encrypted \(dm-crypt\)"),
        ("CRYPT-PLAIN-swap", "is encrypted"),
        ("mpath-3600", "no LVM volume but mpath"),
        ("", "no LVM volume but unknown"),
    ],
)
def test_a_mapped_device_that_is_no_volume_is_refused(
    system: Sys, tmp_path: Path, uuid: str, message: str
) -> None:
    system.mapped("dm-3", "254:3", 24000, uuid)
    table(tmp_path, "0 24000 linear 202:2 0")
    with pytest.raises(DiskError, match=message):
        device.spans(VOLUME, 0, MIB)


def test_without_dmsetup_the_line_says_what_to_install(
    system: Sys, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.mapped("dm-3", "254:3", 24000, "LVM-abcdef")
    monkeypatch.setattr(device.shutil, "which", lambda *_, **__: None)
    with pytest.raises(DiskError, match="apt install dmsetup"):
        device.spans(VOLUME, 0, MIB)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zram0", "zram0 is zram, compressed memory"),
        ("loop0", "loop0 is a loop device"),
        ("md0", r"md0 is RAID \(md\)"),
        ("nvme0n1", "nvme0n1 is no PV disk"),
    ],
)
def test_what_is_no_pv_disk_is_refused_by_its_name(system: Sys, name: str, message: str) -> None:
    folder = system.disk(name, "9:0", 1 << 20)
    if name == "md0":
        (folder / "md").mkdir()
    with pytest.raises(DiskError, match=message):
        device.spans(os.makedev(9, 0), 0, MIB)


def test_a_disk_of_another_driver_is_refused(system: Sys) -> None:
    system.disk("vda", "252:0", 1 << 20, 1, "virtio_blk")
    with pytest.raises(DiskError, match="vda is no PV disk"):
        device.spans(os.makedev(252, 0), 0, MIB)


def test_a_file_system_without_a_disk_is_refused(system: Sys) -> None:
    with pytest.raises(DiskError, match="device 0:41 is no disk"):
        device.spans(os.makedev(0, 41), 0, MIB)


def test_a_part_behind_the_end_of_a_device_is_refused(system: Sys) -> None:
    with pytest.raises(DiskError, match="xvda2 ends before byte"):
        device.spans(PART, 0, 200001 * SECTOR)


def test_a_disk_that_is_read_only_is_refused(system: Sys) -> None:
    (system.block / "202:0" / "ro").write_text("0\n")
    assert found(DISK, 0, MIB)
    (system.block / "202:0" / "ro").write_text("1\n")
    with pytest.raises(DiskError, match="xvda is read-only"):
        device.spans(PART, 0, MIB)
