"""Bases: saved machines in the cache, with Xen and dom0 booted.

Used by lab.xen for tests of what comes after a boot. On top of that a base may have a Linux guest
at its prompt, and then pvdump in dom0: each a base of its own, made from the one below. A restore
takes a second, where a boot takes seven and a Linux guest 10 to 40 more. The rule: a base is made
on first use and named by all it was made from: QEMU, the host's CPU, dom0, the guest, this code.
Nothing of it is open in the job folder, and no disk of the host belongs to it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab import linux, python
from lab.guest import Guest
from lab.prompt import Prompt
from lab.qemu import PROGRAM, Machine, Qemu, Saved
from tools import cache

if TYPE_CHECKING:
    from lab.xen import Xen

KEEP = 1  # of each kind; a base is 300 to 500 MiB
# Of the code as it was imported, whatever becomes of the files meanwhile.
CODE = [
    cache.file_digest(Path(__file__).with_name(f"{name}.py"))
    for name in ("base", "domain", "guest", "linux", "prompt", "qemu", "xen")
]


@dataclass(frozen=True)
class Base:
    """A saved machine in the cache.

    Attributes:
        path: Its folder.
    """

    path: Path

    @property
    def saved(self) -> Saved:
        return Saved(self.path / "memory", self.path / "state")

    @property
    def facts(self) -> dict[str, int]:
        """What is known of it, such as the domid of its guest."""
        found: dict[str, int] = json.loads((self.path / "facts.json").read_text(encoding="utf-8"))
        return found

    @property
    def log(self) -> Path:
        """What Xen had written to its console."""
        return self.path / "xen.log"

    def copy_memory(self, target: Path) -> None:
        """Copy the memory for a machine that goes on from here and is to be saved."""
        command = ["cp", "--sparse=always", "--reflink=auto", str(self.saved.memory), str(target)]
        subprocess.run(command, check=True)

    def discard(self) -> None:
        """Remove it; it does not work."""
        with cache.locked(self.path):
            cache.discard(self.path)


@dataclass(frozen=True)
class Layer:
    """What a base has more than the one below it.

    Attributes:
        name: Its kind, part of the base's name.
        inputs: What it is made from, as text.
        make: Does it on a running Xen; gives facts to be kept.
    """

    name: str
    inputs: str
    make: Callable[[Xen], dict[str, int]]


def of(xen: Xen, machine: Machine) -> Base:
    """Give the base that a Xen is to be restored from, made unless it is in the cache."""
    key = cache.digest(*machine.arguments(), _environment())
    name = xen.xenstored
    base = _kept(xen, name, key, lambda folder: _boot(xen, folder, machine))
    for layer in _layers(xen):
        name += f"-{layer.name}"
        base = _above(xen, name, machine, base, layer)
    return base


def _layers(xen: Xen) -> list[Layer]:
    found = []
    if guest := xen.prompted:
        inputs = f"{guest} {linux.described(xen.suite, guest, xen.progress)}"
        found.append(Layer(guest.type, inputs, lambda maker: _prompt(maker, guest)))
    if xen.pvdump:
        inputs = python.described(xen.suite, xen.progress)
        found.append(Layer("pvdump", inputs, _pvdump))
    return found


def _prompt(maker: Xen, guest: Guest) -> dict[str, int]:
    with maker.progress.stage("boot guest") as stage:
        stage.note(f"{guest.type}; saved for later")
        return {"domid": Prompt.boot(maker, guest, lasting=True).domid}


def _pvdump(maker: Xen) -> dict[str, int]:
    python.put(maker)
    return {}


def _boot(xen: Xen, folder: Path, machine: Machine) -> None:
    with _maker(xen) as maker, xen.progress.stage("boot Xen") as stage:
        stage.note(f"{xen.suite}, {xen.xenstored}; saved for later")
        maker.start(Qemu(machine, maker.workdir, maker.job, folder / "memory"))
        _save(maker, folder, {})


def _above(xen: Xen, name: str, machine: Machine, below: Base, layer: Layer) -> Base:
    def make(folder: Path) -> None:
        with _maker(xen) as maker:
            memory = folder / "memory"
            below.copy_memory(memory)
            shutil.copyfile(below.log, maker.workdir / "xen.log")
            saved = replace(below.saved, memory=memory)
            maker.qemu = Qemu(machine, maker.workdir, maker.job, memory, saved)
            maker.tell("mount_job")
            facts = layer.make(maker)
            maker.tell("umount_job")
            _save(maker, folder, {**below.facts, **facts})

    return _kept(xen, name, cache.digest(below.path.name, layer.inputs), make)


@contextlib.contextmanager
def _maker(xen: Xen) -> Iterator[Xen]:
    """A Xen like another, not started yet, with a folder of its own."""
    maker = type(xen)(xen.suite, xen.xenstored, progress=xen.progress)
    maker.settle(Path(tempfile.mkdtemp(prefix="lab-")))
    try:
        maker.clear()
        yield maker
    finally:
        maker.close()


def _save(maker: Xen, folder: Path, facts: dict[str, int]) -> None:
    maker.running().save(folder / "state")
    shutil.copyfile(maker.workdir / "xen.log", folder / "xen.log")
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    # What is zero need not be stored. Not every file system can do that.
    dig = ["fallocate", "--dig-holes", str(folder / "memory")]
    subprocess.run(dig, check=False, stderr=subprocess.DEVNULL)


def _kept(xen: Xen, name: str, key: str, make: Callable[[Path], None]) -> Base:
    place = cache.folder("lab", xen.suite, "bases")
    return Base(cache.stamped(place, name, key, make, KEEP))


def _environment() -> str:
    program = shutil.which(PROGRAM) or ""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    lines = [line for line in cpu.splitlines() if line.startswith(("model name", "flags"))]
    return cache.digest(program and cache.file_digest(Path(program)), *lines, *CODE)
