"""`./build.py bench block`: block devices whole, front end and backend, each beside its peers.

A line for each figure, from three parts that can be had alone by their names. The rule: what is
compared takes turns, so that whatever else the machine does disturbs both alike.
"""

from __future__ import annotations

from bench import blkback, blkfront, neighbours
from tools.progress import Display

PARTS = (blkfront, blkback, neighbours)


def run(progress: Display) -> None:
    """Measure and print a line for each figure."""
    for part in PARTS:
        part.run(progress)
