"""The targets that are files are watched by systemd; a guest without it is armed all the same."""

import pytest
from fixtures.armingroot import ArmingRoot

from pvdump.arm import watch
from pvdump.guest import programs

SYSTEMD = ("systemctl", "systemd-run")


@pytest.fixture
def systemd(guest: ArmingRoot) -> ArmingRoot:
    """A guest with systemd, and the units of the package."""
    guest.write("usr/lib/systemd/system/pvdump-check.service", "")
    (guest.path / "run/systemd/system").mkdir(parents=True)
    guest.others = SYSTEMD
    return guest


def test_files_are_watched_in_place_of_those_of_before(systemd: ArmingRoot) -> None:
    systemd.write("100%.img", "")
    watch.begin([systemd.path / "100%.img", systemd.path / "dev"], systemd.path)
    assert systemd.commands == [
        ["systemctl", "stop", "pvdump-check.path"],
        [
            *("systemd-run", "--quiet", "--unit=pvdump-check"),
            f"--path-property=PathChanged={systemd.path}/100%%.img",
        ],
    ]


def test_without_files_nothing_is_watched(systemd: ArmingRoot) -> None:
    watch.begin([], systemd.path)
    assert systemd.commands == [["systemctl", "stop", "pvdump-check.path"]]


@pytest.mark.parametrize(
    "missing", ["run/systemd/system", "usr/lib/systemd/system/pvdump-check.service"]
)
def test_a_guest_without_systemd_or_the_units_watches_nothing(
    systemd: ArmingRoot, missing: str
) -> None:
    (systemd.path / missing).rename(systemd.path / "gone")
    watch.begin([systemd.image], systemd.path)
    watch.end(systemd.path)
    assert systemd.commands == []


def test_what_systemd_refuses_is_told(
    systemd: ArmingRoot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(words: list[str]) -> str:
        raise programs.ProgramError(f"{words[0]}: it is asleep")

    monkeypatch.setattr(programs, "run", refuse)
    watch.begin([systemd.image], systemd.path)
    assert capsys.readouterr().err.endswith(
        "systemd-run: it is asleep; a change of the target is found by the daily check\n"
    )
