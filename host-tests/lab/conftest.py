"""A real Xen for these tests, one at a time, and the image that runs on it."""

import itertools
from pathlib import Path

import pytest

from lab.guest import Guest
from lab.xen import Xen
from pvdump.dump.prepare import prepare
from tools import image

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


@pytest.fixture(scope="session")
def built():
    """The image as `./build.py image` builds it, where the lab's guests look for it."""
    return image.build(ROOT / "out")


# Debian's two Xens (4.17, 4.20), and with the first both xenstore servers.
XENS = ("bookworm oxenstored", "bookworm xenstored", "trixie xenstored")


@pytest.fixture(scope="module", params=XENS)
def xen(request, built):
    """A running Xen; tests that need just one ask for it by parametrizing `xen` indirectly."""
    with Xen(*request.param.split()) as running:
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
