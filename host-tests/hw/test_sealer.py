"""hw.x25519, hw.seal and hw.entropy of the image, executed by the embedded CPU."""

import ast
import hashlib
import zlib
from pathlib import Path

import pytest
from fixtures.sealcases import COUNTERS, PIECES, REFUSED, piece, sealed

import hw
from pvxen.guest import EmbeddedGuest
from pvxen.image import EmbeddedImage
from tools.image import build

HERE = Path(__file__).resolve().parent
KEY, BASE = bytes(range(32)), bytes([9]) + bytes(31)
SEED = bytes(range(100, 132))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    built = build(tmp_path_factory.mktemp("sealer"), config=HERE / "sealer/image.yaml")
    return EmbeddedImage(built.elf.read_bytes(), built.bin.read_bytes())


def said(image, **options):
    """Run the program. Returns name to value of the lines that it printed."""
    guest = EmbeddedGuest(ram=image.ram, **options)
    image.run(guest)
    lines = [line[2:] for line in image.text.splitlines() if line.startswith("= ")]
    hw.attach(guest.machine)
    return dict(map(ast.literal_eval, lines))


@pytest.fixture(scope="module")
def printed(image):
    return said(image)


def test_the_image_seals_as_cpython_does(printed):
    for size in PIECES:
        assert printed[size] == zlib.crc32(sealed(KEY, 0, False, piece(size)))
    for counter in COUNTERS:
        assert printed["counter", counter] == sealed(KEY, counter, True, b"text")


def test_the_image_s_x25519_is_cpython_s(printed):
    assert printed["public"] == hw.x25519(KEY, BASE)
    assert printed["shared"] == hw.x25519(KEY, printed["public"])


def test_the_image_s_sha256_is_cpython_s(printed):
    assert printed["sha256"] == [hashlib.sha256(piece(size)).digest() for size in PIECES]


def test_what_cannot_be_is_refused_and_nothing_is_written(printed):
    assert {name: printed[name] for name in REFUSED} == {
        name: case[4] for name, case in REFUSED.items()
    }


def test_entropy_differs_from_call_to_call(printed):
    first, second = printed["entropy"]
    assert len(first) == len(second) == 72
    assert first != second


def test_entropy_has_the_random_bytes_of_the_kernel_that_loaded_the_image(image):
    options = {"door": "bzimage", "region": (4 << 20, 12 << 20)}
    assert said(image, **options, rng_seed=SEED)["entropy"][0][72:] == SEED
    assert said(image, **options, rng_seed=bytes(500))["entropy"][0][72:] == bytes(64)
