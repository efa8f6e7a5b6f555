"""This guest's drivers for a person or a kernel: a loop that runs from within, an ear for xl.

Made by bootmain. Rule: the toolstack's requests are done as soon as somebody may be kept waiting,
at a prompt, in a menu or in a script; a boot that nobody looks at does not even announce them.
"""

from xenpv.control import Control
from xenpv.errors import XenError
from xenpv.guest import Guest
from xenpv.loop import SECOND

from ..report import say
from .loop import ShellLoop


class ShellGuest(Guest):
    """The drivers of this domain; see Guest. Its loop is a ShellLoop.

    Args:
        xen: Hypercalls.
    """

    def __init__(self, xen):
        super().__init__(xen, ShellLoop)
        self._control = Control(self, say)
        self._listener = None

    async def listen(self):
        """Do what the toolstack asks for from now on: shutdown, reboot, save, restore, migrate."""
        if self._listener is not None:
            return
        try:
            # What is refused is told before a prompt is shown.
            await self._control.open()
        except XenError:
            # The task tells it, and tries again.
            pass
        self._listener = self.loop.spawn(self._control.run())

    async def leave(self):
        """Listen no more, as before the end or before a kernel is entered."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.cancel()
        while not listener.done:
            await self.loop.sleep(SECOND // 1000)
        try:
            await self._control.close()
        except XenError as e:
            say("leaving the toolstack: %s" % e)
