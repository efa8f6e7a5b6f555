"""A figure of ours beside a peer's: the line that a benchmark prints.

Used by the benchmarks of block devices and of the page filter. The rule: a ratio over 1 is in our
favour, whatever the unit is.
"""

from __future__ import annotations

import json

LESS_IS_BETTER = ("us/MiB", "bytes", "s/GiB", "ns/page", "s", "pages", "MiB")


def show(name: str, ours: float, peer: float, unit: str) -> None:
    """Print it as JSON."""
    ratio = peer / ours if unit in LESS_IS_BETTER else ours / peer
    figures = {"ours": round(ours, 2), "peer": round(peer, 2), "unit": unit}
    print(json.dumps({"name": name, **figures, "ratio": round(ratio, 2)}), flush=True)
