"""Text that a peer or a person wrote: numbers and printable characters, checked before use.

Used wherever a node of xenstore, a message, a command line or a disk is read as text. The rule:
only plain ASCII counts, so that both Pythons and both ends of a connection read the same. int()
alone would take "+1", "1_0", " 1" and other alphabets' digits.
"""

DECIMAL = "0123456789"
HEXADECIMAL = DECIMAL + "abcdefABCDEF"
# Characters of the largest u64.
DECIMAL_MAX = 20
HEXADECIMAL_MAX = 16


def decimal(text, least, most):
    """Read a decimal number. Leading zeros make it none, as they make a node's name another.

    Args:
        text: str or bytes of any length and content.
        least, most: the bounds of the number, both included.

    Returns: the number, or None where the text is not one within the bounds.
    """
    if not 0 < len(text) <= DECIMAL_MAX or (len(text) > 1 and text[0] in (48, "0")):
        return None
    return _number(text, DECIMAL, 10, least, most)


def hexadecimal(text, least, most):
    """Read a hexadecimal number, without 0x; leading zeros count for nothing.

    Args and Returns: as for decimal().
    """
    if not 0 < len(text) <= HEXADECIMAL_MAX:
        return None
    return _number(text, HEXADECIMAL, 16, least, most)


def _number(text, digits, base, least, most):
    text = text if isinstance(text, str) else printable(text)
    for c in text:
        if c not in digits:
            return None
    value = int(text, base)
    return value if least <= value <= most else None


def printable(raw, other="?"):
    """Make bytes a text that cannot harm a terminal.

    Args:
        raw: bytes, bytearray or memoryview.
        other: the character that stands for each byte that is no printable ASCII.

    Returns: a str with one character for each byte.
    """
    return "".join(chr(c) if 32 <= c < 127 else other for c in raw)
