"""`./build.py bench pack`: compression, CRC-32, encryption, hashes, beside the usual libraries.

hw.pack, hw.crc32, hw.seal and hw.blake2b_update are the images' C, zstd with the image's settings,
compiled for CPython. The peers are Python's zstandard, a page a call at level 1, zlib.crc32,
hashlib, which has SIMD, and pyrage, which makes an age file of the whole and has it too. There are
as many pages of each kind: this tree's text, the image's code, tables of pointers, and noise and
zeros by turns. The rule: CPU time of one core; ours and the peer take turns, and each one's best
round counts.
"""

from __future__ import annotations

import hashlib
import random
import struct
import tempfile
import time
import zlib
from array import array
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace

import pyrage
import zstandard

from bench import figure
from tools import hwlib, image
from tools.progress import Display

hwlib.install()

import hw  # noqa: E402 - it is compiled by now

ROOT = Path(__file__).resolve().parent.parent
PAGE = 4096
ZEROS = bytes(PAGE)
CHUNK = 1 << 16  # bytes
EACH = 1024  # pages of each kind
ROUNDS = 5


def run(progress: Display) -> None:
    """Measure and print a line for each figure."""
    content = mixture(progress)
    with progress.stage("pack"):
        measure(content)


def mixture(progress: Display) -> bytes:
    """Return pages of all kinds, one behind the other."""
    dice = random.Random(1)
    text = b"".join(path.read_bytes() for path in sorted(ROOT.glob("d*/**/*.[mp][dy]")))
    with tempfile.TemporaryDirectory(prefix="pvdump-bench-") as folder:
        code = image.build(Path(folder), progress=progress).elf.read_bytes()
    pointers = b"".join(
        struct.pack("<QQ", 0xFFFF888000000000 + 64 * dice.randrange(1 << 20), dice.randrange(4))
        for _ in range(EACH * PAGE // 16)
    )
    noise = b"".join(dice.randbytes(PAGE) + ZEROS for _ in range(EACH // 2))
    kinds = (text, code, pointers, noise)
    return b"".join(bytes(islice(cycle(kind), EACH * PAGE)) for kind in kinds)


def measure(content: bytes) -> None:
    """Show the figures of these pages."""
    hw.attach(SimpleNamespace(ram=bytearray(content)))
    pages = [content[at : at + PAGE] for at in range(0, len(content), PAGE)]
    pack, zstd = best(lambda: packed(len(pages)), lambda: compressed(pages))
    show("pack", len(content), pack, zstd)
    figure.show("pack, data of the pages", packed(len(pages)), compressed(pages), "bytes")
    chunks = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
    ours, peer = best(
        lambda: sum(map(hw.crc32, chunks)),
        lambda: sum(map(zlib.crc32, chunks)),
    )
    show("crc32", len(content), ours, peer)
    recipient = pyrage.x25519.Identity.generate().to_public()
    ours, peer = best(lambda: sealed(chunks), lambda: len(pyrage.encrypt(content, [recipient])))
    show("seal", len(content), ours, peer)
    ours, peer = best(
        lambda: hashed(content),
        lambda: len(hashlib.blake2b(content).digest()),
    )
    show("blake2b", len(content), ours, peer)


def hashed(content: bytes) -> int:
    """Hash a content as the check of a signature does. Returns the bytes of the hash."""
    state = bytearray(256)
    hw.blake2b_update(state, content)
    return len(hw.blake2b_final(state))


def sealed(chunks: list[bytes]) -> int:
    """Encrypt chunks. Returns their bytes."""
    key, out = bytes(32), bytearray(CHUNK + 16)
    for number, chunk in enumerate(chunks):
        hw.seal(key, number, False, chunk, out)
    return len(chunks) * len(out)


def packed(pages: int) -> int:
    """Pack the frames of the RAM chunk by chunk. Returns the bytes of their data."""
    state, out, table = array("Q", [0, pages, 0, 0, 0]), bytearray(CHUNK), bytearray(CHUNK)
    size = 0
    while state[1]:
        state[3] = state[4] = 0
        hw.pack(state, None, out, table)
        size += state[3]
    return size


def compressed(pages: list[bytes]) -> int:
    """Do the same by zstandard."""
    compressor = zstandard.ZstdCompressor(level=1)
    return sum(min(PAGE, len(compressor.compress(page))) for page in pages if page != ZEROS)


def best(ours: Callable[[], int], peer: Callable[[], int]) -> list[float]:
    """Return the CPU seconds of the best round of each."""
    found: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for work, seconds in zip((ours, peer), found, strict=True):
            start = time.process_time()
            work()
            seconds.append(time.process_time() - start)
    return [min(seconds) for seconds in found]


def show(name: str, size: int, ours: float, peer: float) -> None:
    """Print the rates of two that did the same."""
    figure.show(name, size / ours / 1e6, size / peer / 1e6, "MB/s")
