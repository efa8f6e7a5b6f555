"""GRUB's script language: if, for, while, functions, blocks; run as it is read.

Used by grub.py, which has the commands. Rules: there is no tree in memory; what is not to be run is
read past. Nesting, loops, words and the work as a whole are bounded.
Source: GRUB manual, "Shell-like scripting"; grub-core/script/parser.y.
"""

from .errors import Damaged
from .grubwords import CLOSE, END, LINE, OPEN, WORD, WORDS_MAX, Cursor, expand
from .nodes import shown

DEPTH_MAX = 12
LOOPS_MAX = 200
# How the rest of a list is left out.
RETURN, BREAK, CONTINUE = "return", "break", "continue"


class Block:
    """A part of a text that can be run. text: bytes; begin, end: in it."""

    def __init__(self, text, begin, end):
        self.text = text
        self.begin = begin
        self.end = end


class Script:
    """A run of a Block.

    Args:
        machine: has work (grubwords.Work), depth, leaving (None or RETURN, BREAK, CONTINUE),
            status (bool), loops, value(name), define(name, Block), set(name, value), and async
            do(words, Block or None), which returns a status.
        block: Block.
    """

    def __init__(self, machine, block):
        self._machine = machine
        self._cursor = Cursor(block.text, block.begin, block.end, machine.work)

    async def run(self):
        """Run it to its end. Raises: Damaged, Exhausted; as the commands do."""
        self._machine.depth += 1
        if self._machine.depth > DEPTH_MAX:
            raise Damaged("a GRUB script nests deeper than %d" % DEPTH_MAX)
        self._cursor.next()
        await self._list(True, ())
        if self._cursor.kind != END:
            raise Damaged("a GRUB script with a } too many")
        self._machine.depth -= 1

    def _runs(self, run):
        return run and self._machine.leaving is None

    async def _list(self, run, stops):
        """Run commands up to one of the words that end a list; the cursor is there then."""
        cursor = self._cursor
        self._machine.depth += 1
        if self._machine.depth > DEPTH_MAX:
            raise Damaged("a GRUB script nests deeper than %d" % DEPTH_MAX)
        while True:
            while cursor.kind == LINE:
                cursor.next()
            if cursor.kind == END or cursor.kind == CLOSE:
                break
            if cursor.kind == WORD and cursor.raw() in stops:
                break
            await self._command(self._runs(run))
        self._machine.depth -= 1

    def _expect(self, *words):
        """Go past one of these words. Returns it."""
        cursor = self._cursor
        raw = cursor.raw()
        if cursor.kind != WORD or raw not in words:
            raise Damaged(
                "a GRUB script has %s where %s is expected"
                % (shown(raw) or "an end", shown(b" or ".join(words)))
            )
        cursor.next()
        return raw

    async def _command(self, run):
        cursor = self._cursor
        raw = cursor.raw()
        if cursor.kind == OPEN:
            cursor.next()
            await self._list(run, ())
            self._close()
        elif raw == b"if":
            await self._if(run)
        elif raw in (b"while", b"until"):
            await self._while(run, raw == b"while")
        elif raw == b"for":
            await self._for(run)
        elif raw == b"function":
            await self._function(run)
        elif raw == b"!":
            cursor.next()
            await self._command(run)
            if run:
                self._machine.status = not self._machine.status
        else:
            await self._simple(run)

    async def _if(self, run):
        machine = self._machine
        word = self._expect(b"if")
        is_done = False
        while word in (b"if", b"elif"):
            await self._list(run and not is_done, (b"then",))
            self._expect(b"then")
            is_taken = self._runs(run) and not is_done and machine.status
            if run and not is_done and not is_taken:
                machine.status = True
            await self._list(is_taken, (b"elif", b"else", b"fi"))
            is_done = is_done or is_taken
            word = self._expect(b"elif", b"else", b"fi")
        if word == b"else":
            await self._list(run and not is_done, (b"fi",))
            self._expect(b"fi")

    async def _while(self, run, wanted):
        machine = self._machine
        cursor = self._cursor
        cursor.next()
        # Where the condition begins.
        at, kind, begin = cursor.at, cursor.kind, cursor.begin
        while True:
            await self._list(run, (b"do",))
            self._expect(b"do")
            is_on = self._runs(run) and machine.status == wanted
            await self._list(is_on, (b"done",))
            if not is_on or not self._again():
                break
            cursor.at, cursor.kind, cursor.begin = at, kind, begin
        self._expect(b"done")
        if run:
            machine.status = True

    def _again(self):
        """Tell, behind the body of a loop, whether it may go on."""
        machine = self._machine
        machine.loops += 1
        if machine.loops > LOOPS_MAX:
            raise Damaged("a GRUB script with more than %d turns of loops" % LOOPS_MAX)
        if machine.leaving == CONTINUE:
            machine.leaving = None
        elif machine.leaving == BREAK:
            machine.leaving = None
            return False
        return machine.leaving is None

    async def _for(self, run):
        cursor = self._cursor
        cursor.next()
        name = cursor.raw()
        cursor.next()
        self._expect(b"in")
        words = self._words(run)
        while cursor.kind == LINE:
            cursor.next()
        self._expect(b"do")
        at, kind, begin = cursor.at, cursor.kind, cursor.begin
        for word in words:
            self._machine.set(name, word)
            cursor.at, cursor.kind, cursor.begin = at, kind, begin
            await self._list(True, (b"done",))
            if not self._again():
                break
        if not words:
            await self._list(False, (b"done",))
        self._expect(b"done")

    async def _function(self, run):
        cursor = self._cursor
        cursor.next()
        name = cursor.raw()
        cursor.next()
        while cursor.kind == LINE:
            cursor.next()
        block = await self._block()
        if run:
            self._machine.define(name, block)

    async def _block(self):
        """Read past a block in braces. Returns Block."""
        cursor = self._cursor
        if cursor.kind != OPEN:
            raise Damaged("a GRUB script without a { where one is expected")
        begin = cursor.at
        cursor.next()
        await self._list(False, ())
        end = cursor.begin
        self._close()
        return Block(cursor.text, begin, end)

    def _close(self):
        if self._cursor.kind != CLOSE:
            raise Damaged("a GRUB script with a { that is not closed")
        self._cursor.next()

    def _words(self, run):
        """Read the words up to the end of a command. Returns what they become, if it is run."""
        cursor = self._cursor
        found = []
        while cursor.kind == WORD:
            if run:
                found += expand(cursor.raw(), self._machine.value)
            if len(found) > WORDS_MAX:
                raise Damaged("a GRUB command of more than %d words" % WORDS_MAX)
            cursor.next()
        return found

    async def _simple(self, run):
        words = self._words(run)
        block = None
        if self._cursor.kind == OPEN:
            block = await self._block()
        if self._cursor.kind == WORD:
            raise Damaged("a GRUB script with a word behind a }")
        if run and words:
            self._machine.status = await self._machine.do(words, block)
