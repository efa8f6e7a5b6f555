"""Setup says what it will do, and does it once."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.guestroot import UNITS, WANTS, GuestRoot
from fixtures.systemtools import SystemTools, crashed_size, each_loader, next_boot, tree

from pvdump import cli
from pvdump.guest import booted, changes, choice, facts, programs, setup, systemd


@pytest.fixture
def guest(tools: SystemTools) -> GuestRoot:
    return tools.guest


@each_loader
def test_next_boot_reserves_the_memory(
    guest: GuestRoot, lay_out: Callable[[GuestRoot], None]
) -> None:
    lay_out(guest)
    assert next_boot(guest) != "4M"
    assert cli.main(["setup", "--yes"]) == 0
    assert next_boot(guest) == "4M"
    assert "reboot" in guest.found()


@each_loader
def test_second_setup_changes_nothing(
    tools: SystemTools,
    guest: GuestRoot,
    lay_out: Callable[[GuestRoot], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    lay_out(guest)
    assert cli.main(["setup", "--yes"]) == 0
    before = tree(guest.path)
    tools.commands.clear()
    assert cli.main(["setup", "--yes"]) == 0
    assert "Nothing is to be changed." in capsys.readouterr().out
    assert (tree(guest.path), tools.commands) == (before, [])


@each_loader
def test_dry_run_changes_nothing_and_shows_diffs_and_programs(
    tools: SystemTools,
    guest: GuestRoot,
    lay_out: Callable[[GuestRoot], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    lay_out(guest)
    before = tree(guest.path)
    assert cli.main(["setup", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert tree(guest.path) == before
    assert all(line.startswith("grubby --info") for line in tools.commands)
    assert "+targets: [xvdb]" in out
    assert "-#targets: []" in out
    assert "run systemctl enable pvdump.service" in out


def test_guest_that_has_the_memory_is_armed_at_once(tools: SystemTools, guest: GuestRoot) -> None:
    crashed_size(guest, 4 << 20)
    guest.write("proc/cmdline", "ro crashkernel=4M")
    assert cli.main(["setup", "--yes"]) == 0
    assert "systemctl restart pvdump.service" in tools.commands
    assert guest.facts().crash.loaded
    assert cli.main(["doctor"]) == 0


def test_doctor_is_green_after_setup_and_a_reboot(guest: GuestRoot) -> None:
    assert cli.main(["doctor"]) == 1
    assert cli.main(["setup", "--yes"]) == 0
    guest.write("proc/cmdline", "ro crashkernel=4M")
    crashed_size(guest, 4 << 20)
    guest.arm()
    assert cli.main(["doctor"]) == 0


def test_kdump_tools_is_told_of_and_put_out_of_the_way(
    tools: SystemTools, guest: GuestRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.kdump_tools()
    assert cli.main(["setup", "--yes"]) == 0
    assert "kdump-tools is installed: pvdump takes its place" in capsys.readouterr().out
    assert "USE_KDUMP=0\n" in (guest.path / "etc/default/kdump-tools").read_text()
    assert "systemctl mask --now kdump-tools.service" in tools.commands
    assert not {"rival", "rival-rule"} & set(guest.found())


def test_settings_keep_what_a_person_wrote(guest: GuestRoot) -> None:
    text = "# ours\nlevel: 23   # with user pages\n\nkeep: 2\n"
    guest.write("etc/pvdump.yaml", text)
    assert cli.main(["setup", "--yes"]) == 0
    assert (guest.path / "etc/pvdump.yaml").read_text() == f"{text}targets: [xvdb]\n"


def test_level_is_written_where_it_was_asked_for(guest: GuestRoot) -> None:
    assert cli.main(["setup", "--yes", "--level", "17"]) == 0
    assert (guest.path / "etc/pvdump.yaml").read_text().endswith("level: 17\n")


def test_target_that_a_person_configured_stays(guest: GuestRoot) -> None:
    guest.target("xvdc")
    guest.write("etc/pvdump.yaml", "targets:\n  - xvdc\n")
    assert cli.main(["setup", "--yes"]) == 0
    assert (guest.path / "etc/pvdump.yaml").read_text() == "targets:\n  - xvdc\n"


def test_configured_target_that_is_refused_is_told(
    guest: GuestRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.write("etc/pvdump.yaml", "targets: [xvdd]\n")
    before = tree(guest.path)
    assert cli.main(["setup", "--yes"]) == 1
    assert "xvdd: No such file or directory; say --target" in capsys.readouterr().err
    assert tree(guest.path) == before


def test_named_target_comes_before_those_of_before(
    guest: GuestRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "named", lambda name, wish: choice.Choice("xvdb", "", []))
    guest.target("xvdc")
    guest.write("etc/pvdump.yaml", "targets: [xvdc]\n")
    assert cli.main(["setup", "--yes", "--target", "/dev/xvdb"]) == 0
    assert (guest.path / "etc/pvdump.yaml").read_text() == "targets: [xvdb, xvdc]\n"


def test_oops_panics_from_now_on(guest: GuestRoot) -> None:
    assert cli.main(["setup", "--yes"]) == 0
    assert (guest.path / "proc/sys/kernel/panic_on_oops").read_text() == "1"
    assert "kernel.panic_on_oops = 1" in (guest.path / "etc/sysctl.d/60-pvdump.conf").read_text()


def test_what_else_may_panic_is_offered_and_not_done(
    guest: GuestRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.write("proc/sys/kernel/hung_task_panic", "0")
    assert cli.main(["setup", "--yes"]) == 0
    assert "you may also want: echo kernel.hung_task_panic=1" in capsys.readouterr().out
    assert (guest.path / "proc/sys/kernel/hung_task_panic").read_text() == "0"


def test_units_of_a_wheel_are_installed_with_its_own_program(guest: GuestRoot) -> None:
    for name in list((guest.path / "usr/lib/systemd/system").glob("pvdump*")):
        name.unlink()
    guest.remove("usr/lib/udev/rules.d/90-pvdump.rules")
    assert cli.main(["setup", "--yes"]) == 0
    local = guest.path / "etc/systemd/system"
    assert {path.name for path in local.glob("pvdump*") if path.is_file()} == {
        *facts.UNITS,
        facts.BOOTED,
        "pvdump-check.service",
        "pvdump-hotplug.timer",
    }
    unit = (local / "pvdump.service").read_text()
    assert "ExecStart=/usr/bin/pvdump " not in unit
    assert "-m pvdump arm" in unit
    # Where the program is, too, another file system may be mounted.
    program = Path(sys.executable).parent
    unit = (local / "pvdump-collect.service").read_text()
    assert f"RequiresMountsFor=/etc /usr {program} /var/lib/pvdump\n" in unit
    assert (guest.path / "etc/udev/rules.d/90-pvdump.rules").exists()


def test_every_unit_that_systemd_can_enable_is_enabled() -> None:
    units = [path for path in systemd.PACKAGED.iterdir() if "\n[Install]\n" in path.read_text()]
    assert {path.name for path in units} == {*facts.UNITS, facts.BOOTED}


@pytest.mark.parametrize("kind", ["114", "144", "", "255"])
def test_boots_are_counted_in_a_guest_that_pvboot_has_booted(
    guest: GuestRoot, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    monkeypatch.setattr(booted, "begin", lambda: counted.append("begin"))
    monkeypatch.setattr(booted, "end", lambda: counted.append("end") or [])
    if kind:
        guest.write("proc/sys/kernel/bootloader_type", kind)
    guest.write(f"{UNITS}/{facts.BOOTED}", "")
    before = tree(guest.path)
    for _ in range(2):
        assert cli.main(["setup", "--yes"]) == 0
    link = guest.path / WANTS / facts.BOOTED
    assert link.is_symlink() == (kind == "255")
    assert counted == ["begin"] * (kind == "255")
    assert cli.main(["remove", "--yes"]) == 0
    assert counted == ["begin", "end"] * (kind == "255")
    assert not link.is_symlink()
    assert tree(guest.path) == before


def test_reservation_that_a_person_made_larger_stays(tools: SystemTools, guest: GuestRoot) -> None:
    guest.write("etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="crashkernel=6M"\n')
    programs.run(["update-grub"])
    crashed_size(guest, 6 << 20)
    assert cli.main(["setup", "--yes"]) == 0
    assert tools.commands.count("update-grub") == 1
    assert next_boot(guest) == "6M"


def test_guest_without_a_known_loader_is_told_what_to_add(
    guest: GuestRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.remove("usr/sbin/update-grub")
    assert cli.main(["setup", "--yes"]) == 0
    assert "add crashkernel=4M to the kernel's command line" in capsys.readouterr().out


def test_guest_without_systemd_is_told_what_to_run_at_boot(
    tools: SystemTools, guest: GuestRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.remove("run/systemd")
    assert cli.main(["setup", "--yes"]) == 0
    assert "have `pvdump collect` and then `pvdump arm` run at boot" in capsys.readouterr().out
    assert not [line for line in tools.commands if line.startswith("systemctl")]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("sys/hypervisor/type", "kvm", "no Xen guest"),
        ("sys/hypervisor/guest_type", "PV", "this is a PV guest"),
        ("proc/xen/capabilities", "control_d", "this is dom0"),
        ("pvdump.bin", "x", "there is no image"),
    ],
)
def test_guest_that_cannot_dump_is_refused_with_the_reason(
    guest: GuestRoot,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str,
    line: str,
) -> None:
    guest.write(name, content)
    before = tree(guest.path)
    assert cli.main(["setup", "--yes"]) == 1
    assert line in capsys.readouterr().err
    assert tree(guest.path) == before


def test_what_depends_on_dom0_is_told_and_setup_goes_on(
    guest: GuestRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.write("sys/hypervisor/guest_type", "PVH")
    assert cli.main(["setup", "--yes"]) == 0
    assert 'ask for: type = "hvm"' in capsys.readouterr().out


@pytest.mark.parametrize("command", ["setup", "remove"])
def test_without_a_terminal_and_yes_nothing_is_changed(
    guest: GuestRoot, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    if command == "remove":
        assert cli.main(["setup", "--yes"]) == 0
    before = tree(guest.path)
    assert cli.main([command]) == 1
    assert "say --yes" in capsys.readouterr().err
    assert tree(guest.path) == before


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("yes\n", 0), ("\n", 1), ("n\n", 1)])
def test_person_is_asked_once(
    guest: GuestRoot,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    code: int,
) -> None:
    answers = [answer]

    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answers.pop(0)

    monkeypatch.setattr("sys.stdin", Terminal())
    assert cli.main(["setup"]) == code
    assert capsys.readouterr().out.count("Do this? [y/N]") == 1
    assert bool((guest.path / changes.RECORD).exists()) == (code == 0)


@pytest.mark.parametrize("value", ["disk", "xvdb", "", "dev/xvdb"])
def test_target_is_a_word_or_an_absolute_name(value: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="file, swap or /"):
        setup.target(value)


def test_mode_of_a_changed_file_stays(guest: GuestRoot) -> None:
    path = Path(guest.path / "etc/pvdump.yaml")
    path.chmod(0o640)
    assert cli.main(["setup", "--yes"]) == 0
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("key", ["directory", "hooks"])
def test_collecting_waits_for_what_the_settings_name(
    tools: SystemTools, guest: GuestRoot, key: str
) -> None:
    assert cli.main(["setup", "--yes"]) == 0
    path = guest.path / "etc/pvdump.yaml"
    path.write_text(path.read_text() + f"{key}: /srv/of-mine\n")
    assert not guest.facts().waiting
    tools.commands.clear()
    assert cli.main(["setup", "--yes"]) == 0
    text = (guest.path / systemd.WAITS).read_text()
    assert "RequiresMountsFor=/srv/of-mine\n" in text
    assert "Wants=dev-xvdb.device\nAfter=dev-xvdb.device\n" in text
    assert ("systemctl daemon-reload" in tools.commands, guest.facts().waiting) == (True, True)
    assert cli.main(["remove", "--yes"]) == 0
    assert not (guest.path / systemd.WAITS.parent).exists()


def test_units_name_nothing_that_the_settings_can_change() -> None:
    for path in systemd.PACKAGED.iterdir():
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert not {"/var/crash", "/etc/pvdump/hooks", "xvd"} & set(" ".join(lines).split()), path
