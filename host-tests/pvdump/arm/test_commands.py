"""The commands arm, disarm, test and status: what they say, and their exit codes."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fixtures.armingroot import MIB, ArmingRoot
from fixtures.targets import SIZE

from pvdump import cli
from pvdump.arm import arming, settings, trial
from pvdump.guest import crashtest, record
from pvfw import config, superblock


@pytest.fixture(autouse=True)
def system(guest: ArmingRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The laid out guest is the system, with xvdb as its target."""
    monkeypatch.setattr(record, "ROOT", guest.path)
    monkeypatch.setattr(settings, "SYSTEM", guest.path / "pvdump.yaml")
    guest.write("pvdump.yaml", "targets: [xvdb]\n")


@pytest.fixture
def run(
    guest: ArmingRoot, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; gives exit code, standard output and standard error."""

    def command(*words: str) -> tuple[int, str, str]:
        image = [f"--image={guest.image}"] if words[0] in ("arm", "test") else []
        code = cli.main([*words, *image])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


Run = Callable[..., tuple[int, str, str]]


# arm, and arm --check.


def test_arm_says_what_is_armed(run: Run) -> None:
    assert run("arm") == (0, "armed, xvdb\n", "")


def test_arm_without_a_target_says_where_the_log_goes(guest: ArmingRoot, run: Run) -> None:
    guest.write("pvdump.yaml", "")
    assert run("arm") == (0, "armed, without a target: the log goes to console and xenstore\n", "")


def test_a_refusal_is_one_line(guest: ArmingRoot, run: Run) -> None:
    guest.write("sys/kernel/kexec_crash_size", "0\n")
    code, out, err = run("arm")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("pvdump arm: no memory is reserved")


def full(guest: ArmingRoot) -> None:
    """Have more noise in memory than there is room for."""
    guest.target("xvdb", size=2 * MIB)
    guest.put(MIB, bytes(range(1, 256)) * 4096)
    guest.write("pvdump.yaml", "targets: [xvdb]\nlevel: 0\ncompress: none\n")


def test_too_little_room_is_told_but_armed(guest: ArmingRoot, run: Run) -> None:
    full(guest)
    code, out, err = run("arm")
    assert (code, out) == (0, "armed, xvdb\n")
    assert "a dump would take" in err


def test_a_check_changes_nothing_while_all_holds(guest: ArmingRoot, run: Run) -> None:
    run("arm")
    before = record.load(guest.path / arming.ARMED)
    assert run("arm", "--check") == (0, "", "")
    assert record.load(guest.path / arming.ARMED)["nonce_sha256"] == before["nonce_sha256"]


def test_a_check_arms_anew_where_something_moved(guest: ArmingRoot, run: Run) -> None:
    run("arm")
    guest.write("sys/kernel/kexec_crash_loaded", "0\n")
    assert run("arm", "--check") == (0, "arming anew: the image was unloaded since\n", "")
    assert run("arm", "--check") == (0, "", "")


@pytest.mark.parametrize("content", ["{", '{"time": 1}'])
def test_a_check_arms_anew_where_the_record_cannot_be_used(
    guest: ArmingRoot, run: Run, content: str
) -> None:
    run("arm")
    guest.write("run/pvdump/armed.json", content)
    code, out, err = run("arm", "--check")
    assert (code, err) == (0, "")
    assert out.startswith("arming anew: ")
    assert run("status")[0] == 0


def test_a_check_takes_the_place_of_another_crash_kernel_back(guest: ArmingRoot, run: Run) -> None:
    run("arm")
    guest.put(9 * MIB, bytes(4096))
    assert run("arm", "--check") == (0, "arming anew: another crash kernel was loaded since\n", "")
    assert run("status")[0] == 0


def test_a_check_that_cannot_arm_anew_says_why(guest: ArmingRoot, run: Run) -> None:
    run("arm")
    guest.target("xvdb", state=superblock.PARTIAL)
    code, out, err = run("arm", "--check")
    assert code == 1
    assert "it holds a dump" in out
    assert "it holds a dump (partial): `pvdump collect` it" in err
    assert err.endswith("; armed for the log alone\n")


def test_a_target_that_was_changed_is_not_written_before_it_is_armed_again(
    guest: ArmingRoot, run: Run
) -> None:
    run("arm")
    guest.target("xvdb", state=superblock.PARTIAL)
    for _ in range(2):
        assert run("arm", "--check")[0] == 1
        path = guest.path / arming.CONFIGURATION
        assert guest.commands[-1][-1] == f"--initrd={path}"
        assert len(config.decode(path.read_bytes()).targets) == 0
        code, out, _ = run("status")
        assert code == 1
        assert out.startswith("NOT READY: ")
        assert "it holds a dump (partial)" in out.splitlines()[0]
        assert "armed for the log alone" in out.splitlines()[0]
    guest.target("xvdb")
    assert run("arm", "--check")[::2] == (0, "")
    assert run("status")[1].splitlines()[0] == "armed"


def test_a_check_that_fails_for_another_reason_leaves_what_is_loaded(
    guest: ArmingRoot, run: Run
) -> None:
    run("arm")
    before = (guest.path / arming.CONFIGURATION).read_bytes()
    guest.write("sys/devices/system/cpu/present", "0-2\n")
    guest.image.unlink()
    assert run("arm", "--check")[0] == 1
    assert (guest.path / arming.CONFIGURATION).read_bytes() == before


def test_a_check_holds_the_estimate_against_the_room(guest: ArmingRoot, run: Run) -> None:
    run("arm")
    full(guest)
    code, out, err = run("arm", "--check")
    assert (code, out) == (1, "arming anew: the settings are others now\n")
    assert "a dump would take" in err
    assert run("arm", "--check")[0] == 1


def test_a_check_of_what_was_disarmed_arms_nothing(guest: ArmingRoot, run: Run) -> None:
    run("arm")
    assert run("disarm") == (0, "disarmed\n", "")
    commands = list(guest.commands)
    assert run("arm", "--check") == (1, "", "pvdump arm: not armed: `pvdump arm`\n")
    assert guest.commands == commands


def test_disarm_may_be_said_twice(run: Run) -> None:
    assert run("disarm") == (0, "no crash kernel was loaded\n", "")


# test.


def test_all_checks_are_ok_in_a_guest_that_is_right(guest: ArmingRoot, run: Run) -> None:
    code, out, err = run("test")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "ok      armed",
        "ok      configuration",
        "ok      target xvdb",
        "ok      image in memory",
        "ok      configuration in memory",
        "ok      list of memory",
        "ok      room",
    ]
    tested = record.load(guest.path / crashtest.TESTED)
    assert tested["ok"] is True
    assert len(tested["checks"]) == 7


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda guest: guest.put(8 * MIB + 0x10100, b"?"),
            "failed  image in memory: the image is not in the memory of the crash kernel",
        ),
        (
            lambda guest: guest.put(9 * MIB + 0x20, b"?"),
            "failed  configuration in memory: the configuration is not in the memory",
        ),
        (
            lambda guest: guest.put(8 * MIB + 0x1000, b"?"),
            "failed  list of memory: the list of all the guest's memory is not in the memory",
        ),
        (
            lambda guest: guest.target("xvdb", uuid=bytes(16)),
            "failed  target xvdb: xvdb: another target is there, by its UUID",
        ),
        (
            lambda guest: (guest.path / "proc/kcore").unlink(),
            "skipped memory of the crash kernel: ",
        ),
    ],
)
def test_a_check_says_what_is_wrong_and_what_mends_it(
    guest: ArmingRoot, run: Run, monkeypatch: pytest.MonkeyPatch, change: Any, line: str
) -> None:
    arm = arming.arm

    def then_change(*words: Any) -> dict[str, Any]:
        armed = arm(*words)
        change(guest)
        return armed

    monkeypatch.setattr(arming, "arm", then_change)
    code, out, _ = run("test")
    (found,) = [each for each in out.splitlines() if each.startswith(line)]
    assert (code == 1) == line.startswith("failed")
    assert line.startswith("skipped") or "`pvdump " in found
    assert record.load(guest.path / crashtest.TESTED)["ok"] == (code == 0)


def test_a_target_that_is_too_small_is_mended_by_one_that_is_made_anew(
    guest: ArmingRoot, run: Run
) -> None:
    full(guest)
    code, out, _ = run("test")
    (found,) = [each for each in out.splitlines() if each.startswith("failed  room: ")]
    assert code == 1
    assert "`pvdump remove && pvdump setup`" in found


def test_what_cannot_be_armed_is_not_looked_at_further(guest: ArmingRoot, run: Run) -> None:
    (guest.path / "dev/xvdb").unlink()
    code, out, _ = run("test")
    assert code == 1
    assert out.count("\n") == 1
    assert out.startswith("failed  armed: ")


# test --crash: the kernel of this test does not panic.


def test_a_crash_is_noted_and_asked_of_the_kernel(guest: ArmingRoot, run: Run) -> None:
    code, out, err = run("test", "--crash", "--yes")
    assert (code, err) == (1, "pvdump test: the kernel did not panic\n")
    assert out.endswith("panicking now\n")
    assert (guest.path / trial.SYSRQ).read_text() == "c"
    assert run("test", "--result") == (
        1,
        "a test is pending, but this guest has not panicked since\n",
        "",
    )


def test_a_crash_needs_a_terminal_or_a_yes(guest: ArmingRoot, run: Run) -> None:
    code, _, err = run("test", "--crash")
    assert (code, "say --yes" in err) == (1, True)
    assert (guest.path / trial.SYSRQ).read_text() == ""
    assert "crash" not in record.load(guest.path / crashtest.TESTED)


def test_nothing_panics_where_a_check_failed(guest: ArmingRoot, run: Run) -> None:
    (guest.path / "dev/xvdb").unlink()
    assert run("test", "--crash", "--yes")[0] == 1
    assert (guest.path / trial.SYSRQ).read_text() == ""


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_after_the_reboot_what_came_of_the_crash_is_told(
    guest: ArmingRoot, run: Run, ok: bool, code: int
) -> None:
    run("test", "--crash", "--yes")
    crashtest.settle(guest.path, True, "too early: the guest has not restarted")
    guest.write("proc/sys/kernel/random/boot_id", "second\n")
    assert run("test", "--result")[1].startswith("the guest restarted without a dump")
    crashtest.settle(guest.path, ok, "what came of it")
    crashtest.settle(guest.path, not ok, "too late: it is settled")
    assert run("test", "--result") == (code, "what came of it\n", "")
    run("test")
    assert run("test", "--result") == (code, "what came of it\n", "")


def test_without_a_crash_there_is_no_result(run: Run) -> None:
    assert run("test", "--result")[:2] == (
        1,
        "no test has panicked this guest: `pvdump test --crash`\n",
    )


# status.


def test_status_of_an_armed_guest(guest: ArmingRoot, run: Run) -> None:
    run("arm")
    code, out, err = run("status")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "armed"
    assert lines[2] == f"target     xvdb on xvdb, room {(SIZE - MIB) / MIB:.0f} MiB"
    assert lines[4:] == ["last dump  none", "last test  none: `pvdump test`"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda guest: guest.write("sys/kernel/kexec_crash_size", "0\n"), "no memory is reserved"),
        (lambda guest: guest.write("sys/kernel/kexec_crash_loaded", "0\n"), "was unloaded since"),
        (lambda guest: (guest.path / arming.ARMED).unlink(), "that `pvdump arm` did not load"),
        (lambda guest: guest.write("run/pvdump/armed.json", "{"), "is damaged: rm "),
        (lambda guest: guest.put(9 * MIB, bytes(4096)), "another crash kernel was loaded since"),
        (lambda guest: guest.target("xvdb", state=superblock.COMPLETE), "it holds a dump"),
        (lambda guest: (guest.path / "dev/xvdb").unlink(), "No such file"),
    ],
)
def test_status_says_first_why_a_panic_would_not_be_dumped(
    guest: ArmingRoot, run: Run, change: Any, why: str
) -> None:
    run("arm")
    change(guest)
    code, out, _ = run("status")
    first = out.splitlines()[0]
    assert (code, first.startswith("NOT READY: "), why in first) == (1, True, True)
    code, out, _ = run("status", "--json")
    found = json.loads(out)
    assert (code, found["ready"], f"NOT READY: {found['why']}") == (1, False, first)


def test_status_without_arming(run: Run) -> None:
    code, out, _ = run("status")
    assert (code, out.splitlines()[0]) == (1, "NOT READY: not armed: `pvdump arm`")


def test_status_has_the_last_dump_and_the_last_test(guest: ArmingRoot, run: Run) -> None:
    run("test", "--crash", "--yes")
    dump = {"folder": "/var/crash/x", "time": "2026-11-28T15:00:00", "reason": "Oops"}
    record.save(guest.path / record.STATE / "collected.json", {**dump, "complete": False})
    lines = run("status")[1].splitlines()
    assert lines[-2] == "last dump  /var/crash/x, 2026-11-28T15:00:00, incomplete: Oops"
    assert lines[-1].startswith("last test  ok, ")
    assert "; with a panic: pending, " in lines[-1]
    found = json.loads(run("status", "--json")[1])
    assert found["dump"]["folder"] == "/var/crash/x"
    assert found["test"]["crash"]["pending"] is True
    assert "nonce_sha256" not in found["armed"]
