"""pvdump collect: the file is the dump, whole or honestly cut, and nothing else is touched."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from fixtures.targets import MIB, NOTE, PAGE, RANGES, SIZE, bad_places, make, of_version, vmcore

from pvdump.dump import disk as disks
from pvdump.dump.collect import collect
from pvdump.dump.disk import DiskError
from pvdump.dump.info import info
from pvfw import superblock
from pvfw.errors import OtherVersion, TargetRefused

DATA = vmcore()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "vmcore"


class Steps:
    """Progress that keeps what it is told; act() is called at each step."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.total = 0.0
        self.steps: list[float] = []
        self._act = act

    def expect(self, total: float) -> None:
        self.total = total

    def advance(self, amount: float) -> None:
        self.steps.append(amount)
        self._act()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flagged(out: Path) -> bool:
    """Whether the ELF header says that something is missing."""
    return bool(ELFFile(io.BytesIO(out.read_bytes())).header["e_flags"] & 1)


def test_complete_dump_is_copied_byte_for_byte(disk: Path, out: Path) -> None:
    before = disk.read_bytes()
    done = collect(disk, out)
    assert (done.size, done.missing, done.reason, done.unnoted) == (len(DATA), 0, "", "")
    assert out.read_bytes() == DATA
    assert disk.read_bytes()[superblock.SUPERBLOCK_SIZE :] == before[superblock.SUPERBLOCK_SIZE :]
    assert files(out.parent) == ["disk", "vmcore"]


def test_zeros_are_holes(disk: Path, out: Path) -> None:
    collect(disk, out)
    assert out.stat().st_blocks * 512 < len(DATA)


def test_dump_is_for_its_owner_alone(disk: Path, out: Path) -> None:
    collect(disk, out)
    assert out.stat().st_mode & 0o777 == 0o600


def test_progress_adds_up(disk: Path, out: Path) -> None:
    progress = Steps()
    collect(disk, out, progress)
    assert sum(progress.steps) == progress.total == len(DATA)


@pytest.mark.parametrize("written", [2 * PAGE, PAGE * 6, PAGE * 100, len(DATA) - PAGE])
def test_partial_dump_is_cut_and_marked(tmp_path: Path, out: Path, written: int) -> None:
    make(tmp_path / "disk", superblock.PARTIAL, DATA, written)
    done = collect(tmp_path / "disk", out)
    assert (done.size, done.missing) == (written, len(DATA) - written)
    assert "I/O error" in done.reason
    raw = out.read_bytes()
    assert len(raw) == written
    assert flagged(out)
    elf = ELFFile(io.BytesIO(raw))
    note, *loads = elf.iter_segments()
    assert note.data() == NOTE
    for load, (paddr, size) in zip(loads, RANGES, strict=True):
        begin = load["p_offset"]
        assert (load["p_paddr"], load["p_memsz"]) == (paddr, size)
        assert load["p_filesz"] == min(max(written - begin, 0), size)
        assert load.data() == DATA[begin : begin + load["p_filesz"]]


def test_complete_dump_is_not_marked(disk: Path, out: Path) -> None:
    collect(disk, out)
    assert not flagged(out)


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
    assert flagged(out)


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


def test_missing_folder_is_named(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="no folder"):
        collect(disk, tmp_path / "no/vmcore")


def test_old_content_of_the_disk_stays_out_of_the_dump(disk: Path, out: Path) -> None:
    collect(disk, out)
    assert b"\xa5" * 512 not in out.read_bytes()
    assert len(DATA) + superblock.DATA_OFFSET < SIZE


# What cannot be read.


def test_unreadable_page_costs_no_more_than_itself(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = 100 * PAGE + 512
    place = superblock.DATA_OFFSET + at
    monkeypatch.setattr(disks.os, "pread", bad_places((place, place + 512)))
    done = collect(disk, out)
    expected = bytearray(DATA)
    expected[100 * PAGE : 101 * PAGE] = bytes(PAGE)
    assert out.read_bytes()[PAGE:] == expected[PAGE:]
    assert (done.size, done.missing, done.unreadable) == (len(DATA), 0, PAGE)
    assert "4096 bytes of the disk could not be read" in done.reason


def test_dump_with_an_unreadable_page_is_marked(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = superblock.DATA_OFFSET + 100 * PAGE
    monkeypatch.setattr(disks.os, "pread", bad_places((place, place + 512)))
    assert collect(disk, out).marked
    assert flagged(out)


def test_dump_with_an_unreadable_page_does_not_count_as_collected(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = superblock.DATA_OFFSET + 100 * PAGE
    monkeypatch.setattr(disks.os, "pread", bad_places((place, place + 512)))
    assert "could not be read" in collect(disk, out).unnoted
    assert superblock.decode(disk.read_bytes()).collected == 0


@pytest.mark.parametrize(
    ("first", "way"),
    [(0, "collect --salvage {} OUT"), (superblock.DATA_OFFSET, "dd if={} of=FILE")],
)
def test_unreadable_headers_are_told_with_what_can_be_done_and_leave_no_file(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch, first: int, way: str
) -> None:
    monkeypatch.setattr(disks.os, "pread", bad_places((first, first + 512)))
    with pytest.raises(DiskError, match=f"byte {first}: Input/output error.*{way.format(disk)}"):
        collect(disk, out)
    assert files(out.parent) == ["disk"]


def test_dump_behind_an_unreadable_superblock_is_salvaged(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks.os, "pread", bad_places((0, 512)))
    collect(disk, out, salvage=True)
    assert out.read_bytes()[PAGE:] == DATA[PAGE:]


def test_lost_superblock_before_an_unreadable_vmcore_is_told(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(disk, 512)
    monkeypatch.setattr(disks.os, "pread", bad_places((MIB, MIB + 512)))
    with pytest.raises(TargetRefused, match="no pvdump superblock"):
        collect(disk, out)


def test_target_of_a_newer_pvdump_is_told_as_such(disk: Path, out: Path) -> None:
    with disk.open("r+b") as stream:
        stream.write(of_version(3))
    for ask in (lambda: collect(disk, out), lambda: info(disk)):
        with pytest.raises(OtherVersion, match=r"version 3, this pvdump knows 1 to 2.*a newer one"):
            ask()


def test_disk_that_is_gone_is_no_dump_of_zeros(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(fd: int, size: int, offset: int) -> bytes:
        raise OSError(19, "No such device")

    progress = Steps(lambda: monkeypatch.setattr(disks.os, "pread", gone))
    with pytest.raises(DiskError, match="No such device"):
        collect(disk, out, progress)
    assert files(out.parent) == ["disk"]


def reads_that_end(first: int, code: int) -> Callable[[int, int, int], bytes]:
    """An os.pread() of a disk that is gone for good once something from byte `first` on is read."""
    pread = os.pread
    gone = False

    def read(fd: int, size: int, offset: int) -> bytes:
        nonlocal gone
        gone = gone or offset + size > first
        if gone:
            raise OSError(code, os.strerror(code))
        return pread(fd, size, offset)

    return read


@pytest.mark.parametrize("form", ["elf", "kdump"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENODEV])
def test_disk_that_dies_half_way_gives_what_was_read_before(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch, code: int, form: str
) -> None:
    monkeypatch.setattr(disks.os, "pread", reads_that_end(2 * MIB, code))
    done = collect(disk, out, form=form)
    assert os.strerror(code) in done.reason or "could not be read" in done.reason
    assert 0 < done.unreadable < len(DATA)
    assert done.marked
    assert files(out.parent) == ["disk", "vmcore"]
    if form == "elf":
        assert flagged(out)
        assert out.read_bytes()[PAGE:MIB] == DATA[PAGE:MIB]


def test_copy_of_a_disk_that_is_gone_names_no_bytes_that_it_has_not(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks.os, "pread", reads_that_end(2 * MIB, errno.ENODEV))
    done = collect(disk, out)
    there = out.stat().st_size
    assert there == len(DATA) - done.unreadable == MIB
    for segment in ELFFile(io.BytesIO(out.read_bytes())).iter_segments():
        assert segment["p_offset"] + segment["p_filesz"] <= max(there, segment["p_offset"])


@pytest.mark.parametrize("form", ["elf", "kdump"])
def test_superblock_that_cannot_be_read_again_costs_no_copy(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    bad = bad_places((0, 512))
    progress = Steps(lambda: monkeypatch.setattr(disks.os, "pread", bad))
    done = collect(disk, out, progress, form=form)
    assert "superblock cannot be read again" in done.reason
    assert done.marked
    assert done.unnoted
    if form == "elf":
        assert out.read_bytes()[PAGE:] == DATA[PAGE:]
        assert flagged(out)


@pytest.mark.parametrize(
    "code", ["EIO", "ENODATA", "EILSEQ", "EREMOTEIO", "EBADMSG", "EUCLEAN", "ETIMEDOUT", "EBADE"]
)
def test_every_error_of_a_bad_place_costs_that_place(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    place = superblock.DATA_OFFSET + 100 * PAGE
    bad = bad_places((place, place + 512), code=getattr(errno, code))
    monkeypatch.setattr(disks.os, "pread", bad)
    assert collect(disk, out).unreadable == PAGE


# A guest that writes meanwhile.


def test_headers_that_change_after_the_check_do_not_get_into_the_file(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread = os.pread
    reads: list[tuple[int, int]] = []

    def read(fd: int, size: int, offset: int) -> bytes:
        reads.append((offset, size))
        return pread(fd, size, offset)

    monkeypatch.setattr(disks.os, "pread", read)
    collect(disk, out)
    length = 64 + 56 * (1 + len(RANGES))
    headers = range(superblock.DATA_OFFSET, superblock.DATA_OFFSET + length)
    for at in headers:
        assert sum(offset <= at < offset + size for offset, size in reads) == 1


def test_dump_that_is_replaced_while_it_is_copied_is_refused(disk: Path, out: Path) -> None:
    def again() -> None:
        block = superblock.decode(disk.read_bytes())
        block.started += 60
        with disk.open("r+b") as stream:
            stream.write(block.encode())

    with pytest.raises(DiskError, match="changed while it was copied"):
        collect(disk, out, Steps(again))
    assert files(out.parent) == ["disk"]


def test_dump_that_ends_while_it_is_copied_is_collected_as_far_as_it_was(
    tmp_path: Path, out: Path
) -> None:
    disk = tmp_path / "disk"
    block = make(disk, superblock.WRITING, DATA, 10 * PAGE)

    def end() -> None:
        block.state, block.written, block.ended = superblock.COMPLETE, len(DATA), block.ended + 1
        with disk.open("r+b") as stream:
            stream.write(block.encode())

    assert collect(disk, out, Steps(end)).size == 10 * PAGE


# The note that the dump was collected.


@pytest.mark.parametrize("state", [superblock.COMPLETE, superblock.PARTIAL])
def test_target_notes_that_its_dump_was_collected(tmp_path: Path, out: Path, state: int) -> None:
    before = make(tmp_path / "disk", state, DATA, 100 * PAGE)
    before.written = 100 * PAGE
    collect(tmp_path / "disk", out)
    after = superblock.decode((tmp_path / "disk").read_bytes())
    assert after.collected > 0
    assert {**vars(after), "collected": 0} == vars(before)


def test_guest_that_may_be_writing_is_not_written_over(tmp_path: Path, out: Path) -> None:
    make(tmp_path / "disk", superblock.WRITING, DATA, 100 * PAGE)
    before = (tmp_path / "disk").read_bytes()
    assert "has ended" in collect(tmp_path / "disk", out).unnoted
    assert (tmp_path / "disk").read_bytes() == before


def test_target_that_cannot_be_written_gives_its_dump(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def readonly(path: Path, flags: int, *mode: int) -> int:
        if path == disk and flags & os.O_RDWR:
            raise OSError(30, "Read-only file system")
        return opened(path, flags, *mode)

    monkeypatch.setattr(disks.os, "open", readonly)
    assert "Read-only file system" in collect(disk, out).unnoted
    assert out.read_bytes() == DATA


# Salvage.


def spoil(disk: Path, length: int, data: bytes = b"") -> None:
    """Overwrite the first bytes of a target."""
    with disk.open("r+b") as stream:
        stream.write(data.ljust(length, b"\0"))


@pytest.mark.parametrize("length", [512, MIB])
def test_dump_behind_a_lost_superblock_is_salvaged(disk: Path, out: Path, length: int) -> None:
    spoil(disk, length)
    done = collect(disk, out, salvage=True)
    assert out.read_bytes()[PAGE:] == DATA[PAGE:]
    assert "superblock was not looked at" in done.reason
    assert flagged(out)


@pytest.mark.parametrize("spoilt", [b"", b"PVDUMP\r\n" + b"\xff" * 8])
def test_lost_superblock_is_told_with_the_way_to_the_dump(
    disk: Path, out: Path, spoilt: bytes
) -> None:
    spoil(disk, 512, spoilt)
    with pytest.raises(TargetRefused, match=f"collect --salvage {disk} OUT"):
        collect(disk, out)


def test_disk_without_superblock_and_dump_is_named(tmp_path: Path, out: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(SIZE))
    with pytest.raises(TargetRefused, match=f"{tmp_path}/disk: no pvdump superblock"):
        collect(tmp_path / "disk", out)


def test_dump_behind_a_target_that_was_prepared_again_is_salvaged(disk: Path, out: Path) -> None:
    spoil(disk, 512, superblock.Superblock(bytes(16), SIZE).encode())
    with pytest.raises(TargetRefused, match="--salvage"):
        collect(disk, out)
    collect(disk, out, salvage=True)
    assert out.read_bytes()[PAGE:] == DATA[PAGE:]


def test_salvage_of_what_is_no_dump_is_refused(tmp_path: Path, out: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(SIZE))
    with pytest.raises(TargetRefused, match="no vmcore where one should begin"):
        collect(tmp_path / "disk", out, salvage=True)
    assert not out.exists()


def test_salvage_of_a_cut_disk_ends_with_the_disk(disk: Path, out: Path) -> None:
    os.truncate(disk, superblock.DATA_OFFSET + 20 * PAGE)
    spoil(disk, 512)
    done = collect(disk, out, salvage=True)
    assert (done.size, done.missing) == (20 * PAGE, len(DATA) - 20 * PAGE)
