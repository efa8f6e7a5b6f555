"""`pvdump collect` without names: dumps get folders of their own, targets are ready again."""

import json
import shutil
from pathlib import Path

import pytest
from fixtures import powercut
from fixtures.agetools import Person
from fixtures.cutcrash import CutCrash
from fixtures.sealing import sealed_stream, target
from fixtures.targets import PAGE, make, vmcore

from pvdump.dump.collect import collect
from pvdump.dump.info import info
from pvdump.guest import crashtest, dumps, gather, record, reports, retention
from pvdump.guest.gather import Guest
from pvdump.guest.motd import MOTD
from pvfw import superblock

DATA = vmcore()  # of the old form, an ELF vmcore, which needs no guest to be made
NAME = "2023-11-14T221320Z-6.1.0-test"
CAUSE = "sysrq: Trigger a crash; CPU: 1 UID: 0 PID: 97 Comm: sh"
MOMENTS, EARLY = 20, 5


@pytest.fixture
def disk(tmp_path: Path, dumped: bytes) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(dumped)
    return path


@pytest.fixture(scope="module")
def small() -> bytes:
    """The disk with a small dump."""
    return bytes(CutCrash(1).by_firmware().disk.data)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "crash", 5, 0, tmp_path / "hooks", tmp_path / "root")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports that take no process: they are not what the test is about."""

    def write(folder: Path, vmcore: str) -> list[str]:
        (folder / reports.TEXT).write_text(f"of {vmcore}")
        return []

    monkeypatch.setattr(reports, "write", write)


def run(guest: Guest, *paths: Path, defer_hooks: bool = False, own: bool = True) -> int:
    return gather.gather(guest, list(paths), defer_hooks, own)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def only(guest: Guest) -> dumps.Dump:
    """The one dump that there is; its folder has nothing beside it."""
    (dump,) = dumps.found(guest.directory)
    assert names(guest.directory) == [dump.path.name]
    return dump


pytestmark = pytest.mark.usefixtures("quick")


def test_a_dump_gets_a_folder_and_its_target_is_ready_again(guest: Guest, disk: Path) -> None:
    collect(disk, disk.with_name("expected"), form="kdump", noted=False)
    before = info(disk)
    assert run(guest, disk) == 0
    dump = only(guest)
    assert names(dump.path) == ["log.txt", "pvdump.json", "report.txt", "vmcore"]
    assert (dump.path / "vmcore").read_bytes() == disk.with_name("expected").read_bytes()
    assert "sysrq: Trigger a crash" in (dump.path / "log.txt").read_text()
    after = info(disk)
    assert (after["state"], after["uuid"]) == ("ready", before["uuid"])
    assert (dump.facts.release, dump.facts.reason) == ("6.12.0-test", CAUSE)
    assert dump.facts.complete


def test_the_folder_is_named_by_the_time_of_the_panic_and_the_kernel(
    guest: Guest, tmp_path: Path
) -> None:
    make(tmp_path / "disk", superblock.COMPLETE, DATA)
    assert run(guest, tmp_path / "disk") == 0
    assert names(guest.directory) == [NAME]


def test_two_dumps_of_the_same_second_get_two_folders(guest: Guest, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(tmp_path / name, superblock.COMPLETE, DATA)
        block = superblock.decode((tmp_path / name).read_bytes())
        block.uuid = name.encode().ljust(16)
        with (tmp_path / name).open("r+b") as stream:
            stream.write(block.encode())
    assert run(guest, tmp_path / "one", tmp_path / "two") == 0
    assert names(guest.directory) == [NAME, f"{NAME}-2"]


def test_nobody_else_can_read_a_dump(guest: Guest, disk: Path) -> None:
    run(guest, disk)
    dump = only(guest)
    assert guest.directory.stat().st_mode & 0o777 == 0o700
    assert dump.path.stat().st_mode & 0o777 == 0o700
    for name in ("vmcore", "log.txt", "pvdump.json"):
        assert (dump.path / name).stat().st_mode & 0o777 == 0o600


def test_a_target_without_a_dump_is_left_as_it_is(
    guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "disk"
    make(path, superblock.READY, b"")
    before = path.read_bytes()
    assert run(guest, path) == 0
    assert capsys.readouterr().out == f"{path} holds no dump: it is ready for one\n"
    assert path.read_bytes() == before
    assert names(guest.directory) == []


@pytest.mark.parametrize("state", [superblock.PARTIAL, superblock.WRITING])
def test_a_dump_that_ended_early_is_kept_as_partial(
    guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str], state: int
) -> None:
    path = tmp_path / "disk"
    make(path, state, DATA, 50 * PAGE)
    assert run(guest, path) == 3
    dump = only(guest)
    assert not dump.facts.complete
    assert dump.facts.missing
    error = capsys.readouterr().err
    assert "part of the dump is missing: " in error
    assert "still writing" not in error
    assert info(path)["state"] == "ready"


def test_a_dump_that_is_damaged_stays_on_its_target(
    guest: Guest, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with disk.open("r+b") as stream:
        stream.seek(superblock.DATA_OFFSET + 40 * PAGE)
        stream.write(bytes(range(256)) * 16)
    before = disk.read_bytes()
    for _ in range(2):
        assert run(guest, disk) == 1
        assert not only(guest).facts.complete
        assert f"`pvdump prepare --force {disk}`" in capsys.readouterr().err
        assert disk.read_bytes() == before


def test_a_target_that_another_machine_may_still_write_is_refused(
    guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "disk"
    make(path, superblock.WRITING, DATA, 50 * PAGE)
    assert run(guest, path, own=False) == 1
    assert "the guest is still writing" in capsys.readouterr().err
    assert info(path)["state"] == "writing"


def test_a_dump_of_another_machine_is_not_told_as_this_one_s(guest: Guest, disk: Path) -> None:
    assert run(guest, disk, own=False) == 0
    assert only(guest).facts.complete
    assert not guest.root.exists()


def test_a_dump_that_was_collected_by_hand_is_not_collected_again(
    guest: Guest, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collect(disk, disk.with_name("vmcore"), form="kdump")
    assert run(guest, disk) == 0
    assert "was collected before" in capsys.readouterr().out
    assert info(disk)["state"] == "ready"
    assert names(guest.directory) == []


def test_a_target_that_fails_costs_the_others_nothing(
    guest: Guest, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(guest, disk.with_name("none"), disk) == 1
    assert capsys.readouterr().err == (
        f"pvdump collect: {disk.with_name('none')}: No such file or directory\n"
    )
    assert only(guest).facts.complete


def test_an_encrypted_dump_is_saved_as_it_is_without_log_or_report(
    guest: Guest, tmp_path: Path
) -> None:
    path = tmp_path / "disk"
    target(path, sealed_stream([Person()]))
    collect(path, tmp_path / "expected", form="", noted=False)
    assert run(guest, path) == 0
    dump = only(guest)
    assert names(dump.path) == ["pvdump.json", "vmcore.age"]
    expected = (tmp_path / "expected.age").read_bytes()
    assert (dump.path / "vmcore.age").read_bytes() == expected
    assert dump.facts.encrypted
    assert info(path)["state"] == "ready"


def test_too_little_room_leaves_dump_and_target_as_they_are(
    guest: Guest, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = disk.read_bytes()
    tight = Guest(guest.directory, 5, 1 << 60, guest.hooks, guest.root)
    assert run(tight, disk) == 1
    assert "are to stay free (keep_free)" in capsys.readouterr().err
    assert disk.read_bytes() == before
    assert names(guest.directory) == []


@pytest.mark.parametrize(("total", "needed"), [(1 << 40, 2 << 30), (1 << 30, (1 << 30) // 10)])
def test_by_default_a_tenth_stays_free_and_two_gib_at_most(
    guest: Guest, disk: Path, monkeypatch: pytest.MonkeyPatch, total: int, needed: int
) -> None:
    usual = Guest(guest.directory, 5, None, guest.hooks, guest.root)
    monkeypatch.setattr(retention, "_room", lambda directory: (needed, total))
    assert run(usual, disk) == 1
    monkeypatch.setattr(retention, "_room", lambda directory: (needed + (64 << 20), total))
    assert run(usual, disk) == 0


def test_the_last_dump_is_recorded_and_shown_at_login(guest: Guest, disk: Path) -> None:
    run(guest, disk)
    dump = only(guest)
    found = record.load(guest.root / record.STATE / gather.COLLECTED)
    assert found["folder"] == str(dump.path)
    assert (found["reason"], found["complete"]) == (CAUSE, True)
    path = guest.root / MOTD
    assert str(dump.path) in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644


def test_who_logs_in_sees_nothing_of_the_kernel_s_log(guest: Guest, disk: Path) -> None:
    run(guest, disk)
    assert "sysrq" not in (guest.root / MOTD).read_text()


@pytest.mark.parametrize("complete", [True, False])
def test_a_test_that_panicked_the_guest_gets_its_result(
    guest: Guest, tmp_path: Path, complete: bool
) -> None:
    boot = guest.root / crashtest.BOOT_ID
    boot.parent.mkdir(parents=True)
    boot.write_text("before\n")
    crashtest.begin(guest.root)
    boot.write_text("after\n")
    state = superblock.COMPLETE if complete else superblock.PARTIAL
    make(tmp_path / "disk", state, DATA, None if complete else 50 * PAGE)
    run(guest, tmp_path / "disk")
    part = "" if complete else "part of "
    line = f"{part}the dump is in {only(guest).path}"
    assert crashtest.result(guest.root) == (complete, line)


def test_a_second_run_beside_the_first_is_refused(guest: Guest, disk: Path) -> None:
    with dumps.locked(guest.directory), pytest.raises(dumps.DiskError, match="another collect"):
        run(guest, disk)


@pytest.mark.parametrize("loses", [False, True], ids=["keeps", "loses"])
@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_power_cut_at_any_moment_loses_nothing(
    guest: Guest, tmp_path: Path, small: bytes, moment: int, loses: bool
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(small)
    collect(disk, disk.with_name("expected"), form="kdump", noted=False)
    number = powercut.moments(lambda: run(guest, disk), disk)
    for folder in (guest.directory, guest.root):
        shutil.rmtree(folder)
    disk.write_bytes(small)
    # A few while the dump is copied, most while all else is done.
    at = number * moment // EARLY if moment < EARLY else number - 3 * (MOMENTS - moment)
    cut = powercut.run(lambda: run(guest, disk), at, loses, disk)
    assert cut == powercut.ENDED
    assert run(guest, disk) == 0
    made = only(guest)
    assert names(made.path) == ["log.txt", "pvdump.json", "report.txt", "vmcore"]
    assert (made.path / "vmcore").read_bytes() == disk.with_name("expected").read_bytes()
    assert made.facts.complete
    assert info(disk)["state"] == "ready"
    assert json.loads((made.path / dumps.MARKER).read_text())["pending"] is False
