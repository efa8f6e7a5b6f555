"""hw.pack and hw.crc32 of the image, executed by the embedded CPU, do what CPython's do."""

import ast
import zlib
from pathlib import Path

import pytest
from fixtures.packcases import REFUSED
from fixtures.packing import PAGE, bitmap, mixture, state, unpack

import hw
from pvxen.guest import EmbeddedGuest
from pvxen.image import EmbeddedImage
from tools.image import build

HERE = Path(__file__).resolve().parent
KEEP, TABLE, OUT, PAGES = 0x600000, 0x610000, 0x700000, 0x800000
FIRST = PAGES // PAGE
PACKED = mixture(200, seed=3)
FRAMES = [i % 7 != 2 for i in range(-5, 200)]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    built = build(tmp_path_factory.mktemp("packer"), config=HERE / "packer/image.yaml")
    return EmbeddedImage(built.elf.read_bytes(), built.bin.read_bytes())


class Run:
    """The pages packed in the image.

    Attributes:
        said (dict): name to value of the lines that the program printed.
        out, table (bytes): what it wrote.
    """

    def __init__(self, image, keep, room, slots, bit=0):
        words = FIRST, len(PACKED), bit, KEEP, len(keep or b""), OUT, room, TABLE, 8 * slots
        guest = EmbeddedGuest(door="pvh", ram=image.ram, cmdline=" ".join(map(str, words)).encode())
        ram = guest.machine.ram
        for at, content in ((KEEP, keep or b""), (PAGES, b"".join(PACKED))):
            ram[at : at + len(content)] = content
        image.run(guest)
        said = [line[2:] for line in image.text.splitlines() if line.startswith("= ")]
        self.said = dict(map(ast.literal_eval, said))
        self.out, self.table = ram[OUT : OUT + room], ram[TABLE : TABLE + 8 * slots]
        hw.attach(guest.machine)


def by_cpython(keep, room, slots, bit=0):
    """Pack the same under CPython. Returns state, out and table."""
    here, out, table = state(FIRST, len(PACKED), bit), bytearray(room), bytearray(8 * slots)
    hw.pack(here, keep, out, table)
    return list(here), bytes(out), bytes(table)


CALLS = {
    "all": (None, 1 << 20, 300),
    "some": (bitmap(FRAMES), 1 << 20, 300, 5),
    "full out": (None, 3 * PAGE + 7, 300),
    "full table": (None, 1 << 20, 9),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_image_writes_what_cpython_writes(image, name):
    run = Run(image, *CALLS[name])
    assert (run.said["state"], run.out, run.table) == by_cpython(*CALLS[name])


def test_pages_packed_in_the_image_come_back(image):
    run = Run(image, *CALLS["all"])
    assert run.said["state"][:2] == [FIRST + len(PACKED), 0]
    assert unpack(*run.said["state"][3:], run.out, run.table) == dict(enumerate(PACKED, FIRST))


def test_nothing_is_allocated(image):
    assert Run(image, *CALLS["all"]).said["allocated"] == 0


def test_the_crc_is_zlib_s(image):
    run = Run(image, *CALLS["all"])
    assert run.said["crc"] == (zlib.crc32(run.out), zlib.crc32(run.table))


def test_what_cannot_be_is_refused_and_nothing_is_written(image):
    run = Run(image, *CALLS["all"])
    assert {name: run.said[name] for name in REFUSED} == {
        name: error for name, (_, _, error) in REFUSED.items()
    }
