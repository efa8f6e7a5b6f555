"""Runs in the image: the cases of the loop, one line each.

host-tests/boot/test_loop.py reads these lines, each a case's name and its log.
"""

from loopcases import CASES, run

import hw


def main():
    try:
        for one in CASES:
            print(one.name, run(one))
        print("end", len(CASES))
    finally:
        hw.halt()
