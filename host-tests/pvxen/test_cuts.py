"""A dump of the image itself that ends at any moment: nothing, or readable."""

import random
from collections import Counter

import pytest
from fixtures.cutcrash import CutCrash, holds

from pvxen.image import EmbeddedImage
from tools.image import build

CUTS = 4
CACHES = ("keeps", "loses", "mixes")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    built = build(tmp_path_factory.mktemp("image"))
    return EmbeddedImage(built.elf.read_bytes(), built.bin.read_bytes())


@pytest.mark.fuzz("image-cuts")
def test_a_dump_of_the_image_is_readable_wherever_it_ends(image, fuzz, tmp_path):
    for seed in fuzz.seeds(6):
        choice, kinds = random.Random(seed), Counter()
        latency = choice.choice((1000, 10**9 // 50, 10**9 // 2))
        crash = CutCrash(seed, ram=image.ram, reorder=True, latency=latency).by_image(image)
        whole = crash.stream()
        for _ in range(CUTS):
            cut = crash.disk.cut(
                choice.randint(0, len(crash.disk.events)), choice, choice.choice(CACHES)
            )
            kinds[holds(cut, whole, tmp_path)] += 1
        fuzz.done += kinds
