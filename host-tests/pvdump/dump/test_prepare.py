"""pvdump prepare: what it writes, and all that it refuses to write."""

import errno
import os
import struct
from pathlib import Path

import pytest
from fixtures.targets import MIB, SIZE, make, vmcore

from pvdump.dump import disk as disks
from pvdump.dump import prepare as preparing
from pvdump.dump.disk import DiskError
from pvdump.dump.prepare import SIGNATURES, SMALLEST, prepare
from pvfw import superblock
from pvfw.errors import TargetRefused


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE))
    return path


@pytest.fixture
def no_blkid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_blkid", lambda path: "")


def refusal(path: Path, **arguments: bool) -> str:
    """The message of a refusal that leaves every byte as it was."""
    before = path.read_bytes()
    with pytest.raises(TargetRefused) as caught:
        prepare(path, **arguments)
    assert path.read_bytes() == before
    return str(caught.value)


def test_empty_disk_becomes_ready(empty: Path) -> None:
    done = prepare(empty)
    block = superblock.decode(empty.read_bytes())
    assert block.state == superblock.READY
    assert block.uuid == done.uuid.bytes
    assert block.size == SIZE
    assert done.room == SIZE - superblock.DATA_OFFSET


def test_only_the_first_sector_of_an_empty_disk_changes(empty: Path) -> None:
    prepare(empty)
    assert not any(empty.read_bytes()[superblock.SUPERBLOCK_SIZE :])


def test_data_in_the_middle_of_a_disk_is_noticed(empty: Path) -> None:
    with empty.open("r+b") as stream:
        stream.seek(SIZE // 2)
        stream.write(b"a file system's data" * 4096)
    assert "holds data of an unknown kind" in refusal(empty)


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DiskError, match="neither a disk nor a file"):
        prepare(tmp_path / "fifo")


def test_two_targets_have_different_uuids(empty: Path) -> None:
    assert prepare(empty).uuid != prepare(empty).uuid


def test_size_is_whole_pages(empty: Path) -> None:
    os.truncate(empty, SIZE + 1000)
    assert prepare(empty).size == SIZE


def test_disk_without_room_is_refused(empty: Path) -> None:
    os.truncate(empty, SMALLEST - 1)
    with pytest.raises(DiskError, match="at least"):
        prepare(empty)


@pytest.mark.parametrize(
    ("offset", "magic", "name"), SIGNATURES, ids=[f"{row[2]} at {row[0]}" for row in SIGNATURES]
)
@pytest.mark.usefixtures("no_blkid")
def test_signature_is_named(empty: Path, offset: int, magic: bytes, name: str) -> None:
    with empty.open("r+b") as stream:
        stream.seek(offset % SIZE)
        stream.write(magic)
    assert name in refusal(empty)


@pytest.mark.usefixtures("no_blkid")
def test_any_other_byte_in_the_first_or_last_mib_is_refused(empty: Path) -> None:
    for offset in (5, MIB - 1, SIZE - MIB, SIZE - 1):
        empty.write_bytes(bytes(SIZE))
        with empty.open("r+b") as stream:
            stream.seek(offset)
            stream.write(b"\1")
        assert "unknown kind" in refusal(empty)


def test_blkid_is_asked_first(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "blkid"
    program.write_text("#!/bin/sh\necho TYPE=ext4\necho USAGE=filesystem\necho LABEL=home\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    empty.write_bytes(b"\1" * SIZE)
    assert "ext4 (filesystem) labelled 'home'" in refusal(empty)


def test_force_takes_what_was_there_and_its_signatures_away(empty: Path) -> None:
    data = bytearray(b"\1" * SIZE)
    data[1080:1082] = b"\x53\xef"
    empty.write_bytes(data)
    assert prepare(empty, force=True).lost
    after = empty.read_bytes()
    assert superblock.decode(after).state == superblock.READY
    assert not any(after[superblock.SUPERBLOCK_SIZE : superblock.DATA_OFFSET])
    assert after[superblock.DATA_OFFSET :] == data[superblock.DATA_OFFSET :]


@pytest.mark.parametrize("state", [superblock.WRITING, superblock.COMPLETE, superblock.PARTIAL])
def test_dump_is_not_lost_unasked(empty: Path, state: int) -> None:
    make(empty, state, vmcore())
    assert "6.1.0-test" in refusal(empty)
    prepare(empty, force=True)
    assert superblock.decode(empty.read_bytes()).dump_size == 0


def test_ready_target_is_prepared_again_unasked(empty: Path) -> None:
    make(empty, superblock.READY, b"")
    assert prepare(empty).lost == ""


def test_damaged_superblock_is_named(empty: Path) -> None:
    make(empty, superblock.READY, b"")
    with empty.open("r+b") as stream:
        stream.seek(100)
        stream.write(b"\xff")
    assert "damaged pvdump superblock" in refusal(empty)


def test_file_is_made_with_all_its_blocks(tmp_path: Path) -> None:
    path = tmp_path / "new"
    prepare(path, size=SIZE)
    assert path.stat().st_size == SIZE
    assert path.stat().st_blocks * 512 >= SIZE
    assert path.stat().st_mode & 0o077 == 0


def test_missing_file_without_size_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="--size"):
        prepare(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_size_of_an_existing_file_is_not_changed(empty: Path) -> None:
    with pytest.raises(DiskError, match=f"{SIZE} bytes"):
        prepare(empty, size=2 * SIZE)
    prepare(empty, size=SIZE)


def test_file_too_small_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="at least"):
        prepare(tmp_path / "new", size=MIB)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("force", [False, True])
def test_file_behind_a_loop_device_is_in_use(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    backing = tmp_path / "sys/loop3/loop/backing_file"
    backing.parent.mkdir(parents=True)
    backing.write_text(f"{empty}\n")
    monkeypatch.setattr(disks, "SYS_BLOCK", tmp_path / "sys")
    with pytest.raises(DiskError, match="/dev/loop3"):
        prepare(empty, force=force)
    assert not any(empty.read_bytes())


def test_swap_file_is_in_use(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swaps = tmp_path / "swaps"
    swaps.write_text(f"Filename Type Size Used Priority\n{empty} file 8188 0 -2\n")
    monkeypatch.setattr(disks, "SWAPS", swaps)
    with pytest.raises(DiskError, match="swaps"):
        prepare(empty, force=True)


def test_device_is_opened_exclusively(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def held(path: Path, flags: int) -> int:
        asked.append(flags)
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(disks.stat, "S_ISBLK", lambda mode: True)
    monkeypatch.setattr(disks.os, "open", held)
    with pytest.raises(DiskError, match="in use"), disks.writing(empty):
        pass
    assert asked[0] & os.O_EXCL


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_disk_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(DiskError, match=r"neither a disk nor a file|directory"):
        prepare(path, force=True)


def test_superblock_is_where_the_dump_agent_looks(empty: Path) -> None:
    prepare(empty)
    magic, version = struct.unpack_from("<8sI", empty.read_bytes())
    assert (magic, version) == (superblock.MAGIC, superblock.VERSION)
