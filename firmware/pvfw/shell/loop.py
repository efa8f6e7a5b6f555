"""The loop of a guest with a prompt: it also runs from within, one turn at a time.

Made by bootmain. While the line editor waits for a key, and while a program typed in waits for a
coroutine, the loop takes turns inside the task that called; all others go on. Rules: an error of a
task that nobody waits for is printed, and ends nothing else; Ctrl-C interrupts the coroutine that
the program waits for.
"""

import sys

import terminal

from xenpv.loop import Group, Task
from xenpv.pollloop import PollLoop


class ShellLoop(PollLoop):
    """The loop of this domain; see PollLoop."""

    def __init__(self, xen, evtchn):
        super().__init__(xen, evtchn)
        port = terminal.port()
        if port:
            # A key ends the wait; whoever wants keys looks for them after each turn.
            self.spawn(_watch(self))

    def turn(self):
        """Run each task that is ready; wait for an event or a key, 250 ms at most, if none is."""
        self._take_turn()

    def complete(self, coro):
        """Run a coroutine to its end, and the other tasks beside it.

        Returns: what it returns. Raises: what it raises; KeyboardInterrupt, which is raised in it
        first, so that it can clean up. A second Ctrl-C is raised wherever Python is.
        """
        group = Group()
        group.left = 1
        task = Task(self, coro, group)
        self._ready.append(task)
        before = terminal.interrupts(terminal.LATER)
        try:
            while not task.done:
                self._take_turn()
                if terminal.is_interrupted():
                    task.interrupt(KeyboardInterrupt())
        except BaseException:
            task.cancel()
            raise
        finally:
            terminal.interrupts(before)
        if task.error is not None:
            raise task.error
        return task.result

    def _failed(self, task, error):
        if task is None:
            raise error
        if task is not self._main:
            print("a task has failed:")
            sys.print_exception(error)


async def _watch(loop):
    while True:
        await loop.port(terminal.port()).wait(None)
