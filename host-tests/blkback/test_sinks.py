"""Sinks that are files."""

import errno
import os
import random

import pytest
from blkback.pieces import buffers, room

from pvdump.blkback.ports import Stalled
from pvdump.blkback.sink import behind, open_sink

MIB = 1 << 20


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "disk"
    with path.open("wb") as stream:
        stream.truncate(4 * MIB)
    return path


class TestFile:
    def test_what_is_written_in_any_pieces_is_read_in_any_others(self, path):
        sink = open_sink(str(path), False, False)
        data = random.Random(1).randbytes(100_000)
        sink.write(4096, buffers(data, 1, 512, 70_000))
        into = room(50_000, 2, 49_998)
        sink.read(4096, into)
        assert b"".join(into) == data
        sink.close()

    def test_more_pieces_than_one_call_takes_are_moved(self, path):
        sink = open_sink(str(path), False, False)
        data = random.Random(1).randbytes(3000 * 512)
        sink.write(0, buffers(data, *[512] * 3000))
        assert path.read_bytes()[: len(data)] == data
        sink.close()

    def test_what_is_discarded_is_a_hole_and_reads_as_zeroes(self, path):
        sink = open_sink(str(path), False, False)
        sink.write(0, buffers(b"\1" * MIB))
        sink.flush()
        before = path.stat().st_blocks
        sink.discard(0, MIB // 2)
        assert path.stat().st_blocks < before
        assert path.stat().st_size == 4 * MIB
        assert path.read_bytes()[: MIB // 2] == bytes(MIB // 2)
        assert path.read_bytes()[MIB // 2 : MIB] == b"\1" * (MIB // 2)
        sink.close()

    def test_one_that_was_made_shorter_is_an_error(self, path):
        sink = open_sink(str(path), False, False)
        os.truncate(path, MIB)
        with pytest.raises(OSError, match="shorter"):
            sink.read(2 * MIB, room(512))
        sink.close()

    def test_a_write_protected_one_cannot_be_written(self, path):
        sink = open_sink(str(path), True, False)
        with pytest.raises(OSError, match="descriptor"):
            sink.write(0, buffers(bytes(512)))
        sink.close()

    def test_one_that_is_not_there_is_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            open_sink(str(tmp_path / "none"), False, False)


@pytest.mark.parametrize("done", [0, 1, 3, 4, 9, 10])
def test_what_is_left_behind_a_part_is_all_the_rest(done):
    pieces = [memoryview(b"abc"), memoryview(b"d"), memoryview(b"efghij")]
    assert b"".join(behind(pieces, done)) == b"abcdefghij"[done:]


def test_what_a_file_has_grown_by_is_there_when_it_is_measured_again(path):
    sink = open_sink(str(path), False, False)
    os.truncate(path, 8 * MIB)
    sink.measure()
    assert sink.size == 8 * MIB
    sink.close()


@pytest.mark.parametrize("name", ["Gäste", "\udce4\udcf6", "plain"])
def test_a_file_is_found_by_whatever_bytes_its_name_has(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(512))
    sink = open_sink(str(tmp_path / name), True, False)
    assert sink.size == 512
    sink.close()


@pytest.mark.parametrize("name", [".", "fifo", "a\0b"])
def test_what_is_no_file_is_refused(tmp_path, name):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match=r"no file or block device|NUL"):
        open_sink(str(tmp_path / name), False, False)


def test_a_shortage_of_descriptors_is_waited_for(path, monkeypatch):
    def short(*args):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", short)
    with pytest.raises(Stalled, match="Too many"):
        open_sink(str(path), False, False)
