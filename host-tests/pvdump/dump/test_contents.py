"""prepare sees and names all that is on a disk."""

import os
from pathlib import Path

import pytest
from fixtures.targets import MIB, SIZE, make, vmcore

from pvdump.dump import contents as looking
from pvdump.dump import disk as disks
from pvdump.dump.contents import SIGNATURES, Contents, look
from pvdump.dump.meter import SILENT, Progress
from pvfw import superblock


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE))
    return path


@pytest.fixture
def no_blkid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "_blkid", lambda path: "")


def put(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset % path.stat().st_size)
        stream.write(data)


def found(path: Path, whole: bool = True, progress: Progress = SILENT) -> Contents:
    with disks.reading(path) as disk:
        return look(disk, whole, progress)


def test_empty_disk_holds_nothing(empty: Path) -> None:
    assert found(empty) == Contents("")


@pytest.mark.usefixtures("no_blkid")
@pytest.mark.parametrize("at", [5, MIB - 1, 3 * MIB + 12345, SIZE // 2 + 1, SIZE - MIB, SIZE - 1])
def test_any_byte_anywhere_is_seen(empty: Path, at: int) -> None:
    put(empty, at, b"\1")
    assert found(empty).name == "data of an unknown kind"


@pytest.mark.usefixtures("no_blkid")
def test_data_in_a_large_sparse_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 8 << 30)
    put(path, 2 * MIB, b"a person's data" * 4096)
    assert found(path).name == "data of an unknown kind"


def test_holes_of_a_file_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pread, read = os.pread, 0

    def counted(fd: int, size: int, offset: int) -> bytes:
        nonlocal read
        read += size
        return pread(fd, size, offset)

    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 40)
    monkeypatch.setattr(disks.os, "pread", counted)
    assert found(path) == Contents("")
    assert read < 16 * MIB


def test_file_system_that_knows_no_holes_is_read_whole(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lseek = os.lseek

    def none(fd: int, offset: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(22, "Invalid argument")
        return lseek(fd, offset, whence)

    put(empty, 3 * MIB + 12345, b"\1")
    monkeypatch.setattr(disks.os, "lseek", none)
    assert found(empty).name


@pytest.mark.usefixtures("no_blkid")
@pytest.mark.parametrize(
    ("offset", "magic", "name"), SIGNATURES, ids=[f"{row[2]} at {row[0]}" for row in SIGNATURES]
)
def test_signature_is_named(empty: Path, offset: int, magic: bytes, name: str) -> None:
    put(empty, offset, magic)
    assert found(empty, whole=False).name == name


def test_blkid_is_asked_first(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "blkid"
    program.write_text("#!/bin/sh\necho TYPE=ext4\necho USAGE=filesystem\necho LABEL=home\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    empty.write_bytes(b"\1" * SIZE)
    assert found(empty).name == "ext4 (filesystem) labelled 'home'"


@pytest.mark.parametrize("state", [superblock.WRITING, superblock.COMPLETE, superblock.PARTIAL])
def test_dump_is_named_with_the_way_to_it(empty: Path, state: int) -> None:
    make(empty, state, vmcore())
    contents = found(empty)
    assert contents.name == f"a dump of 6.1.0-test ({superblock.STATE_NAMES[state]})"
    assert f"pvdump collect {empty} OUT" in contents.advice


def test_ready_target_holds_nothing(empty: Path) -> None:
    make(empty, superblock.READY, b"")
    assert found(empty).name == ""


def test_damaged_superblock_is_named(empty: Path) -> None:
    make(empty, superblock.READY, b"")
    put(empty, 100, b"\xff")
    assert found(empty) == Contents("a damaged pvdump superblock")


@pytest.mark.parametrize("spoilt", [b"\xff", bytes(500)], ids=["damaged", "zeroed"])
def test_dump_behind_a_lost_superblock_is_named_with_the_way_to_it(
    empty: Path, spoilt: bytes
) -> None:
    make(empty, superblock.COMPLETE, vmcore())
    put(empty, 100 if len(spoilt) == 1 else 0, spoilt)
    assert f"pvdump collect --salvage {empty} OUT" in found(empty).advice
