"""Runs in the image: the cases of the page filter, one line each.

host-tests/boot/test_pagefilter.py reads these lines, each a case's name and what the filter says.
"""

from filtercases import lines

import hw


def main():
    try:
        for name, line in lines():
            print(name, line)
        print("end", 0)
    finally:
        hw.halt()
