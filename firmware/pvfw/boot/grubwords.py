"""Words of GRUB's script language: where they end, and what becomes of them.

Used by grubscript.py. Rules: a text is read in place, nothing is kept but where a word begins and
ends; the bytes that were looked at are counted, and bounded, since a loop reads its body again.
Source: GRUB manual, "Shell-like scripting"; grub-core/script/yylex.l.
"""

from .errors import Damaged, Exhausted

# Kinds of tokens.
WORD, LINE, OPEN, CLOSE, END = "word", "line", "{", "}", "end"
BLANKS = b" \t\r"
SPECIAL = b" \t\r\n;{}|&<>"
REFUSED = b"|&<>"
SCANNED_MAX = 4 << 20
WORD_MAX = 8192
WORDS_MAX = 256
DIGITS = b"0123456789"
LETTERS = b"_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
BACKSLASH, DOLLAR, SINGLE, DOUBLE, HASH, NEWLINE, BRACE = b"\\$'\"#\n{"


class Work:
    """What one evaluation may still cause. Attributes: scanned, bytes looked at so far."""

    def __init__(self):
        self.scanned = 0

    def add(self, count):
        """Count bytes that were looked at. Raises Exhausted."""
        self.scanned += count
        if self.scanned > SCANNED_MAX:
            raise Exhausted("a GRUB script of more than %d bytes, with its loops" % SCANNED_MAX)


class Cursor:
    """A place in a text, and the token there.

    Args:
        text: bytes.
        at, end: the part of it that is read.
        work: Work.

    Attributes: at, behind the token; kind, of the token; begin, where it begins.
    """

    def __init__(self, text, at, end, work):
        self.text = text
        self.at = at
        self.end = end
        self.work = work
        self.kind = LINE
        self.begin = at

    def raw(self):
        """Return the token as it is written."""
        return self.text[self.begin : self.at]

    def next(self):
        """Go to the next token. Raises: Damaged, Exhausted."""
        text, at, end = self.text, self.at, self.end
        before = at
        while at < end:
            c = text[at]
            if c in BLANKS:
                at += 1
            elif c == BACKSLASH and text[at + 1 : at + 2] == b"\n":
                at += 2
            elif c == HASH:
                newline = text.find(b"\n", at, end)
                at = newline if newline >= 0 else end
            else:
                break
        self.begin = at
        if at >= end:
            self.kind = END
            self.at = end
        elif text[at] in b"\n;{}":
            c = text[at]
            self.kind = OPEN if c == BRACE else CLOSE if text[at : at + 1] == b"}" else LINE
            self.at = at + 1
        else:
            self.kind = WORD
            self.at = self._word(at)
        self.work.add(self.at - before)

    def _word(self, at):
        """Return where the word that begins here ends."""
        text, end = self.text, self.end
        while at < end and text[at] not in SPECIAL:
            c = text[at]
            if c == BACKSLASH:
                at += 2
            elif c == SINGLE:
                at = self._find(b"'", at + 1)
            elif c == DOUBLE:
                at = self._quoted(at + 1)
            elif c == DOLLAR and text[at + 1 : at + 2] == b"{":
                at = self._find(b"}", at + 2)
            else:
                at += 1
        if at < end and text[at] in REFUSED:
            raise Damaged("GRUB's scripts have no %s" % chr(text[at]))
        return min(at, end)

    def _find(self, what, at):
        found = self.text.find(what, at, self.end)
        if found < 0:
            raise Damaged("a GRUB script with a word that does not end")
        return found + 1

    def _quoted(self, at):
        text = self.text
        while at < self.end and text[at] != DOUBLE:
            c = text[at]
            if c == DOLLAR and text[at + 1 : at + 2] == b"{":
                # A quote in a variable's name does not end the word.
                at = self._find(b"}", at + 2)
            else:
                at += 2 if c == BACKSLASH else 1
        if at >= self.end:
            raise Damaged("a GRUB script with a word that does not end")
        return at + 1


def expand(raw, value):
    """Make the words that a written word becomes.

    Args:
        raw: bytes, as a Cursor gives it.
        value: a function that returns the value (bytes) of a variable's name.

    Returns: list of bytes; a variable outside quotes may become several words, or none. Raises
    Damaged: too long.
    """
    return _Expansion(raw, value).words()


class _Expansion:
    def __init__(self, raw, value):
        self._raw = raw
        self._value = value
        self._found = []
        # The word that is being made; None where there is none yet.
        self._word = None
        self._size = 0

    def words(self):
        raw = self._raw
        at, end = 0, len(raw)
        while at < end:
            c = raw[at]
            if c == BACKSLASH:
                self._add(b"" if raw[at + 1 : at + 2] == b"\n" else raw[at + 1 : at + 2])
                at += 2
            elif c == SINGLE:
                close = raw.find(b"'", at + 1)
                self._add(raw[at + 1 : close])
                at = close + 1
            elif c == DOUBLE:
                at = self._quoted(at + 1)
            elif c == DOLLAR:
                at = self._variable(at, False)
            else:
                begin = at
                while at < end and raw[at] not in b"\\'\"$":
                    at += 1
                self._add(raw[begin:at])
        if self._word is not None:
            self._found.append(self._word)
        return self._found

    def _add(self, text):
        self._word = text if self._word is None else self._word + text
        self._size += len(text)
        if self._size > WORD_MAX or len(self._found) > WORDS_MAX:
            raise Damaged("a word of more than %d bytes in a GRUB script" % WORD_MAX)

    def _quoted(self, at):
        """Add what stands in double quotes. Returns where it ends."""
        raw = self._raw
        self._add(b"")
        while raw[at] != DOUBLE:
            c = raw[at]
            if c == BACKSLASH:
                following = raw[at + 1 : at + 2]
                if following in (b"$", b'"', b"\\"):
                    self._add(following)
                elif following != b"\n":
                    self._add(raw[at : at + 2])
                at += 2
            elif c == DOLLAR:
                at = self._variable(at, True)
            else:
                begin = at
                while raw[at] not in b'\\"$':
                    at += 1
                self._add(raw[begin:at])
        return at + 1

    def _variable(self, at, is_quoted):
        """Add a variable's value. Returns where its name ends."""
        raw = self._raw
        begin = at + 1
        if raw[begin : begin + 1] == b"{":
            end = raw.find(b"}", begin)
            name, at = raw[begin + 1 : end], end + 1
        else:
            at = begin
            first = raw[at : at + 1]
            if first and first in b"@*#?":
                at += 1
            elif first and first in DIGITS:
                while at < len(raw) and raw[at] in DIGITS:
                    at += 1
            else:
                while at < len(raw) and (raw[at] in LETTERS or raw[at] in DIGITS):
                    at += 1
            name = raw[begin:at]
        if not name:
            self._add(b"" if raw[at : at + 1] in (b'"', b"'") and not is_quoted else b"$")
            return at
        value = self._value(name)
        if is_quoted:
            self._add(value)
            return at
        parts = value.split()
        if value[:1].isspace():
            self._flush()
        for i, part in enumerate(parts):
            if i:
                self._flush()
            self._add(part)
        if parts and value[-1:].isspace():
            self._flush()
        return at

    def _flush(self):
        if self._word is not None:
            self._found.append(self._word)
            self._word = None
