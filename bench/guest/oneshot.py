"""What the guests of benchmarks and of the conformance suite begin and end with.

Frozen into their images beside what they are for, whose main() is `oneshot.run(work)`: one piece of
work with a connected store, told in lines on the console, and the guest powers off.
"""

import hw
from xenpv import abi
from xenpv.guest import Guest

FLUSH_MS = 2000


def run(work):
    """work(xen, loop, store): a coroutine function; it returns the last line to say."""
    guest = Guest()
    guest.loop.run(_work(guest, work))
    guest.xen.shutdown(abi.SHUTDOWN_poweroff)


async def _work(guest, work):
    store = guest.store
    await store.connect()
    last = await work(guest.xen, guest.loop, store)
    await store.close()
    say(last)


def say(line):
    """A line on the console, there before anything else is done."""
    print(line)
    hw.console_flush(FLUSH_MS)
