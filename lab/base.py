"""Bases: saved machines in the cache, with Xen and dom0 booted.

Used by lab.xen for tests that begin after a boot. Besides Xen and dom0 a base may have a Linux
guest at its prompt, pvdump in dom0, and a guest with an installed Debian: each is a base of its
own, made from the one below. A restore takes a second; a boot takes seven, and a Linux guest 10 to
90 more. The rule: a base is made on first use, and its name is a digest of all it was made from:
QEMU, the host's CPU, dom0, the guest, this code. A saved machine has no file open in the job
folder. A disk of the host that it has is copied into the base, and from it for each restore. A base
that is damaged is removed and made anew.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import LabError, install, linux, python
from lab.guest import Guest
from lab.installed import Installed, Ready
from lab.prompt import Prompt
from lab.qemu import PROGRAM, RESTORE_SECONDS, Machine, Qemu, Saved
from tools import cache

if TYPE_CHECKING:
    from lab.xen import Xen

KEEP = 1  # of each kind; a base is 300 to 500 MiB
# Digests of the code as it was imported; its files may change while it runs.
CODE = [
    cache.file_digest(Path(__file__).with_name(f"{name}.py"))
    for name in ("base", "domain", "guest", "installed", "linux", "prompt", "qemu", "xen")
]


class Damaged(LabError):
    """A base in the cache cannot be used, and has been removed."""


@dataclass(frozen=True)
class Base:
    """A saved machine in the cache.

    Attributes:
        path: Its folder.
    """

    path: Path

    @property
    def saved(self) -> Saved:
        """Return the files that QEMU restores it from, without the disks."""
        return Saved(self.path / "memory", self.path / "state")

    @property
    def facts(self) -> dict[str, Any]:
        """Return what was noted when it was made.

        "memory" is the size of its memory's file in bytes and "state" the SHA-256 of its state;
        "disks" has the name of each disk's file, its device in dom0, and its number; "attached" is
        the number of disks it has had. A base with a guest has "domid".
        """
        found: dict[str, Any] = json.loads((self.path / "facts.json").read_text(encoding="utf-8"))
        return found

    @property
    def log(self) -> Path:
        """Return the file with Xen's console up to when it was saved."""
        return self.path / "xen.log"

    def copy_memory(self, target: Path) -> None:
        """Copy the memory's file, for a machine that is restored from this base and saved again."""
        copy(self.saved.memory, target)

    def copy_disks(self, folder: Path) -> Saved:
        """Copy its disks; returns the files that QEMU restores it from, with these copies."""
        disks = []
        for name, _, number in self.facts["disks"]:
            copy(self.path / name, folder / name)
            disks.append((number, folder / name))
        return replace(self.saved, disks=tuple(disks))

    def discard(self) -> None:
        """Remove it from the cache."""
        with cache.locked(self.path):
            cache.discard(self.path)

    def check(self) -> None:
        """Remove it when a file of it is missing or damaged.

        The memory's size is compared, not its content: its digest would take longer than a restore.

        Raises:
            Damaged: It was removed.
        """
        try:
            wanted = self.facts
            memory, state = self.saved.memory, self.saved.state
            whole = (
                self.log.is_file()
                and all((self.path / name).is_file() for name, _, _ in wanted["disks"])
                and memory.stat().st_size == wanted["memory"]
                and cache.file_digest(state) == wanted["state"]
            )
        except (OSError, ValueError, LookupError, TypeError):
            whole = False
        if not whole:
            self.discard()
            raise Damaged(f"{self.path.name}: a file is missing or damaged")


@dataclass(frozen=True)
class Layer:
    """The part that a base has besides the base below it.

    Attributes:
        name: Its kind, part of the base's name.
        inputs: Text that differs when what it is made from differs.
        make: Gets a running Xen and the facts of the base below; returns facts to be kept.
    """

    name: str
    inputs: str
    make: Callable[[Xen, dict[str, Any]], dict[str, int]]


def of(xen: Xen, machine: Machine) -> Base:
    """Return the base that a Xen is to be restored from, made unless it is in the cache.

    A damaged base is made anew, with a warning.

    Raises:
        LabError: The base cannot be made.
    """
    layers = _layers(xen)
    for _ in range(1 + len(layers)):  # each base on the way may be damaged
        try:
            return _made(xen, machine, layers)
        except Damaged as error:
            warnings.warn(f"a saved Xen is made anew: {error}", stacklevel=3)
    return _made(xen, machine, layers)


def _made(xen: Xen, machine: Machine, layers: list[Layer]) -> Base:
    key = cache.digest(*machine.arguments(), _environment())
    name = xen.xenstored
    base = _kept(xen, name, key, lambda folder: _boot(xen, folder, machine))
    for layer in layers:
        name += f"-{layer.name}"
        base = _above(xen, name, machine, base, layer)
    return base


def _layers(xen: Xen) -> list[Layer]:
    found = []
    if guest := xen.prompted:
        inputs = f"{guest} {linux.described(xen.suite, guest, xen.progress)}"
        found.append(Layer(guest.type, inputs, lambda maker, _: _prompt(maker, guest)))
    if xen.pvdump:
        inputs = python.described(xen.suite, xen.progress)
        found.append(Layer("pvdump", inputs, _pvdump))
    if ready := xen.ready:
        inputs = f"{ready.layout} {ready.fields} {install.disk(xen.suite, ready.layout)}"
        name = f"installed-{ready.layout}"
        found.append(Layer(name, inputs, lambda maker, _: _installed(maker, ready)))
        if ready.name:
            files = [(name, cache.file_digest(path)) for name, path in ready.files]
            inputs = f"{files} {ready.script}"
            found.append(Layer(ready.name, inputs, lambda *made: _prepared(ready, *made)))
    return found


def _prompt(maker: Xen, guest: Guest) -> dict[str, int]:
    with maker.progress.stage("boot guest") as stage:
        stage.note(f"{guest.type}; saved for later")
        return {"domid": Prompt.boot(maker, guest, lasting=True).domid}


def _installed(maker: Xen, ready: Ready) -> dict[str, int]:
    with maker.progress.stage("boot guest") as stage:
        stage.note(f"installed Debian, {ready.layout}; saved for later")
        return Installed.boot(maker, ready.layout, **ready.fields).facts()


def _prepared(ready: Ready, maker: Xen, facts: dict[str, Any]) -> dict[str, int]:
    with maker.progress.stage("boot guest") as stage:
        stage.note(f"installed Debian, {ready.layout}, {ready.name}; saved for later")
        guest = Installed.adopt(maker, ready, facts)
        ready.prepare(guest)
        return guest.facts()


def _pvdump(maker: Xen, _: dict[str, Any]) -> dict[str, int]:
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
            saved = replace(below.copy_disks(maker.workdir), memory=memory)
            try:
                maker.qemu = Qemu(machine, maker.workdir, maker.job, memory, saved)
                maker.tell("mount_job", timeout=RESTORE_SECONDS)
            except LabError as error:
                below.discard()
                raise Damaged(f"{below.path.name} cannot be restored: {error}") from None
            maker.adopt(below)
            facts = layer.make(maker, below.facts)
            maker.tell("umount_job")
            _save(maker, folder, {**below.facts, **facts})

    return _kept(xen, name, cache.digest(below.path.name, layer.inputs), make)


@contextlib.contextmanager
def _maker(xen: Xen) -> Iterator[Xen]:
    """Give a Xen of the same kind that has not started and has a temporary folder."""
    maker = type(xen)(xen.suite, xen.xenstored, progress=xen.progress)
    maker.settle(Path(tempfile.mkdtemp(prefix="lab-")))
    try:
        maker.clear()
        yield maker
    finally:
        maker.close()


def _save(maker: Xen, folder: Path, facts: dict[str, Any]) -> None:
    memory, state = folder / "memory", folder / "state"
    maker.running().save(state)
    shutil.copyfile(maker.workdir / "xen.log", folder / "xen.log")
    disks = []
    for path, device in maker.devices.items():
        copy(path, folder / path.name)
        disks.append((path.name, device, int(maker.qdev(path).removeprefix("disk"))))
    files = {
        "memory": memory.stat().st_size,
        "state": cache.file_digest(state),
        "attached": maker.attached,
        "disks": disks,
    }
    (folder / "facts.json").write_text(json.dumps({**facts, **files}), encoding="utf-8")
    # Pages of zeros need no space on the disk. Not every file system can do that.
    dig = ["fallocate", "--dig-holes", str(memory)]
    subprocess.run(dig, check=False, stderr=subprocess.DEVNULL)


def _kept(xen: Xen, name: str, key: str, make: Callable[[Path], None]) -> Base:
    place = cache.folder("lab", xen.suite, "bases")
    base = Base(cache.stamped(place, name, key, make, KEEP))
    base.check()
    return base


def copy(source: Path, target: Path) -> None:
    """Copy a file that is mostly empty."""
    command = ["cp", "--sparse=always", "--reflink=auto", str(source), str(target)]
    subprocess.run(command, check=True)


def _environment() -> str:
    program = shutil.which(PROGRAM) or ""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    lines = [line for line in cpu.splitlines() if line.startswith(("model name", "flags"))]
    return cache.digest(program and cache.file_digest(Path(program)), *lines, *CODE)
