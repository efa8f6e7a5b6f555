"""The output of a collected dump: whole, in one step, never over another file."""

import errno
import fcntl
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from pvdump.dump import output as outputs
from pvdump.dump.disk import DiskError
from pvdump.dump.output import PART, OutputFile, OutputStream

DATA = b"\1" * 5000


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "vmcore"


def files(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir())


def publish(out: Path) -> None:
    with OutputFile(out, len(DATA)) as file:
        file.write(DATA)
        file.publish()


@pytest.mark.parametrize(
    "code",
    ["EPERM", "EOPNOTSUPP", "ENOSYS", "EACCES", "EMLINK", "EXDEV", "EINVAL"],
)
def test_file_system_without_links_gets_the_file_too(
    out: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    number = getattr(errno, code)

    def link(source: Path, name: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(outputs.os, "link", link)
    publish(out)
    assert out.read_bytes() == DATA
    assert files(out) == ["vmcore"]


def test_finished_copy_that_cannot_have_its_name_is_kept_and_named(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*names: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(outputs.os, "link", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(
        DiskError, match=f"Read-only file system; the dump is whole, as {out}{PART}"
    ):
        publish(out)
    assert out.with_name(f"vmcore{PART}").read_bytes() == DATA


@pytest.mark.parametrize("code", ["ENOSYS", "EINVAL", "EOPNOTSUPP", "EIO", "EPERM", "EFBIG"])
def test_finished_copy_that_cannot_be_made_stable_is_kept_and_named(
    out: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    number = getattr(errno, code)

    def fsync(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(outputs.os, "fsync", fsync)
    with pytest.raises(DiskError, match=f"{os.strerror(number)}.*copied is {out}{PART}"):
        publish(out)
    assert files(out) == [f"vmcore{PART}"]
    assert out.with_name(f"vmcore{PART}").read_bytes() == DATA


@pytest.mark.parametrize("end", [b"x", bytes(outputs.PIECE)])
def test_file_gets_its_size_where_nothing_can_be_truncated(
    out: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    def ftruncate(fd: int, size: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(outputs.os, "ftruncate", ftruncate)
    with OutputFile(out, 0) as file:
        file.write(b"x")
        file.write(end)
        file.publish()
    assert out.read_bytes() == b"x" + end


def test_part_that_was_removed_during_the_copy_is_not_announced(out: Path) -> None:
    with OutputFile(out, 0) as file:
        file.write(DATA)
        file.part.unlink()
        with pytest.raises(DiskError, match=f"{PART} was removed meanwhile: collect again"):
            file.publish()


@pytest.mark.parametrize("links", [True, False])
def test_name_taken_during_the_copy_is_not_overwritten_and_the_copy_kept(
    out: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def link(source: Path, name: Path) -> None:
        raise OSError(38, "Function not implemented")

    if not links:
        monkeypatch.setattr(outputs.os, "link", link)
    with OutputFile(out, len(DATA)) as file:
        file.write(DATA)
        out.write_text("mine")
        with pytest.raises(DiskError, match=f"appeared meanwhile.*the dump is {out}{PART}"):
            file.publish()
    assert out.read_text() == "mine"
    assert out.with_name(f"vmcore{PART}").read_bytes() == DATA


def test_failure_half_way_leaves_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs.os, "pwrite", full)
    with pytest.raises(DiskError, match="No space left"):
        publish(out)
    assert files(out) == []


def test_what_a_killed_collect_left_is_named_and_kept(out: Path) -> None:
    left = out.with_name(f"vmcore{PART}")
    left.write_bytes(b"memory")
    with pytest.raises(DiskError, match=f"{left} is what a collect that was killed left"):
        publish(out)
    assert left.read_bytes() == b"memory"


def test_two_collects_of_one_name_do_not_meet(out: Path) -> None:
    with OutputFile(out, 0), pytest.raises(DiskError, match="another collect is writing it"):
        publish(out)


def test_folder_without_room_is_refused_before_anything_is_written(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = SimpleNamespace(f_bavail=10, f_frsize=4096, f_blocks=1000)
    monkeypatch.setattr(outputs.os, "statvfs", lambda path: room)
    with pytest.raises(DiskError, match="0 MiB free, the dump needs 2 MiB"):
        OutputFile(out, 2 << 20)
    assert files(out) == []


def test_file_system_without_figures_is_tried(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = SimpleNamespace(f_bavail=0, f_frsize=4096, f_blocks=0)
    monkeypatch.setattr(outputs.os, "statvfs", lambda path: room)
    publish(out)
    assert out.read_bytes() == DATA


@pytest.mark.parametrize("length", [250, 255])
def test_longest_names_are_names(tmp_path: Path, length: int) -> None:
    publish(tmp_path / ("n" * length))
    assert files(tmp_path / "x") == ["n" * length]


def test_name_longer_than_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="File name too long"):
        publish(tmp_path / ("n" * 256))


def test_file_is_not_made_below_dev() -> None:
    with pytest.raises(DiskError, match="not made below /dev"):
        OutputFile(Path("/dev/pvdump-no-such-device"), 0)


def test_stream_gets_zeros_as_they_are() -> None:
    read, write = os.pipe()
    stream = OutputStream(write)
    stream.write(bytes(10) + b"x")
    os.close(write)
    assert os.read(read, 100) == bytes(10) + b"x"
    os.close(read)


def test_terminal_gets_nothing_but_text() -> None:
    near, far = os.openpty()
    with pytest.raises(DiskError, match="is a terminal"):
        OutputStream(far)
    OutputStream(far, text=True).write(b"line")
    assert os.read(near, 100) == b"line"
    os.close(near)
    os.close(far)


def test_full_pipe_that_does_not_block_is_waited_for() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    size = fcntl.fcntl(write, 1032) * 3  # F_GETPIPE_SZ
    got = bytearray()

    def take() -> None:
        while part := os.read(read, 65536):
            got.extend(part)

    reader = threading.Thread(target=take)
    poll = outputs.select.poll
    stream = OutputStream(write)

    class Waits:
        """select.poll() that tells that it was used: only then the pipe is read."""

        def __init__(self) -> None:
            self._poll = poll()
            if not reader.ident:
                reader.start()

        def register(self, fd: int, events: int) -> None:
            self._poll.register(fd, events)

        def poll(self) -> list[tuple[int, int]]:
            return self._poll.poll()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs.select, "poll", Waits)
        stream.write(b"x" * size)
    os.close(write)
    reader.join()
    os.close(read)
    assert got == b"x" * size


def test_vmcore_does_not_go_to_a_terminal() -> None:
    main, other = os.openpty()
    with pytest.raises(DiskError, match="terminal"):
        OutputStream(other)
    os.close(main)
    os.close(other)


def test_full_standard_output_is_told() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        stream = OutputStream(full.fileno())
        with pytest.raises(DiskError, match="standard output: No space left on device"):
            stream.write(DATA)
