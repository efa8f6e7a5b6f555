"""The report of progress: lines on the console, and nodes in xenstore.

Made by main, given to each mode. Rule: telling is never the reason that a dump fails; once a node
could not be written none is tried again before the end.
"""

from xenpv.errors import XenError

from .errors import reason as why

NODE = "data/pvdump/"


def say(line):
    """Put one line on the console."""
    print("pvdump: " + line)


class Report:
    """Reports progress to the toolstack and on the console.

    Args:
        guest: Guest.
    """

    def __init__(self, guest):
        self._guest = guest
        self._tells = True

    async def tell(self, key, value):
        """Write a node below NODE. Once that has failed it is not tried again."""
        if not self._tells:
            return
        try:
            await self._guest.store.write(NODE + key, value)
        except (XenError, MemoryError) as e:
            self._tells = False
            say("%s; the dump goes on" % why(e))

    async def end(self, state, reason):
        """Tell xenstore how it ended and hand the ring back, as far as that works.

        Args:
            state: "complete" or "failed".
            reason: why it failed, "" if it did not.
        """
        store = self._guest.store
        if not store.connected():
            return
        try:
            await store.write(NODE + "state", state)
            await store.write(NODE + "reason", reason)
        except (XenError, MemoryError) as e:
            say("telling xenstore: %s" % why(e))
        try:
            await store.close()
        except (XenError, MemoryError) as e:
            say("leaving xenstore: %s" % why(e))
