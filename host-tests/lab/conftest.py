"""A real Xen for these tests, one at a time, and the image that runs on it."""

import contextlib
import itertools
from pathlib import Path

import pytest
from fixtures.xens import XENS

from lab import prompt
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


@pytest.fixture(scope="module", params=XENS)
def xen(request, built):
    """A Xen that was restored, for all tests of a file.

    Tests that need just one ask for it by parametrizing `xen` indirectly.
    """
    with Xen(*request.param.split(), restored=True) as running:
        yield running


CMDLINE = "console=hvc0 crashkernel=4M random.trust_cpu=on"
PROMPTS = {
    "hvm": prompt.guest(type="hvm", memory=160, cmdline=CMDLINE),
    "pvh": prompt.guest(
        type="pvh",
        memory=160,
        cmdline=CMDLINE,
        on_soft_reset="preserve",
        extra={"tsc_mode": "native"},  # or Xen traps each look at the clock
    ),
}


@pytest.fixture
def restored(built):
    """Gives a restored Xen that is the test's own."""
    with contextlib.ExitStack() as stack:
        yield lambda place, **options: stack.enter_context(
            Xen(*place.split(), restored=True, **options)
        )


@pytest.fixture
def at_prompt(restored):
    """Gives a Debian guest at its prompt ("hvm" or "pvh"), on a restored Xen of its own.

    What comes after the boot is the test's: disks, files, what is run. The "pvh" one stays as it
    is when it wants a soft reset.
    """
    return lambda place, kind, **options: restored(place, prompted=PROMPTS[kind], **options).prompt


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
