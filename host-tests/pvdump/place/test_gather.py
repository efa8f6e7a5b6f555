"""`pvdump collect` without names, of a file on a real ext4 or xfs: it is ready again, and stays."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures import powercut
from fixtures.guestdisks import Disk
from fixtures.placed import arm, target
from fixtures.placedcrash import PlacedCrash

from pvdump import cli
from pvdump.dump.collect import collect
from pvdump.dump.info import info
from pvdump.guest import dumps, gather, reports
from pvdump.guest.gather import Guest

KINDS = ["ext4", "xfs"]
TAIL = 12  # moments at the end, in which the target is written


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reports, "write", lambda folder, vmcore: [])


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "crash", 5, 0, tmp_path / "hooks", tmp_path / "root")


@pytest.fixture
def dumped(made: Callable[..., Path], disk: Disk, request: pytest.FixtureRequest) -> Path:
    """A file with a dump."""
    folder = made(getattr(request, "param", "ext4"))
    path = folder / "pvdump.img"
    assert cli.main(["prepare", "--file", str(path), "--size=48M"]) == 0
    assert arm(path) == 0
    subprocess.run(["umount", str(folder)], check=True)
    crash = PlacedCrash(content=disk.image.read_bytes())
    crash.configure([target()])
    crash.run()
    disk.image.write_bytes(crash.disk.data)
    subprocess.run(["mount", str(disk.part), str(folder)], check=True)
    return path


def is_immutable(path: Path) -> bool:
    said = subprocess.run(["lsattr", str(path)], check=True, capture_output=True, text=True).stdout
    return "i" in said.split()[0]


@pytest.mark.parametrize("dumped", KINDS, indirect=True)
def test_the_file_is_ready_again_and_can_be_armed(dumped: Path, guest: Guest) -> None:
    collect(dumped, Path("expected"), form="kdump", noted=False)
    assert gather.gather(guest, [dumped], False) == 0
    (dump,) = dumps.found(guest.directory)
    assert (dump.path / "vmcore").read_bytes() == Path("expected").read_bytes()
    assert is_immutable(dumped)
    assert arm(dumped) == 0


def test_after_a_power_cut_while_it_is_written_the_next_run_has_it_immutable_and_ready(
    dumped: Path, guest: Guest, disk: Disk
) -> None:
    def work() -> int:
        return gather.gather(guest, [dumped], False)

    subprocess.run(["umount", str(dumped.parent)], check=True)
    content = disk.image.read_bytes()
    left_mutable = 0
    number = 0
    for back in range(TAIL):
        disk.image.write_bytes(content)
        subprocess.run(["mount", str(disk.part), str(dumped.parent)], check=True)
        if number:
            assert powercut.run(work, number - back, False, dumped) == powercut.ENDED
            left_mutable += not is_immutable(dumped)
            assert work() == 0
            assert info(dumped)["state"] == "ready"
            assert is_immutable(dumped)
            assert len(dumps.found(guest.directory)) == 1
        else:
            number = powercut.moments(work, dumped)
        for folder in (guest.directory, guest.root):
            shutil.rmtree(folder)
        subprocess.run(["umount", str(dumped.parent)], check=True)
    assert left_mutable
    subprocess.run(["mount", str(disk.part), str(dumped.parent)], check=True)


def test_a_file_that_was_left_mutable_is_immutable_again(dumped: Path, guest: Guest) -> None:
    assert gather.gather(guest, [dumped], False) == 0
    subprocess.run(["chattr", "-i", str(dumped)], check=True)
    assert gather.gather(guest, [dumped], False) == 0
    assert is_immutable(dumped)
