"""The Python prompt: it reads statements at the console and runs them in the globals of __main__.

Used by shell.mode. A statement may go over several lines; a blank line ends it. `await` works at
its top level, and a coroutine that stands alone is run: `store.read("name")` shows the value. Rule:
an exception ends the statement and never the prompt, except SystemExit.
"""

import builtins
import sys

import terminal

CTRL_C, CTRL_D, CTRL_E = 3, 4, 5
NAME = "<stdin>"


class Prompt:
    """A prompt at the console.

    Args:
        loop: ShellLoop.
    """

    def __init__(self, loop):
        self._loop = loop
        builtins.__repl_print__ = self.show
        terminal.on_idle(loop.turn)

    def run(self):
        """Read and run statements until Ctrl-D. Raises: SystemExit."""
        while True:
            try:
                text, is_single = self._statement()
                if text is None:
                    return
                self.execute(text, NAME, is_single)
            except KeyboardInterrupt:
                print()

    def execute(self, text, name, is_single):
        """Run a program; an exception of it is printed.

        Args:
            text: str or bytes.
            name: the file's name, for tracebacks.
            is_single: whether it is one statement, whose value is shown.

        Returns: whether it came to its end. Raises: SystemExit.
        """
        terminal.interrupts(terminal.AT_ONCE)
        try:
            self._wait_for(terminal.execute(text, name, is_single))
            return True
        except SystemExit:
            raise
        except BaseException as e:
            sys.print_exception(e)
            return False
        finally:
            terminal.interrupts(terminal.OFF)

    def show(self, value):
        """Print the value of a statement; that of a coroutine is what it returns."""
        value = self._wait_for(value)
        if value is not None:
            builtins._ = value
            print(repr(value))

    def _wait_for(self, value):
        return self._loop.complete(value) if isinstance(value, COROUTINE) else value

    def _statement(self):
        """Read what to run.

        Returns: (text, whether it is one statement); no text, None, when there will be no more.
        """
        ended, text = terminal.line("", ">>> ")
        if ended == CTRL_D:
            print()
            return None, True
        if ended == CTRL_E:
            return self._paste(), False
        while not ended and terminal.is_unfinished(text):
            ended, text = terminal.line(text + "\n", "... ")
            # A line that has the indentation alone is a blank one.
            if not text.rpartition("\n")[2].strip(" "):
                text = text.rstrip(" ")
        if ended:
            print()
        return "" if ended == CTRL_C else text, True

    def _paste(self):
        """Read lines up to Ctrl-D; nothing is indented or completed."""
        print("\npaste mode: Ctrl-D runs it, Ctrl-C gives it up")
        text, row = "", "=== "
        print(row, end="")
        while True:
            key = terminal.wait(row)
            if key in (CTRL_C, CTRL_D):
                print()
                return "" if key == CTRL_C else text
            if key == 13:
                text += "\n"
                row = "=== "
                print("\n" + row, end="")
            else:
                text += chr(key)
                row += chr(key)
                print(chr(key), end="")


async def _nothing():
    pass


COROUTINE = type(_nothing())
