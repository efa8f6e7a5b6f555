"""Versions: the examples of UAPI.10, and what an order must be."""

import itertools

import pytest

from pvfw.boot.versions import compare

# Of the specification's section "Examples".
EXAMPLES = """
11 == 11
systemd-123 == systemd-123
bar-123 < foo-123
123a > 123
123.a > 123
123.a < 123.b
123a > 123.a
11\u03b1 == 11\u03b2
A < a
0. > 0
0.0 > 0
0 > ~
1_ == 1
_1 == 1
1_ < 1.2
1_2_3 > 1.3.3
1+ == 1
+1 == 1
1+ < 1.2
1+2+3 > 1.3.3
122.1 > 121.1
123-3 < 123-3.1
123~rc1 < 123
123~rc1-1 < 123
123^post1 > 123
123.4-1 > 123-1
123^45-67 < 123.45-67
00123 == 123
6.12.57+deb13-amd64 > 6.12.9+deb13-amd64
6.1.0-28-cloud-amd64 > 6.1.0-9-cloud-amd64
5.14.0-503.11.1.el9.x86_64 > 5.14.0-362.8.1.el9.x86_64
0-rescue < 6.1.0
"""
ROWS = [line.split() for line in EXAMPLES.strip().splitlines()]


@pytest.mark.parametrize(("a", "sign", "b"), ROWS)
def test_the_order_is_the_specification_s(a, sign, b):
    found = compare(a.encode(), b.encode())
    assert (found > 0) - (found < 0) == {"<": -1, "==": 0, ">": 1}[sign]


def test_nothing_is_older_than_a_number_and_newer_than_a_tilde():
    assert compare(b"", b"0") < 0 < compare(b"", b"~")


def test_it_is_an_order():
    names = {name.encode() for row in ROWS for name in (row[0], row[2])} | {b"", b"-", b"^", b"."}
    for a, b in itertools.product(names, names):
        ab, ba = compare(a, b), compare(b, a)
        assert (ab > 0) - (ab < 0) == (ba < 0) - (ba > 0), (a, b)
    for a, b, c in itertools.product(names, names, names):
        if compare(a, b) <= 0 and compare(b, c) <= 0:
            assert compare(a, c) <= 0, (a, b, c)
