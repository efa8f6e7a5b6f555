"""The file of events: what a full disk and a killed writer leave of it."""

import errno
import os

import pytest

from pvdump.dom0 import events
from pvdump.dom0.events import Events, read


def names(folder):
    return [event["event"] for event in read(folder)]


def test_a_line_that_was_cut_off_takes_no_other_with_it(tmp_path):
    told = Events(tmp_path)
    told.add("panic", 7, "web")
    told.add("reset", 7, "web")
    path = tmp_path / events.NAME
    os.truncate(path, path.stat().st_size - 10)
    told.add("end", 7, "web")
    told.add("panic", 8, "db")
    assert names(tmp_path) == ["panic", "end", "panic"]


def test_a_line_that_the_disk_takes_in_part_is_an_error(tmp_path, monkeypatch):
    told, write = Events(tmp_path), os.write
    told.add("panic", 7, "web")
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, line: write(fd, line[:20]))
        with pytest.raises(OSError) as error:
            told.add("reset", 7, "web")
    assert error.value.errno == errno.ENOSPC
    told.add("end", 7, "web")
    assert names(tmp_path) == ["panic", "end"]


def test_a_file_that_is_full_is_put_aside_and_read_first(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "SIZE_MAX", 300)
    told = Events(tmp_path)
    for number in range(4):
        told.add(f"event{number}", 7, "web")
    assert (tmp_path / f"{events.NAME}.1").exists()
    assert names(tmp_path) == [f"event{number}" for number in range(4)]
