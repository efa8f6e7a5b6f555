"""The extents of a file, as answers of FIEMAP give them; what may not be written is refused."""

import fcntl
import struct
from pathlib import Path

import pytest

from pvdump.dump.disk import DiskError
from pvdump.place import fiemap

K = 1024
PAGE = 4096
NAME = Path("/a/file")


class Answers:
    """An ioctl that answers with these extents: logical, physical, length, flags."""

    def __init__(self, *extents: tuple[int, int, int, int], at_once: int = 256) -> None:
        self.extents, self.at_once, self.flags = extents, at_once, set()

    def __call__(self, fd: int, request: int, buffer: bytearray) -> int:
        assert request == 0xC020660B
        start, length, flags, _, room, _ = struct.unpack_from("<QQIIII", buffer)
        self.flags.add(flags)
        inside = [e for e in self.extents if e[0] < start + length and start < e[0] + e[2]]
        inside = inside[: min(room, self.at_once)]
        struct.pack_into("<I", buffer, 20, len(inside))
        for i, extent in enumerate(inside):
            struct.pack_into("<QQQ16xI12x", buffer, 32 + 56 * i, *extent)
        return 0


def read(
    monkeypatch: pytest.MonkeyPatch, *extents: tuple[int, int, int, int], size: int, **more: int
) -> list[tuple[int, int]]:
    answers = Answers(*extents, **more)
    monkeypatch.setattr(fcntl, "ioctl", answers)
    found = fiemap.extents(3, NAME, size)
    assert answers.flags == {1}
    return found


def test_extents_come_in_the_file_s_order(monkeypatch: pytest.MonkeyPatch) -> None:
    extents = [(0, 80 * K, 8 * K, 0), (8 * K, 40 * K, 4 * K, 0x1000), (12 * K, 400 * K, 4 * K, 1)]
    expected = [(80 * K, 8 * K), (40 * K, 4 * K), (400 * K, 4 * K)]
    assert read(monkeypatch, *extents, size=16 * K) == expected
    assert read(monkeypatch, *extents, size=16 * K, at_once=1) == expected


def test_what_is_behind_the_file_s_end_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, (0, 80 * K, 64 * K, 1), size=8 * K) == [(80 * K, 8 * K)]
    extents = [(0, 80 * K, 8 * K, 0), (8 * K, 0, 64 * K, 0x804)]
    assert read(monkeypatch, *extents, size=8 * K) == [(80 * K, 8 * K)]


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        (0x2, "UNKNOWN"),
        (0x4, "DELALLOC"),
        (0x8, "ENCODED"),
        (0x80, "DATA_ENCRYPTED"),
        (0x100, "NOT_ALIGNED"),
        (0x200, "DATA_INLINE"),
        (0x400, "DATA_TAIL"),
        (0x800, "UNWRITTEN"),
        (0x2000, "SHARED"),
        (0x10000, "flags 0x10000 are not known"),
    ],
)
def test_an_extent_that_must_not_be_written_is_refused_by_its_flag(
    monkeypatch: pytest.MonkeyPatch, flag: int, name: str
) -> None:
    with pytest.raises(DiskError, match=f"^/a/file: extent at byte 8192: {name}"):
        read(monkeypatch, (0, 80 * K, 8 * K, 0), (8 * K, 8 * K, 8 * K, flag | 1), size=16 * K)


@pytest.mark.parametrize(
    ("extents", "message"),
    [
        ([(0, 80 * K, 8 * K, 0), (12 * K, 8 * K, 4 * K, 1)], "has a hole at byte 8192"),
        ([(4 * K, 80 * K, 12 * K, 1)], "has a hole at byte 0"),
        ([(0, 80 * K, 8 * K, 1)], "has a hole at byte 8192"),
        ([], "has a hole at byte 0"),
        ([(0, 80 * K, 1 * K, 0), (K, 100 * K, 15 * K, 1)], "at byte 0 is not whole pages"),
        ([(0, 81 * K, 16 * K, 1)], "at byte 0 is not whole pages"),
        ([(0, 80 * K, 8 * K, 0), (4 * K, 96 * K, 12 * K, 1)], "at byte 4096 is not whole pages"),
    ],
)
def test_a_file_that_has_not_all_its_pages_is_refused(
    monkeypatch: pytest.MonkeyPatch, extents: list[tuple[int, int, int, int]], message: str
) -> None:
    with pytest.raises(DiskError, match=message):
        read(monkeypatch, *extents, size=16 * K)


def test_extents_of_no_length_are_no_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def ioctl(fd: int, request: int, buffer: bytearray) -> None:
        struct.pack_into("<I", buffer, 20, 1)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with pytest.raises(DiskError, match="not whole pages"):
        fiemap.extents(3, NAME, 16 * K)


def test_a_file_system_that_tells_no_extents_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def ioctl(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with pytest.raises(DiskError, match="tells no extents: Operation not supported"):
        fiemap.extents(3, NAME, 16 * K)
