"""A real Xen for these tests, one at a time, and the image that runs on it."""

import itertools
from pathlib import Path

import pytest

from lab.guest import Guest
from lab.xen import Xen
from pvdump.prepare import prepare
from tools import image

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


@pytest.fixture(scope="session")
def built():
    """The image as `./build.py image` builds it, where the lab's guests look for it."""
    return image.build(ROOT / "out")


@pytest.fixture(scope="module", params=["oxenstored", "xenstored"])
def xen(request, built):
    """Bookworm's Xen with each of the two xenstore servers."""
    with Xen("bookworm", request.param) as running:
        yield running


@pytest.fixture
def target(tmp_path):
    """A dump target of 512 MiB, sparse."""
    disk = tmp_path / "target.img"
    prepare(disk, size=512 * MIB)
    return disk


@pytest.fixture(scope="session")
def guest():
    """Loads a guest of lab/guests/ under a name that no other has."""
    number = itertools.count(1)

    def load(file, **overrides):
        return Guest.load(ROOT / "lab/guests" / file, name=f"guest{next(number)}", **overrides)

    return load
