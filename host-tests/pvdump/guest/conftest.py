"""The files of a guest that is set up and armed; file systems on loop devices."""

import os
from pathlib import Path

import pytest
from fixtures.btftypes import Types
from fixtures.crashedguest import GOOD, Crash
from fixtures.dyingkernel import OOPS
from fixtures.guestdisks import Sys
from fixtures.guestroot import GuestRoot
from fixtures.loopdisks import disk, made, stack
from fixtures.systemtools import SystemTools, fresh

from pvdump.arm import btf, image, targets
from pvdump.guest import doctor, programs, remove, setup, xen
from pvdump.place import device

__all__ = ["disk", "guest", "made", "stack", "tools", "unarmed"]


@pytest.fixture(scope="module")
def dumped() -> bytes:
    """The disk with the dump of a kernel that died."""
    crash = Crash(GOOD)
    crash.die(texts=OOPS)
    crash.run()
    return bytes(crash.disk.data)


@pytest.fixture
def unarmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GuestRoot:
    """The files of a guest that is set up, and in which nothing is loaded."""
    root = GuestRoot(tmp_path / "root")
    types = Types()
    types.struct("page", 64, [])
    (tmp_path / "vmlinux").write_bytes(types.encode())
    monkeypatch.setattr(btf, "SYSTEM", tmp_path / "vmlinux")
    monkeypatch.setattr(targets, "DEVICES", root.path / "dev")
    monkeypatch.setattr(image, "PLACES", (root.image,))
    monkeypatch.setattr(programs, "run", root.kexec)
    return root


@pytest.fixture
def guest(unarmed: GuestRoot) -> GuestRoot:
    """The files of a guest that is set up and armed; file systems on loop devices."""
    unarmed.arm()
    return unarmed


@pytest.fixture
def tools(unarmed: GuestRoot, monkeypatch: pytest.MonkeyPatch) -> SystemTools:
    """A guest that is not set up; its prepared disk xvdb; the programs of its system."""
    fresh(unarmed)
    found = SystemTools(unarmed)
    system = Sys(unarmed.path.with_name("sysfs"))
    system.disk("xvdb", "0:0", 16384, 51728)  # of a file, which stands for the device
    monkeypatch.setattr(device, "SYS_DEV_BLOCK", system.block)
    monkeypatch.setattr(device, "DEVICES", unarmed.path / "dev")
    monkeypatch.setattr(programs, "run", found.run)
    for module in (setup, remove, doctor):
        monkeypatch.setattr(module, "ROOT", unarmed.path)
    monkeypatch.setattr(xen, "read_store", lambda path: unarmed.store)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return found
