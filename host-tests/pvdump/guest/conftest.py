"""The files of a guest that is set up and armed; file systems on loop devices."""

from pathlib import Path

import pytest
from fixtures.btftypes import Types
from fixtures.crashedguest import GOOD, Crash
from fixtures.dyingkernel import OOPS
from fixtures.guestroot import GuestRoot
from fixtures.loopdisks import disk, made, stack

from pvdump.arm import btf, image, targets
from pvdump.guest import programs

__all__ = ["disk", "guest", "made", "stack", "unarmed"]


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
