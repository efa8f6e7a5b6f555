"""How many seeds the tests take that have one promise for all of them.

`PVDUMP_SEEDS=10000` in the environment takes so many, `PVDUMP_SEEDS=7-7` one again.
"""

import os


def seeds(usual: int) -> range:
    first, _, last = os.environ.get("PVDUMP_SEEDS", str(usual)).rpartition("-")
    return range(int(first or 1), int(last) + 1)
