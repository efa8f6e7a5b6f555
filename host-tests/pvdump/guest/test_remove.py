"""Remove leaves the system as it was before setup, wherever setup or remove itself ended."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.guestroot import WANTS, GuestRoot
from fixtures.systemtools import SystemTools, crashed_size, each_loader, next_boot, tree

from pvdump import cli
from pvdump.guest import changes, facts, programs, record


@pytest.fixture
def guest(tools: SystemTools) -> GuestRoot:
    return tools.guest


@each_loader
def test_remove_leaves_the_system_as_it_was(
    guest: GuestRoot, lay_out: Callable[[GuestRoot], None]
) -> None:
    lay_out(guest)
    if lay_out is GuestRoot.kdump_tools:
        programs.run(["update-grub"])
    before = tree(guest.path)
    assert cli.main(["setup", "--yes"]) == 0
    assert tree(guest.path) != before
    assert cli.main(["remove", "--yes"]) == 0
    assert tree(guest.path) == before


COMMANDS = [
    "systemctl mask",
    "udevadm control",
    "update-grub",
    "systemctl enable",
    "systemctl start",
    "systemctl restart",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_setup_that_fails_midway_is_undone_by_remove(
    tools: SystemTools, guest: GuestRoot, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.kdump_tools()
    crashed_size(guest, 4 << 20)
    programs.run(["update-grub"])
    before = tree(guest.path)
    tools.fails = command
    assert cli.main(["setup", "--yes"]) == 1
    assert command in capsys.readouterr().err
    tools.fails = ""
    assert cli.main(["remove", "--yes"]) == 0
    assert tree(guest.path) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_setup_that_failed_midway_goes_on_when_it_is_run_again(
    tools: SystemTools, guest: GuestRoot, command: str
) -> None:
    guest.kdump_tools()
    programs.run(["update-grub"])
    before = tree(guest.path)
    crashed_size(guest, 4 << 20)
    tools.fails = command
    assert cli.main(["setup", "--yes"]) == 1
    tools.fails = ""
    assert cli.main(["setup", "--yes"]) == 0
    assert next_boot(guest) == "4M"
    assert guest.facts().units == facts.UNITS
    assert cli.main(["remove", "--yes"]) == 0
    crashed_size(guest, 0)
    assert tree(guest.path) == before


class PowerCut(BaseException):
    """Nothing runs after it."""


def cut(monkeypatch: pytest.MonkeyPatch, saves: int, before: bool) -> None:
    """Cut the power at one of the times that the record is written, before or after that."""
    save = record.save
    count = 0

    def counting(path: Path, mapping: dict[str, object]) -> None:
        nonlocal count
        count += 1
        if count == saves and before:
            raise PowerCut
        save(path, mapping)
        if count == saves:
            raise PowerCut

    monkeypatch.setattr(record, "save", counting)


CUTS = [(saves, before) for saves in range(1, 14) for before in (True, False)]


@pytest.mark.parametrize(("saves", "before"), CUTS)
def test_power_cut_during_setup_is_undone_by_remove(
    guest: GuestRoot, monkeypatch: pytest.MonkeyPatch, saves: int, before: bool
) -> None:
    guest.kdump_tools()
    programs.run(["update-grub"])
    was = tree(guest.path)
    with monkeypatch.context() as patch:
        cut(patch, saves, before)
        with pytest.raises(PowerCut):
            cli.main(["setup", "--yes"])
    assert cli.main(["remove", "--yes"]) == 0
    assert tree(guest.path) == was


@pytest.mark.parametrize(("saves", "before"), CUTS[:-2])
def test_power_cut_during_remove_is_gone_on_from(
    guest: GuestRoot, monkeypatch: pytest.MonkeyPatch, saves: int, before: bool
) -> None:
    guest.kdump_tools()
    programs.run(["update-grub"])
    was = tree(guest.path)
    assert cli.main(["setup", "--yes"]) == 0
    with monkeypatch.context() as patch:
        cut(patch, saves, before)
        with pytest.raises(PowerCut):
            cli.main(["remove", "--yes"])
    assert cli.main(["remove", "--yes"]) == 0
    assert tree(guest.path) == was


def test_file_that_a_person_changed_since_stays_and_is_told(
    guest: GuestRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["setup", "--yes"]) == 0
    path = guest.path / "etc/pvdump.yaml"
    path.write_text(path.read_text() + "keep: 3\n")
    assert cli.main(["remove", "--yes"]) == 0
    assert "pvdump.yaml was changed since by somebody else" in capsys.readouterr().err
    assert path.read_text().endswith("keep: 3\n")


def test_remove_that_fails_keeps_what_is_left_to_undo(
    tools: SystemTools, guest: GuestRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(guest.path)
    assert cli.main(["setup", "--yes"]) == 0
    tools.fails = "systemctl disable"
    assert cli.main(["remove", "--yes"]) == 1
    assert "`pvdump remove` tries it again" in capsys.readouterr().err
    assert not (guest.path / "etc/default/grub.d/zz-pvdump.cfg").exists()
    tools.fails = ""
    assert cli.main(["remove", "--yes"]) == 0
    assert not list((guest.path / WANTS).iterdir())
    assert tree(guest.path) == before


def test_nothing_is_loaded_when_targets_are_taken_away(
    tools: SystemTools, guest: GuestRoot
) -> None:
    assert cli.main(["setup", "--yes"]) == 0
    crashed_size(guest, 4 << 20)
    guest.arm()
    tools.fails = "systemctl disable"
    assert cli.main(["remove", "--yes"]) == 1
    assert not guest.facts().crash.loaded


def test_what_cannot_be_unloaded_ends_remove_before_anything_is_undone(
    tools: SystemTools, guest: GuestRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["setup", "--yes"]) == 0
    crashed_size(guest, 4 << 20)
    guest.arm()
    before = tree(guest.path)
    tools.fails = "kexec"
    assert cli.main(["remove", "--yes"]) == 1
    assert "it fails" in capsys.readouterr().err
    assert tree(guest.path) == before


def test_remove_without_setup_does_nothing(
    guest: GuestRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["remove"]) == 0
    assert capsys.readouterr().out == "nothing was set up\n"


def test_damaged_record_is_named(guest: GuestRoot, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ('{"changes": [{"kind": "file", "key": "x"}]}', '{"changes": 3}', "{"):
        guest.write(str(changes.RECORD), text)
        assert cli.main(["remove", "--yes"]) == 1
        path = guest.path / changes.RECORD
        assert capsys.readouterr().err == f"pvdump remove: {path} is damaged: rm {path}\n"
