"""Missing needs of the host are found by use, not by package; only root has them installed."""

import subprocess

import pytest

from tools import Trouble, hostdeps
from tools.hostdeps import Need

HERE = Need("here", lambda: True, ("test", "lint"))
GONE = Need("gone", lambda: False, ("test",))


@pytest.fixture(autouse=True)
def needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostdeps, "NEEDS", (HERE, GONE))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What apt-get would have been asked."""
    calls: list[list[str]] = []
    monkeypatch.setattr(hostdeps, "run_apt", calls.append)
    monkeypatch.setattr(hostdeps.shutil, "which", lambda name: f"/usr/bin/{name}")
    return calls


def test_only_what_the_command_uses_is_missing() -> None:
    assert hostdeps.missing("test") == ["gone"]
    assert hostdeps.missing("lint") == []


def test_user_gets_the_one_line_and_nothing_is_run(
    asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostdeps.os, "geteuid", lambda: 1000)
    with pytest.raises(Trouble, match="apt-get install --no-install-recommends gone\n"):
        hostdeps.ensure("test")
    assert asked == []


def test_root_has_it_installed(asked: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([False, True])
    arriving = Need("arriving", lambda: next(states), ("test",))
    monkeypatch.setattr(hostdeps, "NEEDS", (HERE, arriving))
    monkeypatch.setattr(hostdeps.os, "geteuid", lambda: 0)
    hostdeps.ensure("test")
    assert asked == [["update"], ["install", "-y", "--no-install-recommends", "arriving"]]


def test_what_installing_did_not_bring_is_named(
    asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostdeps.os, "geteuid", lambda: 0)
    with pytest.raises(Trouble, match="what gone should give is not there"):
        hostdeps.ensure("test")


def test_nothing_missing_asks_nobody(asked: list[list[str]]) -> None:
    hostdeps.ensure("lint")
    assert asked == []


def test_failing_apt_shows_its_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen

    def fake(command: list[str], **options: object) -> "subprocess.Popen[str]":
        return real(["sh", "-c", "echo E: no space; exit 100"], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(hostdeps.subprocess, "Popen", fake)
    with pytest.raises(Trouble, match=r"apt-get update failed \(100\):\nE: no space"):
        hostdeps.run_apt(["update"])
