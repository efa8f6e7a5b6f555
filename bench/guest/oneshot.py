"""What the guests of benchmarks and of the conformance suite begin and end with.

Frozen into their images beside what they are for, whose main() is `oneshot.run(work)`: one piece of
work with a connected store, told in lines on the console, and the guest powers off.
"""

import hw
from xenpv import abi
from xenpv.evtchn import EventChannels
from xenpv.hypercall import Hypercalls
from xenpv.schedpoll import PollLoop
from xenpv.xenstore import Xenstore
from xenpv.xs_ring import RingTransport

FLUSH_MS = 2000


def run(work):
    """work(xen, loop, store): a coroutine function; it returns the last line to say."""
    xen = Hypercalls()
    loop = PollLoop(xen, EventChannels(xen))
    loop.run(_work(xen, loop, work))
    xen.shutdown(abi.SHUTDOWN_poweroff)


async def _work(xen, loop, work):
    store = Xenstore(loop, RingTransport(xen, loop))
    await store.connect()
    last = await work(xen, loop, store)
    await store.close()
    say(last)


def say(line):
    """A line on the console, there before anything else is done."""
    print(line)
    hw.console_flush(FLUSH_MS)
