"""GRUB's command `test`, also written [ ... ]: comparisons of texts, numbers and files.

Used by grub.py. Source: GRUB manual, "test"; grub-core/commands/test.c.
"""

from .errors import Damaged

DEPTH_MAX = 8
NUMBER_MAX = 18
TEXTS = (b"=", b"==", b"!=", b"<", b"<=", b">", b">=")
NUMBERS = (b"-eq", b"-ge", b"-gt", b"-le", b"-lt", b"-ne")


async def evaluate(words, look):
    """Evaluate the arguments of `test`.

    Args:
        words: list of bytes.
        look: an async function that is given b"-f", b"-d", b"-e" or b"-s" and a path, and tells
            whether it is so.

    Returns: bool. Raises Damaged: it makes no sense.
    """
    test = _Test(words, look)
    found = await test.any(0)
    if test.at != len(words):
        raise Damaged("a test in a GRUB script has a word too many")
    return found


class _Test:
    def __init__(self, words, look):
        self._words = words
        self._look = look
        self.at = 0

    def _peek(self, ahead=0):
        at = self.at + ahead
        return self._words[at] if at < len(self._words) else None

    async def any(self, depth):
        """Evaluate what stands between -o."""
        found = await self._all(depth)
        while self._peek() == b"-o":
            self.at += 1
            other = await self._all(depth)
            found = found or other
        return found

    async def _all(self, depth):
        found = await self._one(depth)
        while self._peek() not in (None, b"-o", b")"):
            # Two expressions beside each other are both meant.
            if self._peek() == b"-a":
                self.at += 1
            other = await self._one(depth)
            found = found and other
        return found

    async def _one(self, depth):
        is_negated = False
        while self._peek() == b"!" and self._peek(1) not in TEXTS:
            is_negated = not is_negated
            self.at += 1
        word = self._peek()
        second, third = self._peek(1), self._peek(2)
        if word is None:
            found = False
        elif third is not None and second in TEXTS:
            self.at += 3
            found = _texts(word, second, third)
        elif third is not None and second in NUMBERS:
            self.at += 3
            found = _numbers(_number(word), second, _number(third))
        elif word == b"(":
            if depth == DEPTH_MAX:
                raise Damaged("a test in a GRUB script nests deeper than %d" % DEPTH_MAX)
            self.at += 1
            found = await self.any(depth + 1)
            if self._peek() != b")":
                raise Damaged("a test in a GRUB script with a ( that is not closed")
            self.at += 1
        elif word in (b"-n", b"-z") and second is not None:
            self.at += 2
            found = (second != b"") == (word == b"-n")
        elif word in (b"-d", b"-e", b"-f", b"-s") and second is not None:
            self.at += 2
            found = await self._look(word, second)
        else:
            self.at += 1
            found = word != b""
        return found != is_negated


def _texts(a, how, b):
    if how == b"!=":
        return a != b
    if how in (b"=", b"=="):
        return a == b
    return a < b if how == b"<" else a <= b if how == b"<=" else a > b if how == b">" else a >= b


def _numbers(a, how, b):
    if how in (b"-eq", b"-ne"):
        return (a == b) == (how == b"-eq")
    if how in (b"-ge", b"-gt"):
        return a > b or (a == b and how == b"-ge")
    return a < b or (a == b and how == b"-le")


def _number(word):
    """Return a number, 0 where it is none, as GRUB does."""
    sign = -1 if word[:1] == b"-" else 1
    digits = word.lstrip(b"-")
    return sign * int(digits) if digits.isdigit() and len(digits) <= NUMBER_MAX else 0
