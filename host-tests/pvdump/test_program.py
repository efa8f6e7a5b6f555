"""The program `pvdump` as a process: its streams, its signals, and what it imports."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fixtures.targets import make, vmcore

import pvdump
from pvdump.dump.output import PART
from pvfw import superblock

DATA = vmcore()
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
PVDUMP = [sys.executable, "-m", "pvdump"]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    make(path, superblock.COMPLETE, DATA)
    return path


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [*PVDUMP, *map(str, words)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, check=False, env=ENVIRONMENT, **options)


def test_it_runs_as_a_module(disk: Path) -> None:
    done = run("info", disk)
    assert (done.returncode, done.stderr) == (0, b"")


def test_version_is_told(tmp_path: Path) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout.decode()) == (0, f"pvdump {pvdump.__version__}\n")


@pytest.mark.parametrize(
    ("words", "rooms"),
    [
        ("--help", {}),
        ("--version", {}),
        ("info DISK", {"dump"}),
        ("collect DISK OUT", {"arm", "dump", "guest"}),
        ("arm --help", {"arm", "dump", "guest", "place"}),
        ("doctor --help", {"arm", "dump", "guest", "place", "xenstore"}),
        ("watches --help", {"watches", "service", "xenstore"}),
        ("xenstored --help", {"xenstored", "service"}),
    ],
)
def test_only_the_command_that_is_asked_for_is_imported(
    disk: Path, words: str, rooms: set[str]
) -> None:
    names = {"DISK": str(disk), "OUT": str(disk.with_name("vmcore"))}
    program = f"""
import contextlib, io, json, sys
from pvdump import cli
with contextlib.redirect_stdout(io.StringIO()):
    code = cli.main({[names.get(word, word) for word in words.split()]!r})
print(json.dumps([code, sorted(sys.modules)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, env=ENVIRONMENT, capture_output=True
    )
    code, modules = json.loads(done.stdout)
    assert code == 0
    packages = {name.split(".")[1] for name in modules if name.count(".") > 1 and "pvdump." in name}
    assert packages == set(rooms)
    assert "subprocess" not in modules or "watches" in rooms


# Standard output.


def test_reader_that_ends_early_is_no_error(disk: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = run("info", disk, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("words", ["info DISK", "--help", "--version", "collect DISK -"])
def test_full_standard_output_is_one_line(disk: Path, words: str) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = run(*words.replace("DISK", str(disk)).split(), stdout=full)
    assert done.returncode == 1
    assert done.stderr.endswith(b"standard output: No space left on device\n")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("words", ["info DISK", "--help", "collect DISK -"])
def test_closed_standard_output_is_one_line(disk: Path, words: str) -> None:
    done = run(
        *words.replace("DISK", str(disk)).split(), stdout=None, preexec_fn=lambda: os.close(1)
    )
    assert done.returncode == 1
    assert done.stderr.endswith(b"standard output: Bad file descriptor\n")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(("state", "code"), [("COMPLETE", 0), ("PARTIAL", 3)])
@pytest.mark.parametrize("where", ["full", "closed", "unread"])
def test_summary_that_cannot_be_written_changes_nothing_of_a_collect(
    disk: Path, state: str, code: int, where: str
) -> None:
    make(disk, getattr(superblock, state), DATA)
    read, write = os.pipe()
    os.close(read)
    with open("/dev/full", "wb") as full, open(write, "wb") as unread:  # noqa: PTH123
        done = run(
            *("collect", disk, disk.with_name("vmcore")),
            stdout={"full": full, "closed": None, "unread": unread}[where],
            preexec_fn=(lambda: os.close(1)) if where == "closed" else None,
        )
    assert done.returncode == code
    assert (b"the dump is partial: xvdb" in done.stderr) == (code == 3)
    assert (b"standard output: " in done.stderr) == (where != "unread")
    assert disk.with_name("vmcore").stat().st_size == len(DATA)


def test_summary_that_cannot_be_written_changes_nothing_of_a_prepare(disk: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = run("prepare", "--force", disk, stdout=full)
    assert done.returncode == 0
    assert superblock.decode(disk.read_bytes()).state == superblock.READY


def test_partial_dump_is_an_exit_code_where_standard_error_is_full(disk: Path) -> None:
    make(disk, superblock.PARTIAL, DATA)
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        assert run("collect", disk, disk.with_name("vmcore"), stderr=full).returncode == 3


def test_failure_without_a_command_is_the_program_s() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        assert run("--help", stdout=full).stderr.startswith(b"pvdump: standard output: ")


@pytest.mark.parametrize(
    "words",
    [
        *("info NAME", "prepare NAME", "collect NAME out", "info a NAME", "watches show NAME"),
        *("xenstored --socket NAME/x", "blkback show NAME", "blkback detach 1 xvda --store NAME"),
    ],
)
def test_name_with_control_characters_is_one_line(tmp_path: Path, words: str) -> None:
    done = run(*(word.replace("NAME", "a\nb\x1b[31m") for word in words.split()), cwd=tmp_path)
    assert done.returncode
    # A usage error repeats the word as a shell takes it.
    assert any(name in done.stderr for name in (b"a\\nb\\x1b[31m", b"$'a\\012b\\033[31m'"))
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("number", [0, 1, 2])
def test_disk_never_gets_the_number_of_a_standard_stream(disk: Path, number: int) -> None:
    make(disk, superblock.READY, b"")
    program = f"""
import os
os.close({number})
from pvdump import streams
from pvdump.dump import disk
streams.ensure_streams()
with disk.reading(disk.Path({str(disk)!r})) as opened:
    os._exit(opened.fd)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, env=ENVIRONMENT)
    assert done.returncode > 2


def test_error_is_an_exit_code_where_standard_error_is_full(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = run("info", tmp_path / "none", stderr=full)
    assert (done.returncode, done.stdout) == (1, b"")


def test_name_that_is_no_utf_8_is_printed(disk: Path) -> None:
    name = os.fsencode(disk.parent) + b"/\xff"
    os.rename(disk, name)  # noqa: PTH104 - bytes
    done = subprocess.run(
        [*map(os.fsencode, PVDUMP), b"info", name],
        check=False,
        env=ENVIRONMENT,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"/\\udcff" in done.stdout


def test_vmcore_goes_to_standard_output(disk: Path) -> None:
    done = run("collect", disk, "-")
    assert (done.returncode, done.stdout) == (0, DATA)
    assert superblock.decode(disk.read_bytes()).collected == 0


@pytest.mark.parametrize("more", [[], ["--log"], ["--format", "kdump"]])
def test_standard_output_that_is_the_disk_itself_is_refused(disk: Path, more: list[str]) -> None:
    before = disk.read_bytes()
    with disk.open("r+b") as same:  # as a device is, which a shell does not truncate
        done = run("collect", *more, disk, "-", stdout=same)
    assert done.returncode == 1
    assert done.stderr.decode() == (
        f"pvdump collect: standard output is {disk} itself, which is read for it: "
        f"name another file\n"
    )
    assert disk.read_bytes() == before


@pytest.mark.parametrize("link", ["same", "symlink", "hardlink"])
def test_a_disk_or_key_is_never_replaced_by_its_dump(disk: Path, link: str) -> None:
    before = disk.read_bytes()
    out = disk if link == "same" else disk.with_name("out")
    if link == "symlink":
        out.symlink_to(disk)
    elif link == "hardlink":
        out.hardlink_to(disk)
    for words in ((disk, out), ("--log", disk, out)):
        done = run("collect", *words)
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
        assert disk.read_bytes() == before
    key = disk.with_name("key")
    key.write_text("AGE-SECRET-KEY-")
    done = run("collect", "--identity", key, disk, key)
    assert (done.returncode, key.read_text()) == (1, "AGE-SECRET-KEY-")


def test_file_named_like_standard_output_can_be_had(disk: Path) -> None:
    assert run("collect", disk, "./-", cwd=disk.parent).returncode == 0
    assert disk.with_name("-").read_bytes() == DATA


# Signals.


class Collecting:
    """`pvdump collect` that stands still in the middle of its copy."""

    def __init__(self, disk: Path, *more: str) -> None:
        words = ["collect", *more, str(disk), str(disk.with_name("vmcore"))]
        # The tests themselves may have been started by nohup, or in the background.
        program = f"""
import signal, sys, time
from pvdump import cli
from pvdump.dump import meter
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
def stop(self, amount):
    print("copying", flush=True)
    while True:
        time.sleep(1)
meter.Meter.advance = stop
sys.exit(cli.main({words!r}))
"""
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"copying\n"

    def end(self, number: int) -> tuple[int, bytes]:
        self.process.send_signal(number)
        error = self.process.communicate()[1]
        return self.process.returncode, error


@pytest.mark.parametrize("form", ["elf", "kdump"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_collect_that_is_ended_leaves_nothing(disk: Path, name: str, form: str) -> None:
    number = signal.Signals[name]
    code, error = Collecting(disk, "--format", form).end(number)
    assert code == 128 + number
    assert error.count(b"\n") == 1
    assert [path.name for path in disk.parent.iterdir()] == ["disk"]


def test_what_a_killed_collect_leaves_is_found_by_the_next(disk: Path) -> None:
    Collecting(disk).end(signal.SIGKILL)
    done = run("collect", disk, disk.with_name("vmcore"))
    assert done.returncode == 1
    assert f"vmcore{PART} is what a collect that was killed left" in done.stderr.decode()


def test_nohup_is_heeded(disk: Path) -> None:
    program = """
import os, signal
from pvdump import cli
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with cli.ending_signals():
    os.kill(os.getpid(), signal.SIGHUP)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, env=ENVIRONMENT)
    assert done.returncode == 0
