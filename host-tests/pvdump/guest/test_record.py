"""Records: written whole or not at all, and refused by name where they are damaged."""

import os
import stat
from pathlib import Path

import pytest

from pvdump.guest import record


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "lib/pvdump/setup.json"
    record.save(path, {"a": [1, None], "b": {"c": "\u00e9"}})
    record.save(path, {"a": [2]})
    assert record.load(path) == {"a": [2]}
    assert [each.name for each in path.parent.iterdir()] == ["setup.json"]


def test_a_record_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert record.load(tmp_path / "none") == {}


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        record.save(tmp_path / "one", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"a":1}' + b" " * record.RECORD_MAX],
    ids=["empty", "cut", "a list", "no UTF-8", "deep", "long"],
)
def test_a_damaged_record_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "one"
    path.write_bytes(content)
    with pytest.raises(record.RecordError, match=f"is damaged: rm {path}"):
        record.load(path)


def test_a_record_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.save(tmp_path / "one", {"a": 1})

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(record.RecordError, match="one: No space left on device"):
        record.save(tmp_path / "one", {"a": 2})
    assert record.load(tmp_path / "one") == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["one"]


def test_what_a_killed_run_left_does_not_hinder(tmp_path: Path) -> None:
    (tmp_path / ".one.new").symlink_to("elsewhere")
    record.save(tmp_path / "one", {"a": 1})
    assert record.load(tmp_path / "one") == {"a": 1}
    assert not (tmp_path / "elsewhere").exists()
