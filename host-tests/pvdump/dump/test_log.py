"""pvdump collect --log: a crashed kernel's log, from little of the dump; gaps are told."""

import os
import struct
from pathlib import Path

import pytest
from fixtures.kernellog import BASE, RESERVED, TEXTS, Ring
from fixtures.loggedcore import PAGES, vmcore
from fixtures.targets import MIB, PAGE, bad_places, make

from pvdump import cli
from pvdump.dump import collect as collecting
from pvdump.dump import disk as disks
from pvdump.dump.disk import DiskError
from pvfw import superblock

TEXT_PAGE = TEXTS // PAGE
LINES = [f"[    {number}.500000] [     T{number + 1}7] line {number}" for number in range(6)]
WHOLE = "".join(f"{line}\n" for line in LINES)


def log() -> Ring:
    ring = Ring(count_bits=4, size_bits=13)
    for number in range(6):
        if number == 3:
            # It was never finished, and the second half lies in the next page.
            ring.add(bytes(PAGE), state=RESERVED)
        ring.add(b"line %d" % number, number * 10**9 + 5 * 10**8, number * 10 + 17)
    return ring


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    make(path, superblock.COMPLETE, vmcore(log()))
    return path


def run(*words: object) -> int:
    return cli.main(["collect", "--log", *map(str, words)])


def test_log_goes_to_standard_output(disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = disk.read_bytes()
    assert run(disk, "-") == 0
    assert capfd.readouterr() == (WHOLE, "")
    assert disk.read_bytes() == before


def test_log_goes_to_a_file_of_its_owner(disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = disk.with_name("log")
    assert run(disk, out) == 0
    assert capfd.readouterr() == ("", "")
    assert out.read_text() == WHOLE
    assert out.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in disk.parent.iterdir()) == ["disk", "log"]


def test_existing_file_is_kept(disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = disk.with_name("log")
    out.write_text("precious")
    assert run(disk, out) == 1
    assert "exists already" in capfd.readouterr().err
    assert out.read_text() == "precious"


def test_little_of_the_dump_is_read(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    read = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        read.append(size)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    assert run(disk, "-") == 0
    assert capfd.readouterr().out == WHOLE
    assert sum(read) < 16 * PAGE


# Dumps of which something is missing.


@pytest.mark.parametrize("state", [superblock.PARTIAL, superblock.WRITING])
def test_partial_dump_that_has_the_kernel_s_pages_has_the_whole_log(
    disk: Path, capfd: pytest.CaptureFixture[str], state: int
) -> None:
    make(disk, state, vmcore(log()), (2 + PAGES) * PAGE)
    assert run(disk, "-") == 0
    assert capfd.readouterr() == (WHOLE, "")


def test_partial_dump_gives_the_records_that_it_has(
    disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make(disk, superblock.PARTIAL, vmcore(log()), (2 + TEXT_PAGE + 1) * PAGE)
    assert run(disk, "-") == 3
    said = capfd.readouterr()
    assert said.out.splitlines() == LINES[:3]
    assert said.err == (
        "pvdump collect: 3 records of the kernel's log are missing, the first because the memory "
        f"at {BASE + TEXTS + 3 * 16 + PAGE + 16:#x} is not in the dump: the dump ended before it\n"
    )


def test_dump_that_ended_before_the_log_is_refused_in_a_line(
    disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make(disk, superblock.PARTIAL, vmcore(log()), 2 * PAGE)
    assert run(disk, "-") == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.endswith("the dump ended before it; collect the vmcore without --log\n")
    assert said.err.count("\n") == 1


def test_unreadable_sectors_cost_the_records_in_them(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    at = MIB + (2 + TEXT_PAGE) * PAGE
    monkeypatch.setattr(os, "pread", bad_places((at + 1024, at + 1536)))
    out = disk.with_name("log")
    assert run(disk, out) == 3
    assert out.read_text().splitlines() == LINES[3:]
    said = capfd.readouterr().err
    assert "3 records of the kernel's log are missing" in said
    assert f"{disk} cannot be read at byte {at + 8}" in said


def test_superblock_that_cannot_be_read_again_costs_no_log(
    disk: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pread = os.pread
    looks = 0

    def read(fd: int, size: int, offset: int) -> bytes:
        nonlocal looks
        looks += offset == 0
        if not offset and looks > 1:
            raise OSError(5, "Input/output error")
        return pread(fd, size, offset)

    monkeypatch.setattr(disks.os, "pread", read)
    out = disk.with_name("log")
    assert run(disk, out) == 3
    assert out.read_text() == WHOLE
    assert "the superblock cannot be read again" in capfd.readouterr().err


def test_lost_superblock_gives_the_log_and_a_warning(
    disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with disk.open("r+b") as stream:
        stream.write(bytes(512))
    assert run("--salvage", disk, "-") == 3
    said = capfd.readouterr()
    assert said.out == WHOLE
    assert "the superblock was not looked at" in said.err


# Refusals.


def test_dump_without_vmcoreinfo_is_refused(disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make(disk, superblock.COMPLETE, vmcore(log()).replace(b"VMCOREINFO\0", b"VMCOREOVER\0"))
    assert run(disk, "-") == 1
    assert "VMCOREINFO" in capfd.readouterr().err


def test_unknown_format_is_said_in_a_line(disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make(disk, superblock.COMPLETE, vmcore(log(), **{"SYMBOL(prb)": ""}))
    assert run(disk, disk.with_name("log")) == 1
    assert capfd.readouterr().err == (
        "pvdump collect: the kernel's log cannot be read: the format of this kernel's log is "
        "unknown: no SYMBOL(prb); collect the vmcore without --log\n"
    )
    assert not disk.with_name("log").exists()


def test_ready_target_has_no_log(disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make(disk, superblock.READY, b"")
    assert run(disk, "-") == 1
    assert "holds no dump" in capfd.readouterr().err


def test_dump_that_is_replaced_meanwhile_gives_no_file(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    blocks = [make(disk, superblock.COMPLETE, vmcore(log())) for _ in range(2)]
    blocks[1].started += 1
    monkeypatch.setattr(collecting.TargetDisk, "superblock", lambda self: blocks.pop(0))
    assert run(disk, disk.with_name("log")) == 1
    assert "was changed" in capfd.readouterr().err
    assert [path.name for path in disk.parent.iterdir()] == ["disk"]


def test_segment_that_claims_all_memory_hides_no_other(
    disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(vmcore(log()))
    # The last segment claims all memory, and less of the file.
    struct.pack_into("<QQQ", data, 64 + 3 * 56 + 24, 0, 16, (1 << 64) - 1)
    make(disk, superblock.COMPLETE, bytes(data))
    assert run(disk, "-") == 0
    assert capfd.readouterr() == (WHOLE, "")


def test_disk_that_fails_at_all_is_told(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: object, offset: int, size: int) -> bytes:
        raise DiskError("gone")

    monkeypatch.setattr(collecting.TargetDisk, "read_around", refuse)
    assert run(disk, "-") == 1
    assert capfd.readouterr().err == "pvdump collect: gone\n"
