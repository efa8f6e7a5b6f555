"""Debian's kernel 5.10, out of the package that the lab's guests run."""

import pytest
from fixtures.stillkernel import StillKernel

from lab import packages
from lab.kernel import Kernel, unpack


@pytest.fixture(scope="session")
def debian() -> Kernel:
    """The kernel of the package."""
    return Kernel(packages.guest("bullseye"))


@pytest.fixture(scope="session")
def file(debian: Kernel) -> bytes:
    """Its ELF file, with the relocations."""
    return unpack(debian.image.read_bytes())


@pytest.fixture(scope="session")
def still(file: bytes) -> StillKernel:
    """Its image, where it was linked for; nobody writes into it."""
    return StillKernel(file)
