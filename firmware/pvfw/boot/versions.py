"""The order of versions: the comparison of UAPI.10.

Used for the entries of a boot menu. Rule: the specification's steps, in its order.
Source: UAPI Group, Version Format Specification (UAPI.10).
"""

DIGITS = b"0123456789"
LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
SEPARATORS = b"~-^."
VALID = DIGITS + LETTERS + SEPARATORS
TILDE = SEPARATORS[0]


def compare(a, b):
    """Return a number below, at or above 0 as version a is older than, as old as, or newer than b.

    Args:
        a, b: bytes.
    """
    i = j = 0
    while True:
        i, j = _run(a, i, VALID, False), _run(b, j, VALID, False)
        for c in SEPARATORS:
            in_a, in_b = i < len(a) and a[i] == c, j < len(b) and b[j] == c
            if in_a != in_b:
                return -1 if in_a else 1
            i, j = i + in_a, j + in_b
            # Only a pre-release is older than what has ended.
            if c == TILDE and (i == len(a) or j == len(b)):
                return (i < len(a)) - (j < len(b))
        is_number = a[i : i + 1].isdigit() or b[j : j + 1].isdigit()
        kind = DIGITS if is_number else LETTERS
        end, other = _run(a, i, kind, True), _run(b, j, kind, True)
        found = _numbers(a[i:end], b[j:other]) if is_number else _order(a[i:end], b[j:other])
        if found:
            return found
        i, j = end, other


def _run(text, at, kind, is_in):
    """Return where the run of characters of a kind, or of none of it, ends."""
    while at < len(text) and (text[at] in kind) == is_in:
        at += 1
    return at


def _numbers(a, b):
    if not a or not b:
        # Letters are older than any number.
        return (1 if a else 0) - (1 if b else 0)
    a, b = a.lstrip(b"0"), b.lstrip(b"0")
    return len(a) - len(b) or _order(a, b)


def _order(a, b):
    return (a > b) - (a < b)
