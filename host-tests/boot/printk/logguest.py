"""Runs in the image: the cases of the crashed kernel's log, one line each.

host-tests/boot/test_printk.py reads these lines, each a case's name and what its log gives.
"""

from logcases import CASES, opened

import hw


def main():
    try:
        for case in CASES:
            log = opened(case()[0])
            lines = list(log.lines())
            print(case.__name__, log.lost, lines)
        print("end", len(CASES))
    finally:
        hw.halt()
