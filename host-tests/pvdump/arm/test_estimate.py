"""`pvdump estimate`: pages by class, and what their content takes when it is compressed."""

import json
import random
from pathlib import Path

import pytest
from fixtures.armingroot import MIB, ArmingRoot

from pvdump import cli
from pvdump.arm import estimate
from pvdump.arm.estimate import CACHE, FREE, GONE, KERNEL, PRIVATE_CACHE, USER
from pvdump.guest import record
from pvfw import config

PAGE = 4096
# Bits of /proc/kpageflags, by their numbers there.
LRU, BUDDY, ANON, SWAPCACHE, SWAPBACKED = 1 << 5, 1 << 10, 1 << 12, 1 << 13, 1 << 14
HEAD, TAIL, HUGE, HWPOISON, THP, OFFLINE = 1 << 15, 1 << 16, 1 << 17, 1 << 19, 1 << 22, 1 << 23
SLAB, RESERVED, PRIVATE = 1 << 7, 1 << 32, 1 << 35
FIRST = 0x400  # a frame that no crash kernel is in


def counted(guest: ArmingRoot) -> dict[str, int]:
    guest.put_flags()
    return {name: one.pages for name, one in estimate.survey(guest.path).items() if one.pages}


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (BUDDY, FREE),
        (LRU | ANON, USER),
        (LRU | ANON | SWAPBACKED, USER),
        (HUGE, USER),
        (HUGE | TAIL, USER),
        (THP | TAIL | ANON, USER),
        (LRU, CACHE),
        (SWAPCACHE | SWAPBACKED, CACHE),
        (LRU | PRIVATE, PRIVATE_CACHE),
        (HWPOISON, GONE),
        (OFFLINE, GONE),
    ],
)
def test_a_page_is_counted_as_the_filter_would_judge_it(
    guest: ArmingRoot, flags: int, name: str
) -> None:
    whole = counted(guest)[KERNEL]
    guest.flags[FIRST] = flags
    assert counted(guest) == {KERNEL: whole - 1, name: 1}


@pytest.mark.parametrize("flags", [SLAB, RESERVED, 0, SWAPBACKED, PRIVATE])
def test_what_is_in_no_class_is_the_kernel_s(guest: ArmingRoot, flags: int) -> None:
    whole = counted(guest)
    guest.flags[FIRST] = flags
    assert counted(guest) == whole


@pytest.mark.parametrize("head", [LRU, LRU | PRIVATE, SLAB])
def test_the_tails_of_a_large_page_are_counted_with_its_head(guest: ArmingRoot, head: int) -> None:
    before = counted(guest)
    name = {LRU: CACHE, LRU | PRIVATE: PRIVATE_CACHE}.get(head, KERNEL)
    guest.flags[FIRST] = head | HEAD
    for pfn in range(FIRST + 1, FIRST + 8):
        guest.flags[pfn] = TAIL | THP
    left = before[KERNEL] - 8
    assert counted(guest) == ({KERNEL: left, name: 8} if name != KERNEL else before)


def test_the_crash_kernel_is_not_counted(guest: ArmingRoot) -> None:
    assert sum(counted(guest).values()) == 0x9E + (15 - 2) * 256


# Sizes.


def fill(guest: ArmingRoot, begin: int, flags: int, pages: list[bytes]) -> None:
    for pfn in range(begin, begin + len(pages)):
        guest.flags[pfn] = flags
    guest.put(begin * PAGE, b"".join(pages))


@pytest.fixture
def filled(guest: ArmingRoot) -> ArmingRoot:
    """A MiB each of kernel, cache and user pages of noise, free ones half so; the rest zeros."""
    noise = random.Random(3)
    for begin, flags in ((0x400, 0), (0x500, LRU), (0x600, ANON)):
        fill(guest, begin, flags, [noise.randbytes(PAGE) for _ in range(256)])
    half = [noise.randbytes(PAGE // 2).ljust(PAGE, b"\0") for _ in range(256)]
    fill(guest, 0x700, BUDDY, half)
    guest.put_flags()
    return guest


# Chunks of 128 KiB have a header and end at a page.
FULL = 1.02


@pytest.mark.parametrize(
    ("level", "compress", "mib"),
    [
        (0, "zstd", 3.5 * FULL),
        (1, "zstd", 3.5 * FULL),
        (17, "zstd", 3 * FULL),
        (25, "zstd", 2 * FULL),
        (31, "zstd", 1 * FULL),
        (0, "none", 13.6),
        (31, "none", 10.6),
    ],
)
def test_a_level_takes_what_it_keeps(
    filled: ArmingRoot, level: int, compress: str, mib: float
) -> None:
    log = estimate.estimate(config.LOG_ONLY, compress, filled.path)
    assert 0 < log < MIB
    found = estimate.estimate(level, compress, filled.path) - log
    assert found == pytest.approx(mib * MIB, rel=0.01)


def test_a_sample_of_many_pages_is_even(guest: ArmingRoot) -> None:
    sample = estimate.Sample()
    for begin in range(0, 100_000, 10):
        sample.add(begin, 7)
    assert estimate.SAMPLE <= len(sample.pfns) < 2 * estimate.SAMPLE
    assert all(pfn % 10 < 7 for pfn in sample.pfns)
    gaps = {second - first for first, second in zip(sample.pfns, sample.pfns[1:], strict=False)}
    assert max(gaps) - min(gaps) <= 6


def test_the_command_has_the_levels_and_the_configured_one(
    filled: ArmingRoot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "ROOT", filled.path)
    (filled.path / "c.yaml").write_text("level: 23")
    words = ["estimate", f"--config={filled.path / 'c.yaml'}"]
    assert cli.main([*words, "--json"]) == 0
    sizes = json.loads(capsys.readouterr().out)
    assert list(sizes) == ["0", "1", "17", "23", "31", "log"]
    assert sizes["0"] >= sizes["1"] >= sizes["17"] >= sizes["23"] >= sizes["31"] >= sizes["log"]
    assert cli.main(words) == 0
    assert "level  23" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["proc/kpageflags", "proc/kcore"])
def test_a_kernel_that_does_not_tell_is_a_line(
    guest: ArmingRoot,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.setattr(record, "ROOT", guest.path)
    Path(guest.path / name).unlink()
    assert cli.main(["estimate"]) == 1
    assert f"{name}: No such file" in capsys.readouterr().err
