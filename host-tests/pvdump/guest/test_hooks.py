"""Hooks: run in order without a shell; those that fail are told, and cost no dump."""

import os
from pathlib import Path

import pytest
from fixtures.targets import make, vmcore

from pvdump.guest import dumps, gather, hooks, record, reports
from pvdump.guest.gather import Guest
from pvfw import superblock

DUMP = Path("/var/crash/2026-11-28T152600Z-6.1.0; true")


def hook(folder: Path, name: str, script: str, mode: int = 0o755) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return path


def test_they_run_in_the_order_of_their_names_with_the_folder_and_the_kind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("20-second", "10-first"):
        hook(tmp_path / "hooks", name, f'echo "{name}|$1|$2|$#" >> {out}')
    assert hooks.run(tmp_path / "hooks", DUMP, True) == []
    assert hooks.run(tmp_path / "hooks", DUMP, False) == []
    assert out.read_text().splitlines() == [
        f"{name}|{DUMP}|{kind}|2"
        for kind in ("complete", "partial")
        for name in ("10-first", "20-second")
    ]


def test_without_a_folder_there_are_none(tmp_path: Path) -> None:
    assert hooks.run(tmp_path / "none", DUMP, True) == []


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 3", "exit code 3"),
        ("kill -9 $$", "it was ended by signal 9"),
        ("sleep 100", "it took more than 0.2 s and was killed"),
    ],
)
def test_one_that_fails_is_told_and_the_next_one_runs(
    tmp_path: Path, script: str, why: str
) -> None:
    first = hook(tmp_path / "hooks", "1", script)
    hook(tmp_path / "hooks", "2", f"touch {tmp_path}/ran")
    seconds = 0.2 if "sleep" in script else 60
    assert hooks.run(tmp_path / "hooks", DUMP, True, seconds) == [f"hook {first}: {why}"]
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("mode", "why"),
    [(0o644, "not executable"), (0o775, "others can write it"), (0o757, "others can write it")],
)
def test_what_is_no_safe_program_is_told_and_not_run(tmp_path: Path, mode: int, why: str) -> None:
    hook(tmp_path / "hooks", "1", f"touch {tmp_path}/ran", mode)
    (line,) = hooks.run(tmp_path / "hooks", DUMP, True)
    assert why in line
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [".hidden", "10-rsync~", "10-rsync.dpkg-old", "10-rsync.disabled"])
def test_what_is_not_in_use_is_passed_over(tmp_path: Path, name: str) -> None:
    hook(tmp_path / "hooks", name, "exit 1")
    assert hooks.run(tmp_path / "hooks", DUMP, True) == []


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guest:
    """A guest with a dump on the target "disk"."""
    make(tmp_path / "disk", superblock.COMPLETE, vmcore())
    monkeypatch.setattr(reports, "write", lambda folder, vmcore: [])
    return Guest(tmp_path / "crash", 5, 0, tmp_path / "hooks", tmp_path / "root")


def test_those_before_find_no_folder_yet_and_those_after_the_whole_one(
    guest: Guest, tmp_path: Path
) -> None:
    hook(guest.hooks / "before.d", "1", f'test ! -e "$1" && echo "$1" > {tmp_path}/before')
    hook(guest.hooks / "after.d", "1", f'test -s "$1/vmcore" && echo "$1" > {tmp_path}/after')
    assert gather.gather(guest, [tmp_path / "disk"], False) == 0
    (dump,) = dumps.found(guest.directory)
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text() == f"{dump.path}\n"


@pytest.mark.parametrize("folder", ["before.d", "after.d"])
def test_one_that_fails_is_recorded_and_loses_no_dump(
    guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    path = hook(guest.hooks / folder, "1", "exit 7")
    assert gather.gather(guest, [tmp_path / "disk"], False) == 1
    line = f"hook {path}: exit code 7"
    assert line in capsys.readouterr().err
    (dump,) = dumps.found(guest.directory)
    assert dump.facts.complete
    assert dump.facts.hooks == [line]
    assert record.load(guest.root / record.STATE / gather.COLLECTED)["hooks"] == [line]
    assert superblock.decode((tmp_path / "disk").read_bytes()).state == superblock.READY


def test_those_after_that_were_deferred_or_cut_run_once_with_the_next_collect(
    guest: Guest, tmp_path: Path
) -> None:
    hook(guest.hooks / "after.d", "1", f"echo ran >> {tmp_path}/out")
    assert gather.gather(guest, [tmp_path / "disk"], True) == 0
    assert not (tmp_path / "out").exists()
    for _ in range(2):
        assert gather.gather(guest, [tmp_path / "disk"], False) == 0
    assert (tmp_path / "out").read_text() == "ran\n"


def test_nothing_that_a_hook_started_outlives_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    hook(tmp_path / "hooks", "1", f"(sleep 3; echo alive) > {tmp_path}/fifo &")
    fd = os.open(tmp_path / "fifo", os.O_RDWR)
    assert hooks.run(tmp_path / "hooks", DUMP, True) == []
    reader = os.open(tmp_path / "fifo", os.O_RDONLY)
    os.close(fd)  # from here on only what the hook started could write
    assert os.read(reader, 16) == b""
    os.close(reader)
