"""The begin and end of guests of the benchmarks and of the conformance suite.

Frozen into their images beside what they are for, whose main() is `oneshot.run(work)`: one piece of
work with a connected store, told in lines on the console, and the guest powers off.
"""

import hw
from xenpv import abi
from xenpv.guest import Guest

FLUSH_MS = 2000


def run(work):
    """Connect xenstore, run one piece of work and power the guest off.

    Args:
        work: a coroutine function (xen, loop, store) that returns the last line to print.
    """
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
    """Print a line and wait until the console has taken it."""
    print(line)
    hw.console_flush(FLUSH_MS)
