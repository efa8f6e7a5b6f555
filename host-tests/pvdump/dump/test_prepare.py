"""pvdump prepare: what it writes, and all that it refuses to write."""

import errno
import os
import struct
from pathlib import Path

import pytest
from fixtures.targets import MIB, PAGE, SIZE, bad_places, make, of_version, vmcore

from pvdump.dump import disk as disks
from pvdump.dump import holders
from pvdump.dump.disk import DiskError
from pvdump.dump.prepare import SMALLEST, prepare, prepare_again
from pvfw import superblock, tries
from pvfw.errors import TargetRefused


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE))
    return path


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
    assert done.room == SIZE - superblock.DATA_OFFSET - superblock.COPY_SIZE


def test_only_the_first_sector_of_an_empty_disk_and_its_copy_change(empty: Path) -> None:
    prepare(empty)
    raw, copy = empty.read_bytes(), SIZE - superblock.COPY_SIZE
    assert not any(raw[superblock.SUPERBLOCK_SIZE : copy])
    assert raw[copy:] == raw[: superblock.COPY_SIZE]


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


def test_force_takes_what_was_there_and_its_signatures_away(empty: Path) -> None:
    data = bytearray(b"\1" * SIZE)
    data[1080:1082] = b"\x53\xef"
    empty.write_bytes(data)
    assert prepare(empty, force=True).lost
    after = empty.read_bytes()
    assert superblock.decode(after).state == superblock.READY
    assert not any(after[superblock.SUPERBLOCK_SIZE : superblock.DATA_OFFSET])
    rest = slice(superblock.DATA_OFFSET, SIZE - superblock.COPY_SIZE)
    assert after[rest] == data[rest]


@pytest.mark.parametrize("first", [0, MIB, 4 * MIB])
def test_disk_that_cannot_be_read_everywhere_is_taken_only_by_force(
    empty: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    monkeypatch.setattr(disks.os, "pread", bad_places((first, first + 512)))
    assert f"cannot be read ({empty}: reading at byte" in refusal(empty)
    prepare(empty, force=True)
    assert superblock.decode(empty.read_bytes()).state == superblock.READY


def test_unreadable_superblock_before_a_dump_is_told_with_the_way_to_it(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(empty, superblock.COMPLETE, vmcore())
    monkeypatch.setattr(disks.os, "pread", bad_places((0, 512)))
    assert f"collect --salvage {empty} OUT" in refusal(empty)


def test_unreadable_page_is_written_as_a_whole(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite

    def write(fd: int, data: bytes, offset: int) -> int:
        if offset % 4096 or len(data) % 4096:
            raise OSError(errno.EIO, "Input/output error")
        return pwrite(fd, data, offset)

    monkeypatch.setattr(disks.os, "pwrite", write)
    prepare(empty, force=True)


@pytest.mark.parametrize("again", [False, True])
def test_target_of_a_newer_pvdump_is_told_as_such(empty: Path, again: bool) -> None:
    empty.write_bytes(of_version(3).ljust(SIZE, b"\0"))
    with pytest.raises(
        TargetRefused, match=r"version 3, this pvdump knows 1 to 2.*a newer one, made"
    ):
        prepare_again(empty) if again else prepare(empty)


@pytest.mark.parametrize("state", [superblock.WRITING, superblock.COMPLETE, superblock.PARTIAL])
def test_dump_is_not_lost_unasked(empty: Path, state: int) -> None:
    make(empty, state, vmcore())
    assert "6.1.0-test" in refusal(empty)
    prepare(empty, force=True)
    assert superblock.decode(empty.read_bytes()).dump_size == 0


# --again


def collected(path: Path, state: int = superblock.COMPLETE) -> superblock.Superblock:
    """Make a target whose dump was collected."""
    block = make(path, state, vmcore())
    block.collected = 1_700_000_100
    with path.open("r+b") as stream:
        stream.write(block.encode())
    return block


@pytest.mark.parametrize("state", [superblock.COMPLETE, superblock.PARTIAL])
def test_again_takes_a_target_whose_dump_was_collected(empty: Path, state: int) -> None:
    block = collected(empty, state)
    done = prepare_again(empty)
    after = superblock.decode(empty.read_bytes())
    assert (after.state, after.uuid) == (superblock.READY, block.uuid)
    assert "was collected" in done.lost


def test_target_that_takes_its_next_dump_says_nothing_of_the_last(empty: Path) -> None:
    collected(empty)
    prepare_again(empty)
    after = superblock.decode(empty.read_bytes())
    assert (after.collected, after.dump_size, after.release) == (0, 0, "")


def counted() -> bytes:
    found = tries.Tries()
    found.enter(b"k" * tries.KEY_SIZE)
    return bytes(found.encode())


def put(path: Path, sector: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(tries.AT)
        stream.write(sector)


def test_again_keeps_the_counter_of_boots(empty: Path) -> None:
    collected(empty)
    put(empty, counted().ljust(PAGE + 1, b"\xa5"))
    prepare_again(empty)
    raw = empty.read_bytes()
    assert raw[tries.AT : tries.AT + tries.SIZE] == counted()
    assert not any(raw[tries.AT + tries.PAGE : superblock.DATA_OFFSET])
    assert not any(raw[superblock.SUPERBLOCK_SIZE : tries.AT])


def test_what_is_no_counter_does_not_stay(empty: Path) -> None:
    collected(empty)
    put(empty, b"PVTRIED\n" + counted()[8:])
    prepare_again(empty)
    assert not any(empty.read_bytes()[superblock.SUPERBLOCK_SIZE : superblock.DATA_OFFSET])


def test_a_new_target_counts_nothing(empty: Path) -> None:
    prepare(empty)
    put(empty, counted())
    prepare(empty)
    assert tries.MAGIC not in empty.read_bytes()


def test_a_counter_without_a_superblock_is_named(empty: Path) -> None:
    put(empty, counted())
    assert "holds a pvdump counter of boots" in refusal(empty)


def test_again_takes_a_target_without_a_dump(empty: Path) -> None:
    prepare(empty)
    assert prepare_again(empty).lost == ""


@pytest.mark.parametrize("state", [superblock.WRITING, superblock.COMPLETE, superblock.PARTIAL])
def test_again_refuses_a_dump_that_was_not_collected(empty: Path, state: int) -> None:
    make(empty, state, vmcore())
    before = empty.read_bytes()
    with pytest.raises(TargetRefused, match=r"not collected.*pvdump collect"):
        prepare_again(empty)
    assert empty.read_bytes() == before


@pytest.mark.parametrize("data", [bytes(SIZE), b"\1" * SIZE], ids=["empty", "data"])
def test_again_refuses_what_is_no_target(empty: Path, data: bytes) -> None:
    empty.write_bytes(data)
    with pytest.raises(TargetRefused, match=f"{empty}: no pvdump superblock"):
        prepare_again(empty)
    assert empty.read_bytes() == data


def test_collected_dump_is_not_lost_unasked_either(empty: Path) -> None:
    collected(empty)
    assert "prepare --again" in refusal(empty)


# A guest has the disk.


def test_what_a_guest_uses_is_not_even_taken_by_force(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"\1" * SIZE
    empty.write_bytes(data)
    monkeypatch.setattr(holders, "guest", lambda fd: "domain 3 has it as xvda")
    with pytest.raises(DiskError, match="in use: domain 3 has it as xvda"):
        prepare(empty, force=True)
    assert empty.read_bytes() == data


def test_target_that_a_guest_has_is_made_ready(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected(empty)
    monkeypatch.setattr(holders, "guest", lambda fd: "domain 3 has it as xvdb")
    prepare_again(empty)
    make(empty, superblock.COMPLETE, vmcore())
    prepare(empty, force=True)


def test_file_is_not_made_below_dev() -> None:
    with pytest.raises(DiskError, match="there is no device /dev/pvdump-none"):
        prepare(Path("/dev/pvdump-none"), size=SIZE)


def test_file_that_was_not_finished_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(fd: int, offset: int, size: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "posix_fallocate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "new", size=SIZE)
    assert not (tmp_path / "new").exists()


def test_ready_target_is_prepared_again_unasked(empty: Path) -> None:
    make(empty, superblock.READY, b"")
    assert prepare(empty).lost == ""


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


@pytest.mark.parametrize("backend", [True, False])
def test_device_that_is_open_exclusively_is_written_only_beside_a_backend(
    empty: Path, monkeypatch: pytest.MonkeyPatch, backend: bool
) -> None:
    opened = os.open

    def held(path: Path, flags: int) -> int:
        if flags & os.O_EXCL:
            raise OSError(errno.EBUSY, "busy")
        return opened(path, flags)

    monkeypatch.setattr(disks.holders, "backend", lambda fd: backend)
    monkeypatch.setattr(disks.stat, "S_ISBLK", lambda mode: True)
    monkeypatch.setattr(disks.os, "open", held)
    if backend:
        with disks.writing(empty) as disk:
            assert disk.size == SIZE
    else:
        with pytest.raises(DiskError, match="in use"), disks.writing(empty):
            pass


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
