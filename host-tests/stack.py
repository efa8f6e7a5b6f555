"""What a guest's drivers stand on, in the domain that `hw` is about: for tests of all of them."""

from xenpv.evtchn import EventChannels
from xenpv.gnttab import GrantTable
from xenpv.hypercall import Hypercalls
from xenpv.schedpoll import PollLoop
from xenpv.xenbus import Device
from xenpv.xenstore import Xenstore
from xenpv.xs_ring import RingTransport

XVDB = "device/vbd/51728"


class Stack:
    """loop, store, and grants: the grant table."""

    def __init__(self):
        xen = Hypercalls()
        self.loop = PollLoop(xen, EventChannels(xen))
        self.store = Xenstore(self.loop, RingTransport(xen, self.loop))
        self.grants = GrantTable(xen)

    def run(self, work):
        """Connect to xenstore and await work(). Returns its result."""

        async def main():
            await self.store.connect()
            return await work()

        return self.loop.run(main())

    async def device(self, path=XVDB):
        """A device whose backend is found."""
        device = Device(self.store, self.loop, path)
        await device.find()
        return device
