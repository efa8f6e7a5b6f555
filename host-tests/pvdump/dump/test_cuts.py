"""A dump that ends at any moment, its disk losing what was not flushed: nothing, or readable."""

import random
from collections import Counter

import pytest
from fixtures.cutcrash import CutCrash, holds

CUTS = 4
CACHES = ("keeps", "loses", "mixes")
SECOND = 10**9


def dump(seed, run, **options):
    """Make a dump whose requests end in an order of the seed. Returns (disk, whole stream)."""
    latency = random.Random(seed).choice((1000, SECOND // 50, SECOND // 2))
    crash = run(CutCrash(seed, reorder=True, latency=latency, **options))
    return crash.disk, crash.stream()


def cut(disk, whole, seed, folder):
    """Cut a dump a few times, and check each cut. Returns a Counter of what was there."""
    choice, kinds = random.Random(seed), Counter()
    for _ in range(CUTS):
        moment = choice.randint(0, len(disk.events))
        # The beginning and the end have the most kinds of moments.
        moment = choice.choice((moment, choice.randint(0, 24), len(disk.events) - moment % 8))
        kinds[holds(disk.cut(moment, choice, choice.choice(CACHES)), whole, folder)] += 1
    return kinds


@pytest.mark.fuzz("cuts")
def test_a_dump_of_the_firmware_is_readable_wherever_it_ends(fuzz, tmp_path):
    for seed in fuzz.seeds(12):
        compress = random.Random(seed).choice(("zstd", "zstd", "none"))
        cmdline = f"pvdump.compress={compress}"
        disk, whole = dump(seed, CutCrash.by_firmware, cmdline=cmdline)
        fuzz.done += cut(disk, whole, seed, tmp_path)
    assert fuzz.done.keys() >= {"untouched", "some pages", "complete"}


def test_an_older_dump_in_the_same_place_adds_nothing(tmp_path):
    older, _ = dump(1, CutCrash.by_firmware)
    disk, whole = dump(2, CutCrash.by_firmware, older=older.data[1 << 20 : -4096])
    for seed in range(8):
        cut(disk, whole, seed, tmp_path)


@pytest.mark.parametrize("moment", range(24))
def test_every_moment_of_the_beginning_is_safe_with_every_cache(moment, tmp_path):
    disk, whole = dump(3, CutCrash.by_firmware)
    for cache in CACHES:
        holds(disk.cut(moment, random.Random(moment), cache), whole, tmp_path)
