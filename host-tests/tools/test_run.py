"""`./build.py run`: what it starts, and how it ends where something named cannot be used."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pvfw.superblock import COMPLETE, Superblock, decode
from tools import Trouble, run
from tools.image import build

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"
SIZE = 64 << 20


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    """Runs the image with the arguments of `build.py run`. Returns the exit status."""
    built = build(tmp_path_factory.mktemp("image"))
    elf, flat = built.elf.read_bytes(), built.bin.read_bytes()
    return lambda *arguments: run.play(run.options(arguments), elf, flat)


def test_without_arguments_a_crash_is_dumped_to_a_disk_in_memory(play, capsys):
    assert play() == 0
    said = capsys.readouterr()
    assert "pvdump: dump complete: " in said.out
    assert said.err == "the domain has ended: powered off\n"


def test_a_disk_that_is_named_gets_the_dump(play, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(Superblock(bytes(16), SIZE).encode())
    with disk.open("r+b") as stream:
        stream.truncate(SIZE)
    assert play("--disk", str(disk)) == 0
    assert decode(disk.read_bytes()[:512]).state == COMPLETE


def test_pvdump_elf_is_started_as_a_pvh_kernel_and_checks_the_guest(play, capsys):
    assert play("--check") == 0
    said = capsys.readouterr().out
    assert "pvdump: firmware at 0x100000" in said
    assert "pvdump: check passed" in said


def test_a_console_that_nobody_reads_any_more_ends_the_run():
    program = "import sys; from tools import run; sys.exit(run.main(sys.argv[1:]))"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as console:
        done = subprocess.run(
            [sys.executable, "-c", program, "--check"],
            cwd=SCENARIOS.parents[1],
            stdout=console,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == -signal.SIGPIPE
    assert "Traceback" not in done.stderr


def test_a_scenario_strikes(play, capsys):
    play("--scenario", str(SCENARIOS / "disk-full.yaml"), "--seed", "3")
    assert "pvdump: dump failed: " in capsys.readouterr().out


def test_a_domain_that_crashes_is_an_exit_status_of_1(play, capsys):
    assert play("--cmdline", "pvdump.fault=ud") == 1
    assert capsys.readouterr().err == "the domain has ended: crash\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["a.py", "b.py", "c.py"], "3 scripts; two at most"),
        (["a.py", "b.py", "--shell"], "--shell and --scenario are for one domain"),
        (["a.py", "b.py", "--scenario", "x"], "--shell and --scenario are for one domain"),
        (["--with", "x"], "--with is for a script"),
        (["--check", "--shell"], "--check is for pvdump.elf"),
        (["--check", "a.py"], "--check is for pvdump.elf"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(capsys, arguments, complaint):
    with pytest.raises(SystemExit, match="2"):
        run.options(arguments)
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--disk", "/nowhere/disk"], "No such file or directory: '/nowhere/disk'"),
        (["--scenario", "/nowhere/it.yaml"], "No such file or directory: '/nowhere/it.yaml'"),
        (["--scenario", __file__], "test_run.py"),
        (["--cmdline", "x" * 3000], "a command line of 3021 bytes; 2047 are possible"),
        (["--disk", __file__] * 16, "15 disks at most, 16 given"),
        (["/nowhere/script.py"], "No such file or directory: '/nowhere/script.py'"),
        ([str(SCENARIOS)], "scenarios is no file"),
        (["/dev/null"], "/dev/null is no file"),
        ([__file__, "--with", "/nowhere"], "No such file or directory: '/nowhere'"),
        ([__file__, "--with", str(SCENARIOS)], "there is no module in"),
    ],
)
def test_what_cannot_be_used_is_one_line(play, arguments, complaint):
    with pytest.raises(Trouble, match=r"(?s)^[^\n]*$") as trouble:
        play(*arguments)
    assert complaint in str(trouble.value)
