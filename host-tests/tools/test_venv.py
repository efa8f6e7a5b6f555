"""The virtual environment: named by what it is made from, there whole or not at all."""

import os
import sys
from pathlib import Path

import pytest

from tools import Trouble, cache, venv


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PVDUMP_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "requirements.txt"
    path.write_text("a==1 --hash=sha256:00\n")
    return path


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that would have been run; the first one makes a python, as the venv module does."""
    commands: list[list[str]] = []

    def run(command: list[str], total: int = 0) -> None:
        commands.append(command)
        if command[-2] == "venv":
            python = Path(command[-1], "bin/python")
            python.parent.mkdir(parents=True)
            python.symlink_to(sys.executable)

    monkeypatch.setattr(venv, "run", run)
    return commands


def test_hashes_are_required(requirements: Path, runs: list[list[str]]) -> None:
    venv.ensure(requirements)
    assert {"--require-hashes", "--only-binary"} <= set(runs[1])


def test_second_time_runs_nothing(requirements: Path, runs: list[list[str]]) -> None:
    first = venv.ensure(requirements)
    runs.clear()
    assert venv.ensure(requirements) == first
    assert runs == []


def test_other_requirements_make_another_one(requirements: Path, runs: list[list[str]]) -> None:
    first = venv.ensure(requirements)
    requirements.write_text("a==2 --hash=sha256:01\n")
    assert venv.ensure(requirements) != first


def test_the_ones_used_last_stay(
    requirements: Path, runs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = []
    for i in range(cache.KEEP + 2):
        requirements.write_text(f"a=={i} --hash=sha256:01\n")
        homes.append(venv.ensure(requirements).parent.parent)
        for descriptor in cache._held.values():  # as a process that ends
            os.close(descriptor)
        cache._held.clear()
        for age, home in enumerate(reversed(homes)):
            if home.exists():
                os.utime(home / venv.STAMP, (9000 - age, 9000 - age))
    assert [home.exists() for home in homes] == [False] * 2 + [True] * cache.KEEP


def test_interrupted_one_is_made_again(
    requirements: Path, runs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(command: list[str], total: int = 0) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(venv, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            venv.ensure(requirements)
    venv.ensure(requirements)
    assert len(runs) == 2


def test_one_whose_python_has_gone_is_made_again(requirements: Path, runs: list[list[str]]) -> None:
    python = venv.ensure(requirements)
    python.unlink()
    python.symlink_to("/nonexistent/python")
    runs.clear()
    venv.ensure(requirements)
    assert len(runs) == 2


def test_cache_that_cannot_be_used_is_named(
    requirements: Path, tmp_path: Path, runs: list[list[str]]
) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(Trouble, match="set PVDUMP_CACHE"):
        venv.ensure(requirements)


def test_failing_command_shows_its_last_lines() -> None:
    with pytest.raises(Trouble, match=r"failed \(3\):\nno matching distribution"):
        venv.run(["sh", "-c", "echo no matching distribution >&2; exit 3"])
