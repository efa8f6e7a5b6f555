"""A guest of the embedded Xen with a store and a client, for the tests of the client's parts."""

import hw
from pvdump.xen.machine import Machine
from pvdump.xenstored.ring import RingTransport as ServerRing
from pvdump.xenstored.server import Xenstored
from xenpv import abi
from xenpv.evtchn import EventChannels
from xenpv.hypercall import Hypercalls
from xenpv.schedpoll import PollLoop
from xenpv.xenstore import Xenstore
from xenpv.xs_ring import RingTransport

PFN = 0x100
HOME = "/local/domain/1"


class Setup:
    """A guest with a store. options go to the ring's server side."""

    def __init__(self, machine=None, **options):
        self.machine = machine or Machine()
        hw.attach(self.machine)
        self.server = Xenstored(quotas={"node-size": 0})
        self.server.write(HOME, "", "n0 r1")
        self.server.write(HOME + "/name", "guest", "n0 r1")
        self.server.write(HOME + "/data", "", "n1")
        port = self.machine.evtchn.alloc_unbound(1, 0)
        options = {"features": 0, **options}
        self.ring = ServerRing(self.machine, self.server, PFN, port, **options)
        self.machine.params[abi.HVM_PARAM_STORE_PFN] = PFN
        self.machine.params[abi.HVM_PARAM_STORE_EVTCHN] = port
        self.xen = Hypercalls()
        self.loop = PollLoop(self.xen, EventChannels(self.xen))
        self.store = Xenstore(self.loop, RingTransport(self.xen, self.loop))

    def run(self, work):
        """Run work(store) with a connected client."""

        async def main():
            await self.store.connect()
            return await work(self.store)

        return self.loop.run(main())
