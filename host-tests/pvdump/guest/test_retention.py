"""Which dumps are removed, and in which order."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from fixtures.dumpfolders import make

from pvdump.dump.disk import DiskError
from pvdump.guest import dumps, retention

MIB = 1 << 20


def left(directory: Path) -> list[int]:
    return [dump.facts.dump for dump in dumps.found(directory)]


def free(monkeypatch: pytest.MonkeyPatch, room: int, directory: Path) -> None:
    """Have the folder's file system have so much room beside what is there now."""
    before = sum(dump.size() for dump in dumps.found(directory))
    real = os.statvfs

    def statvfs(path: Path) -> os.statvfs_result:
        there = sum(dump.size() for dump in dumps.found(directory))
        words = list(real(path))
        words[1], words[2], words[4] = 1, 1 << 40, room + before - there
        return os.statvfs_result(words)

    monkeypatch.setattr(os, "statvfs", statvfs)


@pytest.mark.parametrize(
    ("reasons", "most", "kept"),
    [
        ("aaaaaaa", 5, [0, 3, 4, 5, 6]),
        ("abcdefg", 5, [2, 3, 4, 5, 6]),
        ("aaabbbb", 4, [0, 3, 5, 6]),
        ("aaabbbb", 2, [3, 6]),
        ("aaabbbb", 1, [6]),
        ("abab", 2, [2, 3]),
        ("aab", 5, [0, 1, 2]),
    ],
)
def test_the_oldest_go_first_and_the_first_of_a_series_last(
    tmp_path: Path, reasons: str, most: int, kept: Sequence[int]
) -> None:
    for number, reason in enumerate(reasons):
        make(tmp_path, number, reason)
    gone = retention.keep(tmp_path, most)
    assert left(tmp_path) == kept
    assert sorted(dump.facts.dump for dump in gone) == sorted(set(range(len(reasons))) - set(kept))


def test_no_more_go_than_a_new_dump_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        make(tmp_path, number, f"{number}", 2 * MIB)
    free(monkeypatch, MIB, tmp_path)
    gone = retention.make_room(tmp_path, 2 * MIB, 2 * MIB)
    assert [dump.facts.dump for dump in gone] == [0, 1]


def test_none_goes_where_a_new_dump_would_not_fit_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        make(tmp_path, number, "", 2 * MIB)
    free(monkeypatch, MIB, tmp_path)
    with pytest.raises(DiskError, match="has 1 MiB free, the dump needs 5 MiB and 2 MiB"):
        retention.make_room(tmp_path, 5 * MIB, 2 * MIB)
    assert left(tmp_path) == [0, 1, 2]


def test_a_file_system_without_figures_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result([4096, 4096, *[0] * 8]))
    assert retention.make_room(tmp_path, MIB, MIB) == []


def test_the_newest_dump_never_goes_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, 1, "", 8 * MIB)
    free(monkeypatch, MIB, tmp_path)
    with pytest.raises(DiskError):
        retention.make_room(tmp_path, 2 * MIB, 0)
    assert left(tmp_path) == [1]


def test_what_pvdump_did_not_make_is_no_dump_and_stays(tmp_path: Path) -> None:
    for number in range(3):
        make(tmp_path, number)
    (tmp_path / "202601010101").mkdir()
    (tmp_path / "202601010101/dump.202601010101").write_text("of kdump-tools")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / dumps.MARKER).write_text('{"format": "another"}')
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / dumps.MARKER).write_text("{")
    (tmp_path / "link").symlink_to(dumps.found(tmp_path)[0].path)
    retention.keep(tmp_path, 1)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["2023-11-15T001320Z-6.1.0-test", "202601010101", "damaged", "link", "other"]


def test_a_removal_that_was_cut_short_is_finished_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, 1)
    make(tmp_path, 2)
    with monkeypatch.context() as patch:
        patch.setattr(dumps, "_delete", lambda path: None)
        retention.keep(tmp_path, 1)
    assert left(tmp_path) == [2]
    with dumps.locked(tmp_path):
        assert len(list(tmp_path.iterdir())) == 1


def test_half_a_folder_of_somebody_else_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = dumps.begin(tmp_path, "1")
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with dumps.locked(tmp_path):
        assert part.exists()
