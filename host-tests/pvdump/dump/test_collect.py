"""pvdump collect: the file is the dump, whole or honestly cut, and nothing else is touched."""

import io
import os
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from fixtures.targets import NOTE, PAGE, RANGES, SIZE, make, vmcore

from pvdump.dump import collect as collecting
from pvdump.dump.collect import collect
from pvdump.dump.disk import DiskError
from pvfw import superblock
from pvfw.errors import TargetRefused

DATA = vmcore()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    make(path, superblock.COMPLETE, DATA)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "vmcore"


def leftovers(out: Path) -> list[str]:
    return [path.name for path in out.parent.iterdir() if path.name.startswith(".")]


def test_complete_dump_is_copied_byte_for_byte(disk: Path, out: Path) -> None:
    before = disk.read_bytes()
    done = collect(disk, out)
    assert (done.size, done.missing, done.reason) == (len(DATA), 0, "")
    assert out.read_bytes() == DATA
    assert disk.read_bytes() == before
    assert leftovers(out) == []


def test_zeros_are_holes(disk: Path, out: Path) -> None:
    collect(disk, out)
    assert out.stat().st_blocks * 512 < len(DATA)


def test_dump_is_for_its_owner_alone(disk: Path, out: Path) -> None:
    collect(disk, out)
    assert out.stat().st_mode & 0o777 == 0o600


def test_progress_adds_up(disk: Path, out: Path) -> None:
    steps: list[int] = []
    collect(disk, out, steps.append)
    assert sum(steps) == len(DATA)


@pytest.mark.parametrize("written", [2 * PAGE, PAGE * 6, PAGE * 100, len(DATA) - PAGE])
def test_partial_dump_is_cut_and_marked(tmp_path: Path, out: Path, written: int) -> None:
    make(tmp_path / "disk", superblock.PARTIAL, DATA, written)
    done = collect(tmp_path / "disk", out)
    assert (done.size, done.missing) == (written, len(DATA) - written)
    assert "I/O error" in done.reason
    raw = out.read_bytes()
    assert len(raw) == written
    elf = ELFFile(io.BytesIO(raw))
    assert elf.header["e_flags"] & 1
    note, *loads = elf.iter_segments()
    assert note.data() == NOTE
    for load, (paddr, size) in zip(loads, RANGES, strict=True):
        begin = load["p_offset"]
        assert (load["p_paddr"], load["p_memsz"]) == (paddr, size)
        assert load["p_filesz"] == min(max(written - begin, 0), size)
        assert load.data() == DATA[begin : begin + load["p_filesz"]]


def test_complete_dump_is_not_marked(disk: Path, out: Path) -> None:
    collect(disk, out)
    assert ELFFile(io.BytesIO(out.read_bytes())).header["e_flags"] & 1 == 0


def test_dump_that_was_never_finished_is_partial(tmp_path: Path, out: Path) -> None:
    make(tmp_path / "disk", superblock.WRITING, DATA, 10 * PAGE)
    done = collect(tmp_path / "disk", out)
    assert done.size == 10 * PAGE
    assert "still writing" in done.reason


def test_dump_whose_flush_failed_is_marked_though_nothing_is_missing(
    tmp_path: Path, out: Path
) -> None:
    make(tmp_path / "disk", superblock.PARTIAL, DATA)
    assert collect(tmp_path / "disk", out).missing == 0
    assert ELFFile(io.BytesIO(out.read_bytes())).header["e_flags"] & 1


def test_target_that_was_cut_is_partial(disk: Path, out: Path) -> None:
    os.truncate(disk, superblock.DATA_OFFSET + 20 * PAGE)
    done = collect(disk, out)
    assert done.size == 20 * PAGE
    assert "larger once" in done.reason


@pytest.mark.parametrize("written", [0, 63, 100, 64 + 3 * 56 - 1])
def test_dump_without_whole_headers_gives_no_file(tmp_path: Path, out: Path, written: int) -> None:
    make(tmp_path / "disk", superblock.WRITING, DATA, written)
    with pytest.raises(TargetRefused, match="nothing to collect"):
        collect(tmp_path / "disk", out)
    assert not out.exists()


def test_ready_target_has_no_dump(tmp_path: Path, out: Path) -> None:
    make(tmp_path / "disk", superblock.READY, b"")
    with pytest.raises(TargetRefused, match="holds no dump"):
        collect(tmp_path / "disk", out)


@pytest.mark.parametrize("offset", [0, 8, 12, 20, 48, 200, 508])
def test_damaged_superblock_is_refused(disk: Path, out: Path, offset: int) -> None:
    raw = bytearray(disk.read_bytes())
    raw[offset] ^= 1
    disk.write_bytes(raw)
    with pytest.raises(TargetRefused):
        collect(disk, out)
    assert not out.exists()


def test_foreign_data_in_place_of_the_vmcore_is_refused(disk: Path, out: Path) -> None:
    raw = bytearray(disk.read_bytes())
    raw[superblock.DATA_OFFSET : superblock.DATA_OFFSET + 4] = b"XFSB"
    disk.write_bytes(raw)
    with pytest.raises(TargetRefused, match="58 46 53 42"):
        collect(disk, out)


def test_segment_beyond_the_dump_is_refused(tmp_path: Path, out: Path) -> None:
    make(tmp_path / "disk", superblock.COMPLETE, DATA[:-PAGE])
    with pytest.raises(TargetRefused, match="program header 2"):
        collect(tmp_path / "disk", out)


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_existing_name_is_never_overwritten(disk: Path, out: Path, kind: str) -> None:
    out.write_text("mine") if kind == "file" else out.symlink_to("nowhere")
    with pytest.raises(DiskError, match="exists already"):
        collect(disk, out)
    assert out.is_symlink() or out.read_text() == "mine"


def test_name_taken_during_the_copy_is_not_overwritten(disk: Path, out: Path) -> None:
    with pytest.raises(DiskError, match="appeared meanwhile"):
        collect(disk, out, lambda done: out.write_text("mine") and None)
    assert out.read_text() == "mine"
    assert leftovers(out) == []


def test_failure_half_way_leaves_nothing(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes, offset: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(collecting, "_write", full)
    with pytest.raises(DiskError, match="No space left"):
        collect(disk, out)
    assert not out.exists()
    assert leftovers(out) == []


def test_file_system_without_links_gets_the_file_too(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, name: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(collecting.os, "link", link)
    collect(disk, out)
    assert out.read_bytes() == DATA
    assert leftovers(out) == []


def test_missing_folder_is_named(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="no folder"):
        collect(disk, tmp_path / "no/vmcore")


def test_old_content_of_the_disk_stays_out_of_the_dump(disk: Path, out: Path) -> None:
    collect(disk, out)
    assert b"\xa5" * 512 not in out.read_bytes()
    assert len(DATA) + superblock.DATA_OFFSET < SIZE
