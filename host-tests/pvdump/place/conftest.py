"""Real file systems on loop devices, which pass for a partition of a PV disk."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fixtures.guestdisks import (
    MIB,
    SECTOR,
    START,
    Disk,
    Sys,
    loop,
    mounted,
    program,
    root_with_loops,
)

from pvdump.place import device


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def disk(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stack: ExitStack,
) -> Disk:
    """A disk whose partition is a loop device; it is larger for xfs, which needs 300 MiB."""
    if not root_with_loops():
        pytest.skip("needs root and loop devices")
    values = request.node.callspec.params.values() if hasattr(request.node, "callspec") else ()
    size = (310 if "xfs" in values else 100) * MIB
    image = tmp_path / "disk.img"
    with image.open("wb") as stream:
        stream.truncate(START + size)
    whole = stack.enter_context(loop(image))
    command = ["losetup", "--show", "-f", "-o", str(START), str(image)]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    stack.callback(subprocess.run, ["losetup", "-d", name], check=False)
    part = Path(name)
    system = Sys(tmp_path / "system")
    made = system.disk("xvdb", "202:16", (START + size) // SECTOR, 51728)
    number = part.stat().st_rdev
    numbers = f"{os.major(number)}:{os.minor(number)}"
    system.partition(made, "xvdb1", numbers, START // SECTOR, size // SECTOR)
    (system.dev / "xvdb").symlink_to(whole)
    monkeypatch.setattr(device, "SYS_DEV_BLOCK", system.block)
    monkeypatch.setattr(device, "DEVICES", system.dev)
    return Disk(image, part, tmp_path / "mnt")


@pytest.fixture
def made(disk: Disk, stack: ExitStack) -> Callable[..., Path]:
    """Makes a file system on the partition and mounts it. Returns its folder."""

    def make(kind: str, *words: object, options: str = "defaults") -> Path:
        if kind == "ext4":
            program("/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", *words, disk.part)
        else:
            program("/sbin/mkfs.xfs", "-q", "-f", *words, disk.part)
        return stack.enter_context(mounted(disk.part, disk.folder, options))

    return make
