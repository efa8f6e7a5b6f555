"""The oldest Python that users have, 3.9: what they install is imported and runs there.

The interpreter is Debian 12's pypy3, PyPy with the language and the library of Python 3.9; no
CPython 3.9 is to be had as a package.
"""

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fixtures.targets import PAGE, make, vmcore

from pvdump import cli
from pvdump.xenstore.store import Store
from pvfw import config, superblock
from tools.apt import Suite

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [str(ROOT / top) for top in ("drivers", "firmware", "host")]
# cffi is a part of PyPy.
PACKAGES = ["pypy3", "libxenevtchn1", "libxengnttab1", "libxentoollog1"]
DATA = vmcore()
# drgn has no wheel for PyPy.
IMPORT = """
import importlib, pkgutil, sys
from unittest.mock import MagicMock
import pvdump, pvfw, xenpv
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "drgn":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        return MagicMock(__path__=[], __spec__=spec)
    def exec_module(self, module):
        pass
sys.meta_path.append(Finder())
assert sys.version_info[:2] == (3, 9), sys.version
for package in (pvdump, xenpv):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__") and module.name not in NEED_HW:
            importlib.import_module(module.name)
"""

# What CPython 3.9 has and PyPy has not.
LACKING = """
import gc, os, sys
gc.freeze = lambda: None
gc.set_threshold = lambda *numbers: None
os.pwritev = lambda fd, buffers, offset, *flags: os.pwrite(fd, b"".join(buffers), offset)
"""
PVDUMP = f"{LACKING}\nfrom pvdump.cli import main\nsys.exit(main(sys.argv[1:]))"
# `pvdump collect` without names, in a folder that passes for a guest.
GATHER = """
import sys
from pathlib import Path
from pvdump.guest import gather
folder, sys.executable = Path(sys.argv[1]), sys.argv[2]
guest = gather.Guest(folder / "crash", 5, 0, folder / "hooks", folder / "root")
sys.exit(gather.gather(guest, [folder / "disk"], False))
"""
# A backend with its threads, and a guest whose memory is this process's: see hostsite.py.
SITE = f"""{LACKING}
import struct, threading, types
import cffi
ffi = cffi.FFI()
ffi.cdef("int eventfd(unsigned int, int);")
# The tests' own need of Python 3.10.
os.eventfd = lambda value, flags=0: ffi.dlopen(None).eventfd(value, flags)
os.eventfd_read = lambda fd: struct.unpack("Q", os.read(fd, 8))[0]
os.eventfd_write = lambda fd, value: os.write(fd, struct.pack("Q", value))
os.EFD_NONBLOCK = os.O_NONBLOCK
# Its module needs the embedded Xen, which is compiled for another Python.
PAGE, WRITE, OKAY = 4096, 1, 0
front = sys.modules["blkback.front"] = types.ModuleType("front")
front.CONNECTED, front.INITIALISED, front.PAGE, front.WRITE = 4, 3, PAGE, WRITE
from blkback.hostsite import Site
from pvdump.blkback.sink import open_sink
from pvdump.xenstored.server import Xenstored
from pvdump.xenstored.unix import UnixTransport
folder = sys.argv[1]
with open(folder + "/disk5", "wb") as disk:
    disk.truncate(1 << 20)
with UnixTransport(Xenstored(), folder + "/store") as unix:
    server = threading.Thread(target=unix.run)
    server.start()
    site = Site(unix.path, lambda name, *more: open_sink(folder + "/" + name, *more))
    guest = site.create(5).connect()
    guest.write(8, bytes([7]) * PAGE)
    assert guest.answer() == (7, WRITE, OKAY)
    site.stop()
    site.tool.close()
    unix.stop()
    server.join()
"""


@pytest.fixture(scope="module")
def python() -> list[str]:
    """The command that starts it: its libraries are not those of this machine."""
    root = Suite("bookworm").unpack(PACKAGES)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    linker = str(libraries / "ld-linux-x86-64.so.2")
    return [linker, "--library-path", str(libraries), str(root / "usr/bin/pypy3")]


def start(python: list[str], *words: object, tests: bool = False) -> subprocess.Popen[str]:
    """Start it with the sources on its path, and with the tests' own modules if wanted."""
    path = [*SOURCES, str(ROOT / "host-tests")] if tests else SOURCES
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [*python, *map(str, words)]
    return subprocess.Popen(command, text=True, env=environment, **pipes)


def run(python: list[str], *words: object, tests: bool = False) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    with start(python, *words, tests=tests) as process:
        output, error = process.communicate()
        return subprocess.CompletedProcess(words, process.returncode, output, error)


@contextmanager
def serving(python: list[str], *words: object) -> Iterator[subprocess.Popen[str]]:
    """Run it beside the block, until SIGTERM."""
    process = start(python, *words)
    try:
        yield process
    finally:
        process.terminate()
        _, error = process.communicate()
    assert process.returncode == 0, error


def until(store: Store, path: str, value: str, process: subprocess.Popen[str]) -> None:
    """Wait until a process gives a node a value."""
    changed = threading.Event()
    watch = store.watch(path, lambda path, token: changed.set())
    while store.read_text(path, "") != value:
        assert process.poll() is None
        changed.wait(1)
        changed.clear()
    watch.close()


def needs_hw() -> list[str]:
    """The modules of drivers that import hw, which is a machine's."""
    program = """
import pkgutil, sys, xenpv, importlib
for module in pkgutil.walk_packages(xenpv.__path__, "xenpv."):
    try:
        importlib.import_module(module.name)
    except ImportError:
        print(module.name)
"""
    command = [sys.executable, "-S", "-c", program]
    environment = {"PYTHONPATH": SOURCES[0], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.split()


def test_every_module_of_the_wheel_is_imported(python: list[str]) -> None:
    done = run(python, "-c", f"NEED_HW = {needs_hw()}\n{IMPORT}")
    assert (done.returncode, done.stderr) == (0, "")


def test_target_is_prepared_and_told_of(python: list[str], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    assert run(python, "-m", "pvdump", "prepare", disk, "--size=8M").returncode == 0
    done = run(python, "-m", "pvdump", "info", "--json", disk)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"state": "ready"' in done.stdout


@pytest.mark.parametrize("form", ["--format=elf", "--format=kdump --compress=none"])
@pytest.mark.parametrize("written", [len(DATA), 50 * PAGE])
def test_dump_is_collected_as_by_this_python(
    python: list[str], tmp_path: Path, written: int, form: str
) -> None:
    command = ["collect", *form.split(), str(tmp_path / "disk")]
    whole = written == len(DATA)
    make(tmp_path / "disk", superblock.COMPLETE if whole else superblock.PARTIAL, DATA, written)
    assert cli.main([*command, str(tmp_path / "ours")]) == (3, 0)[whole]
    done = run(python, "-m", "pvdump", *command, tmp_path / "theirs")
    assert done.returncode == (3, 0)[whole]
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "ours").read_bytes()


def test_a_dump_gets_its_folder_with_a_report(python: list[str], tmp_path: Path) -> None:
    make(tmp_path / "disk", superblock.COMPLETE, DATA)
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(python)} "$@"\n')
    program.chmod(0o755)
    done = run(python, "-c", GATHER, tmp_path, program)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "crash").iterdir()
    assert (folder / "vmcore").read_bytes() == DATA
    assert {path.name for path in folder.iterdir()} >= {"pvdump.json", "report.txt", "report.html"}
    assert superblock.decode((tmp_path / "disk").read_bytes()).state == superblock.READY


def test_configuration_is_made_as_by_this_python(python: list[str], tmp_path: Path) -> None:
    words = ["arm", "--print", f"--target=xvdb={'0' * 32}", "--level=log", "--out"]
    assert cli.main([*words, str(tmp_path / "ours")]) == 0
    assert run(python, "-m", "pvdump", *words, tmp_path / "theirs").returncode == 0
    ours, theirs = (vars(config.decode((tmp_path / n).read_bytes())) for n in ("ours", "theirs"))
    changing = ("nonce", "targets")
    assert {**ours, **dict.fromkeys(changing)} == {**theirs, **dict.fromkeys(changing)}
    assert [vars(one) for one in ours["targets"]] == [vars(one) for one in theirs["targets"]]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_tells_of_itself(python: list[str], command: str) -> None:
    done = run(python, "-m", "pvdump", command, "--help")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_script_becomes_a_guest_and_is_looked_at(python: list[str], tmp_path: Path) -> None:
    script, image = tmp_path / "script.py", tmp_path / "image"
    image.write_bytes(b"\x7fELF")
    script.write_bytes((ROOT / "examples/partner.py").read_bytes())
    command = ["-m", "pvdump", "script", script, "-o", tmp_path / "guest", "--image", image]
    done = run(python, *command)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'type = "pvh"\n' in (tmp_path / "guest/xl.cfg").read_text()
    script.write_text("f'{1}' '{}'\nwith (a as b, c as d): pass\n[*x]\n")
    done = run(python, *command)
    assert done.returncode == 1
    assert "script.py:1: a string with a brace beside an f-string" in done.stderr
    assert "(and 5 more)" in done.stderr


@pytest.fixture
def store(python: list[str], tmp_path: Path) -> Iterator[str]:
    """The socket of a store that is served by it."""
    socket = tmp_path / "store"
    with serving(python, "-m", "pvdump", "xenstored", "--socket", socket) as process:
        assert process.stderr is not None
        assert "listening" in process.stderr.readline()
        yield str(socket)


def test_backend_serves_a_disk_that_is_given_to_a_guest(
    python: list[str], tmp_path: Path, store: str
) -> None:
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    status, back = tmp_path / "status", "/local/domain/0/backend/pvdump_vbd/7/51728"
    with Store(store) as ours:
        ours.write("/local/domain/7/domid", "7")
        ours.write("/local/domain/7/vm", "/vm/7")
        ours.call(lambda client: client.introduce(7, 1, 1))
        command = ["blkback", "run", "--store", store, "--status", status]
        with serving(python, "-c", PVDUMP, *command) as process:
            words = ["attach", "--store", store, "7", "xvdb", tmp_path / "disk"]
            done = run(python, "-m", "pvdump", "blkback", *words)
            assert (done.returncode, done.stderr) == (0, "")
            until(ours, f"{back}/state", "2", process)
            assert ours.read_text(f"{back}/sectors", "") in ("", "2048")
            done = run(python, "-m", "pvdump", "blkback", "show", status)
            assert done.stdout.startswith("7/51728      InitWait")
            words = ["detach", "--force", "--store", store, "7", "xvdb"]
            assert run(python, "-m", "pvdump", "blkback", *words).returncode == 0


def test_backend_writes_what_a_guest_sends(python: list[str], tmp_path: Path) -> None:
    done = run(python, "-c", SITE, tmp_path, tests=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "disk5").read_bytes()[4096:8192] == b"\7" * 4096
