"""The BTF of the lab's kernels, out of the packages that the lab's guests run; a guest's files."""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from fixtures.armingroot import ArmingRoot
from fixtures.btftypes import Types

from lab import packages
from lab.kernel import Kernel, unpack
from pvdump.arm import btf, targets
from pvdump.guest import programs


@cache
def types_of(suite: str) -> bytes:
    vmlinux = unpack(Kernel(packages.guest(suite)).image.read_bytes())
    section = ELFFile(io.BytesIO(vmlinux)).get_section_by_name(".BTF")
    assert section is not None
    return section.data()


@pytest.fixture(scope="session")
def kernel_types() -> Callable[[str], bytes]:
    """Gives the bytes of /sys/kernel/btf/vmlinux of a suite's guests."""
    return types_of


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArmingRoot:
    """The files of a guest that can be armed, with a disk xvdb that is a target."""
    root = ArmingRoot(tmp_path)
    types = Types()
    types.struct("page", 64, [])
    (tmp_path / "vmlinux").write_bytes(types.encode())
    monkeypatch.setattr(btf, "SYSTEM", tmp_path / "vmlinux")
    monkeypatch.setattr(targets, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(programs, "run", root.kexec)
    return root
