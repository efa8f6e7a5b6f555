"""The BTF of the lab's kernels, out of the packages that the lab's guests run."""

import io
from collections.abc import Callable
from functools import cache

import pytest
from elftools.elf.elffile import ELFFile

from lab import packages
from lab.kernel import Kernel, unpack


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
